"""Writing what claims came to. A record whose fence is stale finds no row, and so changes nothing.

What a statement names, it pays for: SQLite writes the entries of every index whose columns stand behind SET, changed
or not. Most deliveries go well to webhooks that went well before. Of those no retry, no failure and no heartbeat
moves; if the lease is kept, nothing does that an index holds. So there are three statements, the last for whatever else
happens.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tidings.limits import PROVEN_WITHIN
from tidings.model import End, Lease, Record, Recorded
from tidings.store.sqlite.rows import ATTEMPT_COLUMNS, dump_attempt, dump_set, end_of
from tidings.store.sqlite.sets import SetStatement

_ATTEMPT: Final = ATTEMPT_COLUMNS.split(", ")

ATTEMPT: Final = SetStatement(
    f"""
    INSERT INTO attempts (id, webhook, previous, workspace, {ATTEMPT_COLUMNS})
    SELECT r.attempt, c.webhook, c.last_attempt, w.workspace, {", ".join(f"r.{name}" for name in _ATTEMPT)}
    FROM {{rows}} JOIN cursors c ON c.webhook = r.webhook AND c.fence = r.fence JOIN webhooks w ON w.id = c.webhook
    """,
    *("attempt", "webhook", "fence", *_ATTEMPT),
)

FAILURE: Final = SetStatement(
    """
    UPDATE webhooks SET last_failure_content = r.content
    FROM {rows} JOIN cursors c ON c.webhook = r.webhook AND c.fence = r.fence
    WHERE webhooks.id = r.webhook
    """,
    *("webhook", "fence", "content"),
)

_OURS: Final = "cursors.webhook = r.webhook AND cursors.fence = r.fence"
# A lease is kept only for what nobody has decided anew, and while the webhook may be delivered to.
_ONWARD: Final = "cursors.epoch = r.epoch AND cursors.stopped IS NULL AND cursors.ended_at IS NULL"

# What is as of a webhook's last turn: when it was, and whether a delivery had been taken lately then. A success that
# lies ahead was noted by a clock that is a little ahead, or has since gone back.
_TURN: Final = (
    "turn = r.settled_at, "
    f"delivered_lately = coalesce(abs(r.settled_at - r.last_success_at) < {PROVEN_WITHIN}, 0)"
)

# What a delivery that went well changes of a webhook that was healthy before and has no batch to send again.
_WELL: Final = (
    f"cursor = max(cursors.cursor, r.cursor), last_success_at = r.last_success_at, {_TURN}, "
    "last_attempt = coalesce(r.attempt, cursors.last_attempt)"
)
_WELL_COLUMNS: Final = ("webhook", "fence", "cursor", "epoch", "last_success_at", "settled_at", "attempt")

WENT_ON: Final = SetStatement(
    f"UPDATE cursors SET {_WELL} FROM {{rows}} WHERE {_OURS} AND {_ONWARD}", *_WELL_COLUMNS
)
WENT_WELL: Final = SetStatement(
    f"UPDATE cursors SET {_WELL}, holder = NULL, lease_until = NULL FROM {{rows}} WHERE {_OURS}",
    *_WELL_COLUMNS,
)
RECORD: Final = SetStatement(
    f"""
    UPDATE cursors SET
        cursor = max(cursors.cursor, r.cursor),
        batch_end = CASE WHEN cursors.epoch = r.epoch THEN r.batch_end END,
        failures = r.failures, failing_since = r.failing_since, next_attempt_at = r.next_attempt_at,
        last_success_at = r.last_success_at, last_failure_at = r.last_failure_at, heartbeat_at = r.heartbeat_at,
        {_TURN}, holder = NULL, lease_until = NULL,
        last_attempt = coalesce(r.attempt, cursors.last_attempt),
        ended_at = CASE WHEN r.ended IS NULL THEN cursors.ended_at ELSE coalesce(cursors.ended_at, r.settled_at) END,
        ended = coalesce(cursors.ended, r.ended)
    FROM {{rows}}
    WHERE {_OURS}
    """,
    *("webhook", "fence", "cursor", "epoch", "batch_end", "failures", "failing_since", "next_attempt_at"),
    *("last_success_at", "last_failure_at", "heartbeat_at", "settled_at", "ended", "attempt"),
)

ONWARD: Final = f"""
    SELECT json_group_array(cursors.webhook)
    FROM (SELECT value ->> 0 AS webhook, value ->> 1 AS fence, value ->> 2 AS epoch FROM json_each(?)) AS r
    JOIN cursors ON {_OURS} WHERE {_ONWARD}
"""

_decode_webhooks: Final = msgspec.json.Decoder(list[int]).decode


def record(connection: sqlite3.Connection, records: Sequence[Record]) -> Recorded:
    numbers = _log(connection, records)
    onward = [entry for entry in records if entry.onward]
    counted = WENT_ON.run(connection, [_well(entry, numbers) for entry in onward])
    kept = frozenset(entry.lease.webhook for entry in onward)
    if counted < len(onward):
        kept = _still_allowed(connection, onward)
    rest = [entry for entry in records if entry.lease.webhook not in kept]
    counted += WENT_WELL.run(connection, [_well(entry, numbers) for entry in rest if entry.steady])
    counted += RECORD.run(connection, [_whole(entry, numbers) for entry in rest if not entry.steady])
    return Recorded(counted, kept)


def _log(connection: sqlite3.Connection, records: Sequence[Record]) -> dict[Lease, int]:
    """Log what was tried; gives the number of each lease's attempt."""
    first = end_of(connection, "attempts") + 1
    tried = [entry for entry in records if entry.attempt is not None]
    rows = [
        (number, entry.lease.webhook, entry.lease.fence, *dump_attempt(entry.attempt))
        for number, entry in enumerate(tried, first)
        if entry.attempt is not None
    ]
    ATTEMPT.run(connection, rows)
    FAILURE.run(connection, _failures(tried))
    return {entry.lease: number for number, entry in enumerate(tried, first)}


def _failures(tried: Iterable[Record]) -> list[tuple[object, ...]]:
    """Only a failure changes the content of the last one; a success leaves it (contract §12.18)."""
    return [
        (entry.lease.webhook, entry.lease.fence, entry.verdict.health.last_failure_content)
        for entry in tried
        if isinstance(entry.verdict, End) or entry.verdict.health.failures
    ]


def _still_allowed(connection: sqlite3.Connection, onward: Sequence[Record]) -> frozenset[int]:
    asked = dump_set([(entry.lease.webhook, entry.lease.fence, entry.epoch) for entry in onward])
    (found,) = connection.execute(ONWARD, (asked,)).fetchone()
    return frozenset(_decode_webhooks(found))


def _well(entry: Record, numbers: dict[Lease, int]) -> tuple[object, ...]:
    """One record as `WENT_ON` and `WENT_WELL` take it."""
    return (
        entry.lease.webhook,
        entry.lease.fence,
        entry.cursor,
        entry.epoch,
        entry.verdict.health.last_success_at,
        entry.settled_at,
        numbers.get(entry.lease),
    )


def _whole(entry: Record, numbers: dict[Lease, int]) -> tuple[object, ...]:
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
        numbers.get(entry.lease),
    )
