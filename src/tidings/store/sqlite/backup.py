"""Backups of a database that is being served, and what a restored one must not share with its original.

A backup is one file, made from one snapshot: whatever was acknowledged before it began is in it. Writers go on
meanwhile; until it is done the write-ahead log cannot be moved into the file, and grows.

What was acknowledged after the snapshot is not in the restored log, and its positions are given anew. So a restored
log is another log: it has a generation of its own, and every webhook begins another epoch, without which a new batch
could bear the id of a lost one, and a receiver that knows ids would drop it. Holders and leases were the original's.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tidings.errors import StoreUnavailable, StoreUnfit
from tidings.model import Micros
from tidings.store.sqlite import schema
from tidings.store.sqlite.files import COMPANIONS, appearing
from tidings.store.sqlite.rows import read_meta, write_meta

Progress = Callable[[int, int], None]
"""Told now and then how many pages are done, and of how many."""

# Pages copied between two words on progress: 4 MiB, some hundredths of a second.
STEP_PAGES: Final = 1_000
# The entry of `meta` that says when a backup was made. Whoever opens one as a database begins another log of it.
MARK: Final = "backed_up_at"
# Epochs are told apart by so many of the generation's hexadecimal digits: chance does not repeat them.
_EPOCH_DIGITS: Final = 10


def back_up(source: Path, target: Path, *, now: Micros, progress: Progress) -> None:
    """Copy a database, served or not, into a new file that only its owner may read.

    The file appears once it is complete, checked and flushed.

    Raises:
        StoreUnfit: there is no database of ours at `source`, or something lies at `target`.
        StoreUnavailable: it cannot be read or is damaged, or the copy cannot be written.
    """
    _expect_file(source, "database")
    with _new(target) as partial, contextlib.closing(schema.connect(str(source), readonly=True)) as reading:
        with _told_of(f"{source} cannot be read"):
            # Held open from here on, the snapshot stays the same for all steps.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with (
            _told_of(f"{source} cannot be copied to {target}"),
            _copying(reading, partial, progress) as writing,
        ):
            write_meta(writing, MARK, now)
            _check(writing, source)


def restore(source: Path, target: Path, *, generation: str, progress: Progress) -> str | None:
    """Make a new database from a backup; gives the id of the key its secrets are sealed with, if there are any.

    Raises:
        StoreUnfit: `source` is not a backup, or of a newer version; or something lies at `target`.
        StoreUnavailable: the backup cannot be read or is damaged, or the database cannot be written.
    """
    _expect_file(source, "backup")
    for remains in (Path(f"{target}{suffix}") for suffix in COMPANIONS):
        if remains.exists():
            raise StoreUnfit(f"{remains} lies there, the remains of another database; move it away first")
    with _new(target) as partial, contextlib.closing(_open_unchanged(source)) as reading:
        with _told_of(f"{source} cannot be read"):
            _expect_backup(reading, source)
        with (
            _told_of(f"{source} cannot be copied to {target}"),
            _copying(reading, partial, progress) as writing,
        ):
            _check(writing, source)
            begin_anew(writing, generation)
            key_id = read_meta(writing, "key_id")
    return None if key_id is None else str(key_id)


def begin_anew(connection: sqlite3.Connection, generation: str) -> None:
    """Make another log of a backup that is opened as a database; of anything else, nothing."""
    if read_meta(connection, MARK) is None:
        return
    connection.execute("BEGIN IMMEDIATE")
    # Looked at again: another process may just have done it.
    if read_meta(connection, MARK) is not None:
        write_meta(connection, "generation", generation)
        connection.execute(
            "UPDATE cursors SET epoch = epoch + ?, holder = NULL, lease_until = NULL",
            (1 + int(generation[:_EPOCH_DIGITS], 16),),
        )
        connection.execute("DELETE FROM holders")
        connection.execute("DELETE FROM reservations")
        connection.execute("DELETE FROM meta WHERE name = ?", (MARK,))
    connection.execute("COMMIT")


# -- reading ---------------------------------------------------------------------------------------


def _expect_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise StoreUnfit(f"there is no {what} at {path}")


def _open_unchanged(path: Path) -> sqlite3.Connection:
    """Open a file that nobody writes, so that not even a lock or a log appears beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _expect_backup(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != schema.APPLICATION_ID:
        raise StoreUnfit(f"{path} is not a backup of Tidings")
    if read_meta(connection, MARK) is None:
        raise StoreUnfit(
            f"{path} was not made by `tidings backup`: the copy of a database's file may lack what its -wal held"
        )
    schema.check_known(connection)


@contextlib.contextmanager
def _told_of(what: str) -> Iterator[None]:
    """Say what it was that SQLite's errors kept from happening."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{what}: {error}") from error


# -- writing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A file that appears at `path` when it is complete."""
    try:
        with appearing(path) as partial:
            yield partial
    except FileExistsError:
        raise StoreUnfit(f"{path} exists already, and nothing is overwritten; name a new file") from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _copying(reading: sqlite3.Connection, partial: Path, progress: Progress) -> Iterator[sqlite3.Connection]:
    """Copy everything into a file; then give it, to be finished, as one that needs no log beside it."""
    with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as writing:
        # Flushed once, by whoever made the file.
        writing.execute("PRAGMA synchronous = OFF")
        reading.backup(
            writing, pages=STEP_PAGES, progress=lambda _, left, pages: progress(pages - left, pages)
        )
        writing.execute("PRAGMA journal_mode = DELETE")
        yield writing


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreUnavailable(f"{path} is damaged: {' '.join(str(verdict).split())}")
