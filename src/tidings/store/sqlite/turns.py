"""Whose turn it is to write, among the processes of one database.

SQLite lets one process write at a time, and has those that find it taken try again after pauses that grow to a tenth of
a second. Under load, whoever writes begins its next transaction long before such a pause is over: the others wait for
seconds, and in the end in vain. So processes queue here before they ask SQLite.

There are two locks, bytes of a file beside the database. Who holds the first is the next; it waits for the second,
which is the turn, and then lets go of the first. Who has just written must become the next again, and cannot while
another is: so turns alternate.

Who leaves writes a byte into a pipe that the next waits at: between two that are busy the turn would else lie idle for
as long as it takes to try again. The byte is a hint; the locks are the truth. They are tried again from time to time
all the same, as whoever is killed says nothing.

This is for fairness alone. What keeps transactions apart is SQLite's own lock, which everybody still takes; who has
queued for too long, or cannot, asks SQLite all the same. A process that is alone takes no lock here: each call into the
system would give up Python's global lock, and queue for it behind the event loop.
"""

import contextlib
import fcntl
import mmap
import os
import select
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

# How soon a lock that is taken is tried again, seconds: far less than a transaction takes, and little work.
PAUSE_SECONDS: Final = 0.0005
# The same, where whoever leaves says so: when it has been killed.
WAKE_SECONDS: Final = 0.01
# Queueing ends after this long, seconds: a process stands still with the turn. SQLite's own patience comes on top.
WAIT_SECONDS_MAX: Final = 2.0
# Who wrote, or wished to, within this time is there, seconds. Every process of a service writes each second.
PRESENT_SECONDS: Final = 3.0

_NEXT: Final = 0
_TURN: Final = 1
# A process is named by its number and by what that number is of: in two containers it may be the same.
_NAMESPACE_BITS: Final = 32
_PID_BITS: Final = 32
_BYTES: Final = (_NAMESPACE_BITS + _PID_BITS) // 8


class Turns:
    """The turns of one process. `path` is the database's file, or None when it is in memory and nobody shares it."""

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        # Who wished to write last, in memory that all share; and what stands there for us.
        self._last = memoryview(bytearray(_BYTES)).cast("Q")
        self._ours = _namespace() << _PID_BITS | os.getpid()
        self._shared = path is not None
        self._others_until = 0.0
        self._bell: _Bell | None = None
        # Where the file cannot be made, writing fails for reasons of its own, or goes on without turns.
        with contextlib.suppress(OSError):
            if path is not None:
                self._open(path.with_name(f"{path.name}-turns"))
                self._bell = _Bell(path.with_name(f"{path.name}-turns-bell"))

    def _open(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Written, not just made as long: on a full disk, to touch mapped memory without room ends the process.
            if os.fstat(file).st_size < _BYTES:
                os.pwrite(file, bytes(_BYTES), 0)
            self._last = memoryview(mmap.mmap(file, _BYTES)).cast("Q")
            if not _may_live(self._last[0]):
                self._last[0] = 0
        except BaseException:
            os.close(file)
            raise
        self._file = file
        # Also where a store is left without being closed, as by a process that is no more.
        self._close = weakref.finalize(self, os.close, file)

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for the turn, if others write; it is over at the end. Gives whether this process is surely alone."""
        if self._file is None:
            yield not self._shared
            return
        if not self._beside_others():
            yield True
            return
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        _lock(self._file, _NEXT, until=deadline, pause=_sleep)
        _lock(self._file, _TURN, until=deadline, pause=_sleep if self._bell is None else self._bell.wait)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _NEXT)
        try:
            yield False
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _TURN)
            if self._bell is not None:
                self._bell.ring()

    def _beside_others(self) -> bool:
        now = time.monotonic()
        if self._last[0] not in (0, self._ours):
            self._others_until = now + PRESENT_SECONDS
        self._last[0] = self._ours
        return now < self._others_until

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file = None
            self._close()
        if self._bell is not None:
            self._bell.close()
            self._bell = None


class _Bell:
    """A named pipe: rung by whoever has had the turn, heard by the one who is next.

    Raises:
        OSError: there can be none here.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Open for both, so that it never ends, and opening it waits for nobody.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self._pipe)
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            self.close()
            raise OSError(f"{path} is not a pipe")
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def ring(self) -> None:
        # A pipe that is full has been rung.
        with contextlib.suppress(BlockingIOError):
            os.write(self._pipe, b"\0")

    def wait(self) -> None:
        """Wait until it was rung, or for a moment. The lock is to be tried after this, so nothing is missed."""
        if self._poll.poll(1000 * WAKE_SECONDS):
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, select.PIPE_BUF)


def _namespace() -> int:
    """What the process numbers that we see are of (Linux, pid_namespaces(7)); 0 where there is but one."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino % (1 << _NAMESPACE_BITS)
    except OSError:
        return 0


def _may_live(name: int) -> bool:
    """Whether there may be a process of this name; of one in another namespace nobody here can tell."""
    namespace, process = divmod(name, 1 << _PID_BITS)
    if namespace != _namespace():
        return name != 0
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sleep() -> None:
    time.sleep(PAUSE_SECONDS)


def _lock(file: int, place: int, *, until: float, pause: Callable[[], None]) -> None:
    """Lock a byte of the file; give up at this time."""
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return
        except OSError:
            if time.monotonic() > until:
                return
        pause()
