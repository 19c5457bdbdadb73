"""Services that are wrong on purpose: what shows that the harness can fail.

    python -m tests.kill.mutants NAME serve …

runs the `tidings` command with one rule broken. Each mutant checks that what it breaks is there to be broken.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tidings.cli import main
from tidings.model import Claimed, ClaimRequest
from tidings.store.sqlite import SqliteStore, recording


def without_the_fence() -> None:
    """A record counts, however long ago its lease ran out."""
    fence = re.compile(r"AND cursors\.fence = r\.fence\b")
    for name in ("WENT_ON", "WENT_WELL", "RECORD"):
        statement = getattr(recording, name)
        found = {size: fence.subn("", sql) for size, sql in statement.statements.items()}
        assert all(count == 1 for _, count in found.values()), "the fence is not where it was"
        statement.statements = {size: sql for size, (sql, _) in found.items()}


def cursor_before_the_post() -> None:
    """The cursor is moved when a batch is claimed, not when it was taken."""
    claim = SqliteStore.claim

    async def move_and_claim(store: SqliteStore, request: ClaimRequest, **more: Any) -> Claimed:
        claimed = await claim(store, request, **more)
        pages = [(each.page[: request.batch_max], each.lease.webhook) for each in claimed.claims]
        ends = [(page[-1].position, webhook) for page, webhook in pages if page]

        def move(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE cursors SET cursor = max(cursor, ?) WHERE webhook = ?", ends)

        await store._write(move)
        return claimed

    SqliteStore.claim = move_and_claim  # type: ignore[assignment, method-assign]


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    mutate.__name__: mutate for mutate in (without_the_fence, cursor_before_the_post)
}


def command(name: str) -> Sequence[str]:
    """What to start in place of `tidings`; the project's root must be in PYTHONPATH."""
    assert name in MUTANTS
    return (sys.executable, "-m", "tests.kill.mutants", name)


ROOT: Final = Path(__file__).parents[2]


if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    main(prog_name="tidings")
