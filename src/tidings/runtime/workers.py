"""The processes of `serve --workers N`, as their parent keeps them.

The parent binds the socket and makes the database and its tokens ready before the first worker starts; afterwards it
serves nobody and opens nothing, so there is little that could end it. Each worker is a fresh Python: nothing of the
parent's (its loop, SQLite's connections) is carried over a fork. A worker is the whole service on the same database and
the same socket; connections that wait in the socket's queue outlive the worker that would have taken them.

Parent and worker speak over the worker's standard input and output. In goes a `Task`, and then nothing: the end of the
input means "finish and end", whether the parent closed it or was killed. Out comes one `Report`. So no argument and no
variable of a worker's holds a secret that the parent's did not.
"""

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from tidings.config import Settings
from tidings.errors import CannotStart, StoreUnfit, TidingsError
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.service.rates import TABLE_BYTES

# The end of a start that hangs, seconds; a start takes less than one.
START_SECONDS_MAX: Final = 60.0
# What a worker that was told to end may take beyond the delivery timeout, seconds: requests under way, deliveries that
# began meanwhile, their records, closing. Then it is killed.
END_SLACK_SECONDS: Final = 60.0
# A worker that died is replaced after this long, doubled each time it happens again, seconds: soon, since the others
# carry its load; seldom, when every start ends like the one before.
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 30.0
# One that lived so long is taken to have died of something new, seconds.
STEADY_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told. `listener` and `rates` are descriptors it inherits: the socket, and the rates' table."""

    number: int
    settings: Settings
    listener: int
    rates: int


class Report(msgspec.Struct, frozen=True):
    """What a worker tells: that it answers, or the sentence of what keeps it from that.

    `lasting`: the same start would end in the same way.
    """

    failure: str | None = None
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    """How a process ended, for people; `lasting` as in its report."""

    how: str
    lasting: bool = False


class Workers:
    """Keeps `settings.workers` processes serving on one socket until it is told to stop."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._stopping = asyncio.Event()
        self._answering: set[int] = set()
        self._announced: Callable[[], None] | None = None
        self._failure: TidingsError | None = None

    async def run(self, *, announced: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT and the end of every worker; `announced` is called when all answer.

        Raises:
            CannotStart, StoreUnfit: a worker cannot run, and the others have ended too.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop)
        self._announced = announced
        with _shared_memory(TABLE_BYTES) as rates:
            async with asyncio.TaskGroup() as tasks:
                for number in range(1, self._settings.workers + 1):
                    tasks.create_task(
                        self._keep(Task(number, self._settings, self._listener.fileno(), rates))
                    )
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        """Have all workers finish; nobody waits any longer for the socket that they have let go of."""
        self._stopping.set()
        self._listener.close()

    def _fail(self, failure: TidingsError) -> None:
        if self._failure is None and not self._stopping.is_set():
            self._failure = failure
            self._stop()

    async def _keep(self, task: Task) -> None:
        """Have a worker of this number run, and another when it dies."""
        pause = PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            end = await self._live(task)
            self._judge(task, end)
            if self._stopping.is_set():
                return
            if loop.time() - began > STEADY_SECONDS:
                pause = PAUSE_SECONDS
            about = {"worker": task.number, "how": end.how, "next_in_seconds": round(pause, 1)}
            logger.error("a worker ended, another takes its place", extra=about)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _judge(self, task: Task, end: _End) -> None:
        """Give up on all if the next start would end in the same way, or if not even the first went well."""
        if end.lasting:
            self._fail(StoreUnfit(end.how))
        elif self._announced is not None:
            self._fail(CannotStart(f"worker {task.number} ended before all of them answered: {end.how}"))

    async def _live(self, task: Task) -> _End:
        """Have one process run to its end."""
        try:
            process = await self._start(task)
        except OSError as error:
            return _End(f"it cannot be started: {error.strerror}")
        ending = asyncio.create_task(self._end_with_us(task, process))
        try:
            report = await self._report_of(process)
            if report is not None and report.failure is None:
                self._answers(task, process)
            status = await process.wait()
        finally:
            ending.cancel()
        if report is not None and report.failure is not None:
            return _End(report.failure, lasting=report.lasting)
        return _End(f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}")

    async def _start(self, task: Task) -> Process:
        # A session of its own: Ctrl-C and the end of a terminal reach this process, which tells its workers. -P: no
        # module is taken from the directory the service happens to be started in.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tidings.runtime.worker"),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=(task.listener, task.rates),
            start_new_session=True,
        )
        assert process.stdin is not None
        # It may be dead already, with nobody left to tell.
        if not process.stdin.is_closing():
            process.stdin.write(pickle.dumps(task))
        return process

    async def _report_of(self, process: Process) -> Report | None:
        """What the process tells; None if it ends without a word, or says none for too long and is ended."""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                line = await process.stdout.readline()
        except TimeoutError:
            _kill(process)
            return None
        return msgspec.json.decode(line, type=Report) if line.endswith(b"\n") else None

    def _answers(self, task: Task, process: Process) -> None:
        logger.info("worker answers", extra={"worker": task.number, "pid": process.pid})
        self._answering.add(task.number)
        if len(self._answering) == self._settings.workers and self._announced is not None:
            announce, self._announced = self._announced, None
            announce()

    async def _end_with_us(self, task: Task, process: Process) -> None:
        """Once we stop, have the process finish and end; kill it if it does not."""
        await self._stopping.wait()
        assert process.stdin is not None
        process.stdin.close()
        seconds = self._settings.delivery_timeout / MICROSECONDS_PER_SECOND + END_SLACK_SECONDS
        await asyncio.sleep(seconds)
        logger.error("a worker did not end and is killed", extra={"worker": task.number})
        _kill(process)


def _kill(process: Process) -> None:
    # It may have ended by itself this moment.
    with contextlib.suppress(ProcessLookupError):
        process.kill()


@contextlib.contextmanager
def _shared_memory(size: int) -> Iterator[int]:
    """So many zero bytes that other processes can map, as a descriptor."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("tidings", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)
