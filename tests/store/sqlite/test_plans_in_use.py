"""The plans of every statement a store really runs in a webhook's life, however it came to be written.

What runs is overheard and its plan asked for on the same database: empty, full, and full with SQLite's statistics,
which an operator may have gathered and which change what SQLite thinks is cheap.
"""

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.store.building import (
    DAY,
    HIERARCHY,
    NOON,
    OWNER,
    PROJECT,
    SECOND,
    TASK,
    WORKSPACE,
    Case,
    change,
    delivered,
    failed,
    names_of,
    token,
)
from tests.store.sqlite.filling import crowd
from tidings.model import Idempotency, Publication
from tidings.store.sqlite import SqliteStore, open_store

CROWD: Final = 2_000
# Tables that grow with use, and the aliases they go by in statements.
GROWING: Final = {
    *("attempts", "a", "cursors", "c", "events", "e", "event_scopes", "s", "idempotency"),
    *("parents", "resources", "r", "p", "webhooks", "w"),
}
# Scans that read from the start of an order and stop at a LIMIT, or that are meant.
MEANT: Final = (
    # In the order of service, from an index that holds none but the ready.
    re.compile(r"SCAN cursors USING INDEX cursors_ready"),
)
# Only when there is something to trim, beside the writer, and once for many steps: see `trimming.py`.
WHO_HOLDS_BACK: Final = (
    "SELECT min(max(c.cursor, c.unread_after)) FROM cursors c WHERE",
    "SELECT c.webhook FROM cursors c WHERE",
)


def scans(connection: sqlite3.Connection, statement: str) -> list[str]:
    """The steps of its plan that read a whole table that grows, but for those that are meant."""
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement)]
    found = [
        step
        for step in plan
        if (scan := re.match(r"SCAN (\w+)(?! VIRTUAL)\b", step)) and scan.group(1) in GROWING
    ]
    return [step for step in found if not any(meant.fullmatch(step) for meant in MEANT)]


async def live(case: Case) -> None:
    """Everything that happens to a webhook, once: establishing, events, claims, failing, reading, ending, trimming."""
    store = case.store
    await store.add_token(token("t"), digest=b"t")
    await store.put_resources(HIERARCHY, workspaces=None, now=NOON)
    webhook = await case.establish()
    await case.establish("http://another.example/", resource=TASK)
    await case.publish("a", idempotency=Idempotency(token="t", key="key", digest=b"digest"))
    await store.publish(Publication(events=(change("b", external_id="x", parent=WORKSPACE),)), now=NOON)
    await case.publish(*names_of(40))
    for claim in (await case.claim()).claims:
        await case.record(failed(claim, now=NOON, next_attempt_at=NOON + SECOND))
    for claim in (await case.claim(now=NOON + SECOND)).claims:
        await case.record(delivered(claim, now=NOON + SECOND))
    await store.next_due_at()
    await store.oldest_due_at(now=NOON)
    await store.get_resource(PROJECT)
    await store.replace_filters(webhook.gid, [])
    for resource in (None, PROJECT):
        await store.list_webhooks(OWNER, workspace=WORKSPACE, resource=resource, after=0, limit=10)
    await case.attempts(webhook.gid)
    await case.attempts(webhook.gid, before=10)
    await store.find_token(b"t")
    await store.touch_tokens({"t": NOON})
    await store.revoke_token("t", now=NOON)
    await store.review_access(now=NOON)
    await store.remove_webhook(webhook.gid, now=NOON)
    await store.delete_resource(TASK, now=NOON)
    await case.trim_all(now=NOON + 30 * DAY)
    await store.drop_holder(case.holder)


class Overheard:
    """What a store runs on its connections, each statement once."""

    def __init__(self) -> None:
        self.statements: dict[str, None] = {}

    def note(self, statement: str) -> None:
        words = statement.split(None, 1)
        if words and words[0].upper() in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}:
            self.statements[" ".join(statement.split())] = None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = open_store(str(tmp_path / "tidings.db"), migrate=True, generation="g", key_id="k")
    yield store
    await store.close()


async def listen(store: SqliteStore, overheard: Overheard) -> None:
    """Hear what the writer and each reader run from now on."""

    def hear(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(overheard.note)

    await store._write(hear)
    # Both readers: each is kept busy until the other has come.
    both = threading.Barrier(2)

    def hear_and_wait(connection: sqlite3.Connection) -> None:
        hear(connection)
        both.wait(10)

    await asyncio.gather(store._read(hear_and_wait), store._read(hear_and_wait))


@pytest.mark.parametrize("filled", ["empty", "full", "analyzed"])
async def test_no_statement_of_a_webhooks_life_reads_a_whole_table(store: SqliteStore, filled: str) -> None:
    case = await Case.on(store)
    if filled != "empty":
        await store._write(lambda connection: crowd(connection, CROWD))
        await case.publish(*names_of(500), resource="crowd 1")
    if filled == "analyzed":
        await store._write(lambda connection: connection.execute("ANALYZE"))
    overheard = Overheard()
    await listen(store, overheard)
    await live(case)

    def judge(connection: sqlite3.Connection) -> dict[str, list[str]]:
        connection.set_trace_callback(None)
        return {
            statement: found
            for statement in overheard.statements
            if not statement.startswith(WHO_HOLDS_BACK)
            if (found := scans(connection, statement))
        }

    wrong = await store._write(judge)
    assert len(overheard.statements) > 60
    assert wrong == {}


async def test_steps_of_trimming_read_no_whole_table(store: SqliteStore) -> None:
    """Who holds events back is asked once, beside the writer, however many steps there are to take."""
    case = await Case.on(store)
    await store._write(lambda connection: crowd(connection, CROWD))
    await store.put_resources(HIERARCHY, workspaces=None, now=NOON)
    await case.establish()
    for _ in range(3):
        await case.publish(*names_of(1_000))
    overheard = Overheard()
    await store._write(lambda connection: connection.set_trace_callback(overheard.note))
    assert len(await case.trim_all(now=NOON + 30 * DAY)) >= 3

    def judge(connection: sqlite3.Connection) -> list[str]:
        connection.set_trace_callback(None)
        return [statement for statement in overheard.statements if scans(connection, statement)]

    assert await store._write(judge) == []
