"""Files that appear whole: complete and flushed, or not at all, whatever ends the process or the machine meanwhile."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# What SQLite keeps beside a database, and would take for a new one's own.
COMPANIONS: Final = ("-wal", "-shm", "-journal")


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A file to write, of mode 0600, in the same folder; at the end it is flushed and gets the name `path`.

    Raises:
        FileExistsError: the name is taken; nothing is ever overwritten.
        OSError: it cannot be written.
    """
    if path.exists():
        raise FileExistsError(str(path))
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}-", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        yield partial
        os.fsync(descriptor)
        _name(partial, path)
    finally:
        # Only now: a file that is closed loses the locks that SQLite has on it through this process.
        os.close(descriptor)
        for suffix in ("", *COMPANIONS):
            Path(f"{partial}{suffix}").unlink(missing_ok=True)


def _name(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: there a name that is taken meanwhile would be lost.
        if path.exists():
            raise FileExistsError(str(path)) from None
        partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
