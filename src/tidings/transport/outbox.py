"""Requests on their way to the kernel, a burst of them at a time.

A write to a socket wakes whoever reads at its other end, and to wake a process that sleeps costs several times the
write. Deliveries are begun in bursts; written one by one, with the work for the next between them, each finds its
receiver asleep again. So those of one turn of the event loop are written together, at the beginning of the next.
"""

import asyncio
from typing import Protocol


class Waiting(Protocol):
    """Whoever has something to write."""

    def write(self) -> None: ...


class Outbox:
    """What waits to be written; belongs to one event loop."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Waiting] = []

    def put(self, waiting: Waiting) -> None:
        if not self._waiting:
            self._loop.call_soon(self._write)
        self._waiting.append(waiting)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.write()
