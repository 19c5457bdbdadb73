"""Bytes over a socket: what no HTTP client would send."""

import contextlib
import socket
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from tests.serving import TOKEN

AUTHORIZED = b"Host: tidings.test\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()
SECONDS = 15.0


@dataclass(frozen=True)
class Raw:
    """What came back until the other side closed, or had answered once."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def exchange(port: int, request: bytes, *, closes: bool = True) -> Raw:
    """Send these bytes and read the answer; unless `closes`, the connection need not end with it."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        # Refused before all of it was sent, perhaps: the answer is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return read_answer(connection, closes=closes)


def read_answer(connection: socket.socket, *, closes: bool) -> Raw:
    """Read one answer, and if `closes` wait until the connection ends."""
    with connection.makefile("rb") as file:
        return read_answers(file, closes=closes)[0]


def read_answers(file: BinaryIO, count: int = 1, *, closes: bool = False) -> list[Raw]:
    """Read so many answers, passing over `100 Continue`."""
    found = []
    for _ in range(count):
        status, headers = 100, dict[str, str]()
        while status == 100:
            status = int(file.readline().split()[1])
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
        body = file.read(int(headers["content-length"]))
        found.append(Raw(status, headers, body, closes and _ends(file)))
    return found


def _ends(file: BinaryIO) -> bool:
    try:
        return file.read() == b""
    except ConnectionResetError:
        return True
