"""The one thread that owns the write connection, and the group commit.

Whoever wants to write hands in a unit: a function of the connection. The thread takes what waits, puts records before
everything else (they free leases and hold what the network has already seen), runs each unit in a savepoint of its
own, and commits once. So a unit that fails fails alone; when the commit fails, nothing in it is acknowledged.

Claims may be lost in a power cut without harm (the lease is lost, the batch is sent again), so a group of claims alone
is committed without waiting for the disk. In WAL mode the next full commit flushes them too.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar

from tidings.errors import StoreUnavailable, TidingsError

T = TypeVar("T")

# Units in one commit: enough to share a flush, few enough that the first does not wait long for the last.
GROUP_MAX: Final = 256
# Units that may wait. Callers hold publishers back long before; this only bounds memory.
WAITING_MAX: Final = 10_000


class Rank(IntEnum):
    """The order of units within a commit, and whether the disk is waited for."""

    RECORD = 0
    WRITE = 1
    CLAIM = 2


@dataclass(slots=True)
class _Unit:
    run: Callable[[sqlite3.Connection], Any]
    rank: Rank
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell the waiting task, in its own loop; it may have gone away."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Runs units on one connection in one thread.

    `reopen` is called after an error that has left the connection unusable. `on_abort` is called when a group was
    undone: what was remembered of it is no longer true. Both are called in the thread.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        reopen: Callable[[], sqlite3.Connection],
        on_abort: Callable[[], None],
    ) -> None:
        self._reopen = reopen
        self._on_abort = on_abort
        self._connection = connection
        self._flushing = True
        self._units: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="tidings-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._units.qsize()

    async def run(self, unit: Callable[[sqlite3.Connection], T], rank: Rank = Rank.WRITE) -> T:
        """Run a unit in the next commit, and give what it gave once that is done.

        Raises:
            StoreUnavailable: the database refused, or too much waits.
            Exception: whatever the unit raised; nothing of it was written.
        """
        if self._closed or not self._thread.is_alive():
            raise StoreUnavailable("the store is closed")
        if self._units.qsize() >= WAITING_MAX:
            raise StoreUnavailable("too many writes are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._units.put(_Unit(unit, rank, future, loop))
        return await future

    async def close(self) -> None:
        """Finish what waits, then close the connection."""
        if not self._closed:
            self._closed = True
            self._units.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (group := self._take_group()) is not None:
            self._commit(group)
            for loop in {unit.loop for unit in group}:
                mine = [unit for unit in group if unit.loop is loop]
                # The loop may have been closed under its waiting tasks: nobody is left to tell.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle_all, mine)
        self._connection.close()

    def _take_group(self) -> list[_Unit] | None:
        first = self._units.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                unit = self._units.get_nowait()
            except queue.Empty:
                break
            if unit is None:
                # Closing: this group still counts; the sentinel is met again after it.
                self._units.put(None)
                break
            group.append(unit)
        group.sort(key=lambda unit: unit.rank)
        return group

    def _commit(self, group: list[_Unit]) -> None:
        try:
            self._flush(any(unit.rank is not Rank.CLAIM for unit in group))
            self._connection.execute("BEGIN IMMEDIATE")
            for unit in group:
                self._run_unit(unit)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._recover()
            self._on_abort()
            failure = StoreUnavailable(f"the database refused: {error}")
            failure.__cause__ = error
            for unit in group:
                # An error of the unit's own says more, unless it may have been caused by the same trouble.
                if not isinstance(unit.error, TidingsError):
                    unit.error = failure

    def _flush(self, wanted: bool) -> None:
        if wanted is not self._flushing:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._flushing = wanted

    def _run_unit(self, unit: _Unit) -> None:
        self._connection.execute("SAVEPOINT unit")
        try:
            unit.result = unit.run(self._connection)
        except sqlite3.Error as error:
            # Full, I/O error, busy: SQLite may have rolled back the whole transaction already. If it has not, only
            # this unit is undone.
            if not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK TO unit")
            unit.error = StoreUnavailable(f"the database refused: {error}")
        except Exception as error:  # whatever a unit raises belongs to its caller, not to this thread
            self._connection.execute("ROLLBACK TO unit")
            unit.error = error
        self._connection.execute("RELEASE unit")

    def _recover(self) -> None:
        """Leave no transaction open; start afresh if the connection cannot even roll back."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            # If it cannot be opened now, the next group finds it closed, fails, and comes back here.
            with contextlib.suppress(StoreUnavailable):
                self._connection = self._reopen()
                self._flushing = True


def _settle_all(units: list[_Unit]) -> None:
    for unit in units:
        unit.settle()
