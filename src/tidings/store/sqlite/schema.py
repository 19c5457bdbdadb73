"""Opening a SQLite file: connections as we want them, and numbered migrations.

`user_version` counts the migrations that were applied, `application_id` says whose file it is. A file of a newer
version is refused rather than guessed at.
"""

import sqlite3
import time
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from tidings.errors import StoreUnavailable, StoreUnfit

# "Tdng": marks a file as ours (https://www.sqlite.org/fileformat.html#application_id).
APPLICATION_ID: Final = 0x54646E67
# STRICT tables came with 3.37, JSON functions in every build with 3.38.
SQLITE_VERSION_MIN: Final = (3, 38, 0)
# Statements that stay prepared: a dozen sizes of each on sets, and all others.
STATEMENTS_MAX: Final = 256
# How long a writer waits for another process's transaction, milliseconds; ours take some ten.
BUSY_TIMEOUT_MS: Final = 5_000
# How soon a lock is tried again that SQLite itself does not wait for, seconds.
BUSY_PAUSE_SECONDS: Final = 0.01
# Page cache per connection, KiB: a million cursors' hot pages fit.
CACHE_KIB: Final = 64 << 10
# Pages in the write-ahead log before they are moved into the file: 16 MiB, so that a burst is moved once.
CHECKPOINT_PAGES: Final = 4_000
# How much of the write-ahead log's file is left, bytes, when the log begins anew: what a long reader (a backup) had it
# grow to is given back to the disk, and four times what it takes otherwise is not made anew each time.
LOG_FILE_BYTES_KEPT: Final = 64 << 20


def connect(path: str, *, readonly: bool = False) -> sqlite3.Connection:
    """Open a connection with explicit transactions. `path` is a file's, or `:memory:`.

    Raises:
        StoreUnavailable: the file cannot be opened.
        StoreUnfit: it is another program's, or this Python's SQLite is too old.
    """
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise StoreUnfit(
            f"SQLite {sqlite3.sqlite_version} is too old: Tidings needs "
            f"{'.'.join(map(str, SQLITE_VERSION_MIN))} or newer. Use a Python that was built with one."
        )
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
            cached_statements=STATEMENTS_MAX,
        )
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error}") from error
    try:
        _set_up(connection, readonly=readonly)
    except sqlite3.Error as error:
        connection.close()
        raise StoreUnavailable(f"{path} cannot be opened: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, *, readonly: bool) -> None:
    # First of all: turning on WAL would already change another program's file.
    _check_ours(connection)
    _turn_on_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_FILE_BYTES_KEPT}")
    if readonly:
        connection.execute("PRAGMA query_only = ON")


def _check_ours(connection: sqlite3.Connection) -> None:
    # In this order: a process that makes the file meanwhile commits its tables and its mark together.
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID and tables:
        raise StoreUnfit("the database holds another program's tables; name another file")


def _turn_on_wal(connection: sqlite3.Connection) -> None:
    """Wait for others that do the same with a fresh file: SQLite waits for most locks, but not for this one."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_PAUSE_SECONDS)
    if mode not in ("wal", "memory"):
        raise StoreUnfit("SQLite cannot keep a write-ahead log there; put the database on a local disk")


def migrations() -> list[tuple[int, str]]:
    """All migrations as (number, SQL), in order."""
    found = sorted(_scripts(), key=lambda entry: entry.name)
    return [(int(entry.name.split("_", 1)[0]), entry.read_text("utf-8")) for entry in found]


def _scripts() -> Iterator[Traversable]:
    folder = resources.files("tidings.store.sqlite").joinpath("migrations")
    return (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))


def version(connection: sqlite3.Connection) -> int:
    """How many migrations the file has seen."""
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def migrate(connection: sqlite3.Connection, *, generation: str, sandbox: bool) -> int:
    """Bring the file to this version, each migration in a transaction of its own; gives how many were applied.

    Raises:
        StoreUnavailable: the file cannot be read or written.
    """
    try:
        applied = 0
        for number, script in migrations():
            applied += _apply(connection, number, script, generation=generation, sandbox=sandbox)
        return applied
    except sqlite3.DatabaseError as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise StoreUnavailable(f"the database could not be migrated: {error}") from error


def _apply(
    connection: sqlite3.Connection, number: int, script: str, *, generation: str, sandbox: bool
) -> int:
    # Checked inside the transaction: another process may be migrating the same file.
    connection.execute("BEGIN IMMEDIATE")
    if version(connection) >= number:
        connection.execute("ROLLBACK")
        return 0
    for statement in _statements(script):
        connection.execute(statement)
    if number == 1:
        connection.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?)",
            [("generation", generation), ("sandbox", int(sandbox))],
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("COMMIT")
    return 1


def check_current(connection: sqlite3.Connection) -> None:
    """Raise `StoreUnfit` unless the file has seen exactly the migrations this version knows."""
    known = migrations()[-1][0]
    found = check_known(connection)
    if found < known:
        raise StoreUnfit(
            f"the database has schema {found}, this version needs {known}: run `tidings migrate` first"
        )


def check_known(connection: sqlite3.Connection) -> int:
    """How many migrations the file has seen; raises `StoreUnfit` if there are more than this version knows."""
    known = migrations()[-1][0]
    try:
        found = version(connection)
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the database cannot be read: {error}") from error
    if found > known:
        raise StoreUnfit(
            f"the database was written by a newer Tidings (schema {found}; this version knows {known}). "
            "Upgrade, or name another database."
        )
    return found


def _statements(script: str) -> Iterator[str]:
    """Split a script so that it can run inside a transaction (`executescript` would commit first)."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
