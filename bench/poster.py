"""The yardstick: how fast the same bytes can be posted to the same receiver. wrk where there is one."""

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

CONNECTIONS: Final = 64
TOOL: Final = "wrk" if shutil.which("wrk") else "the built-in poster"

_SCRIPT: Final = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
"""

_DIGEST: Final = "4f" * 32
_NAME: Final = "a7" * 16


@dataclass(frozen=True)
class Request:
    """One POST, sent over and over."""

    url: str
    body: str
    headers: Mapping[str, str]

    @classmethod
    def delivery(cls, origin: str) -> "Request":
        """What one delivery of one event weighs."""
        return cls(origin + "/", _BODY, _HEADERS)


_BODY: Final = (
    '{"events":[{"user":{"gid":"12345","resource_type":"user"},"created_at":"2026-11-24T00:07:56.230Z",'
    '"action":"changed","resource":{"gid":"1001","resource_type":"task","resource_subtype":"default_task"},'
    '"parent":null,"change":{"field":"name","action":"changed"}}]}'
)
_HEADERS: Final = {
    "Content-Type": "application/json",
    "User-Agent": "Tidings/0.0.0",
    "X-Hook-Signature": _DIGEST,
    "X-Asana-Request-Signature": _DIGEST,
    "X-Tidings-Webhook": "1200890863508545",
    "X-Tidings-Delivery": _NAME,
    "webhook-id": _NAME,
    "webhook-timestamp": "1795478876",
    "webhook-signature": "v1,CAOupxga43RKW/8wSGU3iTJe54cIgs8sEQL4N6KI8f0=",
}


def posts_per_second(
    folder: Path, request: Request, *, seconds: float, connections: int = CONNECTIONS
) -> float:
    """Answered POSTs a second from one thread over so many connections.

    Raises:
        RuntimeError: an answer was none of 2xx.
    """
    if TOOL == "wrk":
        return _wrk(folder, request, seconds=seconds, connections=connections)
    return uvloop.run(_post(request, seconds=seconds, connections=connections))


def _wrk(folder: Path, request: Request, *, seconds: float, connections: int) -> float:
    script = folder / "post.lua"
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items())
    script.write_text(_SCRIPT.format(body=request.body, headers=headers))
    # wrk counts in whole seconds.
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}", "-s", str(script), request.url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s*([\d.]+)", printed)
    if found is None or "Non-2xx" in printed:
        raise RuntimeError(f"wrk was not answered as it should be:\n{printed}")
    rate = float(found[1])
    if not rate:
        raise RuntimeError(f"nothing was answered in {whole} s: a yardstick of 0 is none")
    return rate


async def _post(request: Request, *, seconds: float, connections: int) -> float:
    """A poster for machines without wrk: bytes made once, read no further than that an answer came."""
    loop = asyncio.get_running_loop()
    counts = [0, 0]
    opened: set[Any] = set()
    poster = _poster(_raw(request), counts, opened, loop)
    parts = urlsplit(request.url)
    assert parts.hostname is not None and parts.port is not None
    host, port = parts.hostname, parts.port
    context = ssl.create_default_context() if parts.scheme == "https" else None
    if context is not None:
        # The authority was thrown away, and what is measured is speed; wrk does not look either.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def keep_posting() -> None:
        while True:
            _, protocol = await loop.create_connection(poster, host, port, ssl=context)
            try:
                await protocol.closed
            finally:
                protocol.abort()

    tasks = [loop.create_task(keep_posting()) for _ in range(connections)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Also what was opened just as nobody waited for it any more.
    for transport in tuple(opened):
        transport.abort()
    # Not every one of them is told that it is lost; a few turns of the loop are for those that are.
    for _ in range(5):
        await asyncio.sleep(0)
    answered, good = counts
    if good < answered or not answered:
        raise RuntimeError(f"of {answered} answers {good} were 2xx")
    return good / seconds


def _raw(request: Request) -> bytes:
    parts = urlsplit(request.url)
    lines = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    body = request.body.encode()
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _poster(raw: bytes, counts: list[int], opened: set[Any], loop: asyncio.AbstractEventLoop) -> Any:
    """A protocol that posts again when it was answered; its transport is among those opened until it is lost."""

    class Poster(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.closed: asyncio.Future[None] = loop.create_future()
            self._transport = transport
            opened.add(transport)
            transport.write(raw)

        def data_received(self, data: bytes) -> None:
            counts[0] += data.count(b"HTTP/1.1 ")
            counts[1] += data.count(b"HTTP/1.1 2")
            self._transport.write(raw)

        def connection_lost(self, error: Exception | None) -> None:
            opened.discard(self._transport)
            if not self.closed.done():
                self.closed.set_result(None)

        def abort(self) -> None:
            self._transport.abort()

    return Poster
