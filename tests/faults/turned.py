"""A service whose time of day can be turned while it runs.

    python -m tests.faults.turned OFFSET serve …

runs the `tidings` command. OFFSET is a file of 8 bytes: the microseconds by which the time of day is off, a signed
number in the machine's order. The clock that only goes forward is left alone: nobody can turn that.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

_OFFSET: Final = struct.Struct("=q")


class TurnableClock:
    """The test's end of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.turn(timedelta())

    def turn(self, by: timedelta) -> None:
        """Be off by so much from now on."""
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(_OFFSET.pack(round(by.total_seconds() * 1_000_000)))

    def command(self) -> Sequence[str]:
        """What to start in place of `tidings`; the project's root must be in PYTHONPATH."""
        return (sys.executable, "-m", "tests.faults.turned", str(self._path))


def main(path: Path) -> None:
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
    time_ns = time.time_ns
    time.time_ns = lambda: time_ns() + 1_000 * int(_OFFSET.unpack(offset[:])[0])
    time.time = lambda: time.time_ns() / 1e9
    from tidings.cli import main as tidings

    tidings(prog_name="tidings")


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
