"""Several processes as one service: `serve --workers N`, its processes killed one by one, and their parent."""

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import Running
from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Answer, Receiver, Request, Service, event, wait_until

# A lease is longer than a delivery may take: what is taken over within half of that was not waited for.
LONG_LEASE = {"TIDINGS_DELIVERY_TIMEOUT": "60s"}
SOON_SECONDS = 30.0


def numbered(number: int) -> dict[str, object]:
    return event(TASK, "changed", change={"field": str(number), "action": "changed"})


def received(receiver: Receiver, path: str = "/hook") -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events(path)]


def has_received(receiver: Receiver, path: str, count: int) -> bool:
    return len(set(received(receiver, path))) >= count


def said(service: Service, message: str) -> list[dict[str, object]]:
    """The lines of the log that say this."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == message]


def processes(service: Service) -> dict[int, int]:
    """The processes of the workers by their number: the latest of each."""
    return {int(str(line["worker"])): int(str(line["pid"])) for line in said(service, "worker answers")}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def announced(service: Service, times: int = 1) -> dict[int, int]:
    """Wait until the service says that it serves; its processes."""
    wait_until(lambda: len(said(service, "serving")) == times, timeout=30)
    return processes(service)


def replaced(service: Service, before: dict[int, int]) -> bool:
    """Whether another process of each number answers."""
    return all(pid != before[number] for number, pid in processes(service).items())


class Gate:
    """Deliveries that wait until the test lets them pass; those after that pass at once."""

    def __init__(self, receiver: Receiver, *paths: str) -> None:
        self.opened = threading.Event()
        for path in paths:
            receiver.on(path, delivery=self._answer)

    def _answer(self, request: Request) -> Answer:
        assert self.opened.wait(20), "the gate stayed shut"
        return Answer()


def test_they_share_the_work_and_deliver_each_event_once_in_order(start: Start, receiver: Receiver) -> None:
    """One process may have two deliveries in flight to one origin here; the receiver sees six at once."""
    service = start("--workers", "3", TIDINGS_CONCURRENCY="8")
    announced(service)
    paths = [f"/{number}" for number in range(12)]
    for path in paths:
        service.create_webhook(PROJECT, receiver.url(path))
    gate = Gate(receiver, *paths)
    for first in range(0, 600, 20):
        service.publish(*map(numbered, range(first, first + 20)))
    receiver.wait_until(lambda: sum(receiver.in_flight.values()) == 6)
    with closing(sqlite3.connect(service.database.removeprefix("sqlite:///"))) as database:
        leased = "SELECT holder, count(*) FROM cursors WHERE lease_until IS NOT NULL GROUP BY holder"
        assert [count for _, count in database.execute(leased)] == [2, 2, 2]
    gate.opened.set()
    for path in paths:
        receiver.wait_until(partial(has_received, receiver, path, 600), timeout=60)
        assert received(receiver, path) == list(range(600))
    assert receiver.overlaps == 0


def test_a_worker_that_is_killed_under_load_loses_nothing(start: Start, receiver: Receiver) -> None:
    """Another takes its place; each event comes at least once, in order, at most one batch of them again."""
    service = start("--workers", "2")
    before = announced(service)
    service.create_webhook(PROJECT, receiver.url())
    for number, pid in sorted(before.items()):
        begin = number * 2_000
        for first in range(begin, begin + 1_000, 100):
            publish(service, range(first, first + 100))
        os.kill(pid, signal.SIGKILL)
        for first in range(begin + 1_000, begin + 2_000, 100):
            publish(service, range(first, first + 100))
    receiver.wait_until(partial(has_received, receiver, "/hook", 4_000), timeout=60)
    came = received(receiver)
    assert list(dict.fromkeys(came)) == list(range(2_000, 6_000))
    assert len(came) - 4_000 <= 200
    wait_until(lambda: replaced(service, before), timeout=30)
    ends = said(service, "a worker ended, another takes its place")
    assert sorted(str(line["worker"]) for line in ends) == ["1", "2"]
    assert {line["how"] for line in ends} == {"killed by SIGKILL"}


def publish(service: Service, numbers: range) -> None:
    """Publish until it is acknowledged: the process at the other end of the connection may be killed meanwhile."""
    for _ in range(5):
        try:
            service.publish(*map(numbered, numbers), key=f"from {numbers.start}")
            return
        except httpx.TransportError:
            continue
    raise AssertionError("five processes in a row were killed")


def test_what_killed_workers_held_is_delivered_at_once(start: Start, receiver: Receiver) -> None:
    service = start("--workers", "2", **LONG_LEASE)
    before = announced(service)
    service.create_webhook(PROJECT, receiver.url())
    held = threading.Event()

    def hold(request: Request) -> Answer:
        if held.is_set():
            return Answer()
        held.set()
        receiver.closing.wait(30)
        return Answer(500)

    receiver.on("/hook", delivery=hold)
    service.publish(numbered(0))
    assert held.wait(15)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    receiver.wait_until(lambda: received(receiver) == [0], timeout=SOON_SECONDS)


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(start: Start, receiver: Receiver) -> None:
    service = start("--workers", "2")
    before = announced(service)
    service.create_webhook(PROJECT, receiver.url())
    gate = Gate(receiver, "/hook")
    service.publish(numbered(0))
    receiver.wait_until(lambda: receiver.deliveries())
    for pid in before.values():
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: len(said(service, "stopping, once what is under way is done")) == 2)
    gate.opened.set()
    wait_until(lambda: replaced(service, before), timeout=30)
    service.publish(numbered(1))
    receiver.wait_until(lambda: received(receiver) == [0, 1])
    ends = said(service, "a worker ended, another takes its place")
    assert {line["how"] for line in ends} == {"status 0"}


def test_sigterm_finishes_what_is_in_flight(start: Start, receiver: Receiver) -> None:
    """Status 0 once every worker has recorded what it was doing, and nothing is sent again."""
    service = start("--workers", "2")
    workers = announced(service)
    paths = ("/one", "/two", "/three")
    for path in paths:
        service.create_webhook(PROJECT, receiver.url(path))
    gate = Gate(receiver, *paths)
    service.publish(numbered(0))
    receiver.wait_until(lambda: sum(receiver.in_flight.values()) == 3)
    os.kill(service.pid, signal.SIGTERM)
    wait_until(lambda: len(said(service, "stopping, once what is under way is done")) == 2)
    assert service.alive
    gate.opened.set()
    service.stop()
    assert not any(map(alive, workers.values()))
    service.start()
    service.publish(numbered(1))
    for path in paths:
        receiver.wait_until(partial(has_received, receiver, path, 2))
        assert received(receiver, path) == [0, 1]


def test_a_killed_parent_leaves_no_process_behind(start: Start, receiver: Receiver) -> None:
    """The workers finish as if told to: what is in flight is recorded, and comes once."""
    service = start("--workers", "2")
    workers = announced(service)
    service.create_webhook(PROJECT, receiver.url())
    gate = Gate(receiver, "/hook")
    service.publish(numbered(0))
    receiver.wait_until(lambda: receiver.deliveries())
    service.kill()
    wait_until(lambda: len(said(service, "stopping, once what is under way is done")) == 2)
    gate.opened.set()
    wait_until(lambda: not any(map(alive, workers.values())))
    service.start()
    announced(service, times=2)
    service.publish(numbered(1))
    receiver.wait_until(lambda: received(receiver) == [0, 1])


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still, as under a debugger."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_tokens_rate_is_the_same_for_all_of_them(start: Start) -> None:
    """Whoever answers: while one worker stands still the other does."""
    service = start("--workers", "2", TIDINGS_RATE_LIMIT="2")
    one, other = announced(service).values()
    ask = partial(
        httpx.get,
        f"{service.base_url}/webhooks/1",
        headers={"Authorization": f"Bearer {service.token}"},
        trust_env=False,
        timeout=30,
    )
    with stopped(one):
        assert [ask().status_code for _ in range(3)] == [404, 404, 429]
    with stopped(other):
        assert ask().status_code == 429


def test_a_worker_that_cannot_run_any_more_ends_all_of_them(tmp_path: Path) -> None:
    """The key was exchanged under the running service; the first to look again says so, once."""
    database = ("--database", "sqlite:///tidings.db")
    with Running("serve", "--workers", "2", "--port", "0", *database, cwd=tmp_path) as serve:
        serve.said('"serving"')
        (tmp_path / "tidings.db.key").write_text("ab" * 32)
        os.kill(json.loads(serve.said("worker answers"))["pid"], signal.SIGKILL)
        assert serve.process.wait(30) == 1
        errors = [line for line in serve.err if line.startswith("Error: ")]
    assert len(errors) == 1 and "sealed with key" in errors[0]
    assert not any("Traceback" in line for line in serve.err)


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_workers_that_end_before_they_answer_end_the_start(end: str, tmp_path: Path) -> None:
    """A broken installation is said at once, not tried for ever."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'tidings.runtime.worker' in sys.orig_argv:\n    {end}\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    with Running("serve", "--workers", "2", "--port", "0", cwd=tmp_path, env=env) as serve:
        assert serve.process.wait(30) == 1
    [line] = serve.err
    assert line.startswith("Error: worker ") and "ended before all of them answered" in line
