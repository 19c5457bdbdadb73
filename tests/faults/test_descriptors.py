"""No file descriptor left: callers are turned away, deliveries say why, nothing spins, and all recovers by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.serving import PROJECT, TASK, WORKSPACE, Receiver, Service, event, wait_until

CALLERS: Final = 60
HOOKS: Final = [f"/{number}" for number in range(10)]
ROOM: Final = "this service has too many open files"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = {
        "TIDINGS_RETRY_FIRST": "50ms",
        "TIDINGS_RETRY_MAX": "200ms",
        "TIDINGS_GIVE_UP_AFTER": "1s",
    }
    with Service(tmp_path, environment=settings) as made:
        made.seed()
        yield made


def limit_descriptors(pid: int, number: int | None) -> None:
    """Let a process open descriptors below this number; None: as before."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(4096, hard) if number is None else number, hard))


def highest_descriptor(pid: int) -> int:
    return max(map(int, os.listdir(f"/proc/{pid}/fd")))


def lowest_free_descriptor(pid: int) -> int:
    """Below the highest there are some that were closed."""
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    return next(number for number in itertools.count() if number not in used)


def busy_share(pid: int) -> float:
    """Which part of the next half second the process spends computing."""

    def spent() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    began, before = time.monotonic(), spent()
    wait_until(lambda: time.monotonic() - began > 0.5)
    return (spent() - before) / (time.monotonic() - began)


def test_callers_beyond_the_limit_are_turned_away_and_the_rest_goes_on(
    service: Service, receiver: Receiver
) -> None:
    """What a caller holds open cannot keep the service from accepting for ever."""
    service.create_webhook(PROJECT, receiver.url())
    pid = service.pid
    limit_descriptors(pid, highest_descriptor(pid) + 9)
    with contextlib.ExitStack() as callers:
        connections = [
            callers.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            for _ in range(CALLERS)
        ]
        answered = sum(map(is_answered, connections))
        assert 0 < answered < CALLERS
        assert busy_share(pid) < 0.5
        assert service.alive
    limit_descriptors(pid, None)
    service.publish(event(TASK))
    receiver.wait_until(receiver.events)


def is_answered(connection: socket.socket) -> bool:
    connection.settimeout(5)
    with contextlib.suppress(OSError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(1 << 12).startswith(b"HTTP/1.1 200")
    return False


def test_deliveries_without_a_descriptor_say_so_and_are_made_later(
    service: Service, receiver: Receiver
) -> None:
    gids = [service.create_webhook(PROJECT, receiver.url(hook))["gid"] for hook in HOOKS]
    pid = service.pid
    # Every kept connection is closed by a receiver that went down and came back.
    receiver.hang_up()
    receiver.listen()
    service.publish(event(TASK))
    receiver.wait_until(lambda: all(receiver.events(hook) for hook in HOOKS))
    receiver.hang_up()
    receiver.listen()
    service.ask("GET", f"/webhooks?workspace={WORKSPACE}")
    wait_until(lambda: not connections_of(pid, receiver.port))
    limit_descriptors(pid, lowest_free_descriptor(pid))
    service.publish(event(TASK))
    wait_until(lambda: any(ROOM in failure_of(service, gid) for gid in gids))
    assert busy_share(pid) < 0.9
    # Longer than a webhook may fail: it is not their fault.
    hindered = next(gid for gid in gids if ROOM in failure_of(service, gid))
    wait_until(lambda: service.ask("GET", f"/webhooks/{hindered}")["delivery_retry_count"] > 20)
    limit_descriptors(pid, None)
    receiver.wait_until(lambda: all(len(deliveries_of(receiver, hook)) == 2 for hook in HOOKS))
    assert service.alive


def deliveries_of(receiver: Receiver, hook: str) -> set[str | None]:
    """The ids of what was taken: hanging up may have cut off an answer, and that delivery comes again."""
    return {request.header("webhook-id") for request in receiver.taken(hook)}


def failure_of(service: Service, gid: str) -> str:
    return str(service.ask("GET", f"/webhooks/{gid}")["last_failure_content"])


def connections_of(pid: int, port: int) -> list[str]:
    """The connections on this machine to a port, as the kernel lists them."""
    wanted = f":{port:04X}"
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[2].endswith(wanted) and line.split()[3] == "01"]
