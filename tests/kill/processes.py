"""Processes by their ids: a service's own workers, stopping, killing, waiting for the end. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.serving import wait_until


def family(pid: int) -> list[int]:
    """A process and its children."""
    with contextlib.suppress(FileNotFoundError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [pid]


def is_gone(pid: int) -> bool:
    """Whether a process has ended: its locks and connections are gone, though its parent may not know yet.

    Its first thread may be dead while another still holds all of that.
    """
    threads = _threads(pid)
    return len(threads) <= 1 and all(_state(thread) in "ZX" for thread in threads)


def wait_for_the_end(pids: Iterable[int], *, seconds: float = 60.0) -> None:
    for pid in pids:
        wait_until(lambda: is_gone(pid), timeout=seconds, message=f"process {pid} does not end")  # noqa: B023


def kill(pids: Iterable[int]) -> None:
    """SIGKILL all of them, and wait until the last is gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_the_end(pids)


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Let them stand still meanwhile, every thread: one takes the signal, and until it runs the others go on."""
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        wait_until(lambda: _stands_still(pid), message=f"process {pid} does not stop")  # noqa: B023
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    return all(_state(thread) in "TtZX" for thread in _threads(pid))


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state(process: Path) -> str:
    """The letter of a process's or a thread's state; X, as of the dead, where there is none any more."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
