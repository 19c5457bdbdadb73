"""The simulated disk: real SQLite files, of which a power cut leaves what was flushed, with errors on demand.

Every connection of the store is a `Connection`. It tells the disk of every commit, and whether that was flushed
(`synchronous = FULL`) or only handed to the operating system; a flush by itself is told too. A killed process leaves
what was committed; a power cut leaves the last flushed commit and, by chance, some of those behind it.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final
from unittest.mock import patch

from tidings.store.sqlite import schema, wal

GENERATION: Final = "simulated"
BUSY, IO_ERROR, FULL = "busy", "io_error", "full"
_MESSAGES: Final = {BUSY: "database is locked", IO_ERROR: "disk I/O error", FULL: "database or disk is full"}
_CODES: Final = {BUSY: sqlite3.SQLITE_BUSY, IO_ERROR: sqlite3.SQLITE_IOERR, FULL: sqlite3.SQLITE_FULL}


_connect: Final = sqlite3.connect


class Connection(sqlite3.Connection):
    """A connection that commits under the eyes of the disk."""

    disk: Disk | None = None
    flushing = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What the units of the open transaction came to, for whoever watches commits.
        self.noted: list[Any] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        disk = self.disk
        if disk is None:
            return super().execute(sql, parameters)
        if disk.trouble is not None:
            disk.perhaps_fail(self, sql, super().execute)
        if sql == "COMMIT":
            cursor = super().execute(sql)
            disk.committed(self)
            return cursor
        if sql.startswith("PRAGMA wal_checkpoint"):
            # The log here only grows: see `disk`.
            sql = "SELECT 0, 0, 0"
        elif sql == "BEGIN IMMEDIATE":
            self.noted.clear()
        elif sql.startswith("PRAGMA synchronous ="):
            self.flushing = "FULL" in sql
        return super().execute(sql, parameters)


class Disk:
    """One database, through crashes and power cuts. `watch` is told what each commit held, in order."""

    def __init__(self, folder: Path, dice: random.Random, *, key_id: str) -> None:
        self._folder = folder
        self._dice = dice
        self._number = 0
        self._open: dict[object, list[Connection]] = {}
        # Commits since the last flush: the size of the log behind each, what it held, and whose it was.
        self._unflushed: list[tuple[int, list[Any], Connection]] = []
        self._flushed = 0
        self.opener: object = None
        # What goes wrong now, and how often (of 1): None when nothing does.
        self.trouble: str | None = None
        self.odds = 0.0
        self.failures: dict[str, int] = {}
        self.watch: Callable[[list[Any]], None] = lambda entries: None
        # Told what a connection has left unflushed when it commits again.
        self.left: Callable[[list[Any]], None] = lambda entries: None
        self.path, self._wal = self._place()
        shutil.copyfile(template(key_id), self.path)
        self.witness = self._look()

    def _look(self) -> sqlite3.Connection:
        """A connection of the world's own: to look at rows, and so that no process is ever the last to close."""
        connection = _connect(self.path, isolation_level=None)
        connection.execute("SELECT count(*) FROM meta").fetchone()
        return connection

    def _place(self) -> tuple[str, str]:
        path = str(self._folder / f"{self._number}.db")
        return path, f"{path}-wal"

    def opened(self, connection: Connection) -> None:
        connection.disk = self
        self._open.setdefault(self.opener, []).append(connection)

    # -- commits -----------------------------------------------------------------------------------

    def committed(self, connection: Connection) -> None:
        size = os.stat(self._wal).st_size
        entries = list(connection.noted)
        connection.noted.clear()
        self.left([each for _, held, whose in self._unflushed if whose is connection for each in held])
        if connection.flushing:
            self.flush()
        else:
            self._unflushed.append((size, entries, connection))
        self.watch(entries)

    def flush(self, _: int | None = None) -> None:
        """What was committed is on disk now, whoever flushes the file."""
        self._flushed = os.stat(self._wal).st_size
        self._unflushed.clear()

    # -- errors ------------------------------------------------------------------------------------

    def perhaps_fail(self, connection: Connection, sql: str, execute: Callable[[str], object]) -> None:
        """Fail as SQLite does: before a transaction, within it (with or without undoing it), or at its end."""
        kind = self.trouble
        assert kind is not None
        if sql.startswith(("PRAGMA synchronous", "SAVEPOINT", "RELEASE", "ROLLBACK TO")):
            return
        begins = sql.startswith("BEGIN")
        if kind == BUSY and not begins:
            return
        if kind == FULL and sql.startswith(("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")):
            return
        odds = (
            self.odds / 8 if sql == "ROLLBACK" else self.odds if begins or sql == "COMMIT" else self.odds / 4
        )
        if self._dice.random() >= odds:
            return
        self.failures[kind] = self.failures.get(kind, 0) + 1
        if not begins and sql != "ROLLBACK" and connection.in_transaction and self._dice.random() < 0.5:
            execute("ROLLBACK")
        error = sqlite3.OperationalError(_MESSAGES[kind])
        error.sqlite_errorcode = _CODES[kind]
        raise error

    # -- ends --------------------------------------------------------------------------------------

    def close(self, opener: object) -> None:
        """Close what a process had open, as the kernel does when it is gone."""
        for connection in self._open.pop(opener, ()):
            connection.disk = None
            connection.close()

    def cut_power(self) -> list[Any]:
        """Go back to what was flushed, or to a little later; gives what the lost commits held, in order."""
        kept = self._dice.randint(0, len(self._unflushed))
        lost = [entry for _, entries, _ in self._unflushed[kept:] for entry in entries]
        size = self._unflushed[kept - 1][0] if kept else self._flushed
        old, log = self.path, Path(self._wal).read_bytes()
        # A torn page behind the last whole commit counts for nothing.
        torn = self._dice.randrange(0, 4096) if kept < len(self._unflushed) else 0
        self._number += 1
        self.path, self._wal = self._place()
        shutil.copyfile(old, self.path)
        Path(self._wal).write_bytes(log[: size + torn])
        self._unflushed.clear()
        self._flushed = size
        self.abandon()
        self.witness = self._look()
        return lost

    def abandon(self) -> None:
        """Close everything, as at the end of the machine."""
        for opener in list(self._open):
            self.close(opener)
        self.witness.close()


@cache
def _home() -> Path:
    """A folder in memory where there is one: the disk's speed is not what is looked at."""
    memory = Path("/dev/shm")
    return Path(mkdtemp(prefix="tidings-sim-", dir=memory if os.access(memory, os.W_OK) else None))


@cache
def template(key_id: str) -> Path:
    """A database as it is after the first start."""
    path = _home() / f"{os.getpid()}-template.db"
    connection = schema.connect(str(path))
    schema.migrate(connection, generation=GENERATION, sandbox=False)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@contextmanager
def disk(dice: random.Random, *, key_id: str) -> Iterator[Disk]:
    """A fresh database; while it is there, every connection that is opened is watched by it."""
    folder = Path(mkdtemp(dir=_home()))
    made = Disk(folder, dice, key_id=key_id)

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = _connect(*args, factory=Connection, **kwargs)
        made.opened(connection)
        return connection

    try:
        # Checkpoints are left to the end: the log then only grows, and its length says what was flushed.
        with (
            patch.object(sqlite3, "connect", connect),
            patch.object(schema, "CHECKPOINT_PAGES", 1 << 30),
            patch.object(wal, "fdatasync", made.flush),
        ):
            yield made
    finally:
        made.abandon()
        shutil.rmtree(folder)


def clean_up() -> None:
    """Remove what this process left in memory."""
    if _home.cache_info().currsize:
        shutil.rmtree(_home(), ignore_errors=True)
        _home.cache_clear()
        template.cache_clear()
