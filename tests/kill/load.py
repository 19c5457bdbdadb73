"""The load: publishers that call the API without pause, and receivers that write down every delivery.

All of it runs in one thread with a loop of its own, so that whoever kills processes may wait and block.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import random
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

import httpx

from tests.kill.reconcile import Arrival, Call, Fate
from tests.serving import TOKEN, USER

T = TypeVar("T")

# The largest publish; the smallest is one event.
CALL_EVENTS_MAX: Final = 40
# A publisher's pause between two calls, at most, seconds.
PAUSE_SECONDS: Final = 0.02
# How long a publisher waits for an answer: longer than any of ours takes, seconds.
ANSWER_SECONDS: Final = 30.0
# How soon a publisher tries again where nobody listens, seconds.
REFUSED_SECONDS: Final = 0.02
# Every other call carries an Idempotency-Key and is repeated until it is answered.
KEYED: Final = 0.5


@dataclass
class Hook:
    """One webhook's receiver and its manners: how long it takes, how often it fails, whether it is down."""

    path: str
    project: str
    seconds: float = 0.0
    failing: float = 0.0
    down: bool = False
    # Told by tests: deliveries are held, unanswered, while this is not set.
    gate: asyncio.Event | None = None
    secret: str = ""
    open: list[Arrival] = field(default_factory=list)


class Receivers:
    """One HTTP server; each path is a webhook's target."""

    def __init__(self, hooks: Sequence[Hook], *, dice: random.Random, ticks: Callable[[], int]) -> None:
        self.hooks = {hook.path: hook for hook in hooks}
        self.arrivals: list[Arrival] = []
        self.overlaps: list[tuple[Arrival, Arrival]] = []
        self.errors: list[str] = []
        self.port = 0
        self._dice = dice
        self._ticks = ticks
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the sender was killed, or the round is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request, answer it; gives whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        hook = self.hooks[head[0].split(" ")[1]]
        secret = headers.get("x-hook-secret")
        if secret is not None:
            hook.secret = secret
            status, echoed = 200, f"X-Hook-Secret: {secret}\r\n"
        else:
            status, echoed = await self._deliver(hook, headers, body), ""
        if status == 0:
            return False
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{echoed}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return True

    async def _deliver(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> int:
        """Write the delivery down, behave as the hook does; gives the status, 0 for none at all."""
        signature = hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()
        if headers.get("x-hook-signature") != signature:
            self.errors.append(f"{hook.path} got a delivery that is not signed as it should be")
        names = tuple(event["change"]["field"] for event in json.loads(body)["events"])
        arrival = Arrival(hook.path, headers.get("x-tidings-delivery", ""), names, self._ticks())
        self.arrivals.append(arrival)
        self.overlaps.extend((earlier, arrival) for earlier in hook.open)
        hook.open.append(arrival)
        try:
            if hook.gate is not None:
                await hook.gate.wait()
            if hook.seconds:
                await asyncio.sleep(self._dice.uniform(0, hook.seconds))
            if hook.down:
                return self._dice.choice((0, 500, 503))
            if self._dice.random() < hook.failing:
                return 500
            arrival.taken = True
            return 200
        finally:
            hook.open.remove(arrival)


class Publisher:
    """Publishes numbered events, one call after the other, at whichever service answers."""

    def __init__(
        self, name: str, tasks: Sequence[tuple[str, str]], urls: Callable[[], Sequence[str]], seed: int
    ) -> None:
        """`tasks` are (task, its project); `urls` gives where services are believed to be, at each call anew."""
        self.calls: list[Call] = []
        self.stopping = False
        self._name = name
        self._tasks = tasks
        self._urls = urls
        self._dice = random.Random(seed)
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Publish until told to stop; then finish what is being repeated."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as client:
            while not self.stopping:
                await self._publish(client)
                await asyncio.sleep(self._dice.uniform(0, PAUSE_SECONDS))

    async def _publish(self, client: httpx.AsyncClient) -> None:
        task, project = self._dice.choice(self._tasks)
        count = self._dice.randint(1, CALL_EVENTS_MAX)
        names = tuple(f"{self._name}-{next(self._numbers)}" for _ in range(count))
        key = f"{self._name}/{names[0]}" if self._dice.random() < KEYED else None
        call = Call(project, names, key)
        self.calls.append(call)
        changes = [{"field": name, "action": "changed"} for name in names]
        events = [{"resource": task, "action": "changed", "user": USER, "change": each} for each in changes]
        while call.fate is Fate.UNCERTAIN:
            try:
                answer = await client.post(
                    f"{self._dice.choice(self._urls())}/events",
                    json={"data": events},
                    headers={} if key is None else {"Idempotency-Key": key},
                )
            except httpx.ConnectError:
                await asyncio.sleep(REFUSED_SECONDS)  # nobody was asked: the same call is made again
            except httpx.HTTPError:
                if key is None:
                    return
            else:
                _note(call, answer)


def _note(call: Call, answer: httpx.Response) -> None:
    if answer.status_code == 201:
        call.fate = Fate.ACKNOWLEDGED
        call.last = int(answer.json()["data"]["last"])
    elif answer.status_code != 503 or call.key is None:
        call.fate = Fate.REFUSED


class Load:
    """Publishers and receivers in a thread of their own."""

    def __init__(self, hooks: Sequence[Hook], *, seed: int) -> None:
        ticks = itertools.count()
        # One count for everything that happens in a round; arrivals and falls are ordered by it.
        self.tick: Callable[[], int] = lambda: next(ticks)
        self.receivers = Receivers(hooks, dice=random.Random(seed), ticks=self.tick)
        self.publishers: list[Publisher] = []
        self._publishing: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self.receivers.listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, hook: Hook) -> str:
        return f"http://127.0.0.1:{self.receivers.port}{hook.path}"

    def publish(self, publishers: Sequence[Publisher]) -> None:
        """Let them begin."""

        async def begin() -> None:
            self._publishing = [asyncio.create_task(publisher.run()) for publisher in publishers]

        self.publishers = list(publishers)
        self._run(begin())

    def finish_publishing(self, *, seconds: float) -> None:
        """Let every publisher finish the call it is at; raises `TimeoutError`."""
        for publisher in self.publishers:
            publisher.stopping = True

        async def finish() -> None:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._publishing)

        self._run(finish())

    def open_gate(self, hook: Hook) -> None:
        """Let a hook's held deliveries be answered, and hold no more."""
        gate, hook.gate = hook.gate, None
        assert gate is not None, "nothing is held"
        self._loop.call_soon_threadsafe(gate.set)

    @property
    def calls(self) -> list[Call]:
        return [call for publisher in self.publishers for call in publisher.calls]

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _end(self) -> None:
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self.receivers.close()
