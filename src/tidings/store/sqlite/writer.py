"""The group commit, and the one thread that owns the write connection.

Whoever wants to write hands in a unit: a function of the connection. The thread takes what waits, puts records before
everything else (they free leases and hold what the network has already seen), runs each unit so that it can be undone
by itself, takes once more what came meanwhile, and commits once. So a unit that fails fails alone; when the commit
fails, nothing in it is acknowledged.

`GroupCommit` is all of that but the waiting: it knows no thread and no event loop, so that a simulation can drive it
step by step. `Writer` is the thread that drives it in a service.

What is committed outlives this process, however it ends; what is flushed outlives the machine's power. What whoever
waits is told after depends on the rank:

- Claims may be lost in a power cut without harm: the lease is lost, the batch is sent again. A group of claims alone is
  not flushed; the next flush of anything else covers it too.
- What went steadily, deliveries that went well to webhooks that were well before, may be lost too: the batch is sent
  again. Where there is nothing else in a group but claims, it is told when it is committed, and flushed right after,
  before anything else is begun: the next batch is on its way while the disk works. Whoever sends that batch waits to
  be told, so a power cut takes back one such record of a webhook at most. Beside other processes, which might build on
  what we could not flush, it is flushed within the commit.
- Everything else was promised to somebody. It is flushed within the commit, and nobody sees it before.

If a flush fails, the log and the disk may differ, and nothing that is written behind it is safe. The thread dies of it,
and the process with its thread. Whoever opens the file next, if nobody has it open, looks at every checksum.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Any, Final, Protocol, TypeVar

from tidings.errors import StoreUnavailable, TidingsError
from tidings.store.sqlite.turns import Turns
from tidings.store.sqlite.wal import WriteAheadLog

T = TypeVar("T")
U = TypeVar("U", bound="Unit")

# Units that begin a commit together, and as many at most may join them: enough to share a flush, few enough that the
# first does not wait long for the last.
GROUP_MAX: Final = 256
# Units that may wait. Callers hold publishers back long before; this only bounds memory.
WAITING_MAX: Final = 10_000


class Rank(IntEnum):
    """The order of units within a commit, and what whoever waits is told after at the earliest: the flush, for a RECORD
    or a WRITE; the commit, for what went STEADY or a CLAIM."""

    RECORD = 0
    STEADY = 1
    WRITE = 2
    CLAIM = 3


# What is flushed within its commit.
PROMISED: Final = frozenset({Rank.RECORD, Rank.WRITE})


class Flush(Enum):
    """When what a group has committed is flushed: within its commit, right after, or with whatever comes later."""

    WITHIN = auto()
    AFTER = auto()
    LATER = auto()


@dataclass(slots=True)
class Unit:
    """A function of the write connection, and what became of it: `error` is None if `result` was committed.

    `ahead` is done before the write lock is taken, or not at all: what it prepares, `run` must be able to do without.
    `then` takes that result, once it is committed and the write lock is free, in a snapshot of its own; what it gives
    stands in the result's place. If it fails, what was committed stays.
    """

    run: Callable[[sqlite3.Connection], Any]
    rank: Rank = Rank.WRITE
    ahead: Callable[[], None] | None = None
    then: Callable[[sqlite3.Connection, Any], Any] | None = None
    result: Any = None
    error: BaseException | None = None


class GroupCommit:
    """Commits units together on one connection.

    `reopen` is called after an error that has left the connection unusable. `on_abort` is called when a group was
    undone: what was remembered of it is no longer true. `wal` is None where there is no file to flush.

    Whoever drives it calls `commit`, tells those who wait, and calls `flush`; then reads, and begins again.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        reopen: Callable[[], sqlite3.Connection],
        on_abort: Callable[[], None],
        turns: Turns,
        wal: WriteAheadLog | None,
    ) -> None:
        self._turns = turns
        self._wal = wal
        # Whether what was committed last is yet to be flushed.
        self._owing = False
        if wal is not None:
            wal.open()
        self._reopen = reopen
        self._on_abort = on_abort
        self.connection = connection
        # `synchronous = FULL`, which a connection begins with.
        self._full = True

    def commit(self, group: list[U], *, more: Callable[[bool], list[U]] = lambda promised: []) -> None:
        """Put the units into the order of their ranks, run and commit them; each then has its result or its error.

        `more` gives what came while they ran, of promised ranks only if told so: it joins the group, unless that is one
        of claims alone. Who waits for units is to be told in the order in which the group is left: a record's slot is
        free before a claim takes it again.

        Raises:
            sqlite3.OperationalError: the commit could not be flushed; this process must write no more.
        """
        group.sort(key=_by_rank)
        for unit in group:
            if unit.ahead is not None:
                # What it could not do, `run` does, and fails at.
                with contextlib.suppress(Exception):
                    unit.ahead()
        try:
            with self._turns.turn() as alone:
                flush = self._when_to_flush(group, alone=alone)
                self._set_full(flush is Flush.WITHIN)
                self.connection.execute("BEGIN IMMEDIATE")
                self._run_first(group[0])
                for unit in group[1:]:
                    self._run_unit(unit)
                if flush is not Flush.LATER:
                    late = sorted(more(flush is Flush.WITHIN), key=_by_rank)
                    group += late
                    for unit in late:
                        self._run_unit(unit)
                    group.sort(key=_by_rank)
                self.connection.execute("COMMIT")
            self._owing = flush is Flush.AFTER
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC:
                # SQLite takes back this commit, but not what was left to be flushed with it.
                raise
            self._recover()
            self._on_abort()
            failure = StoreUnavailable(f"the database refused: {error}")
            failure.__cause__ = error
            for unit in group:
                # An error of the unit's own says more, unless it may have been caused by the same trouble.
                if not isinstance(unit.error, TidingsError):
                    unit.error = failure

    def flush(self) -> None:
        """Have on disk what was committed last, if it was told of before it was.

        Raises:
            OSError: it may not be there, and to ask again would not tell: this process must write no more.
        """
        if self._owing and self._wal is not None:
            self._wal.flush()
        self._owing = False

    def read(self, unit: Unit) -> None:
        """Have a unit that was committed read what it wants to know after that."""
        if unit.then is None or unit.error is not None:
            return
        try:
            unit.result = unit.then(self.connection, unit.result)
        except sqlite3.Error as error:
            self._recover()
            unit.error = StoreUnavailable(f"the database refused: {error}")
        except Exception as error:  # as below
            self._recover()
            unit.error = error

    def close(self) -> None:
        self.connection.close()
        if self._wal is not None:
            self._wal.close()
        self._turns.close()

    def _when_to_flush(self, group: Sequence[Unit], *, alone: bool) -> Flush:
        ranks = {unit.rank for unit in group}
        if ranks & PROMISED:
            return Flush.WITHIN
        if Rank.STEADY not in ranks:
            return Flush.LATER
        return Flush.AFTER if alone and (self._wal is None or self._wal.open()) else Flush.WITHIN

    def _set_full(self, wanted: bool) -> None:
        if wanted is not self._full:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._full = wanted

    def _run_first(self, unit: Unit) -> None:
        """Run a unit that nothing stands before: to undo it is to begin anew, and no savepoint is needed."""
        try:
            unit.result = unit.run(self.connection)
            return
        except sqlite3.Error as error:
            if not self.connection.in_transaction:
                raise
            unit.error = StoreUnavailable(f"the database refused: {error}")
        except Exception as error:  # as below
            unit.error = error
        self.connection.execute("ROLLBACK")
        self.connection.execute("BEGIN IMMEDIATE")

    def _run_unit(self, unit: Unit) -> None:
        self.connection.execute("SAVEPOINT unit")
        try:
            unit.result = unit.run(self.connection)
        except sqlite3.Error as error:
            # Full, I/O error, busy: SQLite may have rolled back the whole transaction already. If it has not, only
            # this unit is undone.
            if not self.connection.in_transaction:
                raise
            self.connection.execute("ROLLBACK TO unit")
            unit.error = StoreUnavailable(f"the database refused: {error}")
        except Exception as error:  # whatever a unit raises belongs to its caller, not to this thread
            self.connection.execute("ROLLBACK TO unit")
            unit.error = error
        self.connection.execute("RELEASE unit")

    def _recover(self) -> None:
        """Leave no transaction open; start afresh if the connection cannot even roll back."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.connection.close()
            if self._wal is not None:
                self._wal.close()
            # If it cannot be opened now, the next group finds it closed, fails, and comes back here.
            with contextlib.suppress(StoreUnavailable):
                self.connection = self._reopen()
                self._full = True


def _by_rank(unit: Unit) -> int:
    return unit.rank


class Writing(Protocol):
    """What a store writes through: whoever drives its group commit."""

    @property
    def waiting(self) -> int:
        """How many units wait."""
        ...

    async def run(
        self,
        run: Callable[[sqlite3.Connection], Any],
        rank: Rank = Rank.WRITE,
        *,
        ahead: Callable[[], None] | None = None,
        then: Callable[[sqlite3.Connection, Any], Any] | None = None,
    ) -> Any:
        """Run a unit in the next commit, and give what it gave (or what `then` made of that) once that is done.

        Raises:
            StoreUnavailable: the database refused, or too much waits.
            Exception: whatever the unit raised; nothing of it was written.
        """
        ...

    async def close(self) -> None:
        """Finish what waits, then close the connection."""
        ...


Drive = Callable[[GroupCommit], Writing]


@dataclass(slots=True, kw_only=True)
class _Awaited(Unit):
    """A unit that a task waits for."""

    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def settle(self) -> None:
        """Tell the waiting task, in its own loop; it may have gone away."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Drives a group commit in a thread of its own."""

    def __init__(self, groups: GroupCommit) -> None:
        self._groups = groups
        self._units: queue.SimpleQueue[_Awaited | None] = queue.SimpleQueue()
        self._closed = False
        # What was taken, and has to wait for the next group.
        self._next: _Awaited | None = None
        self._thread = threading.Thread(target=self._work, name="tidings-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._units.qsize() + (self._next is not None)

    async def run(
        self,
        run: Callable[[sqlite3.Connection], Any],
        rank: Rank = Rank.WRITE,
        *,
        ahead: Callable[[], None] | None = None,
        then: Callable[[sqlite3.Connection, Any], Any] | None = None,
    ) -> Any:
        if self._closed or not self._thread.is_alive():
            raise StoreUnavailable("the store is closed")
        if self._units.qsize() >= WAITING_MAX:
            raise StoreUnavailable("too many writes are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._units.put(_Awaited(run, rank, ahead, then, future=future, loop=loop))
        return await future

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._units.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (group := self._take_group()) is not None:
            self._carry_out(group)
            # What was read for it may be large, and the next may be long in coming.
            del group
        self._groups.close()

    def _carry_out(self, group: list[_Awaited]) -> None:
        self._groups.commit(group, more=self._take_more)
        _tell([unit for unit in group if unit.then is None])
        self._groups.flush()
        for unit in group:
            if unit.then is not None:
                self._groups.read(unit)
                _tell([unit])

    def _take_group(self) -> list[_Awaited] | None:
        first, self._next = self._next or self._units.get(), None
        if first is None:
            return None
        return [first, *self._take_more(True)]

    def _take_more(self, promised: bool) -> list[_Awaited]:
        """What waits, and may come into one group with one unit that is there already."""
        more: list[_Awaited] = []
        while len(more) < GROUP_MAX - 1 and self._next is None:
            try:
                unit = self._units.get_nowait()
            except queue.Empty:
                break
            if unit is None:
                # Closing: this group still counts; the sentinel is met again after it.
                self._units.put(None)
                break
            if unit.rank in PROMISED and not promised:
                self._next = unit
            else:
                more.append(unit)
        return more


def _tell(group: Sequence[_Awaited]) -> None:
    for loop in {unit.loop for unit in group}:
        mine = [unit for unit in group if unit.loop is loop]
        # The loop may have been closed under its waiting tasks: nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_all, mine)


def _settle_all(group: Sequence[_Awaited]) -> None:
    for unit in group:
        unit.settle()
