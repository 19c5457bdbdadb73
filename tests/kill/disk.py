"""What a database holds after a process died: as those who live see it, or, if nobody does, as its files have it.

The two may differ by what the dead process was just committing. Its pages are in the write-ahead log and its word that
they count is not in the index that living processes share: they will write over them. Where nobody lives, whoever
comes next reads the log itself, and takes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@contextlib.contextmanager
def copied(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of the files: to open the real ones would change them. Nobody may be writing meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tidings-copy-") as folder:
        copy = Path(folder) / database.name
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            yield connection


def dead_holders(database: Path) -> set[int]:
    """The holders whose process is gone: nobody has their file locked any more."""
    return {
        int(file.name.rsplit("-", 1)[1])
        for file in database.parent.glob(f"{database.name}-holder-*")
        if _is_free(file)
    }


def _is_free(file: Path) -> bool:
    lock = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def schema_version(database: Path) -> int | None:
    """How many migrations the file has seen; None if there is no file."""
    if not database.exists():
        return None
    with copied(database) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


@dataclass(frozen=True, slots=True)
class Lease:
    """A webhook (its target's path) that was leased, under this fence, with its cursor here."""

    hook: str
    fence: int
    holder: int
    cursor: int


@contextlib.contextmanager
def shared(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside those of living processes, which changes nothing."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        yield connection


def leases(database: Path, *, alive: bool) -> list[Lease]:
    """Every lease that stands in the database; `alive` says whether a living process has it open."""
    with shared(database) if alive else copied(database) as connection:
        rows = connection.execute(
            "SELECT w.target, c.fence, c.holder, c.cursor FROM cursors c JOIN webhooks w ON w.id = c.webhook"
            " WHERE c.lease_until IS NOT NULL"
        ).fetchall()
    return [Lease(urlsplit(target).path, *rest) for target, *rest in rows]


def log_length(database: Path) -> int:
    """How many events are in the log of a database that is being served."""
    with shared(database) as connection:
        (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    return int(count)


def log(database: Path) -> list[tuple[int, str, str]]:
    """The log: position, resource, the field that was changed."""
    with copied(database) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert verdict == "ok", f"the file is damaged: {verdict}"
        return connection.execute("SELECT position, resource, field FROM events ORDER BY position").fetchall()
