"""Targets that attack: each costs a bounded time and a bounded number of bytes, and says what it did in words.

`post` checks the time; what a target managed to send before it was hung up on is checked here.
"""

import asyncio
import zlib
from dataclasses import dataclass

import pytest

from tests.transport.conftest import LONG, SHORT, answer, post, trouble, until
from tests.transport.peers import OK, Behaviour, Wire, answering, deaf, listening
from tidings.limits import RESPONSE_BODY_BYTES_MAX
from tidings.model import NoAnswer, Trouble
from tidings.transport import Sender

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What the kernel's buffers on both sides may hold of a stream that nobody reads any more.
BUFFERED_BYTES_MAX = 32 << 20


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


async def never_reads(wire: Wire) -> None:
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport is a ReadTransport
    await asyncio.sleep(60)


async def drips_its_head(wire: Wire) -> None:
    await wire.request()
    await wire.drip(OK, pause=0.03)


async def drips_its_body(wire: Wire) -> None:
    await wire.request()
    await wire.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    await wire.drip(b"x" * 1_000, pause=0.03)


async def resets_at_once(wire: Wire) -> None:
    wire.reset()


async def closes_at_once(wire: Wire) -> None:
    return


async def resets_while_the_body_comes(wire: Wire) -> None:
    await wire.reader.readuntil(b"\r\n\r\n")
    wire.reset()


@dataclass(frozen=True)
class Attack:
    name: str
    behave: Behaviour
    # What comes of it: a status, or a trouble with words.
    status: int | None = None
    trouble: Trouble | None = None
    words: str = ""
    timeout: int = LONG
    body: bytes = b"{}"


def fails(name: str, behave: Behaviour, kind: Trouble, words: str, *, body: bytes = b"{}") -> Attack:
    timeout = SHORT if kind is Trouble.TIMEOUT else LONG
    return Attack(name, behave, trouble=kind, words=words, timeout=timeout, body=body)


ATTACKS = [
    fails("accepts and never answers", saying(), Trouble.TIMEOUT, "did not answer within 150 ms"),
    fails(
        "never reads", never_reads, Trouble.TIMEOUT, "did not take the whole request", body=b"x" * (8 << 20)
    ),
    fails("a byte at a time", drips_its_head, Trouble.TIMEOUT, "did not finish its answer"),
    fails("a body a byte at a time", drips_its_body, Trouble.TIMEOUT, "did not finish its answer"),
    fails("stalls in its head", saying(HEAD), Trouble.TIMEOUT, "did not finish its answer"),
    fails("stalls in its body", saying(OK[:-1]), Trouble.TIMEOUT, "did not finish its answer"),
    fails(
        "interim and no more", saying(b"HTTP/1.1 100 C\r\n\r\n"), Trouble.TIMEOUT, "did not finish its answer"
    ),
    fails(
        "endless headers",
        saying(HEAD, for_ever=b"X-A: b\r\n" * 10),
        Trouble.PROTOCOL,
        "more than 100 headers",
    ),
    fails("10 000 headers", saying(HEAD + b"X-A: b\r\n" * 10_000), Trouble.PROTOCOL, "more than 100 headers"),
    fails(
        "an endless header", saying(HEAD + b"X-A: ", for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes"
    ),
    fails("an endless name", saying(HEAD, for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes of headers"),
    fails(
        "an endless reason", saying(b"HTTP/1.1 200 ", for_ever=b"b" * 4096), Trouble.PROTOCOL, "16384 bytes"
    ),
    fails("endless 1xx", saying(for_ever=b"HTTP/1.1 102 P\r\n\r\n"), Trouble.PROTOCOL, "interim responses"),
    fails("endless newlines", saying(for_ever=b"\r\n" * 99), Trouble.PROTOCOL, "bytes of headers"),
    fails(
        "invalid status line", saying(b"HTTP/1.1 OK 200\r\n\r\n"), Trouble.PROTOCOL, "does not speak HTTP/1.1"
    ),
    fails("another protocol", saying(b"220 mail ESMTP\r\n"), Trouble.PROTOCOL, "does not speak HTTP/1.1"),
    fails("HTTP/2", saying(b"\x00\x00\x12\x04" + b"\x00" * 30), Trouble.PROTOCOL, "does not speak HTTP/1.1"),
    fails(
        "switches protocols",
        saying(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        Trouble.PROTOCOL,
        "switch protocols",
    ),
    fails(
        "two lengths",
        saying(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        Trouble.PROTOCOL,
        "Content-Length",
    ),
    fails("broken chunks", saying(CHUNKED + b"nonsense"), Trouble.PROTOCOL, "body of its answer"),
    fails("half-closes", saying(then="half-close"), Trouble.CLOSED, "without an answer"),
    fails("closes", saying(then="close"), Trouble.CLOSED, "without an answer"),
    fails("closes at once", closes_at_once, Trouble.CLOSED, "The target"),
    fails("resets", saying(then="reset"), Trouble.CLOSED, "reset"),
    fails("resets at once", resets_at_once, Trouble.CLOSED, "The target"),
    fails("closes in its head", saying(HEAD, then="close"), Trouble.CLOSED, "before its answer was complete"),
    fails("half-closes in its head", saying(HEAD, then="half-close"), Trouble.CLOSED, "was complete"),
    fails("says too great a length", saying(OK[:-1], then="close"), Trouble.CLOSED, "was complete"),
    fails(
        "closes between chunks", saying(CHUNKED + b"1\r\nx\r\n", then="close"), Trouble.CLOSED, "was complete"
    ),
    fails(
        "resets the upload", resets_while_the_body_comes, Trouble.CLOSED, "The target", body=b"x" * (4 << 20)
    ),
    Attack(
        "says too small a length", saying(HEAD + b"Content-Length: 1\r\n\r\n" + b"x" * 99_999), status=200
    ),
    Attack(
        "endless body", saying(HEAD + b"Content-Length: 9999999999\r\n\r\n", for_ever=b"x" * 4096), status=200
    ),
    Attack("endless chunks", saying(CHUNKED, for_ever=b"400\r\n" + b"x" * 1024 + b"\r\n"), status=200),
    Attack("endless tiny chunks", saying(CHUNKED, for_ever=b"1\r\nx\r\n" * 99), status=200),
    Attack("endless chunk extension", saying(CHUNKED + b"1;", for_ever=b"x" * 4096), status=200),
    Attack("endless trailers", saying(CHUNKED + b"0\r\n", for_ever=b"X-A: b\r\n" * 99), status=200),
    Attack("endless until the end", saying(HEAD + b"\r\n", for_ever=b"x" * 4096), status=200),
    Attack("pipelined garbage", saying(OK + b"\x00\xff garbage" * 999), status=200),
    Attack("pipelined answers", saying(OK * 1_000), status=200),
    Attack("body until the end", saying(HEAD + b"\r\nbye", then="close"), status=200),
    Attack("body until the half", saying(HEAD + b"\r\nbye", then="half-close"), status=200),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
async def test_an_attack_costs_bounded_time_and_bytes(sender: Sender, attack: Attack) -> None:
    async with listening(attack.behave) as target:
        reply = await post(sender, target.url(), timeout=attack.timeout, body=attack.body)
        if attack.trouble is not None:
            trouble(reply, attack.trouble, attack.words)
        else:
            got = answer(reply)
            assert got.status == attack.status
            assert len(got.body) <= RESPONSE_BODY_BYTES_MAX
        assert sender.open_connections == 0
        if attack.behave is not never_reads:
            await until(lambda: target.open_now == 0)
        assert target.wires[0].sent < BUFFERED_BYTES_MAX
        assert target.connections == 1


async def test_a_gzip_bomb_stays_packed(sender: Sender) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"\0" * (8 << 20)) + packer.flush()
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with answering(head + bomb) as target:
        assert answer(await post(sender, target.url())).body == bomb[:RESPONSE_BODY_BYTES_MAX]
        assert b"ccept-" not in target.requests[0]


async def test_an_answer_before_the_request_was_read_counts_and_ends_the_connection(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport is a ReadTransport
        await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
        await asyncio.sleep(60)

    async with listening(behave) as target:
        reply = answer(await post(sender, target.url(), body=b"x" * (8 << 20)))
        assert (reply.status, reply.body) == (413, b"no!")
        assert sender.open_connections == 0


async def test_a_target_that_speaks_first_is_heard_once_at_most(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.send(OK)
        await wire.until_gone()

    async with listening(behave) as target:
        reply = await post(sender, target.url())
        # Which of the two depends on whether its bytes or ours were first.
        if isinstance(reply, NoAnswer):
            trouble(reply, Trouble.PROTOCOL, "spoke before it was asked")
        else:
            assert answer(reply).status == 200
        assert target.connections == 1


async def test_a_target_that_closes_after_every_response_is_served_every_time(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)

    async with listening(behave) as target:
        for _ in range(10):
            assert answer(await post(sender, target.url())).status == 200
        assert 10 <= target.connections <= 11


async def test_a_target_that_never_accepts(sender: Sender) -> None:
    async with deaf() as port:
        reply = await post(sender, f"http://127.0.0.1:{port}/", timeout=SHORT)
        trouble(reply, Trouble.TIMEOUT, "The target did not accept a connection within 150 ms")
        assert sender.open_connections == 0


async def test_attackers_do_not_hold_up_a_neighbour(sender: Sender) -> None:
    async with (
        listening(saying(HEAD, for_ever=b"X-A: b" * 999)) as flood,
        listening(drips_its_body) as drip,
        listening(saying(for_ever=b"HTTP/1.1 102 P\r\n\r\n")) as interim,
        answering() as healthy,
    ):
        urls = [peer.url() for peer in (flood, drip, interim) for _ in range(10)]
        attacks = asyncio.gather(*(post(sender, url, timeout=SHORT) for url in urls))
        for _ in range(50):
            assert answer(await post(sender, healthy.url())).status == 200
        await attacks
        assert healthy.connections == 1
