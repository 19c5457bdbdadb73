"""Which processes hold leases, and which of them are gone.

Each holder keeps a file beside the database locked (`flock`): the kernel lets go of it when the process ends, however
it ends. So the leases of a process that was killed are free at once, without waiting for them to run out.
"""

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from tidings.errors import StoreUnavailable
from tidings.model import Micros

_FREE = "UPDATE cursors SET lease_until = NULL, holder = NULL WHERE lease_until IS NOT NULL AND holder = ?"


class Holders:
    """The holders of one database. `path` is its file, or None when it is in memory and nobody shares it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._locks: dict[int, int] = {}

    def take(self, connection: sqlite3.Connection, *, now: Micros) -> int:
        """Register a holder of this process."""
        self.release_dead(connection)
        (holder,) = connection.execute(
            "INSERT INTO holders (started_at) VALUES (?) RETURNING id", (now,)
        ).fetchone()
        # The number is ours already where it was given before in a transaction that came to nothing.
        if self._path is not None and holder not in self._locks:
            lock = self._try_lock(holder)
            if lock is None:
                raise StoreUnavailable(f"{self._file(holder)} is locked by another process")
            self._locks[holder] = lock
        return int(holder)

    def drop(self, connection: sqlite3.Connection, holder: int) -> None:
        """Give back a holder's leases and forget it."""
        connection.execute(_FREE, (holder,))
        connection.execute("DELETE FROM holders WHERE id = ?", (holder,))
        lock = self._locks.pop(holder, None)
        if lock is not None:
            self._unlock(holder, lock)

    def release_dead(self, connection: sqlite3.Connection) -> int:
        """Give back the leases of holders whose process is gone; gives how many there were."""
        if self._path is None:
            return 0
        others = [
            holder
            for (holder,) in connection.execute("SELECT id FROM holders").fetchall()
            if holder not in self._locks
        ]
        gone = 0
        for holder in others:
            lock = self._try_lock(holder)
            if lock is not None:
                connection.execute(_FREE, (holder,))
                connection.execute("DELETE FROM holders WHERE id = ?", (holder,))
                self._unlock(holder, lock)
                gone += 1
        return gone

    def close(self) -> None:
        """Let go of all locks, as the end of the process would."""
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def _file(self, holder: int) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}-holder-{holder}")

    def _try_lock(self, holder: int) -> int | None:
        try:
            lock = os.open(self._file(holder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{self._file(holder)} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _unlock(self, holder: int, lock: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file(holder).unlink()
        os.close(lock)
