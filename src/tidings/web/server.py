"""The HTTP server: uvicorn, with bounds on what a client may send before it has said anything."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidings.limits import REQUEST_HEAD_BYTES_MAX
from tidings.wire import failures

# A request's head must have arrived within this time of its first byte, or of the connection; seconds.
HEAD_SECONDS_MAX: Final = 30.0
# An idle connection is kept this long, seconds: longer than the usual client polls, shorter than proxies' patience.
IDLE_SECONDS_MAX: Final = 60
# Connections and requests at once; beyond it uvicorn answers 503.
CONNECTIONS_MAX: Final = 2_048
# Requests under way when the service stops get this long, seconds: a handshake and then some.
SHUTDOWN_SECONDS_MAX: Final = 20


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request whose head is too large or too slow. Bodies are bounded where they are read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_bytes = self._pending_bytes = 0
        self._in_head = True
        self._watch_head()

    def _watch_head(self) -> None:
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS_MAX, self._head_late)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What the parser still holds back: a header that does not end.
        if self._in_head:
            self._pending_bytes += len(data)
            if self._pending_bytes > REQUEST_HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = self._pending_bytes = 0
        self._unwatch_head()
        self._watch_head()
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

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or over a bound, in the words of the API."""
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(failures.render(msg, "invalid_request"))
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json; charset=UTF-8\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unwatch_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_head()
        super().connection_lost(exc)


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
            limit_concurrency=CONNECTIONS_MAX,
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
