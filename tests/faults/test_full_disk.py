"""No room: nothing is accepted, nothing is sent again and again, and with room all goes on by itself."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import tidings
from tests.faults.disks import Disk
from tests.serving import (
    PROJECT,
    SECTION,
    TASK,
    USER,
    WORKSPACE,
    Answer,
    Receiver,
    Request,
    Service,
    event,
    wait_until,
)

HOOKS = ("/one", "/two")


@pytest.fixture
def service(tmp_path: Path, any_disk: Disk) -> Iterator[Service]:
    """A service whose database lies on the small disk, with two webhooks to come; its log lies elsewhere."""
    settings = {"TIDINGS_RETRY_FIRST": "50ms", "TIDINGS_RETRY_MAX": "200ms"}
    database = f"sqlite:///{any_disk.folder / 'tidings.db'}"
    with Service(tmp_path, database=database, environment=settings) as made:
        made.seed()
        yield made


def numbered(numbers: range) -> list[dict[str, object]]:
    return [event(TASK, "changed", change={"field": str(n), "action": "changed"}) for n in numbers]


def publish_until_refused(service: Service, numbers: Iterator[range]) -> tuple[list[range], httpx.Response]:
    """Publish as long as there is room; what was acknowledged, and the refusal."""
    acknowledged: list[range] = []
    for some in numbers:
        answer = service.api("POST", "/events", data=numbered(some))
        if answer.status_code != 201:
            return acknowledged, answer
        acknowledged.append(some)
    raise AssertionError("there is no end of numbers")


def received(receiver: Receiver, hook: str) -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events(hook)]


def hundreds() -> Iterator[range]:
    return (range(first, first + 100) for first in itertools.count(0, 100))


def test_a_full_disk_accepts_nothing_and_loses_nothing(
    service: Service, any_disk: Disk, receiver: Receiver, tmp_path: Path
) -> None:
    for hook in HOOKS:
        service.create_webhook(PROJECT, receiver.url(hook))
    pid, numbers = service.pid, hundreds()
    acknowledged = [next(numbers), next(numbers)]
    for some in acknowledged:
        service.publish(*numbered(some))
    receiver.wait_until(lambda: all(len(received(receiver, hook)) == 200 for hook in HOOKS))
    any_disk.fill(pid)
    more, refusal = publish_until_refused(service, numbers)
    acknowledged += more
    assert refusal.status_code == 503
    assert refusal.headers["Retry-After"] == "1"
    assert refusal.json()["errors"][0]["code"] == "store_unavailable"
    # Reading goes on; making anything does not; whoever asks for readiness hears it.
    assert service.api("GET", f"/webhooks?workspace={WORKSPACE}").status_code == 200
    assert (
        service.api("POST", "/webhooks", data={"resource": TASK, "target": receiver.url()}).status_code == 503
    )
    wait_until(lambda: service.api("GET", f"{service.root_url}/readyz").status_code == 503)
    assert service.api("GET", f"{service.root_url}/healthz").status_code == 200
    _nothing_is_sent_again(service, receiver)
    any_disk.free(pid)
    last = next(numbers)
    wait_until(lambda: service.api("POST", "/events", data=numbered(last)).status_code == 201)
    acknowledged.append(last)
    wanted = [number for some in acknowledged for number in some]
    receiver.wait_until(lambda: all(len(received(receiver, hook)) >= len(wanted) for hook in HOOKS))
    for hook in HOOKS:
        assert received(receiver, hook) == wanted
    assert service.pid == pid and service.alive
    service.stop()
    assert integrity(any_disk.folder / "tidings.db") == "ok"


def test_callers_are_known_while_the_disk_is_full(service: Service, any_disk: Disk) -> None:
    """Though it cannot be noted that their tokens, which were not used for long, are; that is done later."""
    callers = [
        service.ask("POST", "/tokens", data={"user": USER, "scopes": ["webhooks:read"]}) for _ in range(5)
    ]
    any_disk.fill(service.pid)
    publish_until_refused(service, hundreds())
    # Of the room that the refused publish left in the log, less than a page or two.
    wait_until(lambda: service.api("DELETE", f"/resources/{SECTION}").status_code == 503)
    for caller in callers:
        answer = service.api("GET", f"/webhooks?workspace={WORKSPACE}", token=caller["token"])
        assert answer.status_code == 200, answer.text
    wait_until(lambda: "the last use of tokens cannot be noted yet" in service.log())
    any_disk.free(service.pid)
    service.stop()
    with closing(sqlite3.connect(any_disk.folder / "tidings.db")) as database:
        used = database.execute("SELECT count(*) FROM tokens WHERE last_used_at IS NOT NULL").fetchone()
    assert used == (len(callers) + 1,)


def _nothing_is_sent_again(service: Service, receiver: Receiver) -> None:
    """Let the dispatcher look at the full store some times."""
    looked = service.log().count("database")
    before = {hook: len(receiver.deliveries(hook)) for hook in HOOKS}
    for _ in range(20):
        service.api("POST", "/events", data=numbered(range(1)))
    wait_until(lambda: service.log().count("database") >= looked + 20)
    for hook in HOOKS:
        # What had been claimed when the disk became full may just have been under way.
        assert len(receiver.deliveries(hook)) <= before[hook] + 1


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    return str(verdict)


def test_attempts_under_way_are_recorded_when_there_is_room(
    service: Service, any_disk: Disk, receiver: Receiver
) -> None:
    """The receiver took it while the disk was full: it does not get it again, however long that lasted."""

    def fill_and_take(_: Request) -> Answer:
        any_disk.fill(service.pid)
        return Answer()

    receiver.on("/one", delivery=fill_and_take)
    service.create_webhook(PROJECT, receiver.url("/one"))
    service.publish(*numbered(range(3)))
    wait_until(lambda: "wait to be recorded" in service.log())
    any_disk.free(service.pid)
    receiver.on("/one", delivery=Answer())
    wait_until(lambda: service.api("POST", "/events", data=numbered(range(3, 4))).status_code == 201)
    receiver.wait_until(lambda: len(received(receiver, "/one")) >= 4)
    assert received(receiver, "/one") == [0, 1, 2, 3]


def test_a_backup_onto_a_full_disk_leaves_nothing_behind(tmp_path: Path, any_disk: Disk) -> None:
    """And the service's own disk is another."""
    database = ("--database", "sqlite:///tidings.db")
    assert tidings("migrate", *database, cwd=tmp_path).returncode == 0
    target = any_disk.folder / "copy.db"
    with any_disk.without_room():
        ran = tidings("backup", str(target), *database, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ") and ran.stderr.count("\n") == 1, ran.stderr
    assert list(any_disk.folder.iterdir()) == []
    assert tidings("backup", str(target), *database, cwd=tmp_path).returncode == 0


def test_a_database_can_be_looked_at_and_queued_for_without_room(disk: Disk) -> None:
    """Memory that is mapped to a file must have room in it: to touch it would end the process."""
    program = """
import sys
from pathlib import Path
from tidings.store.sqlite.turns import Turns

with Turns(Path(sys.argv[1])).turn():
    print("its turn")
"""
    with disk.without_room():
        command = [sys.executable, "-c", program, str(disk.folder / "tidings.db")]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "its turn\n"), ran
