"""The HTTP server: uvicorn, with bounds on what a client may send before it has said anything."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from httptools import HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidings.limits import REQUEST_HEAD_BYTES_MAX
from tidings.web import answers
from tidings.web.calls import BODY_SECONDS_MAX, DISCARDED_BYTES_MAX

# A request's head must have arrived within this time of its first byte, or of the connection; seconds.
HEAD_SECONDS_MAX: Final = 30.0
# An idle connection is kept this long, seconds: longer than the usual client polls, shorter than proxies' patience.
IDLE_SECONDS_MAX: Final = 60
# Connections at once; those beyond it are answered with 503 and closed.
CONNECTIONS_MAX: Final = 2_048
# Requests under way when the service stops get this long, seconds: a handshake and then some.
SHUTDOWN_SECONDS_MAX: Final = 20


class BoundedProtocol(HttpToolsProtocol):
    """Bounds what a client may send: a request's head in bytes and seconds, and what follows an early answer.

    Bodies that are read are bounded where they are read.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_bytes = self._pending_bytes = self._discarded_bytes = 0
        self._in_head = True
        self._began = False
        self._piece = b""
        self._declined = b""
        self._timer: asyncio.TimerHandle | None = None
        self._watch(HEAD_SECONDS_MAX)
        if len(self.connections) > CONNECTIONS_MAX:
            self.app = answers.overloaded()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self, seconds: float) -> None:
        """Close the connection unless what is awaited has come within this time."""
        self._unwatch()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the head ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        continued, self._began = self._in_head, False
        self._piece, self._declined = data, b""
        super().data_received(data)
        if self._declined:
            super().data_received(self._declined)
        # What the parser still holds back: a header that does not end. Where a head began within this piece, what
        # lies before it was another request's.
        if continued and self._in_head and not self._began:
            self._pending_bytes += len(data)
            if self._pending_bytes > REQUEST_HEAD_BYTES_MAX:
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        self._in_head = self._began = True
        self._head_bytes = self._pending_bytes = self._discarded_bytes = 0
        self._watch(HEAD_SECONDS_MAX)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > REQUEST_HEAD_BYTES_MAX:
            # The parser turns this into its own error, which uvicorn answers with the 400 below.
            raise ValueError("the request's head is too large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unwatch()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Decline an offer of another protocol (HTTP/2, by Java's own client with every request).

        The parser takes what follows such a head for the other protocol's. So the request is read again without the
        offer, its body with it.
        """
        offer = sys.exception()
        if self._declined or not isinstance(offer, HttpParserUpgrade):
            self.send_400_response("This server speaks HTTP/1.1 only.")
            return
        kept = [header for header in self.headers if header[0] != b"upgrade"]
        head = b"".join(b"%b: %b\r\n" % header for header in kept)
        line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        self._declined = line + head + b"\r\n" + self._piece[offer.args[0] :]
        self.parser = HttpRequestParser(self)
        # As uvicorn has it: answer the first of several requests although more came behind its `close`.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or over a bound, in the words of the API."""
        failure = sys.exception()
        if failure is not None and isinstance(failure.__context__, MemoryError):
            # The parser takes it for its own error, and it is not the request's: the process is to end.
            raise failure.__context__
        if self.transport.is_closing():
            return
        response = answers.not_http(msg)
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(response.body)))
        self.transport.close()

    # -- what follows an early answer --------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._watch(BODY_SECONDS_MAX)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle.response_complete:
            # Refused before it was read (401, 404, 429), and still on its way.
            self._discarded_bytes += len(body)
            if self._discarded_bytes > DISCARDED_BYTES_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self._unwatch()


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the composition root, and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make(app: ASGIApp) -> Server:
    """Make a server for the application; `serve(sockets=[…])` runs it until `should_exit` is set."""
    protocol: Any = BoundedProtocol
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS_MAX,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises `OSError` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS_MAX)
    except BaseException:
        listener.close()
        raise
    return listener
