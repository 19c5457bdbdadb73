"""One process of `serve --workers N`, as a program: `workers.py` says what it is told and tells."""

import asyncio
import contextlib
import mmap
import os
import pickle
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from tidings.errors import StoreUnavailable, TidingsError
from tidings.runtime.database import load_key
from tidings.runtime.machine import elapsed, run
from tidings.runtime.serving import configure_log, opened
from tidings.runtime.workers import Report, Task
from tidings.sealing import Sealer
from tidings.service.rates import TABLE_BYTES, RateLimit

INPUT: Final = 0
OUTPUT: Final = 1


def main() -> None:
    """Read the task, do it, and end with status 0, or 1 if it cannot be done."""
    with open(INPUT, "rb", closefd=False) as parent:
        task: Task = pickle.load(parent)
    configure_log(task.settings, worker=task.number)
    try:
        run(work(task))
    except TidingsError as error:
        tell(Report(failure=str(error), lasting=not isinstance(error, StoreUnavailable)))
        sys.exit(1)


async def work(task: Task) -> None:
    """Serve on the inherited socket until the parent closes our input, or is gone; or until SIGTERM or SIGINT."""
    settings = task.settings
    rates = RateLimit(
        settings.rate_limit, elapsed=elapsed, table=memoryview(mmap.mmap(task.rates, TABLE_BYTES))
    )
    with socket.socket(fileno=task.listener) as listener:
        async with opened(settings, Sealer(load_key(settings)), migrate=False, rates=rates) as service:
            asyncio.get_running_loop().add_reader(INPUT, leave, service.stop)
            await service.run(listener, announced=lambda: tell(Report()))


def leave(stop: Callable[[], None]) -> None:
    """The input has ended, as nothing follows the task: stop, once."""
    asyncio.get_running_loop().remove_reader(INPUT)
    stop()


def tell(report: Report) -> None:
    """Tell the parent, if it is still there; if it is not, our input has ended."""
    with contextlib.suppress(BrokenPipeError):
        os.write(OUTPUT, msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    main()
