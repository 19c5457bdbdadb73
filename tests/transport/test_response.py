"""The response reader: bytes in, a reply out, whatever the bytes are."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.limits import RESPONSE_BODY_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX
from tidings.model import Answer, NoAnswer, Reply, Trouble
from tidings.transport.response import (
    INFORMATIONAL_MAX,
    RESPONSE_WIRE_BYTES_MAX,
    SEEN_BYTES_MAX,
    SEEN_MAX,
    ResponseReader,
    Seen,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

COMPLETE = [
    # name, wire, status, reason, body, reusable
    ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "OK", b"hi", True),
    ("empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "OK", b"", True),
    ("no reason", b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", 500, "", b"", True),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", 204, "No Content", b"", True),
    ("304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, "Not Modified", b"", True),
    (
        "chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\n\r\n",
        200,
        "OK",
        b"hi!",
        True,
    ),
    (
        "trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Hook-Secret: late\r\n\r\n",
        200,
        "OK",
        b"x",
        True,
    ),
    ("interim", CONTINUE * 2 + b"HTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx", 201, "C", b"x", True),
    ("early hints", b"HTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 204 N\r\n\r\n", 204, "N", b"", True),
    ("close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200, "OK", b"x", False),
    ("1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "OK", b"x", False),
    (
        "1.0 kept",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        200,
        "OK",
        b"x",
        True,
    ),
    ("latin-1 reason", b"HTTP/1.1 400 F\xfcr\r\nContent-Length: 0\r\n\r\n", 400, "Für", b"", True),
]
complete = pytest.mark.parametrize(
    ("wire", "status", "reason", "body", "reusable"),
    [case[1:] for case in COMPLETE],
    ids=[case[0] for case in COMPLETE],
)


def read(*parts: bytes, end: bool = False) -> ResponseReader:
    reader = ResponseReader()
    for part in parts:
        if reader.feed(part):
            return reader
    if end:
        reader.finish()
    return reader


def fault(reply: Reply | None) -> str:
    assert isinstance(reply, NoAnswer), reply
    assert reply.trouble is Trouble.PROTOCOL
    return reply.text


@complete
def test_a_whole_response(wire: bytes, status: int, reason: str, body: bytes, reusable: bool) -> None:
    reader = read(wire)
    assert isinstance(reader.reply, Answer)
    assert (reader.reply.status, reader.reply.reason, reader.reply.body) == (status, reason, body)
    assert reader.reusable == reusable
    assert reader.reply.header("x-hook-secret") is None


@complete
def test_the_same_byte_by_byte(wire: bytes, status: int, reason: str, body: bytes, reusable: bool) -> None:
    reader = ResponseReader()
    over = [reader.feed(bytes((byte,))) for byte in wire]
    assert over == [False] * (len(wire) - 1) + [True]
    assert reader.reply == read(wire).reply
    assert reader.reusable == reusable


@complete
@pytest.mark.parametrize("chunk", [b"X", b"HTTP/1.1 200 OK\r\n"])
def test_bytes_behind_the_end_spoil_the_connection_and_not_the_answer(
    wire: bytes, status: int, reason: str, body: bytes, reusable: bool, chunk: bytes
) -> None:
    reader = read(wire + chunk)
    assert reader.reply == read(wire).reply
    assert not reader.reusable


@complete
def test_one_reader_reads_one_response_after_another(
    wire: bytes, status: int, reason: str, body: bytes, reusable: bool
) -> None:
    if not reusable:
        return
    reader = ResponseReader()
    for _ in range(3):
        reader.begin()
        assert not reader.heard
        assert reader.feed(wire)
        assert reader.reply == read(wire).reply


@complete
def test_cut_off_anywhere_it_is_no_answer(
    wire: bytes, status: int, reason: str, body: bytes, reusable: bool
) -> None:
    for at in range(len(wire)):
        reply = read(wire[:at], end=True).reply
        assert isinstance(reply, NoAnswer)
        assert reply.trouble is Trouble.CLOSED


def test_headers_are_lower_case_and_trimmed() -> None:
    reply = read(b"HTTP/1.1 204 N\r\nX-Hook-Secret:  AbC \t\r\nX-Hook-SECRET: Def\r\nX-L: \xe9\r\n\r\n").reply
    assert isinstance(reply, Answer)
    assert reply.headers == (("x-hook-secret", "AbC"), ("x-hook-secret", "Def"), ("x-l", "é"))
    assert reply.header("x-hook-secret") == "Def"


@pytest.mark.parametrize("reason", [b"a\x1b[2Jb", b"a\x00", b"a\x7f", b"a\x85", b"a\tb"])
def test_a_reason_holds_nothing_that_cannot_be_printed_or_stored(reason: bytes) -> None:
    reply = read(b"HTTP/1.1 400 " + reason + b"\r\nContent-Length: 0\r\n\r\n").reply
    assert isinstance(reply, Answer)
    assert reply.reason.isprintable()
    assert reply.reason.startswith("a\ufffd")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    ],
)
def test_a_body_without_a_length_ends_with_the_connection(head: bytes) -> None:
    reader = read(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", b"so ", b"much", end=True)
    assert isinstance(reader.reply, Answer)
    assert reader.reply.body == b"so much"
    assert not reader.reusable


MALFORMED = [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"220 mail.example ESMTP\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 000 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxxx\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
]


@pytest.mark.parametrize("wire", MALFORMED)
def test_what_is_not_http_is_a_fault_of_protocol(wire: bytes) -> None:
    for reader in (read(wire), read(*(bytes((byte,)) for byte in wire))):
        assert "does not speak HTTP/1.1" in fault(reader.reply)
        assert not reader.reusable


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000], "headers"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 10_000], "headers"),
        ([b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000], "bytes of headers"),
        ([b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n"], "bytes of headers"),
        ([b"HTTP/1.1 200 OK\r\n", b"A" * 100_000], "bytes of headers"),
        ([b"HTTP/1.1 200 " + b"x" * 100_000], "bytes of headers"),
        ([CONTINUE] * 10_000, "interim"),
        ([CONTINUE * 10_000], "interim"),
        ([b"HTTP/1.1 200 OK\r\nA:" + b" " * 20_000 + b"b\r\nContent-Length: 0\r\n\r\n"], "bytes of headers"),
        ([b"\r\n" * 10_000 + b"HTTP/1.1 204 N\r\n\r\n"], "bytes of headers"),
        ([(b"HTTP/1.1 100 C\r\n" + b"A: " + b"b" * 5_000 + b"\r\n\r\n") * 4], "bytes of headers"),
    ],
)
def test_a_head_over_a_bound_is_a_fault(parts: list[bytes], words: str) -> None:
    text = fault(read(*parts).reply)
    assert "over a bound" in text
    assert words in text


def test_bounds_are_inclusive() -> None:
    most = b"HTTP/1.1 204 N\r\n" + b"A: b\r\n" * RESPONSE_HEADERS_MAX + b"\r\n"
    assert isinstance(read(most).reply, Answer)
    interim = CONTINUE * INFORMATIONAL_MAX + b"HTTP/1.1 204 N\r\n\r\n"
    assert isinstance(read(interim).reply, Answer)
    body = b"x" * RESPONSE_BODY_BYTES_MAX
    reader = read(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert isinstance(reader.reply, Answer)
    assert reader.reply.body == body
    assert reader.reusable


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"x" * 1_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_000),
        (CHUNKED, b"3e8\r\n" + b"x" * 1_000 + b"\r\n"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"1;", b"e" * 1_000),
        (CHUNKED + b"0\r\n", b"A: " + b"b" * 1_000 + b"\r\n"),
    ],
    ids=["length", "until the end", "chunked", "tiny chunks", "chunk extension", "trailers"],
)
def test_an_endless_body_ends_at_the_bound_with_its_answer(head: bytes, more: bytes) -> None:
    reader = ResponseReader()
    reader.feed(head)
    fed = len(head)
    while not reader.feed(more):
        fed += len(more)
        assert fed < 2 * RESPONSE_WIRE_BYTES_MAX
    assert isinstance(reader.reply, Answer)
    assert reader.reply.status == 200
    assert len(reader.reply.body) <= RESPONSE_BODY_BYTES_MAX
    assert not reader.reusable


def test_a_huge_piece_is_cut_at_the_bound() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000)
    assert isinstance(reader.reply, Answer)
    assert len(reader.reply.body) == RESPONSE_BODY_BYTES_MAX


# -- fuzz ------------------------------------------------------------------------------------------

tokens = st.sampled_from(
    [
        *(
            b"HTTP/1.1 ",
            b"HTTP/1.0 ",
            b"200 OK",
            b"204 No",
            b"100 C",
            b"101 S",
            b"304 N",
            b"\r\n",
            b"\r\n\r\n",
        ),
        *(
            b"\n",
            b"\r",
            b"Content-Length: ",
            b"5",
            b"0",
            b"hello",
            b"Transfer-Encoding: chunked",
            b"ffff",
            b"\x00",
        ),
        *(
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b": ",
            b";",
        ),
        *(b"X-Hook-Secret: abc", b"Trailer: x", b"Content-Encoding: gzip", b"\xff\xfe", b"x" * 5_000),
    ]
)
streams = st.lists(st.one_of(tokens, st.binary(max_size=40)), max_size=40)
responses = st.sampled_from([case[1] for case in COMPLETE])
# Well-formed enough to reach the bounds.
large = st.builds(
    lambda parts, count: b"".join(parts) * count,
    st.lists(
        st.sampled_from(
            [
                *(b"HTTP/1.1 200 OK\r\n", CONTINUE, b"\r\n", b"A: b\r\n", b"A:" + b" " * 3_000 + b"b\r\n"),
                *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999\r\n", b"Connection: close\r\n"),
                *(b"1\r\nx\r\n", b"1;" + b"e" * 2_000 + b"\r\nx\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
                *(b"0\r\n", b"0\r\n\r\n", b"x" * 1_000),
            ]
        ),
        max_size=6,
    ),
    st.sampled_from([1, 1, 1, 8, 40]),
)


def check(reader: ResponseReader) -> None:
    reply = reader.reply
    if isinstance(reply, Answer):
        assert 200 <= reply.status <= 999
        assert reply.reason.isprintable()
        assert len(reply.body) <= RESPONSE_BODY_BYTES_MAX
        assert len(reply.headers) <= RESPONSE_HEADERS_MAX
        assert sum(len(name) + len(value) for name, value in reply.headers) <= RESPONSE_HEAD_BYTES_MAX
    elif reply is not None:
        assert not reader.reusable
        assert reply.text.isprintable()


@given(streams, st.booleans())
@settings(max_examples=500)
def test_any_bytes_end_in_a_reply_within_bounds(parts: list[bytes], end: bool) -> None:
    check(read(*parts, end=end))


@given(responses, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4))
@settings(max_examples=300)
def test_a_response_with_broken_bytes_ends_in_a_reply_within_bounds(
    wire: bytes, breaks: list[tuple[int, int]]
) -> None:
    broken = bytearray(wire)
    for at, byte in breaks:
        broken[at % len(broken)] = byte
    check(read(bytes(broken), end=True))


@given(responses, st.lists(st.integers(0, 200), max_size=6))
def test_how_a_response_is_cut_into_pieces_changes_nothing(wire: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    pieces = [wire[begin:end] for begin, end in pairwise(edges)]
    whole, pieced = read(wire), read(*pieces)
    assert (pieced.reply, pieced.reusable) == (whole.reply, whole.reusable)


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[begin:end] for begin, end in pairwise(edges)]


@given(st.one_of(streams, st.lists(large, max_size=12)), st.lists(st.integers(0, 200_000), max_size=6))
@settings(max_examples=500)
def test_how_anything_is_cut_into_pieces_changes_nothing(parts: list[bytes], cuts: list[int]) -> None:
    """Also at the bounds, which are counted in bytes of the wire and not in reads of the socket."""
    wire = b"".join(parts)
    whole, pieced = read(wire, end=True), read(*pieces(wire, cuts), end=True)
    check(whole)
    assert pieced.reply == whole.reply


@given(st.lists(responses, min_size=1, max_size=5), streams, st.lists(st.integers(0, 400), max_size=3))
@settings(max_examples=300)
def test_nothing_of_one_response_is_left_in_the_next(
    before: list[bytes], parts: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(parts)
    used = ResponseReader()
    for each in before:
        used.begin()
        assert used.feed(each)
        if not used.reusable:
            return
    used.begin()
    for piece in pieces(wire, cuts):
        if used.feed(piece):
            break
    else:
        used.finish()
    fresh = read(*pieces(wire, cuts), end=True)
    assert (used.reply, used.reusable) == (fresh.reply, fresh.reusable)


# -- responses that were seen before ---------------------------------------------------------------


def test_what_was_seen_before_reads_the_same_and_keeps_nothing_for_the_next() -> None:
    seen: Seen = {}
    first, second = ResponseReader(seen), ResponseReader(seen)
    known = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi"
    other = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    assert first.feed(known)
    assert list(seen) == [known]
    for _ in range(2):
        second.begin()
        assert second.feed(known)
        assert (second.reply, second.reusable) == (first.reply, True)
        second.begin()
        assert not second.heard
        assert second.feed(other[:20]) is False
        assert second.feed(other[20:])
        assert isinstance(second.reply, Answer)
        assert (second.reply.status, second.reply.body) == (500, b"")
    second.begin()
    second.finish()
    assert second.reply == NoAnswer(Trouble.CLOSED, "The target closed the connection without an answer")


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", id="more than was asked for"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", id="the last one"),
        pytest.param(b"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n", id="a fault"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SEEN_BYTES_MAX + b"x" * SEEN_BYTES_MAX,
            id="long",
        ),
    ],
)
def test_only_short_whole_answers_that_keep_their_connection_are_remembered(response: bytes) -> None:
    seen: Seen = {}
    reader = ResponseReader(seen)
    reader.feed(response)
    assert reader.reply is not None
    assert seen == {}


def test_what_is_remembered_is_bounded() -> None:
    seen: Seen = {}
    reader = ResponseReader(seen)
    for number in range(SEEN_MAX + 10):
        reader.begin()
        assert reader.feed(b"HTTP/1.1 200 OK\r\nX-N: %d\r\nContent-Length: 0\r\n\r\n" % number)
        assert len(seen) <= SEEN_MAX
