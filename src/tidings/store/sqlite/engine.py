"""What dispatchers do in SQLite: mark, claim, record.

The marker alone writes `head`, the record alone moves `cursor`; work is where `head > cursor`. Both are plain columns
of the small `cursors` rows, and the partial indexes that find work are conditions on them, so nothing can say that
there is work where there is none, nor the reverse.

What decides whether a record counts is the fence: it moves at each claim, and only its present value writes.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from tidings.limits import BATCH_BYTES_MAX, MARK_MAX, SCAN_MAX
from tidings.model import Claim, Claimed, ClaimRequest, End, Event, Health, Lease, Micros, Record
from tidings.store.sqlite.rows import (
    ATTEMPT_COLUMNS,
    dump_attempt,
    load_filters,
    load_secrets,
    read_meta,
    write_meta,
)

# -- finding work ----------------------------------------------------------------------------------

MARK: Final = """
    UPDATE cursors SET head = marks.position
    FROM (
        SELECT s.value AS scope, max(e.position) AS position
        FROM events e, json_each(e.scopes) s
        WHERE e.position > :after AND e.position <= :upto
        GROUP BY s.value
    ) AS marks
    WHERE cursors.scope = marks.scope AND cursors.head < marks.position
"""

FREE_EXPIRED: Final = """
    UPDATE cursors SET lease_until = NULL, holder = NULL
    WHERE lease_until IS NOT NULL AND (lease_until <= :now OR lease_until > :now + :lease)
"""

_IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"
_ORIGIN_FREE: Final = "origin NOT IN (SELECT value FROM json_each(:full))"

# Who was served longest ago goes first.
READY: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE head > cursor AND failures = 0 AND {_IDLE} AND {_ORIGIN_FREE}
    ORDER BY turn LIMIT :limit
"""

FAILING: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE failures > 0 AND {_IDLE} AND {_ORIGIN_FREE} AND next_attempt_at <= :now
    ORDER BY next_attempt_at LIMIT :limit
"""

# Events are a sign of life too, so whoever has some is left to READY: no webhook is found by two statements.
QUIET: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE failures = 0 AND {_IDLE} AND {_ORIGIN_FREE} AND heartbeat_at <= :now AND head <= cursor
    ORDER BY heartbeat_at LIMIT :limit
"""

# A due time further ahead than any wait of the policy was set by a clock that since went back: it is due.
_FAILING_ASTRAY: Final = FAILING.replace("next_attempt_at <= :now", "next_attempt_at > :now + :wait_max")

LEASE: Final = """
    UPDATE cursors SET fence = fence + 1, holder = :holder, lease_until = :until
    WHERE webhook IN (SELECT value FROM json_each(:webhooks))
"""

CLAIMED: Final = """
    SELECT c.webhook, c.fence, w.gid, w.target, c.origin, w.workspace, w.filters, w.secrets,
        c.scope, c.cursor, c.head, c.epoch, c.batch_end, c.failures, c.failing_since, c.next_attempt_at,
        c.last_success_at, c.last_failure_at, w.last_failure_content, c.heartbeat_at
    FROM cursors c JOIN webhooks w ON w.id = c.webhook
    WHERE c.webhook IN (SELECT value FROM json_each(?))
"""

PAGE: Final = """
    SELECT e.position, e.resource_type, e.resource_subtype, e.action, e.field, e.wire
    FROM event_scopes s JOIN events e ON e.position = s.position
    WHERE s.scope = ? AND s.position > ? AND s.position <= ?
    ORDER BY s.position LIMIT ?
"""


def mark(connection: sqlite3.Connection) -> bool:
    """Raise the heads for a bounded number of new events; gives whether there are more."""
    after = int(read_meta(connection, "marked"))
    (upto,) = connection.execute(
        "SELECT max(position) FROM (SELECT position FROM events WHERE position > ? ORDER BY position LIMIT ?)",
        (after, MARK_MAX),
    ).fetchone()
    if upto is None:
        return False
    connection.execute(MARK, {"after": after, "upto": upto})
    write_meta(connection, "marked", upto)
    return int(upto) - after >= MARK_MAX


def claim(connection: sqlite3.Connection, request: ClaimRequest) -> Claimed:
    behind = mark(connection)
    connection.execute(FREE_EXPIRED, {"now": request.now, "lease": request.lease})
    chosen = _choose(connection, request)
    if not chosen:
        return Claimed((), behind)
    until = request.now + request.lease
    webhooks = json.dumps(chosen)
    connection.execute(LEASE, {"holder": request.holder, "until": until, "webhooks": webhooks})
    rows = {row[0]: row for row in connection.execute(CLAIMED, (webhooks,)).fetchall()}
    claims = tuple(_load_claim(connection, rows[webhook], until, request.batch_max) for webhook in chosen)
    return Claimed(claims, behind)


def _choose(connection: sqlite3.Connection, request: ClaimRequest) -> list[int]:
    """Choose webhooks in the order of service, leaving out origins that are full."""
    chosen = _Choice(request)
    chosen.take(connection, READY, request.limit)
    for statement in (FAILING, _FAILING_ASTRAY):
        failing_before = len(chosen.webhooks)
        chosen.take(connection, statement, min(request.limit, request.failing_limit))
        if len(chosen.webhooks) > failing_before:
            break
    chosen.take(connection, QUIET, request.limit)
    return list(chosen.webhooks)


class _Choice:
    """What has been chosen so far, and how much room is left in total and per origin."""

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._in_flight = Counter(request.in_flight)
        self.webhooks: dict[int, None] = {}

    def take(self, connection: sqlite3.Connection, statement: str, most: int) -> None:
        """Take up to `most` webhooks that this statement finds.

        Rows of an origin that fills up on the way are passed over, and the statement is asked again without that
        origin. Each turn fills at least one more, so there are few.
        """
        while (room := min(most, self._request.limit - len(self.webhooks))) > 0:
            found = connection.execute(statement, self._parameters(room)).fetchall()
            taken = sum(self._admit(webhook, origin) for webhook, origin in found)
            most -= taken
            if taken == len(found):
                return

    def _admit(self, webhook: int, origin: int) -> bool:
        if webhook in self.webhooks or self._in_flight[origin] >= self._request.per_origin:
            return False
        self._in_flight[origin] += 1
        self.webhooks[webhook] = None
        return True

    def _parameters(self, limit: int) -> dict[str, object]:
        full = [origin for origin, count in self._in_flight.items() if count >= self._request.per_origin]
        return {
            "now": self._request.now,
            "full": json.dumps(full),
            "limit": limit,
            "wait_max": self._request.wait_max,
        }


def _load_claim(connection: sqlite3.Connection, row: Sequence[Any], until: Micros, batch_max: int) -> Claim:
    webhook, fence, gid, target, origin, workspace, filters_text, secrets = row[:8]
    scope, cursor, head, epoch, batch_end, failures, failing_since, next_attempt_at = row[8:16]
    last_success_at, last_failure_at, last_failure_content, heartbeat_at = row[16:]
    filters = load_filters(filters_text)
    page: tuple[Event, ...] = ()
    more = False
    if head > cursor:
        # Without filters every event is taken, so a batch and one more is all that can be of use.
        most = SCAN_MAX if filters else batch_max + 1
        page, more = _read_page(connection, scope, after=cursor, upto=batch_end or head, most=most)
    return Claim(
        lease=Lease(webhook, fence, until),
        gid=gid,
        target=target,
        origin=origin,
        workspace=workspace,
        filters=filters,
        secrets=load_secrets(secrets),
        cursor=cursor,
        head=head,
        epoch=epoch,
        batch_end=batch_end,
        health=Health(
            last_success_at=last_success_at,
            last_failure_at=last_failure_at,
            last_failure_content=last_failure_content,
            failing_since=failing_since,
            failures=failures,
            next_attempt_at=next_attempt_at,
            heartbeat_at=heartbeat_at,
        ),
        page=page,
        more=more,
    )


def _read_page(
    connection: sqlite3.Connection, scope: int, *, after: int, upto: int, most: int
) -> tuple[tuple[Event, ...], bool]:
    """The next events of a scope, at most so many, and few bytes more than a batch can hold."""
    page: list[Event] = []
    size = 0
    for row in connection.execute(PAGE, (scope, after, upto, most)):
        event = Event(*row)
        page.append(event)
        size += len(event.wire)
        if size > BATCH_BYTES_MAX:
            return tuple(page), True
    return tuple(page), len(page) == most


# -- recording -------------------------------------------------------------------------------------

ATTEMPT: Final = f"""
    INSERT INTO attempts (webhook, workspace, {ATTEMPT_COLUMNS})
    SELECT w.id, w.workspace, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
    FROM cursors c JOIN webhooks w ON w.id = c.webhook
    WHERE c.webhook = ?1 AND c.fence = ?2
"""

FAILURE: Final = """
    UPDATE webhooks SET last_failure_content = ?3
    WHERE id = ?1 AND (SELECT fence FROM cursors WHERE webhook = ?1) = ?2
"""

RECORD: Final = """
    UPDATE cursors SET
        cursor = max(cursor, :cursor),
        batch_end = CASE WHEN epoch = :epoch THEN :batch_end END,
        failures = :failures, failing_since = :failing_since, next_attempt_at = :next_attempt_at,
        last_success_at = :last_success_at, last_failure_at = :last_failure_at, heartbeat_at = :heartbeat_at,
        turn = :settled_at, holder = NULL, lease_until = NULL,
        ended_at = CASE WHEN :ended IS NULL THEN ended_at ELSE coalesce(ended_at, :settled_at) END,
        ended = coalesce(ended, :ended)
    WHERE webhook = :webhook AND fence = :fence
"""


def record(connection: sqlite3.Connection, records: Sequence[Record]) -> int:
    connection.executemany(ATTEMPT, _attempts(records))
    connection.executemany(FAILURE, _failures(records))
    return connection.executemany(RECORD, map(_parameters, records)).rowcount


def _attempts(records: Iterable[Record]) -> Iterator[tuple[object, ...]]:
    for entry in records:
        if entry.attempt is not None:
            yield entry.lease.webhook, entry.lease.fence, *dump_attempt(entry.attempt)


def _failures(records: Iterable[Record]) -> Iterator[tuple[object, ...]]:
    """Only a failure changes the content of the last one; a success leaves it (contract §12.18)."""
    for entry in records:
        if entry.attempt is not None and (isinstance(entry.verdict, End) or entry.verdict.health.failures):
            yield entry.lease.webhook, entry.lease.fence, entry.verdict.health.last_failure_content


def _parameters(entry: Record) -> dict[str, object]:
    health = entry.verdict.health
    return {
        "webhook": entry.lease.webhook,
        "fence": entry.lease.fence,
        "cursor": entry.cursor,
        "epoch": entry.epoch,
        "batch_end": entry.batch_end,
        "failures": health.failures,
        "failing_since": health.failing_since,
        "next_attempt_at": health.next_attempt_at,
        "last_success_at": health.last_success_at,
        "last_failure_at": health.last_failure_at,
        "heartbeat_at": health.heartbeat_at,
        "settled_at": entry.settled_at,
        "ended": entry.verdict.reason.value if isinstance(entry.verdict, End) else None,
    }


# -- when to look again ----------------------------------------------------------------------------

_NEXT_DUE: Final = f"""
    SELECT min(at) FROM (
        SELECT min(next_attempt_at) AS at FROM cursors WHERE failures > 0 AND {_IDLE}
        UNION ALL SELECT min(heartbeat_at) FROM cursors WHERE failures = 0 AND {_IDLE}
        UNION ALL SELECT min(lease_until) FROM cursors WHERE lease_until IS NOT NULL
    )
"""

_OLDEST_READY: Final = f"""
    SELECT e.accepted_at FROM cursors c JOIN event_scopes s ON s.scope = c.scope AND s.position > c.cursor
    JOIN events e ON e.position = s.position
    WHERE c.webhook = (
        SELECT webhook FROM cursors WHERE head > cursor AND failures = 0 AND {_IDLE} ORDER BY turn LIMIT 1
    )
    ORDER BY s.position LIMIT 1
"""

# Knuth's multiplicative hash spreads consecutive ids evenly; no dice, so that a run can be repeated.
_SPREAD: Final = f"""
    UPDATE cursors SET heartbeat_at = :now + (webhook * 2654435761 % 4294967296) * :window / 4294967296
    WHERE failures = 0 AND {_IDLE} AND (heartbeat_at < :before OR heartbeat_at > :now + :interval)
"""


def next_due_at(connection: sqlite3.Connection) -> Micros | None:
    (at,) = connection.execute(_NEXT_DUE).fetchone()
    return None if at is None else int(at)


def oldest_due_at(connection: sqlite3.Connection) -> Micros | None:
    row = connection.execute(_OLDEST_READY).fetchone()
    return None if row is None else int(row[0])


def spread_heartbeats(
    connection: sqlite3.Connection, *, now: Micros, overdue_by: Micros, interval: Micros
) -> None:
    parameters = {"now": now, "before": now - overdue_by, "interval": interval, "window": interval // 10}
    connection.execute(_SPREAD, parameters)
