"""Processes that write to one file take turns: none waits for another's whole load."""

import sqlite3
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import wait_until
from tests.store.sqlite import turning
from tidings.store.sqlite import SqliteStore, open_store, turns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    await store._write(lambda connection: connection.execute("INSERT INTO meta VALUES ('marks', 0)").rowcount)
    yield store
    await store.close()


@contextmanager
def beside(path: Path, does: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process on the same file."""
    command = [sys.executable, "-m", turning.__name__, str(path), does]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def marks(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT value FROM meta WHERE name = 'marks'").fetchone()
    return int(count)


async def test_who_wants_to_write_waits_for_a_transaction_or_two(store: SqliteStore, path: Path) -> None:
    """Not for the pause of one who writes without any: of those there is none."""
    looking = sqlite3.connect(path)
    with beside(path, "write"):
        wait_until(lambda: marks(looking) > 20)
        waited = []
        for _ in range(40):
            before = marks(looking)
            waited.append(await store._write(marks) - before)
    looking.close()
    assert statistics.mean(waited) <= 3 * turning.UNITS, waited


async def test_a_process_that_stands_still_with_the_turn_holds_nobody_up_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that was killed with it."""
    monkeypatch.setattr(turns, "WAIT_SECONDS_MAX", 0.05)
    ours = turning.beside_others(path)
    with beside(path, "hold") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with ours.turn():
            assert process.poll() is None
    with ours.turn():
        pass
    ours.close()


async def test_stores_go_on_where_no_file_can_be_made_beside_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.with_name(f"{path.name}-turns").mkdir()
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    await store.check()
    await store.close()
