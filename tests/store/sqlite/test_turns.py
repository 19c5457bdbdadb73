"""Processes that write to one file take turns: none waits for another's whole load."""

import os
import sqlite3
import statistics
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


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


HERE = turns._namespace() << 32
ELSEWHERE = (turns._namespace() + 1) << 32


@pytest.mark.parametrize(
    ("last", "alone"),
    [
        pytest.param(0, True, id="nobody"),
        # No process has a number that large (proc(5), pid_max).
        pytest.param(HERE | 1 << 22, True, id="one that is gone"),
        pytest.param(HERE | os.getppid(), False, id="one that is there"),
        pytest.param(ELSEWHERE | 1 << 22, False, id="one in another container"),
        pytest.param(ELSEWHERE | os.getpid(), False, id="one of the same number in another container"),
    ],
)
def test_who_opens_a_file_that_another_wrote_is_alone_if_that_is_gone(
    path: Path, last: int, alone: bool
) -> None:
    path.with_name(f"{path.name}-turns").write_bytes(last.to_bytes(8, sys.byteorder))
    ours = turns.Turns(path)
    with ours.turn() as told:
        assert told is alone
    ours.close()


def test_who_cannot_have_turns_is_not_surely_alone(path: Path) -> None:
    path.with_name(f"{path.name}-turns").mkdir()
    ours = turns.Turns(path)
    with ours.turn() as told:
        assert not told
    ours.close()
    with turns.Turns(None).turn() as told:
        assert told


@contextmanager
def held_beside(path: Path) -> Iterator[Callable[[], None]]:
    """Another process has the turn; gives what makes it leave."""
    with beside(path, "hold") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"

        def leave() -> None:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

        yield leave


@contextmanager
def taking_turn(ours: turns.Turns) -> Iterator[None]:
    """A turn is taken in a thread meanwhile; it has had it at the end."""

    def take() -> None:
        with ours.turn():
            pass

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    yield
    taking.join(60)
    assert not taking.is_alive()


def test_who_leaves_wakes_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does not try again by itself here, so it would wait for ever."""
    monkeypatch.setattr(turns, "WAKE_SECONDS", 1_000.0)
    monkeypatch.setattr(turns, "WAIT_SECONDS_MAX", 1_000.0)
    ours = turning.beside_others(path)
    with held_beside(path) as leave, taking_turn(ours):
        # It is the next: nobody else can be.
        wait_until(lambda: not _free(path, turns._NEXT))
        leave()
    ours.close()


def test_a_bell_that_was_rung_for_nobody_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often: it is heard once, and after that the lock is what counts."""
    monkeypatch.setattr(turns, "WAKE_SECONDS", 1_000.0)
    ours = turning.beside_others(path)
    assert ours._bell is not None
    for _ in range(100_000):
        ours._bell.ring()
    with held_beside(path) as leave, taking_turn(ours):
        wait_until(lambda: not _free(path, turns._NEXT))
        leave()
    ours.close()


def _free(path: Path, place: int) -> bool:
    """Whether another process could lock this, asked from yet another: a process's own locks never hinder it."""
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))\n"
    )
    name = str(path.with_name(f"{path.name}-turns"))
    asked = [sys.executable, "-c", code, name, str(place)]
    return subprocess.run(asked, stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_where_there_can_be_no_bell_turns_are_tried_for(path: Path) -> None:
    path.with_name(f"{path.name}-turns-bell").mkdir()
    ours = turning.beside_others(path)
    with held_beside(path) as leave, taking_turn(ours):
        leave()
    ours.close()


def test_a_file_in_the_bells_place_is_not_rung(path: Path) -> None:
    place = path.with_name(f"{path.name}-turns-bell")
    place.write_text("somebody's")
    ours = turning.beside_others(path)
    with ours.turn():
        pass
    ours.close()
    assert place.read_text() == "somebody's"


async def test_stores_go_on_where_no_file_can_be_made_beside_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.with_name(f"{path.name}-turns").mkdir()
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    await store.check()
    await store.close()
