"""A process of its own beside a test: `python -m tests.store.sqlite.turning PATH write|hold`, until it is killed."""

import asyncio
import math
import sqlite3
import sys
import time
from pathlib import Path
from typing import Final

from tidings.store.sqlite import open_store
from tidings.store.sqlite.turns import Turns

# Units that are under way at once; so no transaction has more.
UNITS: Final = 4


def mark(connection: sqlite3.Connection) -> None:
    """A transaction as short as ours are, and no shorter; it counts itself."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'marks'")
    time.sleep(0.002)


async def write(path: Path) -> None:
    """Write again and again, with no pause in between: there is always a unit that waits."""
    store = open_store(str(path), migrate=False, generation="g", key_id="k")

    async def again() -> None:
        while True:
            await store._write(mark)

    await asyncio.gather(*(again() for _ in range(UNITS)))


def hold(path: Path) -> None:
    """Take the turn, and stand still until told to leave it."""
    with beside_others(path).turn():
        print("held", flush=True)
        sys.stdin.readline()
    # It does not end by itself: what it has locked is not let go of by its end.
    time.sleep(600)


def beside_others(path: Path) -> Turns:
    """The turns of a process that has seen another."""
    turns = Turns(path)
    turns._others_until = math.inf
    return turns


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2] == "write":
        asyncio.run(write(place))
    else:
        hold(place)
