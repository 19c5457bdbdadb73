"""Too little memory ends the process instead of crippling it; and a big backlog does not need much."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.serving import PROJECT, TASK, Answer, Receiver, Service, event, wait_until

# What docs/operations.md says that one process may need with the default settings.
STATED_MIB: Final = 300
EVENTS_PER_CALL: Final = 600
# Webhooks that hold a slot each at once: a megabyte for each would be far more than what is stated.
HANGING: Final = 450
ORIGINS: Final = 8


def megabyte(first: int, *, key: str) -> list[dict[str, object]]:
    """A publish of nearly the largest size there is; events carry what stands under any `key` but "name"."""
    value = {"gid": "1", "resource_type": "custom", key: "x" * 1_000}
    changes = [
        {"field": str(first + number), "action": "changed", "new_value": value}
        for number in range(EVENTS_PER_CALL)
    ]
    return [event(TASK, "changed", change=change) for change in changes]


def limit_memory(pid: int, *, more: int) -> None:
    """Let a process map so many bytes more than it has, no further."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))


def peak_mib(pid: int) -> int:
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in each]
    return int(line.split()[1]) >> 10


def test_a_process_without_memory_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    with Receiver() as receiver:
        service = Service(tmp_path)
        service.start()
        service.seed()
        service.create_webhook(PROJECT, receiver.url())
        receiver.on("/hook", delivery=Answer(500))
        acknowledged = [service.publish(*megabyte(0, key="name"))["accepted"]]
        limit_memory(service.pid, more=-(64 << 20))
        status = None
        for number in range(1, 200):
            try:
                answer = service.api("POST", "/events", data=megabyte(number * EVENTS_PER_CALL, key="name"))
            except httpx.HTTPError:
                pass
            else:
                acknowledged += [EVENTS_PER_CALL] if answer.status_code == 201 else []
            status = service.status
            if status is not None:
                break
        # 1 by our own hand; a library may have been quicker to abort.
        assert status, service.log()[-2_000:]
        assert status != 1 or "out of memory; the process ends" in service.log()
        service.kill()
        receiver.on("/hook", delivery=Answer())
        service.start()
        service.publish(event(TASK, "changed", change={"field": "last", "action": "changed"}))
        receiver.wait_until(
            lambda: receiver.events() and receiver.events()[-1]["change"]["field"] == "last", timeout=60
        )
        numbers = [int(each["change"]["field"]) for each in receiver.events()[:-1]]
        assert numbers == sorted(set(numbers))
        assert len(numbers) >= sum(acknowledged)
        service.stop()


def test_a_backlog_and_big_bodies_stay_within_what_is_stated(tmp_path: Path) -> None:
    """Fifty webhooks whose receiver is down, thirty megabytes behind each, published by ten at once."""
    with Receiver() as receiver, Service(tmp_path) as service:
        service.seed()
        receiver.on("/hook", delivery=Answer(500))
        for number in range(50):
            receiver.on(f"/{number}", delivery=Answer(500))
            service.create_webhook(PROJECT, receiver.url(f"/{number}"))
        with ThreadPoolExecutor(10) as pool:
            publishes = [megabyte(call * EVENTS_PER_CALL, key="text") for call in range(30)]
            calls = [pool.submit(service.publish, *each) for each in publishes]
            assert sum(call.result()["accepted"] for call in calls) == 30 * EVENTS_PER_CALL
        receiver.wait_until(
            lambda: all(receiver.deliveries(f"/{number}") for number in range(50)), timeout=60
        )
        assert peak_mib(service.pid) < STATED_MIB


class Silence:
    """Receivers that shake hands and answer nothing else."""

    def __init__(self) -> None:
        self.origins: list[str] = []
        # Deliveries that wait for an answer.
        self.waiting = 0
        self._end = asyncio.Event()
        self._taking: set[asyncio.Task[None]] = set()

    async def serve(self, ready: threading.Event) -> None:
        servers = [await asyncio.start_server(self._begin, "127.0.0.1", 0) for _ in range(ORIGINS)]
        self.origins = ["http://{}:{}".format(*server.sockets[0].getsockname()) for server in servers]
        ready.set()
        await self._end.wait()
        for server in servers:
            server.close()
        await asyncio.gather(*self._taking)

    def end(self) -> None:
        self._end.set()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._take(reader, writer))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        secrets = [line for line in lines if line.lower().startswith(b"x-hook-secret:")]
        if secrets:
            writer.write(
                b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % secrets[0]
            )
        else:
            self.waiting += 1
            await self._end.wait()
        writer.close()
        # The other side may have been killed.
        with suppress(OSError):
            await writer.wait_closed()


@contextmanager
def silence() -> Iterator[Silence]:
    made, ready = Silence(), threading.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(made.serve(ready),))
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(made.end)
        thread.join()
        loop.close()


@pytest.mark.parametrize(
    ("events", "size"), [(1_000, 650), (16, 60_000)], ids=["ordinary events", "large events"]
)
def test_targets_that_hang_stay_within_what_is_stated(tmp_path: Path, events: int, size: int) -> None:
    """Hundreds of webhooks, each with a megabyte behind it, and no target that answers."""
    value = {"gid": "1", "resource_type": "custom", "text": "x" * size}
    changes = [{"field": str(number), "action": "changed", "new_value": value} for number in range(events)]
    with silence() as targets, Service(tmp_path, environment={"TIDINGS_RATE_LIMIT": "0"}) as service:
        service.seed()
        with ThreadPoolExecutor(10) as pool:
            urls = [f"{targets.origins[number % ORIGINS]}/{number}" for number in range(HANGING)]
            list(pool.map(service.create_webhook, [PROJECT] * HANGING, urls))
        service.publish(*(event(TASK, "changed", change=change) for change in changes))
        wait_until(lambda: targets.waiting >= HANGING, timeout=60)
        assert peak_mib(service.pid) < STATED_MIB
        service.kill()


def test_a_task_that_meets_the_end_of_memory_ends_the_process() -> None:
    """At once: what is done at an orderly end needs memory."""
    program = """
import asyncio
from tidings.runtime.machine import run

async def fail():
    raise MemoryError

async def serve():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())

run(serve())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr == "out of memory; the process ends\n"


def test_a_thread_that_dies_takes_the_process_with_it() -> None:
    """Whoever waits for the writer would wait for ever."""
    program = """
import asyncio, threading
from tidings.runtime.machine import run

async def wait_for_ever():
    threading.Thread(target=lambda: 1 / 0, name="tidings-writer").start()
    await asyncio.Event().wait()

run(wait_for_ever())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "tidings-writer died: ZeroDivisionError" in ran.stderr
