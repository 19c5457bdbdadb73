"""What the figures were measured on, and the yardsticks they are held against."""

import asyncio
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from tests.serving import free_port, wait_until

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 2m; client_max_body_size 2m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ {listens} location / {{ add_header X-Hook-Secret $http_x_hook_secret; return 200; }} }}
}}
"""
# wrk posts what one delivery of one event weighs.
WRK = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["User-Agent"] = "Tidings/0.0.0"
wrk.headers["X-Hook-Signature"] = "{digest}"
wrk.headers["X-Asana-Request-Signature"] = "{digest}"
wrk.headers["X-Tidings-Webhook"] = "1200890863508545"
wrk.headers["X-Tidings-Delivery"] = "{name}"
wrk.headers["webhook-id"] = "{name}"
wrk.headers["webhook-timestamp"] = "1795478876"
wrk.headers["webhook-signature"] = "v1,CAOupxga43RKW/8wSGU3iTJe54cIgs8sEQL4N6KI8f0="
"""
BODY = (
    '{"events":[{"user":{"gid":"12345","resource_type":"user"},"created_at":"2026-11-24T00:07:56.230Z",'
    '"action":"changed","resource":{"gid":"1001","resource_type":"task","resource_subtype":"default_task"},'
    '"parent":null,"change":{"field":"name","action":"changed"}}]}'
)


def describe() -> str:
    """The machine and the versions, on one line."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.*)", info.read_text())):
        processor = found[1]
    return (
        f"{os.cpu_count()} × {processor}; Python {platform.python_version()}, uvloop {version('uvloop')}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release()}"
    )


def fsyncs_per_second(folder: Path, *, seconds: float = 1.0) -> float:
    """How often this disk takes 4 KiB for good."""
    path = folder / "fsync"
    with path.open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / seconds


@contextmanager
def receivers(folder: Path, count: int) -> Iterator[tuple[str, list[int]]]:
    """Receivers on so many ports, and what they are: nginx where there is one, else the one of this folder."""
    ports = [free_port() for _ in range(count)]
    if shutil.which("nginx"):
        config = folder / "nginx.conf"
        listens = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
        config.write_text(NGINX.format(folder=folder, listens=listens))
        process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "nginx.log")])
        try:
            wait_until((folder / "nginx.pid").exists)
            yield "nginx", ports
        finally:
            process.terminate()
            process.wait()
    else:
        with own_receiver() as port:
            yield "the built-in receiver", [port]


@contextmanager
def own_receiver(*arguments: str) -> Iterator[int]:
    """The receiver of this folder, in a process of its own, ended by the end of its input."""
    port = free_port()
    command = [sys.executable, "-m", "bench.receiver", str(port), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"listening\n"
        yield port
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def posts_per_second(folder: Path, port: int, *, seconds: int = 3) -> tuple[str, float]:
    """The yardstick: how fast the same bytes can be posted to the same receiver."""
    if shutil.which("wrk"):
        script = folder / "post.lua"
        script.write_text(WRK.format(body=BODY, digest="4f" * 32, name="a7" * 16))
        command = ["wrk", "-t1", "-c64", f"-d{seconds}", "-s", str(script), f"http://127.0.0.1:{port}/"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"Requests/sec:\s*([\d.]+)", printed)
        assert found is not None, printed
        return "wrk", float(found[1])
    return "the built-in poster", uvloop.run(_post(port, seconds))


async def _post(port: int, seconds: int) -> float:
    """A poster for machines without wrk: bytes made once, read no further than that an answer came."""
    request = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\nX-Padding: {'x' * 500}\r\n\r\n{BODY}"
    ).encode()
    count = 0
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    class Poster(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            transport.write(request)

        def data_received(self, data: bytes) -> None:
            nonlocal count
            count += data.count(b"HTTP/1.1 200")
            self._transport.write(request)

    pairs = [await loop.create_connection(Poster, "127.0.0.1", port) for _ in range(64)]
    await asyncio.sleep(until - loop.time())
    for transport, _ in pairs:
        transport.abort()
    return count / seconds
