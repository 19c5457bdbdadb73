"""Reading beside the writer, on connections of one's own.

They are opened with the store and stay open: other parts of the process may use up its descriptors, and what was
accepted can be looked at, and delivered, all the same.
"""

import asyncio
import contextlib
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from tidings.errors import StoreUnavailable
from tidings.store.sqlite import schema

T = TypeVar("T")

# Reads are short; two threads keep a slow list from holding up a look-up.
READERS: Final = 2


class Readers:
    """The readers of the database in the file `path`, each a thread with a connection.

    Raises:
        StoreUnavailable: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._closed = False
        # None stands for a connection that failed, and is opened anew when it is needed.
        self._free: queue.SimpleQueue[sqlite3.Connection | None] = queue.SimpleQueue()
        with contextlib.ExitStack() as opened:
            for _ in range(READERS):
                connection = schema.connect(path, readonly=True)
                opened.callback(connection.close)
                self._free.put(connection)
            self._watch = schema.connect(path, readonly=True)
            opened.pop_all()
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="tidings-reader")

    async def run(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        """Run a unit in one snapshot of the database, and give what it gave.

        Raises:
            StoreUnavailable: the database refused.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._read, unit)
        except RuntimeError as error:
            # Or there is no memory for another thread.
            why = "the store is closed" if self._closed else f"the store cannot be read: {error}"
            raise StoreUnavailable(why) from error

    def data_version(self) -> int:
        """A number that moves with every commit of another connection: a read of shared memory, no file access."""
        try:
            (seen,) = self._watch.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database refused: {error}") from error
        return int(seen)

    async def close(self) -> None:
        """Finish what is being read, then close all connections."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        while not self._free.empty():
            connection = self._free.get()
            if connection is not None:
                connection.close()
        self._watch.close()

    def _read(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        # There are as many as threads: nobody waits.
        connection = self._free.get()
        try:
            if connection is None:
                connection = schema.connect(self._path, readonly=True)
            connection.execute("BEGIN")
            try:
                return unit(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
                connection = None
            raise StoreUnavailable(f"the database refused: {error}") from error
        finally:
            self._free.put(connection)
