"""Whose turn it is to write, among the processes of one database.

SQLite lets one process write at a time, and has those that find it taken try again after pauses that grow to a tenth of
a second. Under load, whoever writes begins its next transaction long before such a pause is over: the others wait for
seconds, and in the end in vain. So processes queue here before they ask SQLite.

There are two locks, bytes of a file beside the database. Who holds the first is the next; it waits for the second,
which is the turn, and then lets go of the first. Who has just written must become the next again, and cannot while
another is: so turns alternate.

This is for fairness alone. What keeps transactions apart is SQLite's own lock, which everybody still takes; who has
queued for too long, or cannot, asks SQLite all the same. A process that is alone takes no lock here: each call into the
system would give up Python's global lock, and queue for it behind the event loop.
"""

import contextlib
import fcntl
import mmap
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# How soon a lock that is taken is tried again, seconds: far less than a transaction takes, and little work.
PAUSE_SECONDS: Final = 0.0005
# Queueing ends after this long, seconds: a process stands still with the turn. SQLite's own patience comes on top.
WAIT_SECONDS_MAX: Final = 2.0
# Who wrote, or wished to, within this time is there, seconds. Every process of a service writes each second.
PRESENT_SECONDS: Final = 3.0

_NEXT: Final = 0
_TURN: Final = 1
_BYTES: Final = 8


class Turns:
    """The turns of one process. `path` is the database's file, or None when it is in memory and nobody shares it."""

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        # Who wished to write last: its process id, in memory that all share.
        self._last = memoryview(bytearray(_BYTES)).cast("Q")
        self._others_until = 0.0
        # Where the file cannot be made, writing fails for reasons of its own, or goes on without turns.
        with contextlib.suppress(OSError):
            if path is not None:
                self._open(path.with_name(f"{path.name}-turns"))

    def _open(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Written, not just made as long: on a full disk, to touch mapped memory without room ends the process.
            if os.fstat(file).st_size < _BYTES:
                os.pwrite(file, bytes(_BYTES), 0)
            self._last = memoryview(mmap.mmap(file, _BYTES)).cast("Q")
        except BaseException:
            os.close(file)
            raise
        self._file = file
        # Also where a store is left without being closed, as by a process that is no more.
        self._close = weakref.finalize(self, os.close, file)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, if other processes write; it is over at the end."""
        if self._file is None or not self._beside_others():
            yield
            return
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        _lock(self._file, _NEXT, until=deadline)
        _lock(self._file, _TURN, until=deadline)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _NEXT)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _TURN)

    def _beside_others(self) -> bool:
        now, ours = time.monotonic(), os.getpid()
        if self._last[0] not in (0, ours):
            self._others_until = now + PRESENT_SECONDS
        self._last[0] = ours
        return now < self._others_until

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file = None
            self._close()


def _lock(file: int, place: int, *, until: float) -> None:
    """Lock a byte of the file; give up at this time."""
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return
        except OSError:
            if time.monotonic() > until:
                return
        time.sleep(PAUSE_SECONDS)
