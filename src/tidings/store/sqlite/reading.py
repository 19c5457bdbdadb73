"""Reading what was leased: webhooks with their filters, and the page behind each cursor.

This follows the commit that leased them, in one snapshot of its own, so that nobody waits meanwhile for SQLite's write
lock. Between the two, other processes may write. What was leased is still ours by its fence, and then nobody but us
has moved its cursor (or retention has, and said so); filters, head and page are what they are now, and of one moment.
What is not ours any more is left out, be it that another has claimed it, or that its lease was taken for one that has
run out, by a clock that was turned.
"""

import sqlite3
from collections.abc import Sequence
from itertools import starmap
from typing import Final

import msgspec
from msgspec import Struct

from tidings.limits import BATCH_BYTES_MAX, BATCHES_PER_LEASE_MAX, EVENT_BYTES_MAX, SCAN_MAX
from tidings.model import Claim, Claimed, Event, Health, Lease, Position, Traits
from tidings.store.sqlite.claiming import Leased
from tidings.store.sqlite.rows import dump_set, load_filters, load_secrets
from tidings.store.sqlite.stretches import UNREAD_AFTER, visible

# Events read for every claim at once. Whoever has more behind its cursor is read again by itself: few webhooks have,
# and a page for each of a hundred claims must fit in memory. Where they come to more bytes they are left for that, too.
_FIRST_EVENTS: Final = 17
_FIRST_BYTES: Final = EVENT_BYTES_MAX
# Events that a page is read by. Larger texts are fetched from the operating system and given back each time, which
# takes longer than reading the events.
_STEP_EVENTS: Final = 400
# No page takes more than this fraction of the room there is, so that there is some left for the next: down to where it
# would be no more than one event of the largest size, which each page may hold.
_ROOM_SHARE: Final = BATCH_BYTES_MAX // EVENT_BYTES_MAX

_TRAITS: Final = "json_array(e.resource_type, e.resource_subtype, e.action, e.field)"

CLAIMED: Final = f"""
    SELECT json_group_array(json_array(
        c.webhook, c.fence, w.gid, w.target, c.origin, w.workspace, w.filters, w.secrets,
        c.scope, c.cursor, {UNREAD_AFTER}, c.head, c.epoch, c.batch_end, c.failures, c.failing_since, c.next_attempt_at,
        c.last_success_at, c.last_failure_at, w.last_failure_content, c.heartbeat_at,
        CASE WHEN c.head > c.cursor THEN (
            SELECT CASE WHEN sum(length(e.wire)) <= :first_bytes THEN json_group_array(json_array(
                e.position, CAST(e.wire AS TEXT), CASE WHEN w.filters <> '[]' THEN {_TRAITS} END
            )) END FROM (
                {visible(scope="c.scope", after=UNREAD_AFTER, upto="coalesce(c.batch_end, c.head)")} LIMIT :first
            ) AS next JOIN events e ON e.position = next.position
        ) END
    )) FROM json_each(:leases) AS ours
    JOIN cursors c ON c.webhook = ours.value ->> 0 AND c.fence = ours.value ->> 1 JOIN webhooks w ON w.id = c.webhook
    WHERE c.lease_until IS NOT NULL
"""


def _small(columns: str) -> str:
    """Events of a page, if they are so many bytes at most. Nearly always they are, and to find where those bytes end
    would cost as much again."""
    return f"""
        WITH next AS MATERIALIZED (
            {visible(scope=":scope", after=":after", upto=":upto")} LIMIT :most
        )
        SELECT {columns} FROM next CROSS JOIN events e ON e.position = next.position
        WHERE :bytes >= (
            SELECT sum(length(e.wire)) FROM next CROSS JOIN events e ON e.position = next.position
        )
    """


def _large(columns: str) -> str:
    """Events of a page, as many as come to so many bytes at most."""
    return f"""
        SELECT {columns} FROM (
            SELECT next.position, sum(length(e.wire)) OVER (ORDER BY next.position) AS ends
            FROM ({visible(scope=":scope", after=":after", upto=":upto")} LIMIT :most) AS next
            JOIN events e ON e.position = next.position
        ) AS next JOIN events e ON e.position = next.position
        WHERE next.ends <= :bytes
    """


# Their bytes come as lines: as JSON within JSON every quote in them would be escaped, and read back.
_LINES: Final = "group_concat(CAST(e.wire AS TEXT), char(10))"
_BARE: Final = f"json_group_array(e.position), {_LINES}, NULL"
_JUDGED: Final = f"json_group_array(e.position), {_LINES}, json_group_array({_TRAITS})"

PAGE: Final = _small(_BARE)
LARGE_PAGE: Final = _large(_BARE)
JUDGED_PAGE: Final = _small(_JUDGED)
LARGE_JUDGED_PAGE: Final = _large(_JUDGED)


class _EventRow(Struct, array_like=True):
    position: int
    wire: str
    traits: Traits | None


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
    unread_after: int
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
_decode_positions: Final = msgspec.json.Decoder(list[int]).decode
_decode_traits: Final = msgspec.json.Decoder(list[Traits]).decode


def read(connection: sqlite3.Connection, leased: Leased) -> Claimed:
    """Read what was leased, in the caller's snapshot."""
    if not leased.webhooks:
        return Claimed((), leased.behind)
    leases = [(webhook, fence) for webhook, (fence, _) in leased.webhooks.items()]
    wanted = {"leases": dump_set(leases), "first": _FIRST_EVENTS, "first_bytes": _FIRST_BYTES}
    (rows,) = connection.execute(CLAIMED, wanted).fetchone()
    claims, room = [], leased.room
    for row in _decode_claims(rows):
        claim = _load_claim(connection, row, leased, room=room)
        if not row.failures:
            room -= max(0, claim.bytes_held - EVENT_BYTES_MAX)
        claims.append(claim)
    return Claimed(tuple(claims), leased.behind)


def _load_claim(connection: sqlite3.Connection, row: _ClaimRow, leased: Leased, *, room: int) -> Claim:
    filters = load_filters(row.filters)
    _, proven = leased.webhooks[row.webhook]
    page = [Event(event.position, event.wire.encode(), event.traits) for event in row.page or ()]
    held = sum([len(event.wire) for event in page])
    more = len(page) == _FIRST_EVENTS or (row.page is None and row.head > row.cursor)
    if more:
        held += _read_on(
            connection,
            row,
            page,
            most=_events_of_use(leased.batch_max, filtered=bool(filters), proven=proven),
            # A batch that failed is sent again as it was.
            room=(BATCH_BYTES_MAX if row.failures else _bytes_of_use(room)) - held,
            judged=bool(filters),
        )
        more = bool(page) and page[-1].position < _end(row)
    return Claim(
        lease=Lease(row.webhook, row.fence, leased.until),
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
        page=tuple(page),
        more=more,
        proven=proven,
        bytes_held=held,
    )


def _events_of_use(batch_max: int, *, filtered: bool, proven: bool) -> int:
    """How many events a page may hold. Without filters all are taken: what one lease may deliver, and one more."""
    if filtered:
        return SCAN_MAX
    return BATCHES_PER_LEASE_MAX * batch_max + 1 if proven else batch_max


def _bytes_of_use(room: int) -> int:
    """How many bytes a page may hold where there is so much room for this one and those that follow."""
    return max(EVENT_BYTES_MAX, min(BATCH_BYTES_MAX, room // _ROOM_SHARE))


def _read_on(
    connection: sqlite3.Connection,
    row: _ClaimRow,
    page: list[Event],
    *,
    most: int,
    room: int,
    judged: bool,
) -> int:
    """Read what follows on a page: up to so many events, so many bytes, or to the end of what may be on it; gives how
    many bytes that were."""
    read = 0
    small, large = (JUDGED_PAGE, LARGE_JUDGED_PAGE) if judged else (PAGE, LARGE_PAGE)
    while read < room and len(page) < most:
        step = min(most - len(page), _STEP_EVENTS)
        wanted = {
            "scope": row.scope,
            "after": page[-1].position if page else row.unread_after,
            "upto": _end(row),
            "most": step,
            "bytes": room - read,
        }
        positions, lines, traits = connection.execute(small, wanted).fetchone()
        if lines is None:
            positions, lines, traits = connection.execute(large, wanted).fetchone()
        if lines is None:
            break
        # A line break within a JSON text is always written as an escape.
        wires = lines.encode().split(b"\n")
        columns: list[Sequence[object]] = [_decode_positions(positions), wires]
        if judged:
            columns.append(_decode_traits(traits))
        page += starmap(Event, zip(*columns, strict=True))
        read += sum(map(len, wires))
        if len(wires) < step:
            break
    return read


def _end(row: _ClaimRow) -> Position:
    """The last position that may be on a page: a batch that failed ends where it ended."""
    return row.batch_end or row.head
