"""A database with many webhooks in it, made faster than the service would make them."""

import sqlite3
from typing import Final

from tests.store.building import HEARTBEAT, LEASE, NOON, PROJECT, WORKSPACE, Case
from tidings.model import Micros
from tidings.store.sqlite import MEMORY, SqliteStore, open_store

# Every quarter of the crowd is in one of these states; a quarter is healthy and quiet. Leased are as many as a process
# delivers to at once.
_STATES: Final = (
    """
    UPDATE cursors SET failures = 3, failing_since = :now, next_attempt_at = :due + webhook
    WHERE webhook % 4 = 1
    """,
    "UPDATE cursors SET stopped = 'access_lost', head = head + 1 WHERE webhook % 4 = 2",
    "UPDATE cursors SET ended = 'deleted', ended_at = :now, head = head + 1 WHERE webhook % 4 = 3",
    "UPDATE cursors SET lease_until = :until, holder = 99, head = head + 1 WHERE webhook % 4 = 0 AND webhook < 100",
)

_NUMBERS: Final = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < :count)"

_CROWD: Final = (
    f"""
    INSERT INTO resources (id, gid, resource_type, workspace)
    {_NUMBERS} SELECT 1000000 + i, 'crowd ' || i, 'project', '{WORKSPACE}' FROM n
    """,
    f"""
    INSERT INTO parents (child, place, parent)
    {_NUMBERS} SELECT 1000000 + i, 0, (SELECT id FROM resources WHERE gid = '{WORKSPACE}') FROM n
    """,
    f"INSERT INTO origins (id, name) {_NUMBERS} SELECT 1000000 + i, 'http://' || i || ':80' FROM n",
    f"""
    INSERT INTO webhooks (gid, user, app, workspace, scope, target, filters, secrets, created_at)
    {_NUMBERS} SELECT 'crowd ' || i, 'user ' || (i / 10), 'app', '{WORKSPACE}', 1000000 + i, 'http://' || i || '/',
        '[]', '[["key", "AA==", null]]', :now FROM n
    """,
    """
    INSERT INTO cursors (webhook, scope, origin, cursor, head, heartbeat_at, turn, last_success_at)
    SELECT id, scope, scope, 0, 0, :due, :now, :now FROM webhooks WHERE gid LIKE 'crowd %'
    """,
    """
    INSERT INTO attempts
        (webhook, previous, workspace, delivery, started_at, duration, events, heartbeat, status, result, excerpt)
    SELECT id, NULL, workspace, gid, :now, 5, 1, 0, 200, 'delivered', '' FROM webhooks WHERE gid LIKE 'crowd %'
    """,
)


def crowd(connection: sqlite3.Connection, count: int, *, now: Micros = NOON) -> None:
    """Add so many webhooks, each on a project, with a target and in one of the states of its own."""
    parameters = {"count": count, "now": now, "due": now + HEARTBEAT, "until": now + LEASE}
    for statement in (*_CROWD, *_STATES):
        connection.execute(statement, parameters)


async def crowded(count: int) -> tuple[SqliteStore, Case]:
    """A store in memory, whose one connection does all the work, with a crowd and one webhook on `PROJECT`."""
    store = open_store(MEMORY, migrate=True, generation="g", key_id="k")
    case = await Case.on(store)
    await store._write(lambda connection: crowd(connection, count))
    await case.establish(resource=PROJECT)
    return store, case


def pass_over(connection: sqlite3.Connection, *, positions: int) -> None:
    """Let so many positions have been given to events that concern nobody here, and that were trimmed since."""
    connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (positions,))
    connection.execute("UPDATE meta SET value = value + ? WHERE name = 'marked'", (positions,))
