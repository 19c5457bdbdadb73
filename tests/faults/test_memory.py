"""Too little memory ends the process instead of crippling it; and a big backlog does not need much."""

from __future__ import annotations

import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx

from tests.serving import PROJECT, TASK, Answer, Receiver, Service, event

# What docs/operations.md says that one process may need with the default settings.
STATED_MIB: Final = 300
EVENTS_PER_CALL: Final = 600


def megabyte(first: int) -> list[dict[str, object]]:
    """A publish of nearly the largest size there is."""
    value = {"gid": "1", "resource_type": "custom", "name": "x" * 1_000}
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
        acknowledged = [service.publish(*megabyte(0))["accepted"]]
        limit_memory(service.pid, more=-(64 << 20))
        status = None
        for number in range(1, 200):
            try:
                answer = service.api("POST", "/events", data=megabyte(number * EVENTS_PER_CALL))
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
            calls = [pool.submit(service.publish, *megabyte(call * EVENTS_PER_CALL)) for call in range(30)]
            assert sum(call.result()["accepted"] for call in calls) == 30 * EVENTS_PER_CALL
        receiver.wait_until(
            lambda: all(receiver.deliveries(f"/{number}") for number in range(50)), timeout=60
        )
        assert peak_mib(service.pid) < STATED_MIB


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
