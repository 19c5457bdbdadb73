"""A service on a disk that stops flushing what was written apart from a commit.

    python -m tests.faults.unflushed BROKEN serve …

runs the `tidings` command. Once the file BROKEN is there, such a flush fails as it does on a disk that is dying: once,
and what was written before is shown by the operating system all the same.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from tidings.cli import main as tidings
from tidings.store.sqlite import wal


def command(broken: Path) -> Sequence[str]:
    """What to start in place of `tidings`; the project's root must be in PYTHONPATH."""
    return (sys.executable, "-m", "tests.faults.unflushed", str(broken))


def main(broken: Path) -> None:
    flush = wal.fdatasync

    def fdatasync(file: int) -> None:
        if broken.exists():
            broken.unlink()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(file)

    with patch.object(wal, "fdatasync", fdatasync):
        tidings(prog_name="tidings")


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
