"""The other ends of the sender: targets that behave as told, a name server with a zone of its own, a proxy.

All of them are real sockets on loopback, in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, cast

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire:
    """One accepted connection, as the target sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        # The how manyth connection of its target this is, from 1.
        self.number = number
        self.sent = 0

    async def request(self) -> bytes:
        """Read one whole request; `IncompleteReadError` when the sender has gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")
        )
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)

    async def send_for_ever(self, data: bytes) -> None:
        while True:
            await self.send(data)
            # `drain` returns at once while the buffer has room; others share this loop.
            await asyncio.sleep(0)

    async def drip(self, data: bytes, *, pause: float) -> None:
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(pause)

    async def until_gone(self) -> None:
        """Wait until the sender has closed its side."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Wire], Awaitable[None]]


@dataclass
class Peer:
    """A target that listens. What it saw is kept for the test to look at."""

    host: str
    port: int
    scheme: str = "http"
    wires: list[Wire] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0

    @property
    def connections(self) -> int:
        return len(self.wires)

    def url(self, path: str = "/hook", host: str | None = None) -> str:
        host = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{self.scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def listening(
    behave: Behaviour,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    send_buffer: int | None = None,
) -> AsyncIterator[Peer]:
    """Listen, and let `behave` handle each connection; everything is closed at the end.

    `send_buffer` is what the kernel takes of what is sent before anybody reads it, in bytes; Linux doubles it.
    """
    peer = Peer(host, port, "http" if tls is None else "https")
    tasks: set[asyncio.Task[None]] = set()

    async def handle(wire: Wire) -> None:
        peer.open_now += 1
        peer.open_most = max(peer.open_most, peer.open_now)
        try:
            await behave(wire)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the sender hung up, as it may
        finally:
            peer.open_now -= 1
            wire.writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, len(peer.wires) + 1)
        peer.wires.append(wire)
        tasks.add(asyncio.get_running_loop().create_task(handle(wire)))

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    if send_buffer is not None:
        # Accepted sockets take it over.
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One turn of the loop for transports that were aborted to close their sockets.
        await asyncio.sleep(0)


@asynccontextmanager
async def deaf(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A target that never accepts: it listens, and its queue is full. Gives its port."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind((host, port))
        listener.listen(0)
        # The kernel takes one or two for the queue and lets the rest wait: the first that waits says that it is full.
        for _ in range(8):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            try:
                async with asyncio.timeout(0.05):
                    await loop.sock_connect(filler, listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the queue does not fill")
        yield listener.getsockname()[1]


@asynccontextmanager
async def answering(
    response: bytes = OK, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A well-behaved target: reads whole requests, keeps the connection, answers the same each time."""
    seen: list[bytes] = []

    async def behave(wire: Wire) -> None:
        while True:
            seen.append(await wire.request())
            await wire.send(response)

    async with listening(behave, host=host, port=port, tls=tls) as peer:
        peer.requests = seen
        yield peer


# -- a name server ---------------------------------------------------------------------------------

NXDOMAIN: Final = 3
SERVFAIL: Final = 2
_TYPES: Final = {1: 4, 28: 6}


@dataclass
class Name:
    """What a name server says about one name. Each question takes the next of `turns`, the last one for ever."""

    turns: Sequence[Sequence[str]]
    ttl: int = 0
    rcode: int = 0
    # Answer only when this is set; None answers at once.
    when: asyncio.Event | None = None


class NameServer(asyncio.DatagramProtocol):
    """Speaks enough DNS to be asked for A and AAAA. A name that is not in the zone does not exist."""

    def __init__(self) -> None:
        self.zone: dict[str, Name] = {}
        # Questions by (name, type).
        self.asked: Counter[tuple[str, int]] = Counter()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def say(self, name: str, *turns: Sequence[str], ttl: int = 0) -> None:
        self.zone[name] = Name(turns, ttl)

    def was_asked(self, name: str) -> bool:
        return any(asked == name for asked, _ in self.asked)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Neither loop's datagram transport derives from the class of that name.
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind, question = _parse_question(data)
        turn = self.asked[name, kind]
        self.asked[name, kind] += 1
        known = self.zone.get(name, Name((), rcode=NXDOMAIN))
        task = asyncio.get_running_loop().create_task(
            self._answer(data[:2], question, known, kind, turn, addr)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, ident: bytes, question: bytes, known: Name, kind: int, turn: int, addr: tuple[str, int]
    ) -> None:
        if known.when is not None:
            await known.when.wait()
        addresses = known.turns[min(turn, len(known.turns) - 1)] if known.turns else ()
        fitting = [ip_address(each) for each in addresses if ip_address(each).version == _TYPES.get(kind)]
        # c-ares believes an answer without a single time to live for an hour.
        authority = b"" if fitting else _authority(known.ttl)
        head = ident + struct.pack(">HHHHH", 0x8180 | known.rcode, 1, len(fitting), bool(authority), 0)
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, known.ttl, len(each.packed)) + each.packed
            for each in fitting
        )
        assert self._transport is not None
        self._transport.sendto(head + question + answers + authority, addr)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._transport is not None
        self._transport.close()
        await asyncio.sleep(0)


def _authority(ttl: int) -> bytes:
    """A record that says who knows: the root."""
    return b"\0" + struct.pack(">HHIH", 2, 1, ttl, 1) + b"\0"


def _parse_question(data: bytes) -> tuple[str, int, bytes]:
    labels: list[str] = []
    at = 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("ascii"))
        at += 1 + data[at]
    kind = int.from_bytes(data[at + 1 : at + 3], "big")
    return ".".join(labels).lower(), kind, data[12 : at + 5]


@asynccontextmanager
async def serving_names() -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.close()


# -- a proxy ---------------------------------------------------------------------------------------


@asynccontextmanager
async def proxying() -> AsyncIterator[Peer]:
    """An egress proxy: opens a tunnel to wherever CONNECT says. `requests` holds what it was asked."""
    heads: list[bytes] = []

    async def behave(wire: Wire) -> None:
        heads.append(await wire.reader.readuntil(b"\r\n\r\n"))
        host, _, port = heads[-1].split(b" ")[1].decode().rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            await wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = asyncio.get_running_loop().create_task(_pump(reader, wire.writer))
            await _pump(wire.reader, writer)
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
        finally:
            writer.transport.abort()

    async with listening(behave) as peer:
        peer.requests = heads
        yield peer


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
