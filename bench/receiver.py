"""A receiver that costs next to nothing: for machines without nginx, for black holes, and to take the time.

Run as a process of its own: `python -m bench.receiver PORT [OPTIONS]`; it ends with its standard input.

    --host ADDRESS   listen there; all of 127.0.0.0/8 is answered on 0.0.0.0
    --silent         shake hands, and never answer a delivery
    --close          close the connection after each answer
    --tls FILE       speak TLS with this certificate and key (PEM)
    --times FILE     write there, at the end, when each event was due and when it came
"""

import argparse
import asyncio
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import Any

import uvloop


class Taker(asyncio.Protocol):
    """Answers each POST once its body is there; shakes hands; notes when it came."""

    silent = False
    closes = False
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
        if secret is None and self.silent:
            return
        if secret is None and self.times is not None:
            self.times.append((time.monotonic_ns(), body))
        echo = b"" if secret is None else b"X-Hook-Secret: %b\r\n" % secret
        keep = b"Connection: close\r\n" if self.closes else b""
        self._transport.write(b"HTTP/1.1 200 OK\r\n%b%bContent-Length: 0\r\n\r\n" % (echo, keep))
        if self.closes:
            self._transport.close()


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


def fields(body: bytes) -> list[bytes]:
    """What stands in the events' `change.field`."""
    return [part.split(b'"', 1)[0] for part in body.split(b'"field":"')[1:]]


async def receive(host: str, port: int, tls: Path | None) -> None:
    """Receive until the standard input ends."""
    loop = asyncio.get_running_loop()
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    server = await loop.create_server(Taker, host, port, backlog=4096, ssl=context)
    print("listening", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.receiver")
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--times", type=Path)
    given = parser.parse_args()
    Taker.silent, Taker.closes = given.silent, given.close
    Taker.times = None if given.times is None else []
    uvloop.run(receive(given.host, given.port, given.tls))
    if given.times is not None and Taker.times is not None:
        pairs = [(int(due), at) for at, body in Taker.times for due in fields(body)]
        given.times.write_bytes(b"".join(struct.pack("<qq", *pair) for pair in pairs))


def read_times(path: Path) -> list[tuple[int, int]]:
    """The pairs that `main` wrote, in nanoseconds: when an event was due, when it came."""
    return list(struct.iter_unpack("<qq", path.read_bytes()))


if __name__ == "__main__":
    main()
