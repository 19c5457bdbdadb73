"""One connection to one origin: one exchange at a time, each with its deadline."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from tidings.model import Micros, NoAnswer, Reply, Trouble
from tidings.transport.faults import os_words, span_text, tls_words
from tidings.transport.outbox import Outbox
from tidings.transport.response import ResponseReader, Seen

# uvloop's clock has whole milliseconds: an alarm that is early by less is on time.
_CLOCK_GRAIN = 0.001


class Connection(asyncio.Protocol):
    """Made by the dialer, kept by the pool, used by the sender.

    `closed` is told once, when the connection is no longer of use to anybody.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_closed",
        "_deadline",
        "_done",
        "_host",
        "_loop",
        "_outbox",
        "_reader",
        "_request",
        "_span",
        "_transport",
        "exchanges",
        "fate",
        "is_open",
        "origin",
        "since",
        "stale",
    )

    def __init__(
        self, *, origin: str, host: str, seen: Seen, outbox: Outbox, closed: Callable[["Connection"], None]
    ) -> None:
        self.origin = origin
        self._host = host
        self._outbox = outbox
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._reader = ResponseReader(seen)
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[Reply], None] | None = None
        # What is to be written in the next turn of the loop.
        self._request: bytes | None = None
        self._deadline = 0.0
        self._span: Micros = 0
        # One alarm serves many exchanges: when it rings too early it is set again. Setting one for each
        # exchange would cost more than reading the response.
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self.exchanges = 0
        self.is_open = True
        # Whether it broke the way a kept connection does that the other side has given up: used before, and not
        # a byte in answer to the last request.
        self.stale = False
        # Why it is closed, where that was not our wish.
        self.fate: Reply | None = None
        self.since = self._loop.time()

    def send(self, request: bytes, *, deadline: float, span: Micros, done: Callable[[Reply], None]) -> None:
        """Have a request written; `done` is told the reply, at the latest at `deadline` (the loop's clock).

        It is told once, or never if `close` is called before. `span` is the whole time the delivery had, for the text
        of a timeout.
        """
        assert self._transport is not None and self._done is None
        self._done = done
        self._deadline = deadline
        self._span = span
        self.exchanges += 1
        self._reader.begin()
        if self._alarm is None or self._alarm_at > deadline:
            self._set_alarm()
        self._request = request
        self._outbox.put(self)

    def write(self) -> None:
        """Write the request that waits, unless it came to an end before."""
        request, self._request = self._request, None
        if request is not None and self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """Be gone at once: nothing that is still unsent or unread matters to anybody."""
        if not self.is_open:
            return
        self.is_open = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._done = self._request = None
        if self._transport is not None:
            self._transport.abort()
        self._reader.release()
        self._closed(self)

    def stop(self) -> None:
        """Close, and tell whoever waits that it was us."""
        self._settle(NoAnswer(Trouble.CLOSED, "This service is stopping", ours=True))

    # -- what the event loop calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self.is_open:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._request is not None:
            # Nothing was asked yet: whatever this is, it must not be taken for the next answer.
            if self.is_open:
                self._broke(NoAnswer(Trouble.PROTOCOL, "The target spoke before it was asked"))
        elif self._reader.feed(data):
            self._answered()

    def eof_received(self) -> bool:
        if self.is_open:
            self._ended()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open:
            return
        if isinstance(error, ssl.SSLError):
            self._broke(NoAnswer(Trouble.TLS, tls_words(error, self._host)))
        elif isinstance(error, OSError):
            self._broke(NoAnswer(Trouble.CLOSED, os_words(error)))
        else:
            self._ended()

    # -- how an exchange ends ----------------------------------------------------------------------

    def _answered(self) -> None:
        reader, transport, done = self._reader, self._transport, self._done
        assert done is not None and transport is not None and reader.reply is not None
        self._done = None
        # An answer that came before the request was out leaves the rest of it in the way of the next one.
        if not reader.reusable or transport.get_write_buffer_size():
            self.close()
        done(reader.reply)

    def _ended(self) -> None:
        self._reader.finish()
        assert self._reader.reply is not None
        self._broke(self._reader.reply)

    def _broke(self, reply: Reply) -> None:
        self.stale = self.exchanges > 1 and not self._reader.heard
        self._settle(reply)

    def _settle(self, reply: Reply) -> None:
        done, self._done = self._done, None
        self.fate = reply
        self.close()
        if done is not None:
            done(reply)

    # -- the deadline ------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = self._deadline
        self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._done is None:
            return
        if self._loop.time() + _CLOCK_GRAIN < self._deadline:
            self._set_alarm()
        else:
            self._settle(NoAnswer(Trouble.TIMEOUT, f"{self._unfinished()} within {span_text(self._span)}"))

    def _unfinished(self) -> str:
        assert self._transport is not None
        if self._reader.heard:
            return "The target did not finish its answer"
        if self._transport.get_write_buffer_size():
            return "The target did not take the whole request"
        return "The target did not answer"
