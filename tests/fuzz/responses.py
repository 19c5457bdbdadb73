"""What a target answers: any bytes, in any pieces, end in a reply within bounds that depends on the bytes alone."""

import random
from collections.abc import Sequence
from itertools import pairwise

from tests.fuzz.mutating import mutated
from tests.transport.test_response import COMPLETE, MALFORMED, check
from tidings.limits import RESPONSE_BODY_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX
from tidings.transport.response import RESPONSE_WIRE_BYTES_MAX, ResponseReader, Seen

# Bytes that nobody keeps, but that count.
PADDED = b"A:" + b" " * 8_000 + b"b\r\n"
EXTENDED = b"5;" + b"e" * 9_000 + b"\r\nhello\r\n"
CORPUS: Sequence[bytes] = [
    *(case[1] for case in COMPLETE),
    *MALFORMED,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nTrailer: A\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100 + b"\r\n" + b"x" * 20_000,
    b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000,
    b"HTTP/1.1 200 OK\r\n" + PADDED * 2 + b"Content-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + EXTENDED * 15 + b"0\r\n\r\n",
]
TOKENS: Sequence[bytes] = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"\x00",
        b"\xff",
        b"\x7f",
        b"-",
        b"+",
    ),
    *(
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/2.0 ",
        b"http/1.1 ",
        b"ICY ",
        b"100",
        b"101",
        b"199",
        b"204",
        b"304",
        b"999",
    ),
    *(b"Content-Length: ", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"18446744073709551616"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: ",
        b"chunked",
        b"identity",
    ),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    *(b"0\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffff\r\n", b"0x5\r\n", EXTENDED, PADDED),
    *(
        b"A: " + b"b" * 9_000 + b"\r\n",
        b" folded\r\n",
        b"X-Hook-Secret: abc\r\n",
        b"x" * RESPONSE_BODY_BYTES_MAX,
    ),
    b" " * RESPONSE_HEAD_BYTES_MAX,
]


def fuzz(dice: random.Random) -> None:
    """One input: read whole, in pieces and byte by byte, by a fresh reader and by one that has read before."""
    wire = mutated(dice, dice.choice(CORPUS), CORPUS, TOKENS)
    end = dice.random() < 0.7
    whole = _read(ResponseReader(), [wire], end=end)
    check(whole)
    pieces = _pieces(dice, wire)
    pieced = _read(ResponseReader(), pieces, end=end)
    assert pieced.reply == whole.reply, (wire, pieces)
    seen: Seen = {}
    used = ResponseReader(seen)
    for before in dice.choices(CORPUS, k=dice.randrange(4)):
        used.begin()
        used.feed(before)
        if not used.reusable:
            used = ResponseReader(seen)
    used.begin()
    again = _read(used, pieces, end=end)
    assert (again.reply, again.reusable) == (pieced.reply, pieced.reusable), (wire, pieces)


def _read(reader: ResponseReader, pieces: Sequence[bytes], *, end: bool) -> ResponseReader:
    taken = 0
    for piece in pieces:
        assert taken <= (RESPONSE_WIRE_BYTES_MAX if reader.answering else RESPONSE_HEAD_BYTES_MAX)
        if reader.feed(piece):
            return reader
        taken += len(piece)
    if end:
        reader.finish()
    return reader


def _pieces(dice: random.Random, wire: bytes) -> list[bytes]:
    """The same bytes in pieces; an empty one at the end asks whether all the others should have been taken."""
    return [piece for piece in _cut(dice, wire) if piece] + [b""]


def _cut(dice: random.Random, wire: bytes) -> list[bytes]:
    if len(wire) < 2_000 and dice.random() < 0.3:
        return [bytes((byte,)) for byte in wire]
    edges = sorted({0, len(wire), *(dice.randint(0, len(wire)) for _ in range(dice.randrange(8)))})
    return [wire[begin:end] for begin, end in pairwise(edges)]
