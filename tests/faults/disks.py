"""Disks that are full, and disks that take no more writes.

A small `tmpfs` where this process may mount one. Where it may not, a folder, and the limit that the kernel holds one
process to: its files may not grow any further (`RLIMIT_FSIZE`). Either way the errors are real.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

DISK_KIB: Final = 6 << 10
# The filler is written in ever smaller pieces, until not a byte fits.
_PIECES: Final = (1 << 16, 1 << 12, 1)
_UNLIMITED: Final = resource.RLIM_INFINITY


class Disk:
    """A file system of its own, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, pid: int) -> None:
        """Take every byte that is left. `pid` is the process that is to feel it, 0 for those started from now on."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in _PIECES:
                with contextlib.suppress(OSError):
                    while filler.write(b"\0" * size) == size:
                        pass

    def free(self, pid: int) -> None:
        """Let there be room again."""
        self._filler.unlink()

    @contextlib.contextmanager
    def without_room(self) -> Iterator[None]:
        """For those started meanwhile: not a byte fits."""
        self.fill(0)
        try:
            yield
        finally:
            self.free(0)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Nobody may write meanwhile; nobody may have a file open for it either."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)


class LimitedFolder(Disk):
    """A folder in which one process may not make files any larger."""

    def fill(self, pid: int) -> None:
        largest = max((each.stat().st_size for each in self.folder.iterdir() if each.is_file()), default=0)
        limit_files(pid, largest)

    def free(self, pid: int) -> None:
        limit_files(pid, None)

    @contextlib.contextmanager
    def without_room(self) -> Iterator[None]:
        limit_files(0, 0)
        try:
            yield
        finally:
            limit_files(0, None)

    read_only = without_room


def limit_files(pid: int, size: int | None) -> None:
    """Let this process (0: us, and whoever we start) write no file beyond so many bytes; None: as it likes."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of a few megabytes at this folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tidings-tests", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield LimitedFolder(folder)
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", folder], check=True)
