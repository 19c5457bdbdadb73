"""The database does not grow for ever: what is past keeping goes, while everything works."""

import sqlite3
from functools import partial
from pathlib import Path

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Receiver, event, wait_until


def rows(database: Path, table: str) -> int:
    connection = sqlite3.connect(database)
    try:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    finally:
        connection.close()
    return int(count)


def has_rows(database: Path, table: str, count: int) -> bool:
    return rows(database, table) == count


def test_events_and_attempts_are_trimmed(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    """And positions go on rising: none is used twice."""
    service = start(TIDINGS_RETENTION="2s", TIDINGS_GIVE_UP_AFTER="1s", TIDINGS_RESTORE_WITHIN="1s")
    database = tmp_path / "tidings.db"
    service.create_webhook(PROJECT, receiver.url())
    gone = service.create_webhook(PROJECT, receiver.url("/gone"))["gid"]
    last = int(service.publish(*(event(TASK, "added") for _ in range(500)))["last"])
    receiver.wait_until(lambda: len(receiver.events()) == 500)
    service.ask("DELETE", f"/webhooks/{gone}")
    for table in ("events", "event_scopes", "attempts"):
        wait_until(partial(has_rows, database, table, 0))
    wait_until(partial(has_rows, database, "webhooks", 1))
    assert int(service.publish(event(TASK, "added"))["last"]) == last + 1
    receiver.wait_until(lambda: len(receiver.events()) == 501)
