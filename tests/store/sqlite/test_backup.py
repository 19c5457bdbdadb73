"""Copies of a database in use, and the databases that are made of them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.building import NOON, Case, delivered, fields, names_of
from tidings.dispatcher import delivery_id
from tidings.errors import StoreUnavailable, StoreUnfit
from tidings.model import Batch
from tidings.store.sqlite import SqliteStore, backup, open_store, schema

EVENTS = 200
KEY = "k"


def silent(done: int, of: int) -> None:
    """Progress that nobody looks at."""


def opened(path: Path, *, generation: str = "0" * 32) -> SqliteStore:
    return open_store(str(path), migrate=True, generation=generation, key_id=KEY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere" / "tidings.db"


@pytest.fixture
async def closed(path: Path) -> Path:
    """A database with a webhook and some events behind its cursor."""
    case = await Case.on(opened(path))
    await case.establish()
    await case.publish(*names_of(EVENTS), size=500)
    await case.store.drop_holder(case.holder)
    await case.store.close()
    return path


def ask(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


def make(source: Path, target: Path) -> Path:
    backup.back_up(source, target, now=NOON, progress=silent)
    return target


def restored(source: Path, target: Path, *, generation: str = "1" * 32) -> Path:
    assert backup.restore(source, target, generation=generation, progress=silent) == KEY
    return target


# -- backing up ------------------------------------------------------------------------------------


def test_a_backup_is_one_whole_file_for_its_owner(closed: Path, copy: Path, tmp_path: Path) -> None:
    make(closed, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *("copy.db", "tidings.db", "tidings.db-turns", "tidings.db-turns-bell")
    ]
    assert ask(copy, "PRAGMA integrity_check") == [("ok",)]
    assert ask(copy, "PRAGMA journal_mode") == [("delete",)]
    assert ask(copy, "SELECT count(*) FROM events") == [(EVENTS,)]


async def test_writers_go_on_and_the_backup_is_of_its_beginning(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of its steps something is written, and moved into the file where that can be."""
    monkeypatch.setattr(backup, "STEP_PAGES", 2)
    case = await Case.on(opened(path))
    await case.publish(*names_of(EVENTS), size=500)
    steps = []
    with closing(sqlite3.connect(path, isolation_level=None)) as beside:

        def write(done: int, of: int) -> None:
            steps.append((done, of))
            beside.execute("INSERT INTO idempotency VALUES ('t', ?, x'00', 1, 1, 1)", (f"key {done}",))
            beside.execute("DELETE FROM events WHERE position = ?", (len(steps),))
            beside.execute("PRAGMA wal_checkpoint(PASSIVE)")

        backup.back_up(path, copy, now=NOON, progress=write)
    await case.store.close()
    assert len(steps) > 10
    assert steps[-1][0] == steps[-1][1]
    assert ask(copy, "SELECT count(*) FROM events") == [(EVENTS,)]
    assert ask(copy, "SELECT count(*) FROM idempotency") == [(0,)]
    assert ask(path, "SELECT count(*) FROM idempotency") == [(len(steps),)]


def test_nothing_is_overwritten(closed: Path, copy: Path) -> None:
    copy.write_text("Dear diary")
    with pytest.raises(StoreUnfit, match=r"copy\.db exists already"):
        make(closed, copy)
    with pytest.raises(StoreUnfit, match=r"tidings\.db exists already"):
        make(closed, closed)
    assert copy.read_text() == "Dear diary"


def test_nothing_is_overwritten_that_appears_meanwhile(
    closed: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def intrude(done: int, of: int) -> None:
        copy.write_text("Dear diary")

    with pytest.raises(StoreUnfit, match="exists already"):
        backup.back_up(closed, copy, now=NOON, progress=intrude)
    assert copy.read_text() == "Dear diary"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *("copy.db", "tidings.db", "tidings.db-turns", "tidings.db-turns-bell")
    ]


def test_what_is_no_database_of_ours_is_not_backed_up(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(StoreUnfit, match="there is no database at"):
        make(tmp_path / "missing.db", copy)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE diary (entry TEXT)")
    before = other.read_bytes()
    with pytest.raises(StoreUnfit, match="another program's tables"):
        make(other, copy)
    assert other.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["other.db"]


def test_a_damaged_database_gives_no_backup(closed: Path, copy: Path, tmp_path: Path) -> None:
    spoil(closed)
    with pytest.raises(StoreUnavailable, match=r"tidings\.db.*(damaged|malformed)"):
        make(closed, copy)
    assert [each.name for each in tmp_path.iterdir() if "copy" in each.name] == []


def spoil(path: Path) -> None:
    """Damage the root of the events."""
    ((page,),) = ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'events'")
    assert isinstance(page, int)
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xa5" * 4_096)


# -- restoring -------------------------------------------------------------------------------------


async def test_a_restored_database_goes_on_where_the_backup_was(
    path: Path, copy: Path, elsewhere: Path
) -> None:
    """Whatever was leased, and whatever was delivered since, is claimed again at once."""
    case = await Case.on(opened(path))
    await case.establish()
    await case.publish(*names_of(3))
    held = await case.only()
    make(path, copy)
    await case.record(delivered(held, now=NOON))
    await case.publish("lost")
    await case.store.close()
    again = Case(opened(restored(copy, elsewhere)), holder=1)
    again.holder = await again.store.take_holder(now=NOON)
    claim = await again.only()
    assert fields(claim) == names_of(3)
    await again.store.close()


async def test_a_restored_log_is_another_log(path: Path, copy: Path, tmp_path: Path) -> None:
    """Its new events stand where lost ones stood: a delivery of them must not have the name of a lost one's."""
    case = await Case.on(opened(path))
    await case.establish()
    make(path, copy)
    names, generations = set(), set()
    paths = [path, *(restored(copy, tmp_path / f"{digit}.db", generation=digit * 32) for digit in "ab")]
    await case.store.close()
    for each in paths:
        branch = Case(opened(each), holder=1)
        branch.holder = await branch.store.take_holder(now=NOON)
        await branch.publish("e")
        claim = await branch.only()
        names.add(delivery_id(claim, Batch(claim.page, claim.page[-1].position)))
        generations.update(ask(each, "SELECT value FROM meta WHERE name = 'generation'"))
        await branch.store.close()
    assert len(names) == len(generations) == 3


async def test_a_backup_that_was_put_in_place_by_hand_begins_anew_too(
    closed: Path, copy: Path, elsewhere: Path
) -> None:
    shutil.copy(make(closed, copy), elsewhere)
    store = opened(elsewhere, generation="c" * 32)
    await store.close()
    assert ask(elsewhere, "SELECT value FROM meta WHERE name = 'generation'") == [("c" * 32,)]
    await opened(elsewhere, generation="d" * 32).close()
    assert ask(elsewhere, "SELECT value FROM meta WHERE name = 'generation'") == [("c" * 32,)]


async def test_a_database_in_use_does_not_begin_anew(closed: Path) -> None:
    before = ask(closed, "SELECT value FROM meta WHERE name = 'generation'")
    await opened(closed, generation="c" * 32).close()
    assert ask(closed, "SELECT value FROM meta WHERE name = 'generation'") == before


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (entry TEXT)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.migrations()[-1][0] + 1}")


@pytest.mark.parametrize(
    ("spoiling", "error", "words"),
    [
        (Path.unlink, StoreUnfit, "there is no backup at"),
        (lambda path: path.write_text("Dear diary" * 100), StoreUnavailable, "not a database"),
        (lambda path: path.write_text(""), StoreUnfit, "not a backup of Tidings"),
        (foreign, StoreUnfit, "not a backup of Tidings"),
        (newer, StoreUnfit, "written by a newer Tidings"),
        (spoil, StoreUnavailable, "damaged|malformed"),
    ],
)
def test_what_is_no_backup_is_not_restored(
    closed: Path,
    copy: Path,
    elsewhere: Path,
    spoiling: Callable[[Path], object],
    error: type[Exception],
    words: str,
) -> None:
    spoiling(make(closed, copy))
    with pytest.raises(error, match=words):
        restored(copy, elsewhere)
    assert list(elsewhere.parent.iterdir()) == []


def test_a_plain_copy_of_a_file_is_not_taken_for_a_backup(closed: Path, copy: Path, elsewhere: Path) -> None:
    shutil.copy(closed, copy)
    with pytest.raises(StoreUnfit, match="was not made by `tidings backup`"):
        restored(copy, elsewhere)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_remains_of_another_database_are_not_touched(
    closed: Path, copy: Path, elsewhere: Path, suffix: str
) -> None:
    """A log of writes that lies there would be taken for the new database's."""
    make(closed, copy)
    remains = Path(f"{elsewhere}{suffix}")
    remains.write_text("whatever")
    with pytest.raises(StoreUnfit, match=r"exists already|lies there"):
        restored(copy, elsewhere)
    assert [each.read_text() for each in elsewhere.parent.iterdir()] == ["whatever"]


def test_a_backup_may_be_restored_from_where_nothing_can_be_written(
    closed: Path, copy: Path, elsewhere: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    copy = make(closed, copy)
    content = copy.read_bytes()
    copy.chmod(0o400)
    restored(copy, elsewhere)
    assert copy.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == sorted([*before, copy])
