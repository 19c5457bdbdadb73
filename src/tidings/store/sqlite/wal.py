"""Flushing SQLite's write-ahead log apart from a commit.

With `synchronous = FULL` SQLite flushes the log within each commit, with NORMAL only before it copies the log into the
database. Between the two lies what is wanted for deliveries that went well: committed, so that whoever waits can go on,
and flushed right after. In WAL mode it is the log alone that a commit writes, so flushing this one file makes it last
(https://www.sqlite.org/wal.html).
"""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

fdatasync: Final = getattr(os, "fdatasync", os.fsync)


class WriteAheadLog:
    """The log of one database. `path` is the database's file, without symbolic links: as SQLite knows it."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-wal")
        self._file: int | None = None
        self._close: Callable[[], object] = lambda: None

    def open(self) -> bool:
        """Make ready for flushing; gives whether it can be done. To be called before what is to be flushed is written:
        the kernel tells of an error only those who have had the file open (fsync(2))."""
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return False
            # Also where a store is left without being closed, as by a process that is no more. SQLite's locks are on
            # other files: closing this one lets go of none of them.
            self._close = weakref.finalize(self, os.close, self._file)
        return True

    def flush(self) -> None:
        """Have on disk what was committed; `OSError` if it may not be.

        The kernel tells of such an error once, and takes the pages for written afterwards: to try again would succeed,
        and prove nothing (https://wiki.postgresql.org/wiki/Fsync_Errors).
        """
        assert self._file is not None, "it was opened before the commit"
        fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file: with its last connection SQLite removes it, and makes another."""
        if self._file is not None:
            self._file = None
            self._close()
