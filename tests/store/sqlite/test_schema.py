"""Opening a file: ours or another's, older or newer, sealed with which key, and several processes at once."""

import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from tidings.errors import StoreUnavailable, StoreUnfit
from tidings.store.sqlite import MEMORY, SqliteStore, open_store, schema
from tidings.store.sqlite.rows import read_meta


def opened(
    path: Path, *, migrate: bool = True, key_id: str = "k", sandbox: bool = False, generation: str = "g"
) -> SqliteStore:
    return open_store(str(path), migrate=migrate, generation=generation, key_id=key_id, sandbox=sandbox)


async def open_and_close(
    path: Path, *, migrate: bool = True, key_id: str = "k", sandbox: bool = False
) -> None:
    await opened(path, migrate=migrate, key_id=key_id, sandbox=sandbox).close()


def ask(path: Path, sql: str) -> object:
    connection = sqlite3.connect(path)
    try:
        row = connection.execute(sql).fetchone()
        return None if row is None else row[0]
    finally:
        connection.close()


def run(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


# -- fresh and again -------------------------------------------------------------------------------


async def test_a_fresh_file_is_made_ours(path: Path) -> None:
    await open_and_close(path)
    assert ask(path, "PRAGMA application_id") == schema.APPLICATION_ID
    assert ask(path, "PRAGMA user_version") == schema.migrations()[-1][0]
    assert ask(path, "PRAGMA journal_mode") == "wal"
    assert ask(path, "SELECT value FROM meta WHERE name = 'generation'") == "g"


async def test_opening_again_changes_nothing(path: Path) -> None:
    """The log keeps the name it was made under; who may serve it need not be allowed to migrate it."""
    await open_and_close(path)
    for migrate in (True, False):
        await opened(path, migrate=migrate, generation="another").close()
    assert ask(path, "SELECT value FROM meta WHERE name = 'generation'") == "g"


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [number for number, _ in schema.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_an_older_file_keeps_what_is_visible_from_where(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of the first version, filled and not yet read; afterwards appended to and read as any other."""
    with monkeypatch.context() as older:
        first = schema.migrations()[:1]
        older.setattr(schema, "migrations", lambda: first)
        connection = schema.connect(str(path))
        schema.migrate(connection, generation="g", sandbox=False)
    seen = [(scope, position) for position in (1, 2, 16_383, 16_384, 50_000) for scope in (1, 2)]
    connection.executemany("INSERT INTO event_scopes (scope, position) VALUES (?, ?)", seen)
    connection.close()
    store = opened(path)
    rows = await store._read(
        lambda connection: connection.execute("SELECT stretch, scope, position FROM event_scopes").fetchall()
    )
    await store.close()
    assert rows == sorted((position >> 14, scope, position) for scope, position in seen)
    assert ask(path, "PRAGMA integrity_check") == "ok"


async def test_every_connection_flushes_before_it_acknowledges(path: Path) -> None:
    store = opened(path)
    try:
        writing = await store._write(
            lambda connection: [
                connection.execute(f"PRAGMA {name}").fetchone() for name in ("synchronous", "journal_mode")
            ]
        )
        assert writing == [(2,), ("wal",)]
        connection = schema.connect(str(path))
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        connection.close()
        await store.close()


async def test_what_was_left_in_the_log_is_copied_into_the_database_at_the_next_start(
    path: Path, tmp_path: Path
) -> None:
    """A log that an earlier process could not flush is shown by the operating system, and may not be on disk."""
    store = opened(path)
    await store._write(lambda connection: connection.execute("INSERT INTO meta VALUES ('note', 7)").rowcount)
    left, alone = tmp_path / "left.db", tmp_path / "alone.db"
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{left}{suffix}")
    await store.close()
    store = open_store(str(left), migrate=False, generation="g", key_id="k", serve=True)
    shutil.copyfile(left, alone)
    await store.close()
    assert ask(alone, "SELECT value FROM meta WHERE name = 'note'") == 7


# -- refused ---------------------------------------------------------------------------------------


def test_a_file_without_a_write_ahead_log_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system: here SQLite locks with files, and shares no memory with other processes."""
    connect = sqlite3.connect

    def with_lock_files(name: str, **more: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(f"file:{name}?vfs=unix-dotfile", uri=True, **more)
        return made

    monkeypatch.setattr(sqlite3, "connect", with_lock_files)
    with pytest.raises(StoreUnfit, match="local disk"):
        opened(path)


def test_a_file_nobody_migrated_is_refused(path: Path) -> None:
    with pytest.raises(StoreUnfit, match="tidings migrate"):
        opened(path, migrate=False)


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_newer_versions_file_is_refused_and_left_alone(path: Path, migrate: bool) -> None:
    await open_and_close(path)
    run(path, "PRAGMA user_version = 999")
    with pytest.raises(StoreUnfit, match="newer"):
        opened(path, migrate=migrate)
    assert ask(path, "PRAGMA user_version") == 999


@pytest.mark.parametrize("migrate", [True, False])
def test_another_programs_file_is_refused_and_left_as_it_was(path: Path, migrate: bool) -> None:
    """Not a byte of it changes, its journal mode included."""
    run(
        path,
        "CREATE TABLE recipes (name TEXT)",
        "INSERT INTO recipes VALUES ('soup')",
        "PRAGMA user_version = 1",
    )
    before = path.read_bytes()
    with pytest.raises(StoreUnfit, match="another program"):
        opened(path, migrate=migrate)
    assert path.read_bytes() == before


@pytest.mark.parametrize("migrate", [True, False])
def test_a_file_that_is_no_database_is_refused(path: Path, migrate: bool) -> None:
    path.write_bytes(b"Dear diary, " * 1_000)
    with pytest.raises(StoreUnavailable):
        opened(path, migrate=migrate)
    assert path.read_bytes() == b"Dear diary, " * 1_000


@pytest.mark.parametrize("name", ["missing/tidings.db", "."])
def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        opened(tmp_path / name)


async def test_another_sealing_key_is_refused(path: Path) -> None:
    """Both keys are named, so that the operator can tell which one is wrong; the first is kept."""
    await open_and_close(path, key_id="first")
    with pytest.raises(StoreUnfit, match=r"first.*second"):
        opened(path, key_id="second")
    await open_and_close(path, key_id="first")


async def test_the_sandbox_touches_only_what_it_made(tmp_path: Path) -> None:
    """Interface §4. What the sandbox made may be served without it."""
    ours, sandboxes = tmp_path / "tidings.db", tmp_path / "sandbox.db"
    await open_and_close(ours)
    await open_and_close(sandboxes, sandbox=True)
    with pytest.raises(StoreUnfit, match="sandbox"):
        opened(ours, sandbox=True)
    await open_and_close(sandboxes, sandbox=True)
    await open_and_close(sandboxes)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_and_close(path)
    known = schema.migrations()
    broken = "CREATE TABLE extra (a TEXT) STRICT;\nCREATE TABLE meta (name TEXT) STRICT;\n"
    monkeypatch.setattr(schema, "migrations", lambda: [*known, (known[-1][0] + 1, broken)])
    with pytest.raises(StoreUnavailable, match="migrated"):
        opened(path)
    assert ask(path, "PRAGMA user_version") == known[-1][0]
    assert ask(path, "SELECT count(*) FROM sqlite_schema WHERE name = 'extra'") == 0


async def test_a_further_migration_is_applied_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_and_close(path)
    known = schema.migrations()
    further = known[-1][0] + 1
    monkeypatch.setattr(
        schema, "migrations", lambda: [*known, (further, "CREATE TABLE extra (a TEXT) STRICT;\n")]
    )
    with pytest.raises(StoreUnfit, match="tidings migrate"):
        opened(path, migrate=False)
    for _ in range(2):
        await open_and_close(path)
    assert ask(path, "PRAGMA user_version") == further


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StoreUnfit, match="too old"):
        opened(path)
    assert not path.exists()


def test_memory_is_a_store_too() -> None:
    connection = schema.connect(MEMORY)
    assert schema.migrate(connection, generation="g", sandbox=False) == len(schema.migrations())
    assert read_meta(connection, "generation") == "g"
    connection.close()


# -- at once ---------------------------------------------------------------------------------------


def _open_at_once(path: str, gate: Barrier, results: "multiprocessing.SimpleQueue[str]") -> None:
    gate.wait()
    try:
        connection = schema.connect(path)
        schema.migrate(connection, generation="g", sandbox=False)
        schema.check_current(connection)
        connection.close()
        results.put("fine")
    except Exception as error:
        results.put(repr(error))


def at_once(count: int, target: Callable[..., None], path: Path) -> list[str]:
    """Run a target in so many processes that start together."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=target, args=(str(path), gate, results)) for _ in range(count)]
    for process in processes:
        process.start()
    told = [results.get() for _ in processes]
    for process in processes:
        process.join(30)
    return told


def test_several_processes_may_make_one_file_at_once(tmp_path: Path) -> None:
    """Each finds it made, whoever came first."""
    for turn in range(3):
        path = tmp_path / f"{turn}.db"
        assert at_once(4, _open_at_once, path) == ["fine"] * 4
        assert ask(path, "SELECT count(*) FROM meta WHERE name = 'generation'") == 1
