"""A receiver to look at: what a request to it is, and the little server around that.

It answers 200 to everything it can read, so that what arrives can be looked at even when it is not genuine. Secrets
are kept in memory only, newest first, under the path they came to.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import uvicorn

from tidings import receiver, signing
from tidings.receiver import Event, Handshake, VerificationError

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

HeaderList: TypeAlias = Sequence[tuple[str, str]]

# Four times the largest delivery of Tidings; the real service documents no bound.
BODY_BYTES_MAX: Final = 4 << 20
# Somebody who looks on cannot follow more; each may hold a body.
CONNECTIONS_MAX: Final = 128
BODY_SECONDS_MAX: Final = 30.0
# Each costs a pass over the body of a delivery that nobody knows.
SECRETS_MAX: Final = 256
_GRACE_SECONDS: Final = 2


class Kind(StrEnum):
    """What a request turned out to be."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    DELIVERY = "delivery"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request as it arrived, whole."""

    method: str
    path: str
    query: str
    headers: HeaderList
    body: bytes

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        """The first value under this name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an arrival is. `problem` is None when it is genuine; else it says why it is not."""

    kind: Kind
    problem: str | None = None
    events: tuple[Event, ...] = ()
    webhook: str | None = None
    delivery: str | None = None
    # The path whose handshake brought the secret, when it is not the delivery's own.
    secret_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered. `note` says for the person looking on what is worth saying about it."""

    status: int
    headers: HeaderList = ()
    body: bytes = b""
    note: str | None = None


class Forward(Protocol):
    """Pass an arrival on to another receiver; its answer."""

    async def __call__(self, arrival: Arrival) -> Reply: ...


Show: TypeAlias = Callable[[Arrival, Finding, Reply], None]


class Secrets:
    """The secrets of the handshakes so far, bounded; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._paths: OrderedDict[str, str] = OrderedDict()

    def remember(self, secret: str, *, path: str) -> None:
        self._paths[secret] = path
        self._paths.move_to_end(secret)
        if len(self._paths) > SECRETS_MAX:
            self._paths.popitem(last=False)

    def candidates(self, path: str) -> list[tuple[str, str]]:
        """Every secret with its path, the likeliest first: this path's, then the newest."""
        newest_first = list(reversed(self._paths.items()))
        return sorted(newest_first, key=lambda known: known[1] != path)


def look(arrival: Arrival, secrets: Secrets) -> Finding:
    """Say what an arrival is; remember the secret of a handshake."""
    if arrival.method != "POST":
        return Finding(kind=Kind.OTHER, problem="not a POST")
    if arrival.header(signing.SECRET_HEADER) is not None:
        return _look_at_handshake(arrival, secrets)
    if not any(arrival.header(name) for name in _SIGNATURES):
        return Finding(kind=Kind.OTHER, problem="not signed, and not a handshake")
    known = secrets.candidates(arrival.path)
    if not known:
        problem = (
            "no handshake arrived since this began to listen; create the webhook anew to have it verified"
        )
        return _unverified(arrival, problem)
    problem = ""
    for secret, path in known:
        try:
            found = receiver.receive(arrival.headers, arrival.body, secret=secret)
        except VerificationError as error:
            problem = str(error)
            continue
        assert not isinstance(found, Handshake), "handshakes were told apart above"
        return Finding(
            kind=Kind.HEARTBEAT if found.heartbeat else Kind.DELIVERY,
            events=found.events,
            webhook=found.webhook,
            delivery=arrival.header(signing.DELIVERY_HEADER) or found.delivery_id,
            secret_of=None if path == arrival.path else path,
        )
    return _unverified(arrival, problem)


_SIGNATURES: Final = (
    signing.SIGNATURE_HEADER,
    signing.SIGNATURE_HEADER_TOO,
    signing.STANDARD_SIGNATURE_HEADER,
)


def _look_at_handshake(arrival: Arrival, secrets: Secrets) -> Finding:
    try:
        found = receiver.receive(arrival.headers, arrival.body, secret=None)
    except VerificationError as error:
        return Finding(kind=Kind.HANDSHAKE, problem=str(error))
    assert isinstance(found, Handshake), "a secret was offered"
    secrets.remember(found.secret, path=arrival.path)
    return Finding(kind=Kind.HANDSHAKE, webhook=arrival.header(signing.WEBHOOK_HEADER))


def _unverified(arrival: Arrival, problem: str) -> Finding:
    return Finding(
        kind=Kind.DELIVERY,
        problem=problem,
        webhook=arrival.header(signing.WEBHOOK_HEADER),
        delivery=arrival.header(signing.DELIVERY_HEADER),
    )


async def answer(arrival: Arrival, finding: Finding) -> Reply:
    """Answer by ourselves: 200 to all, with the secret to a genuine handshake."""
    if finding.kind is Kind.HANDSHAKE and finding.problem is None:
        secret = arrival.header(signing.SECRET_HEADER) or ""
        return Reply(status=200, headers=((signing.SECRET_HEADER, secret),))
    if arrival.method in ("GET", "HEAD"):
        return Reply(status=200, body=b"tidings listen: point a webhook here.\n")
    return Reply(status=200)


# -- the server ------------------------------------------------------------------------------------


class _App:
    """The ASGI application: read within bounds, look, answer, show."""

    def __init__(self, *, forward: Forward | None, show: Show) -> None:
        self._forward = forward
        self._show = show
        self._secrets = Secrets()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        arrival = Arrival(
            method=scope["method"],
            path=scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
            ),
            body=body or b"",
        )
        if body is None:
            finding = Finding(
                kind=Kind.OTHER,
                problem=f"over {BODY_BYTES_MAX} bytes, or slower than {BODY_SECONDS_MAX:.0f} s",
            )
            reply = Reply(status=413, headers=(("Connection", "close"),))
        else:
            finding = look(arrival, self._secrets)
            reply = await (self._forward(arrival) if self._forward else answer(arrival, finding))
        self._show(arrival, finding, reply)
        await _send(send, reply)


async def _body(receive: ASGIReceiveCallable) -> bytes | None:
    """The body, or None if it is too large or too slow."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return b"".join(chunks)
                size += len(message.get("body", b""))
                if size > BODY_BYTES_MAX:
                    return None
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        return None


async def _send(send: ASGISendCallable, reply: Reply) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and ends with status 0 when it is told to."""

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        self._ready()

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `startup`: uvicorn would raise them again once it has ended."""
        yield


def listen(
    listening: socket.socket,
    *,
    forward: Forward | None,
    show: Show,
    ready: Callable[[], None],
) -> None:
    """Receive on a bound socket until SIGINT or SIGTERM. `ready` is called once connections are taken."""

    def shown(arrival: Arrival, finding: Finding, reply: Reply) -> None:
        try:
            show(arrival, finding, reply)
        except BrokenPipeError:  # whoever read our output has seen enough
            server.stop()

    config = uvicorn.Config(
        _App(forward=forward, show=shown),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, ready=ready)
    server.run(sockets=[listening])
