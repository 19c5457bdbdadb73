"""One simulated process: the real store, dispatcher, desks and upkeep on a loop, a disk and a network of the world."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tests.sending import Posting
from tests.sim.disk import GENERATION, Connection
from tests.sim.model import Hook
from tests.sim.network import Heard
from tests.sim.observer import SEALER
from tests.sim.universe import SECOND, ProcessLoop
from tidings.dispatcher import Clocks, Dispatcher
from tidings.errors import StoreUnavailable
from tidings.model import Claim, Claimed, Delivery, Micros, NoAnswer, Reply, SealedSecret, Trouble
from tidings.sealing import NONCE_BYTES
from tidings.service.publishing import Publishing
from tidings.service.tokens import TokenDesk
from tidings.service.webhooks import Dice, WebhookDesk
from tidings.store import Store
from tidings.store.sqlite import SqliteStore, open_store
from tidings.store.sqlite.turns import PRESENT_SECONDS, Turns
from tidings.store.sqlite.writer import GROUP_MAX, PROMISED, GroupCommit, Rank, Unit
from tidings.targets import Rules
from tidings.upkeep import Upkeep

if TYPE_CHECKING:
    from tests.sim.world import World

T = TypeVar("T")

TIMED_OUT: Final = Heard(False, NoAnswer(Trouble.TIMEOUT, "no answer in time"), 0)
# The store's methods whose transactions the observer is told of.
WATCHED: Final = frozenset(
    {
        *("publish", "put_resources", "delete_resource", "trim", "add_webhook", "replace_filters"),
        *("remove_webhook", "drop_holder", "release_dead_holders", "claim", "record"),
        *("add_token", "revoke_token"),
    }
)


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction that was committed: by whom, which method of the store, and what it gave.

    `before` is how it found what the observer knows, where a power cut may take it back.
    """

    process: Process
    method: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any
    before: list[tuple[Hook, Hook]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Awaited(Unit):
    """A unit that a task waits for."""

    future: asyncio.Future[Any]


class SimulatedTurns:
    """Who knows of whom: processes of a world write one at a time, but see each other as real ones do."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._others_until: Micros = 0
        last = process.world.wrote_last
        if last is not None and last.ended:
            process.world.wrote_last = None

    @contextmanager
    def turn(self) -> Iterator[bool]:
        world = self._process.world
        if world.wrote_last not in (None, self._process):
            self._others_until = world.universe.now + int(PRESENT_SECONDS * SECOND)
        world.wrote_last = self._process
        alone = world.universe.now >= self._others_until
        world.observer.seen["beside_others"] += not alone
        yield alone

    def close(self) -> None:
        """There is nothing to let go of."""


class SteppedWriter:
    """Drives a store's group commit: what waits is committed at an instant of the world's choosing."""

    def __init__(self, groups: GroupCommit, process: Process) -> None:
        self.groups = groups
        self._process = process
        self._waiting: deque[Awaited] = deque()
        self._closed = False
        self._busy = False
        # The call that the next unit belongs to.
        self.call: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(
        self,
        run: Callable[[sqlite3.Connection], Any],
        rank: Rank = Rank.WRITE,
        *,
        ahead: Callable[[], None] | None = None,
        then: Callable[[sqlite3.Connection, Any], Any] | None = None,
    ) -> Any:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Any] = self._process.loop.create_future()
        self._waiting.append(Awaited(self._noting(run), rank, ahead, then, future=future))
        self._start()
        return await future

    async def close(self) -> None:
        self._closed = True
        while self._busy:
            await asyncio.sleep(0.01)
        self.groups.close()

    def _noting(self, run: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        call, self.call = self.call, None
        if call is None:
            return run

        def unit(connection: sqlite3.Connection) -> T:
            result = run(connection)
            cast(Connection, connection).noted.append(Done(self._process, *call, result))
            return result

        return unit

    def _start(self) -> None:
        if not self._busy and self._waiting:
            self._busy = True
            self._process.world.universe.after(self._process.world.commit_takes(), self._commit)

    def _commit(self) -> None:
        if not self._is_at_work(self._commit):
            return
        process = self._process
        # What waits has come before the commit began, or while it ran.
        group = self._take(process.world.dice.randint(1, len(self._waiting)))
        if process.world.dice.random() < 0.5:
            # A call that writes nothing stands before them: the first of a group is undone in another way.
            group.insert(0, Awaited(lambda _: None, Rank.RECORD, future=process.loop.create_future()))
        process.world.disk.opener = process
        self.groups.commit(group, more=self._take_more)
        self._after(self._settle, [unit for unit in group if unit.then is None])
        self._in_a_while(self._flush, [unit for unit in group if unit.then is not None], odds=0.4)

    def _take(self, most: int) -> list[Awaited]:
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting), GROUP_MAX))]

    def _take_more(self, promised: bool) -> list[Awaited]:
        more: list[Awaited] = []
        while self._waiting and len(more) < GROUP_MAX - 1:
            if self._waiting[0].rank in PROMISED and not promised:
                break
            more.append(self._waiting.popleft())
        return more

    def _flush(self, units: list[Awaited]) -> None:
        """Flush what is yet to be flushed, before or after those who wait are told; then read what was leased."""
        if self._is_at_work(self._flush, units):
            self.groups.flush()
            self._read(units)

    def _read(self, units: list[Awaited]) -> None:
        """Read what was leased, each a while after what was done before it: others may write meanwhile."""
        if units:
            self._in_a_while(self._read_first, units)
        else:
            self._after(self._end)

    def _read_first(self, units: list[Awaited]) -> None:
        if not self._is_at_work(self._read_first, units):
            return
        process = self._process
        first, *others = units
        process.world.disk.opener = process
        self.groups.read(first)
        if first.error is None and isinstance(first.result, Claimed):
            process.world.observer.read(process, first.result)
        self._after(self._settle, [first])
        self._read(others)

    def _settle(self, group: list[Awaited]) -> None:
        self._process.loop.call_soon(_tell, group)

    def _end(self) -> None:
        self._busy = False
        if not self._process.loop.dead:
            self._start()

    def _is_at_work(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Whether the process can do this now. If it stands still, it does it later; if it is no more, never."""
        loop = self._process.loop
        if loop.stalled and not loop.dead:
            self._process.world.universe.after(SECOND // 2, call, *arguments)
        return not loop.stalled and not loop.dead

    def _in_a_while(self, call: Callable[..., None], *arguments: Any, odds: float = 0.1) -> None:
        """Now and then much later: the disk is slow, or the process is not given its turn."""
        world = self._process.world
        if world.dice.random() < odds:
            world.universe.after(world.dice.randrange(SECOND), call, *arguments)
        else:
            self._after(call, *arguments)

    def _after(self, call: Callable[..., None], *arguments: Any) -> None:
        world = self._process.world
        world.universe.after(world.dice.randrange(10, 3_000), call, *arguments)


def _tell(group: list[Awaited]) -> None:
    for unit in group:
        if unit.future.done():
            continue
        if unit.error is not None:
            unit.future.set_exception(unit.error)
        else:
            unit.future.set_result(unit.result)


class Witness:
    """The store as the service sees it, with the observer listening in."""

    def __init__(self, inner: SqliteStore, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in WATCHED:
            method = self._watched(name, method)
            setattr(self, name, method)
        return method

    def _watched(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        process = self._process

        async def watched(*arguments: Any, **named: Any) -> Any:
            process.writer.call = (name, arguments, named)
            if name == "claim" and "asks" in process.world.waiting:
                process.world.step("asks", process, None)
            result = await method(*arguments, **named)
            if name == "claim":
                process.claimed(result)
            return result

        return watched


class Process:
    """A process of the service, from its start to its end."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.skew = world.plan.skews[number % len(world.plan.skews)]
        self._offset = world.dice.randrange(1 << 40)
        self.loop = ProcessLoop(world.universe, read_takes=world.read_takes)
        self.loop.on_error = self._failed
        self.ended = False
        self.draining = False
        # How long it is away after it was drained.
        self.down: Micros = 0
        # The claims it has been given and has not recorded, by webhook.
        self.claims: dict[str, Claim] = {}
        # Webhooks whose end it has acknowledged.
        self.removed: set[str] = set()
        try:
            self._build()
        except BaseException:
            self.loop.kill()
            world.disk.close(self)
            raise

    def _build(self) -> None:
        world = self.world
        plan = world.plan
        world.disk.opener = self
        self.inner = open_store(
            world.disk.path,
            migrate=False,
            generation=GENERATION,
            key_id=SEALER.key_id,
            drive=self._drive,
        )
        self.store = store = cast(Store, Witness(self.inner, self))
        clocks = Clocks(
            now=self.now, elapsed=lambda: world.universe.now + self._offset, jitter=world.dice.random
        )
        self.dispatcher = Dispatcher(
            store,
            Posting(self.post).send,
            policy=plan.policy,
            clocks=clocks,
            unseal=lambda secret, gid: SEALER.unseal(secret, webhook=gid),
            concurrency=plan.concurrency,
        )
        self.tokens = TokenDesk(store, now=self.now, new_gid=world.new_gid, new_text=world.new_text)
        self.desk = WebhookDesk(
            store,
            self.post,
            policy=plan.policy,
            rules=Rules(),
            quotas=plan.quotas,
            now=self.now,
            dice=Dice(world.new_gid, world.new_secret, _sealing(world.dice), world.dice.random),
            offset_key=bytes(32),
            withdraw=self.dispatcher.withdraw,
        )
        self.publishing = Publishing(store, now=self.now, wake=self.dispatcher.wake)
        self.upkeep = Upkeep(
            store, policy=plan.policy, keeping=plan.keeping, clocks=clocks, wake=self.dispatcher.wake
        )
        self._delivering = self.loop.create_task(self._run())
        self._tidying = self.loop.create_task(self.upkeep.run())
        for task in (self._delivering, self._tidying):
            task.add_done_callback(self._returned)

    def _drive(self, groups: GroupCommit) -> SteppedWriter:
        groups._turns.close()
        groups._turns = cast(Turns, SimulatedTurns(self))
        self.writer = SteppedWriter(groups, self)
        return self.writer

    def now(self) -> Micros:
        """The time of day as this process reads it."""
        return self.world.day() + self.skew

    async def _run(self) -> None:
        # As under a supervisor: a store that is not there at the start is a reason to start again.
        while True:
            try:
                return await self.dispatcher.run()
            except* StoreUnavailable:
                await asyncio.sleep(1)

    def _returned(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.world.observer.fail(
                "mistake", f"process {self.number} ended by itself: {_innermost(error)!r}"
            )

    def _failed(self, context: dict[str, Any]) -> None:
        self.world.observer.fail("mistake", f"process {self.number}: {context.get('exception')!r} {context}")

    # -- the network -------------------------------------------------------------------------------

    def claimed(self, claimed: Claimed) -> None:
        for claim in claimed.claims:
            self.claims[claim.gid] = claim

    async def post(self, delivery: Delivery) -> Reply:
        world = self.world
        ticket = world.observer.post_started(self, delivery)
        future: asyncio.Future[Heard] = self.loop.create_future()

        def answered(heard: Heard) -> None:
            self.loop.call_soon(_set_first, future, heard)

        deadline = self.loop.call_later(delivery.timeout / SECOND, _set_first, future, TIMED_OUT)
        world.network.send(delivery, answered)
        heard = await future
        deadline.cancel()
        world.observer.post_ended(ticket, heard)
        assert heard.answer is not None
        return heard.answer

    # -- ends --------------------------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.create_task(work)

    def kill(self) -> None:
        """End without warning: nothing runs any more, locks are let go, what was not committed is lost."""
        self.ended = True
        self.loop.kill()
        # What the kernel does at the end of a process.
        self.inner._holders.close()
        self.world.disk.close(self)

    def drain(self) -> None:
        """End as SIGTERM asks: finish what is under way, start nothing new."""
        if not self.draining:
            self.draining = True
            self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self.desk.finish()
        await self.tokens.finish()
        self.dispatcher.drain()
        await self._delivering
        self._tidying.cancel()
        await self.inner.close()
        self.ended = True
        self.world.process_ended(self)


def _innermost(error: BaseException) -> BaseException:
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _set_first(future: asyncio.Future[Heard], heard: Heard) -> None:
    if not future.done():
        future.set_result(heard)


def _sealing(dice: random.Random) -> Callable[[str, str], SealedSecret]:
    return lambda secret, gid: SEALER.seal(secret, webhook=gid, nonce=dice.randbytes(NONCE_BYTES))
