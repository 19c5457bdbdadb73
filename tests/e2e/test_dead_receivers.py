"""Thousands of webhooks whose receivers are dead, beside some whose receivers are well.

What is asserted are conditions: everything arrives, memory stays within a bound, retries are spread. How fast that is,
`make bench-full` says.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bench.filling import fill, project
from bench.machine import CAN_LOOK, resident_mib
from bench.receivers import own_receiver
from bench.scenarios.dead import everywhere

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, WORKSPACE, Answer, Receiver, Service, event, free_port, wait_until
from tidings.limits import BODY_BYTES_MAX, EVENT_BYTES_MAX

DEAD = 3_000
ALIVE = range(10)
ROUNDS = 5
# What a service may hold resident, MiB: five times what it takes at rest. If it held backlogs or failures in memory,
# it would pass this by far.
RESIDENT_MAX_MIB = 256
# Parts of the retry interval, and how many times its share one part may hold at most.
PARTS = 20
CROWDED = 3


@pytest.fixture(params=["refuses", "never answers"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port on which every address of this machine is dead, in one of two ways."""
    if request.param == "refuses":
        yield free_port()
    else:
        with own_receiver("--silent", "--host", "0.0.0.0") as port:
            yield port


class Crowd:
    """A service with some webhooks at a receiver, and thousands, filled in by SQL, at dead ones."""

    def __init__(self, service: Service, database: Path) -> None:
        self.service = service
        self._database = database

    def publish(self, numbers: range, field: str) -> None:
        """An event for each of these webhooks."""
        change = {"field": field, "action": "changed"}
        for first in range(numbers.start, numbers.stop, 1000):
            chosen = range(first, min(first + 1000, numbers.stop))
            self.service.publish(*(event(project(number), "changed", change=change) for number in chosen))

    def rows(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute(statement).fetchall()

    def all_dead_failed(self) -> bool:
        return self.rows("SELECT count(*) FROM cursors WHERE failures > 0") == [(DEAD,)]


@pytest.fixture
def crowd(start: Start, receiver: Receiver, tmp_path: Path, dead_port: int) -> Crowd:
    database = tmp_path / "tidings.db"
    first = start("--no-dispatch")
    for number in ALIVE:
        first.put_resource(project(number), "project", parents=[WORKSPACE])
        first.create_webhook(project(number), receiver.url(f"/{number}"))
    first.stop()
    fill(
        database,
        workspace=WORKSPACE,
        count=DEAD,
        first=ALIVE.stop,
        origins=everywhere(DEAD, dead_port),
    )
    # A short timeout, so that those that never answer have all failed soon; long waits, so that none fails twice.
    service = start(
        TIDINGS_DELIVERY_TIMEOUT="1s",
        TIDINGS_RETRY_FIRST="30s",
        TIDINGS_RETRY_MAX="30s",
        TIDINGS_BATCH_MAX="1",
    )
    return Crowd(service, database)


def test_the_healthy_get_everything_and_the_dead_cost_little(crowd: Crowd, receiver: Receiver) -> None:
    """While thousands fail and when they have failed: all events in order; memory bounded; retries spread."""
    crowd.publish(ALIVE, "0")
    crowd.publish(range(ALIVE.stop, ALIVE.stop + DEAD), "0")
    for number in range(1, ROUNDS):
        crowd.publish(ALIVE, str(number))
    wait_until(crowd.all_dead_failed, timeout=60)
    for number in range(ROUNDS, 2 * ROUNDS):
        crowd.publish(ALIVE, str(number))
    for number in ALIVE:
        # Within a wait for a retry: where all of this machine stands still, an answer may be too late for the timeout.
        receiver.wait_until(partial(has_received, receiver, number, 2 * ROUNDS), timeout=60)
        assert fields(receiver, number) == [str(each) for each in range(2 * ROUNDS)]
    if CAN_LOOK:
        assert resident_mib(crowd.service.pid) < RESIDENT_MAX_MIB
    due = [at for (at,) in crowd.rows("SELECT next_attempt_at FROM cursors WHERE failures > 0")]
    begin, end = min(due), max(due)
    parts = Counter((at - begin) * PARTS // (end - begin + 1) for at in due)
    assert max(parts.values()) < CROWDED * DEAD / PARTS


def fields(receiver: Receiver, number: int) -> list[str]:
    """Each where it first came."""
    return list(dict.fromkeys(each["change"]["field"] for each in receiver.events(f"/{number}")))


def has_received(receiver: Receiver, number: int, count: int) -> bool:
    return len(fields(receiver, number)) >= count


@pytest.mark.skipif(not CAN_LOOK, reason="what a process holds resident is read from /proc")
def test_a_backlog_is_not_held_in_memory(start: Start, receiver: Receiver) -> None:
    """More unread events than the service may hold resident, behind a receiver that refuses them again and again."""
    service = start(TIDINGS_RETRY_FIRST="100ms", TIDINGS_RETRY_MAX="100ms")
    service.create_webhook(PROJECT, receiver.url())
    receiver.on("/hook", delivery=Answer(503))
    large = {"gid": "1", "resource_type": "story", "text": "x" * (EVENT_BYTES_MAX - 1000)}
    change = {"field": "notes", "action": "changed", "new_value": large}
    call = [event(TASK, "changed", change=change)] * (BODY_BYTES_MAX // EVENT_BYTES_MAX)
    published = 0
    while published < RESIDENT_MAX_MIB << 20:
        service.publish(*call)
        published += len(call) * EVENT_BYTES_MAX
    tries = len(receiver.deliveries())
    receiver.wait_until(lambda: len(receiver.deliveries()) > tries + 2)
    assert resident_mib(service.pid) < RESIDENT_MAX_MIB
