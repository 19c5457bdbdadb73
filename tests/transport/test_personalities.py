"""Targets that attack, one personality at a time: what each costs is bounded, and its neighbours do not notice.

Every personality is met the same way. It is posted to again and again, and says each time what it did, in words. It
costs no more than its deadline (`post`), a bounded number of bytes (counted where they are sent) and of memory
(counted by Python), and no second connection. Meanwhile deliveries to a healthy target, through the same sender, are
answered one after another on one connection.
"""

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
import trustme

from tests.transport.certificates import Authorities, server, yesterday
from tests.transport.conftest import LONG, SHORT, answer, post, trouble, until
from tests.transport.peers import OK, Behaviour, Peer, Wire, answering, deaf, listening
from tidings.limits import RESPONSE_BODY_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX
from tidings.model import Reply, Trouble
from tidings.transport import Sender

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# What the kernel takes of what a target sends before it is read; Linux doubles it.
SEND_BUFFER_BYTES = 64 << 10
# What a target gets rid of before it is hung up on: one read of the loop (256 KiB), and what stands in the buffers of
# the kernel and of its own loop.
SENT_BYTES_MAX = 1 << 20
# What Python holds at most for both ends of an attack and a neighbour's delivery, request bodies aside.
MEMORY_BYTES_MAX = 4 << 20
# The request, what of it waits to be written, and what the target has read.
BODY_COPIES_MAX = 3
# Deliveries to the neighbour while an attack is under way.
NEIGHBOURS = 10


@dataclass(frozen=True)
class Personality:
    name: str
    # Begins to listen, given the authority that is trusted.
    listen: Callable[[Authorities], AbstractAsyncContextManager[Peer]]
    # What comes of it: a status, or a trouble with words.
    status: int | None = None
    trouble: Trouble | None = None
    words: str = ""
    body: bytes = b"{}"
    # Whether the target notices that it was hung up on; one that does not read cannot.
    notices: bool = True

    @property
    def timeout(self) -> int:
        return SHORT if self.trouble is Trouble.TIMEOUT else LONG

    def check(self, reply: Reply) -> None:
        if self.trouble is not None:
            trouble(reply, self.trouble, self.words)
            return
        got = answer(reply)
        assert got.status == self.status
        assert len(got.body) <= RESPONSE_BODY_BYTES_MAX
        assert sum(len(name) + len(value) for name, value in got.headers) <= RESPONSE_HEAD_BYTES_MAX


def fails(
    name: str, behave: Behaviour, kind: Trouble, words: str, *, body: bytes = b"{}", notices: bool = True
) -> Personality:
    return Personality(name, _plain(behave), trouble=kind, words=words, body=body, notices=notices)


def answers(
    name: str, behave: Behaviour, status: int = 200, *, body: bytes = b"{}", notices: bool = True
) -> Personality:
    return Personality(name, _plain(behave), status=status, body=body, notices=notices)


def _plain(behave: Behaviour) -> Callable[[Authorities], AbstractAsyncContextManager[Peer]]:
    return lambda authorities: listening(behave, send_buffer=SEND_BUFFER_BYTES)


# -- how they behave -------------------------------------------------------------------------------


def saying(*parts: bytes, for_ever: bytes = b"", then: str = "wait") -> Behaviour:
    """Read the request, send the parts, then the rest again and again; at last wait, close, half-close or reset."""

    async def behave(wire: Wire) -> None:
        await wire.request()
        for part in parts:
            await wire.send(part)
        if for_ever:
            await wire.send_for_ever(for_ever)
        if then == "half-close":
            wire.writer.write_eof()
        if then == "reset":
            wire.reset()
        elif then != "close":
            await wire.until_gone()

    return behave


def dripping(data: bytes, *, after: bytes = b"") -> Behaviour:
    """A byte every 30 ms: a dozen or so within the deadline."""

    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(after)
        await wire.drip(data, pause=0.03)

    return behave


async def never_reads(wire: Wire) -> None:
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport is a ReadTransport
    await asyncio.sleep(60)


async def resets_at_once(wire: Wire) -> None:
    wire.reset()


async def closes_at_once(wire: Wire) -> None:
    return


async def resets_while_the_body_comes(wire: Wire) -> None:
    await wire.reader.readuntil(b"\r\n\r\n")
    wire.reset()


async def answers_before_reading(wire: Wire) -> None:
    await wire.reader.readuntil(b"\r\n\r\n")
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport is a ReadTransport
    await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
    await asyncio.sleep(60)


async def stalls(wire: Wire) -> None:
    await wire.until_gone()


def _bomb() -> bytes:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"\0" * (64 << 20)) + packer.flush()
    return HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


BOMB = _bomb()


@asynccontextmanager
async def never_accepts(authorities: Authorities) -> AsyncIterator[Peer]:
    async with deaf() as port:
        yield Peer("127.0.0.1", port)


def presenting(
    issue: Callable[[Authorities], trustme.LeafCert],
) -> Callable[[Authorities], AbstractAsyncContextManager[Peer]]:
    """A target with this certificate, well-behaved otherwise."""
    return lambda authorities: answering(tls=server(issue(authorities)))


@asynccontextmanager
async def mute_where_tls_is_spoken(
    authorities: Authorities, behave: Behaviour = stalls
) -> AsyncIterator[Peer]:
    """Says nothing that belongs to TLS, at an https URL."""
    async with listening(behave, send_buffer=SEND_BUFFER_BYTES) as peer:
        peer.scheme = "https"
        yield peer


def tls(
    name: str, listen: Callable[[Authorities], AbstractAsyncContextManager[Peer]], words: str
) -> Personality:
    return Personality(name, listen, trouble=Trouble.TLS, words=words)


def speaking_at_once(*parts: bytes, for_ever: bytes = b"") -> Behaviour:
    async def behave(wire: Wire) -> None:
        for part in parts:
            await wire.send(part)
        if for_ever:
            await wire.send_for_ever(for_ever)
        await wire.until_gone()

    return behave


PERSONALITIES = [
    # -- silence and slowness
    Personality(
        "never accepts",
        never_accepts,
        trouble=Trouble.TIMEOUT,
        words="did not accept a connection within 400 ms",
    ),
    fails("accepts and never answers", saying(), Trouble.TIMEOUT, "did not answer within 400 ms"),
    fails(
        "never reads",
        never_reads,
        Trouble.TIMEOUT,
        "did not take the whole request",
        body=b"x" * (8 << 20),
        notices=False,
    ),
    fails("one byte at a time", dripping(OK), Trouble.TIMEOUT, "did not finish its answer"),
    fails(
        "one byte of the body at a time",
        dripping(b"x" * 1_000, after=HEAD + b"Content-Length: 1000\r\n\r\n"),
        Trouble.TIMEOUT,
        "did not finish its answer",
    ),
    fails("stalls in its head", saying(HEAD), Trouble.TIMEOUT, "did not finish its answer"),
    fails("stalls in its body", saying(OK[:-1]), Trouble.TIMEOUT, "did not finish its answer"),
    fails("interim and no more", saying(b"HTTP/1.1 100 C\r\n\r\n"), Trouble.TIMEOUT, "did not finish"),
    # -- heads without end
    fails(
        "endless headers",
        saying(HEAD, for_ever=b"X-A: b\r\n" * 10),
        Trouble.PROTOCOL,
        "more than 100 headers",
    ),
    fails(
        "10 000 header lines",
        saying(HEAD + b"X-A: b\r\n" * 10_000),
        Trouble.PROTOCOL,
        "more than 100 headers",
    ),
    fails(
        "an endless header", saying(HEAD + b"X-A: ", for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes"
    ),
    fails("an endless name", saying(HEAD, for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes of headers"),
    fails(
        "an endless reason", saying(b"HTTP/1.1 200 ", for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes"
    ),
    fails("endless 1xx", saying(for_ever=b"HTTP/1.1 102 P\r\n\r\n"), Trouble.PROTOCOL, "interim responses"),
    fails("endless newlines", saying(for_ever=b"\r\n" * 99), Trouble.PROTOCOL, "bytes of headers"),
    # -- what is not HTTP/1.1
    fails(
        "invalid status line", saying(b"HTTP/1.1 OK 200\r\n\r\n"), Trouble.PROTOCOL, "does not speak HTTP/1.1"
    ),
    fails("another protocol", saying(b"220 mail ESMTP\r\n"), Trouble.PROTOCOL, "does not speak HTTP/1.1"),
    fails("HTTP 2", saying(b"\x00\x00\x12\x04" + b"\x00" * 30), Trouble.PROTOCOL, "does not speak HTTP/1.1"),
    fails(
        "switches protocols",
        saying(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        Trouble.PROTOCOL,
        "switch protocols",
    ),
    fails("broken chunks", saying(CHUNKED + b"nonsense"), Trouble.PROTOCOL, "body of its answer"),
    # -- wrong lengths
    fails(
        "two lengths that differ",
        saying(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        Trouble.PROTOCOL,
        "Content-Length",
    ),
    fails(
        "a negative length", saying(HEAD + b"Content-Length: -1\r\n\r\n"), Trouble.PROTOCOL, "Content-Length"
    ),
    fails(
        "too great a length", saying(OK[:-1], then="close"), Trouble.CLOSED, "before its answer was complete"
    ),
    answers("too small a length", saying(HEAD + b"Content-Length: 1\r\n\r\n" + b"x" * 99_999)),
    # -- endings
    fails("half-closes", saying(then="half-close"), Trouble.CLOSED, "without an answer"),
    fails("closes", saying(then="close"), Trouble.CLOSED, "without an answer"),
    fails("closes at once", closes_at_once, Trouble.CLOSED, "The target"),
    fails("resets", saying(then="reset"), Trouble.CLOSED, "reset"),
    fails("resets at once", resets_at_once, Trouble.CLOSED, "The target"),
    fails("closes in its head", saying(HEAD, then="close"), Trouble.CLOSED, "before its answer was complete"),
    fails("half-closes in its head", saying(HEAD, then="half-close"), Trouble.CLOSED, "was complete"),
    fails(
        "closes between chunks", saying(CHUNKED + b"1\r\nx\r\n", then="close"), Trouble.CLOSED, "was complete"
    ),
    fails(
        "resets the upload", resets_while_the_body_comes, Trouble.CLOSED, "The target", body=b"x" * (4 << 20)
    ),
    answers("answers before reading", answers_before_reading, 413, body=b"x" * (8 << 20), notices=False),
    answers("closes after every response", saying(OK, then="close")),
    # -- bodies without end
    answers("endless body", saying(HEAD + b"Content-Length: 9999999999\r\n\r\n", for_ever=b"x" * 4096)),
    answers("endless chunks", saying(CHUNKED, for_ever=b"400\r\n" + b"x" * 1024 + b"\r\n")),
    answers("endless tiny chunks", saying(CHUNKED, for_ever=b"1\r\nx\r\n" * 99)),
    answers("endless chunk extension", saying(CHUNKED + b"1;", for_ever=b"x" * 4096)),
    answers("endless trailers", saying(CHUNKED + b"0\r\n", for_ever=b"X-A: b\r\n" * 99)),
    answers("endless until the end", saying(HEAD + b"\r\n", for_ever=b"x" * 4096)),
    answers("gzip bomb", saying(BOMB)),
    answers("pipelined garbage", saying(OK + b"\x00\xff garbage" * 999)),
    answers("pipelined answers", saying(OK * 1_000)),
    # -- TLS
    Personality(
        "a TLS handshake that stalls",
        mute_where_tls_is_spoken,
        trouble=Trouble.TIMEOUT,
        words="did not finish the TLS handshake within 400 ms",
    ),
    tls(
        "noise instead of TLS",
        lambda authorities: mute_where_tls_is_spoken(authorities, speaking_at_once(for_ever=b"\x00" * 4096)),
        "TLS with the target failed",
    ),
    tls(
        "a handshake message without end",
        lambda authorities: mute_where_tls_is_spoken(
            authorities,
            speaking_at_once(
                b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + b"\x03" * 16_380,
                for_ever=b"\x16\x03\x03\x40\x00" + b"\x03" * 16_384,
            ),
        ),
        "TLS with the target failed",
    ),
    tls(
        "an expired certificate",
        presenting(
            lambda authorities: authorities.trusted.issue_cert(
                "127.0.0.1", not_before=yesterday() - timedelta(days=9), not_after=yesterday()
            )
        ),
        "its certificate has expired",
    ),
    tls(
        "a certificate for another name",
        presenting(lambda authorities: authorities.trusted.issue_cert("other.test")),
        "its certificate is not valid for '127.0.0.1'",
    ),
    tls(
        "a certificate of an authority that is not trusted",
        presenting(lambda authorities: authorities.untrusted.issue_cert("127.0.0.1")),
        "an authority that is not trusted",
    ),
    Personality(
        "a self-signed certificate",
        lambda authorities: answering(tls=authorities.self_signed),
        trouble=Trouble.TLS,
        words="its certificate is self-signed",
    ),
]


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda each: each.name.replace(" ", "-"))
async def test_a_personality_costs_little_and_its_neighbours_nothing(
    sender: Sender, authorities: Authorities, personality: Personality
) -> None:
    async with personality.listen(authorities) as hostile, answering() as healthy:
        with memory_within(MEMORY_BYTES_MAX + BODY_COPIES_MAX * len(personality.body)):
            attack = Attack(personality, sender, hostile.url())
            attacking = asyncio.create_task(attack.run())
            for _ in range(NEIGHBOURS):
                assert answer(await post(sender, healthy.url())).status == 200
                if attacking.done():
                    attacking.result()
            attack.stop()
            await attacking
        assert healthy.connections == 1
        await until(lambda: sender.open_connections == 1)  # the neighbour's alone
        if hostile.wires:
            assert hostile.connections == attack.begun, "something was tried twice"
        if personality.notices:
            await until(lambda: hostile.open_now == 0)
        assert max((wire.sent for wire in hostile.wires), default=0) < SENT_BYTES_MAX


@contextmanager
def memory_within(bound: int) -> Iterator[None]:
    """What is done within never holds more bytes than this."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < bound
    finally:
        tracemalloc.stop()


class Attack:
    """Posts to a hostile target again and again until it is told to stop, and looks at each reply."""

    def __init__(self, personality: Personality, sender: Sender, url: str) -> None:
        self._personality = personality
        self._sender = sender
        self._url = url
        self._stopped = False
        self.begun = 0

    def stop(self) -> None:
        self._stopped = True

    async def run(self) -> None:
        while not self._stopped:
            self.begun += 1
            reply = await post(
                self._sender, self._url, body=self._personality.body, timeout=self._personality.timeout
            )
            self._personality.check(reply)
