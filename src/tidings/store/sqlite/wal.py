"""Flushing SQLite's write-ahead log apart from a commit.

With `synchronous = FULL` SQLite flushes the log within each commit, with NORMAL only before it copies the log into the
database. Between the two lies what is wanted for records: committed, so that whoever waits can go on, and flushed right
after. In WAL mode it is the log alone that a commit writes, so flushing this one file makes it last
(https://www.sqlite.org/wal.html).
"""

import os
from pathlib import Path
from typing import Final

fdatasync: Final = getattr(os, "fdatasync", os.fsync)


class WriteAheadLog:
    """The log of one database. `path` is the database's file."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-wal")
        self._file: int | None = None

    def flush(self) -> None:
        """Have on disk what was committed; `OSError` if it may not be.

        The kernel tells of such an error once, and takes the pages for written afterwards: to try again would succeed,
        and prove nothing (https://wiki.postgresql.org/wiki/Fsync_Errors).
        """
        # SQLite's locks are on other files: closing this one lets go of none of them.
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file: with its last connection SQLite removes it, and makes another."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
