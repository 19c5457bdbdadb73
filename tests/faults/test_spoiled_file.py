"""Damage that comes while the service runs: 503 and a line in the log, nothing acknowledged that is not kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.cli.commands import tidings
from tests.serving import PROJECT, TASK, Receiver, Service, event, wait_until

PAGE_BYTES: Final = 4_096


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A database with some thousand events in it, closed."""
    with Receiver() as receiver, Service(tmp_path) as service:
        service.seed()
        service.create_webhook(PROJECT, receiver.url())
        for _ in range(10):
            service.publish(*(event(TASK, "changed") for _ in range(300)))
        receiver.wait_until(lambda: len(receiver.events()) == 3_000)
    return tmp_path / "tidings.db"


def flip(path: Path, *, at: int, size: int = PAGE_BYTES) -> None:
    """Turn every bit of a stretch."""
    with path.open("r+b") as file:
        file.seek(at)
        turned = bytes(byte ^ 0xFF for byte in file.read(size))
        file.seek(at)
        file.write(turned)


def in_the_head(path: Path) -> None:
    flip(path, at=0, size=100)


def in_the_schema(path: Path) -> None:
    flip(path, at=100, size=PAGE_BYTES - 100)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, 10 * PAGE_BYTES + 100)


@pytest.mark.parametrize("damage", [in_the_head, in_the_schema, cut_in_half, cut_within_a_page])
def test_a_start_on_a_damaged_file_is_refused(filled: Path, damage: Callable[[Path], None]) -> None:
    damage(filled)
    ran = tidings("serve", "--port", "0", "--database", f"sqlite:///{filled}", cwd=filled.parent)
    assert ran.returncode == 1, ran
    assert "Traceback" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("Error: ")


def test_damage_in_the_middle_is_found_by_who_meets_it(filled: Path) -> None:
    """What does not touch it goes on; what does is answered with 503, and the log says why."""
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage"))
    for page in (roots["events"], roots["sqlite_autoindex_tokens_1"], roots["attempts"]):
        flip(filled, at=(page - 1) * PAGE_BYTES)
    service = Service(filled.parent, database=f"sqlite:///{filled}")
    service.start(ready=False)
    try:
        wait_until(lambda: "malformed" in service.log() or not service.alive)
        if service.alive:
            answer = service.api("POST", "/events", data=[event(TASK)])
            assert answer.status_code == 503, answer.text
    finally:
        if service.alive:
            service.kill()
    assert "Traceback" not in service.log()


def test_a_damaged_write_ahead_log_ends_where_it_is_damaged(tmp_path: Path) -> None:
    """To SQLite that is a write that a power cut tore: what is behind it is gone, and the rest is whole."""
    with Receiver() as receiver:
        service = Service(tmp_path)
        service.start()
        service.seed()
        service.create_webhook(PROJECT, receiver.url())
        for number in range(50):
            service.publish(event(TASK, "changed", change={"field": str(number), "action": "changed"}))
        receiver.wait_until(lambda: len(receiver.events()) == 50)
        service.kill()
        wal = tmp_path / "tidings.db-wal"
        assert wal.stat().st_size > 20 * PAGE_BYTES
        flip(wal, at=wal.stat().st_size // 2, size=64)
        service.start()
        service.publish(event(TASK, "changed", change={"field": "after", "action": "changed"}))
        receiver.wait_until(lambda: receiver.events()[-1]["change"]["field"] == "after")
        service.stop()
    with closing(sqlite3.connect(tmp_path / "tidings.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (kept,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert 1 < kept < 51


def test_a_file_taken_away_while_it_is_served(tmp_path: Path) -> None:
    """Whoever moves it away is told nothing; but a file of another kind in its place is not written to."""
    with Service(tmp_path) as service:
        service.seed()
        shutil.move(tmp_path / "tidings.db", tmp_path / "elsewhere.db")
        (tmp_path / "tidings.db").write_text("Dear diary,\n" * 1000)
        assert service.api("POST", "/events", data=[event(TASK)]).status_code in (201, 503)
        assert (tmp_path / "tidings.db").read_text().startswith("Dear diary")
