"""Reads one response after another off a connection, within bounds. No sockets here: bytes in, a reply out.

llhttp (through httptools) does the grammar; the bounds are ours. A response is over when its reply is known: at its
end, at the first byte that is not HTTP/1.1, or at the first bound it breaks. A body that is longer than we keep is
no fault: the status came, so the answer stands, and the connection is closed instead of read to its end.
"""

from functools import lru_cache
from typing import Final, TypeAlias

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from tidings.limits import RESPONSE_BODY_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX
from tidings.model import Answer, NoAnswer, Reply, Trouble
from tidings.transport.faults import printable

# Interim responses (RFC 9110 §15.2) before the one that counts; real servers send one.
INFORMATIONAL_MAX: Final = 8
# Bytes of a whole response on the wire. A body in one-byte chunks takes six bytes for each; past this we stop.
RESPONSE_WIRE_BYTES_MAX: Final = 2 * RESPONSE_HEAD_BYTES_MAX + 6 * RESPONSE_BODY_BYTES_MAX

# Whole responses that are known by their bytes, and how long they may be. Receivers say the same again and again, but
# for the second in `Date`.
SEEN_MAX: Final = 512
SEEN_BYTES_MAX: Final = 512

Seen: TypeAlias = dict[bytes, Reply]
"""What complete responses came to that left their connection fit for the next, by every one of their bytes.

Reading depends on nothing but the bytes, once a reader expects a new response; so what was read once need not be read
again. Shared by the readers of a sender.
"""

_SWITCHING_PROTOCOLS: Final = 101


# Servers send the same dozen names for ever.
_NAMES_REMEMBERED_MAX: Final = 256


@lru_cache(_NAMES_REMEMBERED_MAX)
def _key(name: bytes) -> str:
    return name.lower().decode("latin-1")


class _Enough(Exception):
    """Thrown in a parser's callback to make it stop; never leaves this module."""


class ResponseReader:
    """The receiving half of one connection.

    `feed` returns whether the response is over; then `reply` says what came, and `reusable` whether another request
    may follow on the connection (call `begin` before it).
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_delimited",
        "_head_bytes",
        "_headers",
        "_in_head",
        "_informational",
        "_parser",
        "_reason",
        "_seen",
        "_wire_bytes",
        "reply",
        "reusable",
    )

    def __init__(self, seen: Seen | None = None) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._seen: Seen = {} if seen is None else seen
        self.begin()
        self._begin_reading()

    def begin(self) -> None:
        """Expect a new response."""
        self.reply: Reply | None = None
        self.reusable = False
        self._complete = False
        self._in_head = True
        self._wire_bytes = 0

    def _begin_reading(self) -> None:
        self._informational = 0
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._begin_head()

    def _begin_head(self) -> None:
        self._in_head = True
        self._delimited = False
        self._reason = b""
        self._headers: list[tuple[str, str]] = []

    @property
    def heard(self) -> bool:
        """Whether a single byte of the response has come."""
        return self._wire_bytes > 0

    @property
    def answering(self) -> bool:
        """Whether the status and headers have come, but not yet all of the body."""
        return not self._in_head and not self._complete

    def feed(self, data: bytes) -> bool:
        """Take what the connection brought; True when the response is over."""
        if not self._wire_bytes:
            reply = self._seen.get(data)
            if reply is not None:
                self._wire_bytes = len(data)
                self.reply, self.reusable = reply, True
                return True
            self._begin_reading()
        if self._wire_bytes + len(data) <= RESPONSE_HEAD_BYTES_MAX:
            self._take(data)
        else:
            self._take_in_slices(data)
        return self.reply is not None

    def _room(self) -> int:
        """How many more bytes may come before what is being read is over its bound."""
        return (RESPONSE_HEAD_BYTES_MAX if self._in_head else RESPONSE_WIRE_BYTES_MAX) - self._wire_bytes

    def _take_in_slices(self, data: bytes) -> None:
        """Stop at the same byte wherever the network has cut the stream: the parser never sees more than the bound."""
        while data and self.reply is None:
            room = self._room()
            if room <= 0:
                self._over_wire()
                return
            self._take(data[:room])
            data = data[room:]
        if data:
            # Nobody asked for what is left.
            self.reusable = False

    def _take(self, data: bytes) -> None:
        assert self._parser is not None
        self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._stopped(error)
        except HttpParserUpgrade:
            self._fault("it offered to switch protocols")
        if self._complete and self.reply is None:
            self._answer()
            if self.reusable and self._wire_bytes == len(data) <= SEEN_BYTES_MAX:
                self._remember(data)

    def _remember(self, data: bytes) -> None:
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        assert self.reply is not None
        self._seen[data] = self.reply

    def finish(self) -> None:
        """The connection ended. A body without a length ends with it (RFC 9112 §6.3); anything else is cut off."""
        self.reusable = False
        if self.answering and not self._delimited:
            self._answer()
        elif self._wire_bytes:
            self.reply = NoAnswer(
                Trouble.CLOSED, "The target closed the connection before its answer was complete"
            )
        else:
            self.reply = NoAnswer(Trouble.CLOSED, "The target closed the connection without an answer")

    def release(self) -> None:
        """Let go of the parser, which holds us."""
        self._parser = None

    # -- what ends a response early ----------------------------------------------------------------

    def _stopped(self, error: HttpParserError) -> None:
        self.reusable = False
        if self._complete or self.reply is not None:
            return
        where = "the beginning of its answer" if self._in_head else "the body of its answer"
        self._fault(f"{where} is malformed ({error})")

    def _fault(self, text: str) -> None:
        self.reusable = False
        self.reply = NoAnswer(Trouble.PROTOCOL, f"The target does not speak HTTP/1.1: {text}")

    def _over_bound(self, text: str) -> None:
        self.reusable = False
        self.reply = NoAnswer(Trouble.PROTOCOL, f"The target's answer is over a bound: {text}")

    def _over_wire(self) -> None:
        if self._in_head:
            self._over_bound(f"more than {RESPONSE_HEAD_BYTES_MAX} bytes of headers")
        else:
            self.reusable = False
            self._answer()

    def _answer(self) -> None:
        assert self._parser is not None
        self.reply = Answer(
            self._parser.get_status_code(),
            printable(self._reason.decode("latin-1")),
            tuple(self._headers),
            b"".join(self._body)[:RESPONSE_BODY_BYTES_MAX],
        )

    # -- what the parser calls ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            # Nobody asked for a second response.
            raise _Enough

    def on_status(self, part: bytes) -> None:
        self._head_bytes += len(part)
        if self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
            self._head_too_big()
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
            self._head_too_big()
        if not self._in_head:
            return  # a trailer: counted, and not kept
        if len(self._headers) == RESPONSE_HEADERS_MAX:
            self._over_bound(f"more than {RESPONSE_HEADERS_MAX} headers")
            raise _Enough
        key = _key(name)
        text = value.strip().decode("latin-1")
        if key == "content-length":
            self._delimited = True
        elif key == "transfer-encoding":
            # What comes last decides (RFC 9112 §6.3).
            self._delimited = text.lower().rpartition(",")[2].strip() == "chunked"
        self._headers.append((key, text))

    def _head_too_big(self) -> None:
        if self._in_head:
            self._over_bound(f"more than {RESPONSE_HEAD_BYTES_MAX} bytes of headers")
        else:
            self._answer()
        raise _Enough

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200:
            self._in_head = False
        elif status < 100:
            self._fault(f"{status} is no status")
            raise _Enough
        elif status == _SWITCHING_PROTOCOLS:
            self._fault("it offered to switch protocols")
            raise _Enough

    def on_body(self, part: bytes) -> None:
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > RESPONSE_BODY_BYTES_MAX:
            self._answer()
            raise _Enough

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if not self._in_head:
            self._complete = True
            self.reusable = self._parser.should_keep_alive()
            return
        self._informational += 1
        if self._informational > INFORMATIONAL_MAX:
            self._over_bound(f"more than {INFORMATIONAL_MAX} interim responses")
            raise _Enough
        self._begin_head()
