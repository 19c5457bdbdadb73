"""Writing what claims came to. A record whose fence is stale finds no row, and so changes nothing."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from tidings.model import End, Record
from tidings.store.sqlite.rows import ATTEMPT_COLUMNS, dump_attempt, dump_set, end_of


def _columns(*names: str) -> str:
    """The entries of JSON arrays as named columns of a table `r`."""
    entries = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(names))
    return f"(SELECT {entries} FROM json_each(?)) AS r"


_ATTEMPT_ENTRIES: Final = [f"r.{name}" for name in ATTEMPT_COLUMNS.split(", ")]

ATTEMPT: Final = f"""
    INSERT INTO attempts (id, webhook, previous, workspace, {ATTEMPT_COLUMNS})
    SELECT r.attempt, c.webhook, c.last_attempt, w.workspace, {", ".join(_ATTEMPT_ENTRIES)}
    FROM {_columns("attempt", "webhook", "fence", *ATTEMPT_COLUMNS.split(", "))}
    JOIN cursors c ON c.webhook = r.webhook AND c.fence = r.fence
    JOIN webhooks w ON w.id = c.webhook
"""

FAILURE: Final = f"""
    UPDATE webhooks SET last_failure_content = r.content
    FROM {_columns("webhook", "fence", "content")} JOIN cursors c ON c.webhook = r.webhook AND c.fence = r.fence
    WHERE webhooks.id = r.webhook
"""

RECORD: Final = f"""
    UPDATE cursors SET
        cursor = max(cursors.cursor, r.cursor),
        batch_end = CASE WHEN cursors.epoch = r.epoch THEN r.batch_end END,
        failures = r.failures, failing_since = r.failing_since, next_attempt_at = r.next_attempt_at,
        last_success_at = r.last_success_at, last_failure_at = r.last_failure_at, heartbeat_at = r.heartbeat_at,
        turn = r.settled_at, holder = NULL, lease_until = NULL,
        last_attempt = coalesce(r.attempt, cursors.last_attempt),
        ended_at = CASE WHEN r.ended IS NULL THEN cursors.ended_at ELSE coalesce(cursors.ended_at, r.settled_at) END,
        ended = coalesce(cursors.ended, r.ended)
    FROM {
    _columns(
        *("webhook", "fence", "cursor", "epoch", "batch_end", "failures", "failing_since", "next_attempt_at"),
        *("last_success_at", "last_failure_at", "heartbeat_at", "settled_at", "ended", "attempt"),
    )
}
    WHERE cursors.webhook = r.webhook AND cursors.fence = r.fence
"""


def record(connection: sqlite3.Connection, records: Sequence[Record]) -> int:
    first = end_of(connection, "attempts") + 1
    attempts: list[tuple[object, ...]] = []
    entries: list[tuple[object, ...]] = []
    for entry in records:
        attempt = None
        if entry.attempt is not None:
            attempt = first + len(attempts)
            attempts.append((attempt, entry.lease.webhook, entry.lease.fence, *dump_attempt(entry.attempt)))
        entries.append((*_entries(entry), attempt))
    if attempts:
        connection.execute(ATTEMPT, (dump_set(attempts),))
    failures = _failures(records)
    if failures:
        connection.execute(FAILURE, (dump_set(failures),))
    return connection.execute(RECORD, (dump_set(entries),)).rowcount


def _failures(records: Iterable[Record]) -> list[tuple[object, ...]]:
    """Only a failure changes the content of the last one; a success leaves it (contract §12.18)."""
    return [
        (entry.lease.webhook, entry.lease.fence, entry.verdict.health.last_failure_content)
        for entry in records
        if entry.attempt is not None and (isinstance(entry.verdict, End) or entry.verdict.health.failures)
    ]


def _entries(entry: Record) -> tuple[object, ...]:
    """One record as `RECORD` takes it."""
    health = entry.verdict.health
    return (
        entry.lease.webhook,
        entry.lease.fence,
        entry.cursor,
        entry.epoch,
        entry.batch_end,
        health.failures,
        health.failing_since,
        health.next_attempt_at,
        health.last_success_at,
        health.last_failure_at,
        health.heartbeat_at,
        entry.settled_at,
        entry.verdict.reason.value if isinstance(entry.verdict, End) else None,
    )
