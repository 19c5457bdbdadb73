"""A receiver that costs next to nothing: for machines without nginx, for black holes, and to take the time.

Run as a process of its own: `python -m bench.receiver PORT [--silent] [--times FILE]`.
"""

import asyncio
import struct
import sys
import time
from pathlib import Path
from typing import Any

import uvloop


class Taker(asyncio.Protocol):
    """Answers each POST once its body is there; shakes hands; notes when it came."""

    silent = False
    times: list[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = int(_header(head, b"content-length") or 0)
            if len(self._data) < end + 4 + length:
                return
            body = self._data[end + 4 : end + 4 + length]
            self._data = self._data[end + 4 + length :]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        secret = _header(head, b"x-hook-secret")
        if secret is not None:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nX-Hook-Secret: %b\r\nContent-Length: 0\r\n\r\n" % secret
            )
            return
        if self.silent:
            return
        if self.times is not None:
            self.times.append((time.monotonic_ns(), body))
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


def fields(body: bytes) -> list[bytes]:
    """What stands in the events' `change.field`."""
    return [part.split(b'"', 1)[0] for part in body.split(b'"field":"')[1:]]


async def receive(port: int) -> None:
    """Receive until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Taker, "127.0.0.1", port, backlog=4096)
    print("listening", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main(port: int, *, silent: bool, times: Path | None) -> None:
    """Receive, then write the times, as pairs of nanoseconds: when an event says it was sent, when it came."""
    Taker.silent = silent
    Taker.times = [] if times is not None else None
    uvloop.run(receive(port))
    if times is not None and Taker.times is not None:
        pairs = [(int(sent), at) for at, body in Taker.times for sent in fields(body)]
        times.write_bytes(b"".join(struct.pack("<qq", *pair) for pair in pairs))


def read_times(path: Path) -> list[tuple[int, int]]:
    """The pairs that `main` wrote."""
    return list(struct.iter_unpack("<qq", path.read_bytes()))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        int(arguments[0]),
        silent="--silent" in arguments,
        times=Path(arguments[arguments.index("--times") + 1]) if "--times" in arguments else None,
    )
