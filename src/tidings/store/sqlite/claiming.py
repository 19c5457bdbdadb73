"""Finding work in SQLite: choose, lease. What was leased is read once that is committed (`reading.py`).

The marker alone writes `head`, the record alone moves `cursor`; work is where `head > cursor`. Both are plain columns
of the small `cursors` rows, and the partial indexes that find work are conditions on them, so nothing can say that
there is work where there is none, nor the reverse.

What decides whether a record counts is the fence: it moves at each claim, and only its present value writes.

Statements work on sets: what goes in and what comes out is one JSON text each, so one call into SQLite does the work of
hundreds. That is not for SQLite's sake. Each call gives up Python's global lock and has to win it back from the busy
event loop; a call per row would cost more in waiting than all the SQL together.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from tidings.model import ClaimRequest, Micros
from tidings.store.sqlite.marking import mark
from tidings.store.sqlite.rows import dump_set

# A lease that begins a whole lease from now was given by a clock that since went back; less is the clocks of
# processes beside each other.
FREE_EXPIRED: Final = """
    UPDATE cursors SET lease_until = NULL, holder = NULL
    WHERE lease_until IS NOT NULL AND (lease_until <= :now OR lease_until > :now + 2 * :lease)
        AND webhook NOT IN (SELECT value FROM json_each(:held))
"""

# Leases that nobody will deliver under, though they have time left.
FREE_UNREAD: Final = """
    UPDATE cursors SET lease_until = NULL, holder = NULL
    FROM (SELECT value ->> 0 AS webhook, value ->> 1 AS fence FROM json_each(:leases)) AS r
    WHERE cursors.webhook = r.webhook AND cursors.fence = r.fence AND cursors.holder = :holder
"""

# Whoever may be served at all.
IDLE: Final = "lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"
_ORIGIN_FREE: Final = "origin NOT IN (SELECT value FROM json_each(:full))"

# Healthy, with events.
READY: Final = f"head > cursor AND failures = 0 AND {IDLE}"

# Who was served longest ago goes first: those who are not proven, then those who are.
UNPROVEN: Final = f"""
    SELECT webhook, origin, fence, turn FROM cursors
    WHERE {READY} AND {_ORIGIN_FREE} AND delivered_lately = 0
    UNION ALL SELECT webhook, origin, fence, turn FROM cursors
    WHERE {READY} AND {_ORIGIN_FREE} AND delivered_lately = 1 AND turn < :proven_since
    ORDER BY turn LIMIT :unproven
"""
PROVEN: Final = f"""
    SELECT webhook, origin, fence FROM cursors
    WHERE {READY} AND {_ORIGIN_FREE} AND delivered_lately = 1 AND turn >= :proven_since
    ORDER BY turn LIMIT :proven
"""

# A due time further ahead than any wait of the policy was set by a clock that since went back: it is due.
FAILING: Final = f"""
    SELECT * FROM (
        SELECT webhook, origin, fence FROM cursors
        WHERE failures > 0 AND {IDLE} AND {_ORIGIN_FREE} AND next_attempt_at <= :now
        ORDER BY next_attempt_at LIMIT :failing
    )
    UNION ALL SELECT * FROM (
        SELECT webhook, origin, fence FROM cursors
        WHERE failures > 0 AND {IDLE} AND {_ORIGIN_FREE} AND next_attempt_at > :now + :wait_max
        ORDER BY next_attempt_at LIMIT :failing
    )
    LIMIT :failing
"""

# Under load a heartbeat may be due for many that wait for their turn with events: the look for others ends after so
# many webhooks. Those are served meanwhile, and leave the way free.
_HEARTBEATS_LOOKED_AT: Final = 1_000
# Events are a sign of life too, so whoever has some is left to the first two: no webhook is found by two statements.
QUIET: Final = f"""
    SELECT webhook, origin, fence FROM (
        SELECT webhook, origin, fence, head, cursor, heartbeat_at FROM cursors
        WHERE failures = 0 AND {IDLE} AND {_ORIGIN_FREE} AND heartbeat_at <= :now
        ORDER BY heartbeat_at LIMIT {_HEARTBEATS_LOOKED_AT}
    )
    WHERE head <= cursor ORDER BY heartbeat_at LIMIT :quiet
"""


class _Kind(Enum):
    """Whom a claim may be for; each is found by a statement, whose limit has the kind's name."""

    FAILING = FAILING
    QUIET = QUIET
    UNPROVEN = UNPROVEN
    PROVEN = PROVEN


def _search(*kinds: _Kind) -> tuple[str, tuple[_Kind, ...]]:
    """One statement that finds these kinds, in a column each: what a kind's own finds, as one JSON text."""
    columns = [
        f"(SELECT json_group_array(json_array(webhook, origin, fence)) FROM ({kind.value}))" for kind in kinds
    ]
    return f"SELECT {', '.join(columns)}", kinds


# In the order of service. Under load the first finds enough, and the second is not asked.
_FIRST: Final = _search(_Kind.FAILING, _Kind.QUIET, _Kind.UNPROVEN, _Kind.PROVEN)
_REST: Final = _search(_Kind.FAILING, _Kind.QUIET)

LEASE: Final = """
    UPDATE cursors SET fence = fence + 1, holder = :holder, lease_until = :until
    WHERE webhook IN (SELECT value FROM json_each(:webhooks))
"""

_decode_found: Final = msgspec.json.Decoder(list[tuple[int, int, int]]).decode


class Leased(Struct, frozen=True):
    """What was leased and is yet to be read: of each webhook its fence, and whether it is proven."""

    webhooks: dict[int, tuple[int, bool]]
    until: Micros
    behind: bool
    batch_max: int
    room: int
    # The leases that had been left unread, and were given back.
    freed: tuple[tuple[int, int], ...]


def lease(connection: sqlite3.Connection, request: ClaimRequest, *, unread: list[tuple[int, int]]) -> Leased:
    """Lease webhooks that have something to do. `unread` are leases to give back first: webhook and fence."""
    behind = mark(connection)
    now, held = request.now, dump_set(request.held)
    connection.execute(FREE_EXPIRED, {"now": now, "lease": request.lease, "held": held})
    if unread:
        connection.execute(FREE_UNREAD, {"holder": request.holder, "leases": dump_set(unread)})
    chosen = _choose(connection, request)
    until = now + request.lease
    if chosen:
        webhooks = dump_set(list(chosen))
        connection.execute(LEASE, {"holder": request.holder, "until": until, "webhooks": webhooks})
    return Leased(chosen, until, behind, request.batch_max, request.room, tuple(unread))


def _choose(connection: sqlite3.Connection, request: ClaimRequest) -> dict[int, tuple[int, bool]]:
    """Choose webhooks in the order of service, leaving out origins that are full; of each the fence it is to have."""
    choice = _Choice(request)
    choice.take(
        connection, *_FIRST, most={_Kind.FAILING: request.failing_first, _Kind.QUIET: request.quiet_first}
    )
    choice.take(connection, *_REST, most={})
    return choice.webhooks


class _Choice:
    """What has been chosen so far, and how much room is left in total, per kind and per origin."""

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._in_flight = dict(request.in_flight)
        self._unproven = request.unproven_limit
        self._failing = request.failing_limit
        # How many more of a kind the search that is under way may take, where that is bounded.
        self._most: dict[_Kind, int] = {}
        # Each that was chosen: the fence it is to have, and whether it is proven.
        self.webhooks: dict[int, tuple[int, bool]] = {}

    def take(
        self,
        connection: sqlite3.Connection,
        statement: str,
        kinds: Sequence[_Kind],
        *,
        most: Mapping[_Kind, int],
    ) -> None:
        """Take of each kind what this statement finds and there is room for, and of some kinds so many at most.

        Rows of an origin that fills up on the way are passed over, and the statement is asked again without that
        origin. It then finds those again that were chosen before, so it is asked for as many more; whoever is passed
        over is somebody new, of an origin that has just filled up. So there are few turns.
        """
        self._most = dict(most)
        done = 0
        while done < len(kinds) and any(self._room(kind) > 0 for kind in kinds[done:]):
            found = connection.execute(statement, self._parameters(kinds[done:])).fetchone()
            while done < len(kinds) and self._admit(kinds[done], _decode_found(found[done])):
                done += 1

    def _room(self, kind: _Kind) -> int:
        room = self._request.limit - len(self.webhooks)
        if kind is not _Kind.PROVEN:
            room = min(room, self._unproven)
        if kind is _Kind.FAILING:
            room = min(room, self._failing)
        return min(room, self._most.get(kind, room))

    def _admit(self, kind: _Kind, found: Sequence[tuple[int, int, int]]) -> bool:
        """Take what there is room for; gives whether that is all: False if somebody else may be found instead."""
        before, room, passed_over = len(self.webhooks), self._room(kind), False
        for webhook, origin, fence in found:
            if room <= 0:
                break
            if webhook in self.webhooks:
                continue
            in_flight = self._in_flight.get(origin, 0)
            if in_flight >= self._request.per_origin:
                passed_over = True
                continue
            self._in_flight[origin] = in_flight + 1
            self.webhooks[webhook] = fence + 1, kind is _Kind.PROVEN
            room -= 1
        taken = len(self.webhooks) - before
        if kind is not _Kind.PROVEN:
            self._unproven -= taken
        if kind is _Kind.FAILING:
            self._failing -= taken
        if kind in self._most:
            self._most[kind] -= taken
        return room <= 0 or not passed_over

    def _parameters(self, kinds: Sequence[_Kind]) -> dict[str, object]:
        full = [origin for origin, count in self._in_flight.items() if count >= self._request.per_origin]
        return {
            "now": self._request.now,
            "full": dump_set(full),
            "wait_max": self._request.wait_max,
            "proven_since": self._request.proven_since,
            **{kind.name.lower(): self._limit(kind) if kind in kinds else 0 for kind in _Kind},
        }

    def _limit(self, kind: _Kind) -> int:
        room = self._room(kind)
        return room + len(self.webhooks) if room > 0 else 0
