"""Finding work in SQLite: mark, claim.

The marker alone writes `head`, the record alone moves `cursor`; work is where `head > cursor`. Both are plain columns
of the small `cursors` rows, and the partial indexes that find work are conditions on them, so nothing can say that
there is work where there is none, nor the reverse.

What decides whether a record counts is the fence: it moves at each claim, and only its present value writes.

Statements work on sets: what goes in and what comes out is one JSON text each, so one call into SQLite does the work of
hundreds. That is not for SQLite's sake. Each call gives up Python's global lock and has to win it back from the busy
event loop; a call per row would cost more in waiting than all the SQL together.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from tidings.limits import BATCH_BYTES_MAX, BATCHES_PER_LEASE_MAX, MARK_MAX, SCAN_MAX
from tidings.model import Claim, Claimed, ClaimRequest, Event, Health, Lease, Micros
from tidings.store.sqlite.rows import (
    dump_set,
    load_filters,
    load_secrets,
    read_meta,
    write_meta,
)

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

# A lease that begins a whole lease from now was given by a clock that since went back; less is the clocks of
# processes beside each other.
FREE_EXPIRED: Final = """
    UPDATE cursors SET lease_until = NULL, holder = NULL
    WHERE lease_until IS NOT NULL AND (lease_until <= :now OR lease_until > :now + 2 * :lease)
        AND webhook NOT IN (SELECT value FROM json_each(:held))
"""

# Whoever may be served at all.
IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"
_ORIGIN_FREE: Final = "origin NOT IN (SELECT value FROM json_each(:full))"

# Who was served longest ago goes first: those who are not proven, then those who are.
UNPROVEN: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE head > cursor AND failures = 0 AND {IDLE} AND {_ORIGIN_FREE} AND turn < :proven_since
    ORDER BY turn LIMIT :limit
"""
PROVEN: Final = UNPROVEN.replace("turn < :proven_since", "turn >= :proven_since")

FAILING: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE failures > 0 AND {IDLE} AND {_ORIGIN_FREE} AND next_attempt_at <= :now
    ORDER BY next_attempt_at LIMIT :limit
"""

# Events are a sign of life too, so whoever has some is left to the two above: no webhook is found by two statements.
QUIET: Final = f"""
    SELECT webhook, origin FROM cursors
    WHERE failures = 0 AND {IDLE} AND {_ORIGIN_FREE} AND heartbeat_at <= :now AND head <= cursor
    ORDER BY heartbeat_at LIMIT :limit
"""

# A due time further ahead than any wait of the policy was set by a clock that since went back: it is due.
_FAILING_ASTRAY: Final = FAILING.replace("next_attempt_at <= :now", "next_attempt_at > :now + :wait_max")

LEASE: Final = """
    UPDATE cursors SET fence = fence + 1, holder = :holder, lease_until = :until
    WHERE webhook IN (SELECT value FROM json_each(:webhooks))
"""

# Events read for every claim at once. Whoever has more behind its cursor is read again by itself: few webhooks have,
# and a page for each of a hundred claims must fit in memory.
_FIRST_EVENTS: Final = 16

CLAIMED: Final = """
    SELECT json_group_array(json_array(
        c.webhook, c.fence, w.gid, w.target, c.origin, w.workspace, w.filters, w.secrets,
        c.scope, c.cursor, c.head, c.epoch, c.batch_end, c.failures, c.failing_since, c.next_attempt_at,
        c.last_success_at, c.last_failure_at, w.last_failure_content, c.heartbeat_at,
        CASE WHEN c.head > c.cursor THEN (
            SELECT json_group_array(json_array(
                e.position, e.resource_type, e.resource_subtype, e.action, e.field, CAST(e.wire AS TEXT)
            )) FROM (
                SELECT s.position FROM event_scopes s
                WHERE s.scope = c.scope AND s.position > c.cursor AND s.position <= coalesce(c.batch_end, c.head)
                ORDER BY s.position LIMIT :first
            ) AS next JOIN events e ON e.position = next.position
        ) END
    )) FROM json_each(:webhooks) AS chosen
    JOIN cursors c ON c.webhook = chosen.value JOIN webhooks w ON w.id = c.webhook
"""

# A page by itself: so many events at most, and none that begins after so many bytes. Their bytes come as lines: as JSON
# within JSON every quote in them would be escaped, and read back.
PAGE: Final = """
    SELECT json_group_array(json_array(e.position, e.resource_type, e.resource_subtype, e.action, e.field)),
        group_concat(CAST(e.wire AS TEXT), char(10))
    FROM (
        SELECT s.position, sum(length(e.wire)) OVER (ORDER BY s.position) - length(e.wire) AS begins
        FROM event_scopes s JOIN events e ON e.position = s.position
        WHERE s.scope = :scope AND s.position > :after AND s.position <= :upto
        ORDER BY s.position LIMIT :most
    ) AS next JOIN events e ON e.position = next.position
    WHERE next.begins <= :bytes
"""


class _EventRow(Struct, array_like=True):
    position: int
    resource_type: str
    resource_subtype: str | None
    action: str
    field: str | None
    wire: str


class _ClaimRow(Struct, array_like=True):
    """One webhook of `CLAIMED`, column by column."""

    webhook: int
    fence: int
    gid: str
    target: str
    origin: int
    workspace: str
    filters: str
    secrets: str
    scope: int
    cursor: int
    head: int
    epoch: int
    batch_end: int | None
    failures: int
    failing_since: int | None
    next_attempt_at: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_failure_content: str
    heartbeat_at: int
    page: list[_EventRow] | None


_decode_claims: Final = msgspec.json.Decoder(list[_ClaimRow]).decode
_decode_page: Final = msgspec.json.Decoder(list[tuple[int, str, str | None, str, str | None]]).decode
_decode_found: Final = msgspec.json.Decoder(list[tuple[int, int]]).decode


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
    connection.execute(
        FREE_EXPIRED, {"now": request.now, "lease": request.lease, "held": dump_set(request.held)}
    )
    chosen = _choose(connection, request)
    if not chosen:
        return Claimed((), behind)
    until = request.now + request.lease
    webhooks = dump_set(list(chosen))
    connection.execute(LEASE, {"holder": request.holder, "until": until, "webhooks": webhooks})
    # Without filters every event is taken, so what one lease may deliver and one more is all that can be of use.
    most = BATCHES_PER_LEASE_MAX * request.batch_max + 1
    first = min(_FIRST_EVENTS, most)
    (rows,) = connection.execute(CLAIMED, {"webhooks": webhooks, "first": first}).fetchone()
    claims = tuple(
        _load_claim(connection, row, until=until, proven=chosen[row.webhook], first=first, most=most)
        for row in _decode_claims(rows)
    )
    return Claimed(claims, behind)


def _choose(connection: sqlite3.Connection, request: ClaimRequest) -> dict[int, bool]:
    """Choose webhooks in the order of service, leaving out origins that are full; gives whether each is proven."""
    chosen = _Choice(request)
    unproven = request.unproven_limit
    unproven -= chosen.take(connection, UNPROVEN, unproven)
    chosen.take(connection, PROVEN, request.limit)
    for statement in (FAILING, _FAILING_ASTRAY):
        failing = chosen.take(connection, statement, min(unproven, request.failing_limit))
        unproven -= failing
        if failing:
            break
    chosen.take(connection, QUIET, unproven)
    return chosen.webhooks


def _all(statement: str) -> str:
    """The webhooks and origins a statement finds, as one JSON text."""
    return f"SELECT json_group_array(json_array(webhook, origin)) FROM ({statement})"


class _Choice:
    """What has been chosen so far, and how much room is left in total and per origin."""

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._in_flight = dict(request.in_flight)
        # Each that was chosen, and whether it is proven.
        self.webhooks: dict[int, bool] = {}

    def take(self, connection: sqlite3.Connection, statement: str, most: int) -> int:
        """Take up to `most` webhooks that this statement finds; gives how many there were.

        Rows of an origin that fills up on the way are passed over, and the statement is asked again without that
        origin. It then finds those again that were chosen before, so it is asked for as many more; whoever is passed
        over is somebody new, of an origin that has just filled up. So there are few turns.
        """
        before = len(self.webhooks)
        while (room := min(most, self._request.limit - len(self.webhooks))) > 0:
            limit = room + len(self.webhooks)
            (rows,) = connection.execute(_all(statement), self._parameters(limit)).fetchone()
            found = [row for row in _decode_found(rows) if row[0] not in self.webhooks][:room]
            proven = statement is PROVEN
            taken = sum(self._admit(webhook, origin, proven=proven) for webhook, origin in found)
            most -= taken
            if taken == len(found):
                break
        return len(self.webhooks) - before

    def _admit(self, webhook: int, origin: int, *, proven: bool) -> bool:
        in_flight = self._in_flight.get(origin, 0)
        if in_flight >= self._request.per_origin:
            return False
        self._in_flight[origin] = in_flight + 1
        self.webhooks[webhook] = proven
        return True

    def _parameters(self, limit: int) -> dict[str, object]:
        full = [origin for origin, count in self._in_flight.items() if count >= self._request.per_origin]
        return {
            "now": self._request.now,
            "full": dump_set(full),
            "limit": limit,
            "wait_max": self._request.wait_max,
            "proven_since": self._request.proven_since,
        }


def _load_claim(
    connection: sqlite3.Connection, row: _ClaimRow, *, until: Micros, proven: bool, first: int, most: int
) -> Claim:
    filters = load_filters(row.filters)
    page = _load_page(row.page or [])
    more = len(page) == first
    if filters:
        most = SCAN_MAX
    if more and first < most:
        page, more = _read_page(connection, row, most=most)
    return Claim(
        lease=Lease(row.webhook, row.fence, until),
        gid=row.gid,
        target=row.target,
        origin=row.origin,
        workspace=row.workspace,
        filters=filters,
        secrets=load_secrets(row.secrets),
        cursor=row.cursor,
        head=row.head,
        epoch=row.epoch,
        batch_end=row.batch_end,
        health=Health(
            last_success_at=row.last_success_at,
            last_failure_at=row.last_failure_at,
            last_failure_content=row.last_failure_content,
            failing_since=row.failing_since,
            failures=row.failures,
            next_attempt_at=row.next_attempt_at,
            heartbeat_at=row.heartbeat_at,
        ),
        page=page,
        more=more,
        proven=proven,
    )


def _read_page(
    connection: sqlite3.Connection, row: _ClaimRow, *, most: int
) -> tuple[tuple[Event, ...], bool]:
    """The next events behind a cursor, and whether there may be more within its batch or up to its head."""
    upto = row.batch_end or row.head
    found, lines = connection.execute(
        PAGE,
        {"scope": row.scope, "after": row.cursor, "upto": upto, "most": most, "bytes": BATCH_BYTES_MAX},
    ).fetchone()
    # A line break within a JSON text is always written as an escape.
    wires = lines.encode().split(b"\n")
    page = tuple(Event(*row, wire) for row, wire in zip(_decode_page(found), wires, strict=True))
    return page, page[-1].position < upto


def _load_page(rows: Sequence[_EventRow]) -> tuple[Event, ...]:
    return tuple(
        Event(
            row.position,
            row.resource_type,
            row.resource_subtype,
            row.action,
            row.field,
            row.wire.encode(),
        )
        for row in rows
    )
