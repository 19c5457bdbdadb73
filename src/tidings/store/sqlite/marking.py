"""Raising heads: the marker goes along the log, and what is new behind a webhook's cursor is said by its `head`.

There are two ways to find the last new position of each scope. Events say which scopes they are visible from; to read
them takes a microsecond each. But a thousand events are often visible from a handful of scopes, and where events are
visible from is kept by stretch of the log and by scope (`stretches.py`): the scopes of a stretch can be looked up one
after the other, and the last position of each, in some microseconds together, however many events there are. So where
much is new, that is tried first, and given up if there are many.

Whoever had read everything before has nothing unread up to where the marker began. This is kept as `unread_after`: what
lies between cursor and head is walked through stretch by stretch, and for a webhook that was quiet for a month that
would be the whole log.
"""

import sqlite3
from typing import Final

from tidings.limits import MARK_MAX
from tidings.store.sqlite.rows import write_meta
from tidings.store.sqlite.stretches import STRETCH_BITS

# From so many new positions on, scopes are looked up first: to do so in vain takes a tenth of the time that reading the
# events does.
_MUCH: Final = 256
# Scopes that a stretch is looked through for.
_SCOPES_MAX: Final = 32

# How far the marker has come, and the log's end.
UNMARKED: Final = "SELECT value, (SELECT max(position) FROM events) FROM meta WHERE name = 'marked'"
# The last of so many new events, where there are more.
STEP: Final = """
    SELECT max(position) FROM (
        SELECT e.position FROM events e WHERE e.position > :after ORDER BY e.position LIMIT :most
    )
"""

MARK: Final = """
    UPDATE cursors SET head = marks.position, unread_after = iif(head > cursor, unread_after, :after)
    FROM (
        SELECT s.value AS scope, max(e.position) AS position
        FROM events e, json_each(e.scopes) s
        WHERE e.position > :after AND e.position <= :upto
        GROUP BY s.value
    ) AS marks
    WHERE cursors.scope = marks.scope AND cursors.head < marks.position
"""

# The scopes of a stretch, one more than so many at most, as one JSON text.
SCOPES: Final = f"""
    WITH RECURSIVE found (scope) AS (
        SELECT min(scope) FROM event_scopes WHERE stretch = :stretch
        UNION ALL
        SELECT (SELECT min(s.scope) FROM event_scopes s WHERE s.stretch = :stretch AND s.scope > found.scope)
        FROM found WHERE found.scope IS NOT NULL
        LIMIT {_SCOPES_MAX + 1}
    )
    SELECT count(scope), json_group_array(scope) FILTER (WHERE scope IS NOT NULL) FROM found
"""
MARK_SCOPES: Final = """
    UPDATE cursors SET head = marks.position, unread_after = iif(head > cursor, unread_after, :after)
    FROM (
        SELECT found.value AS scope, (
            SELECT max(s.position) FROM event_scopes s
            WHERE s.stretch = :stretch AND s.scope = found.value AND s.position > :after AND s.position <= :upto
        ) AS position
        FROM json_each(:scopes) AS found
    ) AS marks
    WHERE cursors.scope = marks.scope AND cursors.head < marks.position
"""


def mark(connection: sqlite3.Connection) -> bool:
    """Raise the heads for what is new, one bounded step of it; gives whether there is more."""
    after, end = connection.execute(UNMARKED).fetchone()
    if end is None or end <= after:
        return False
    upto = _mark_scopes(connection, after, end) if end - after >= _MUCH else None
    if upto is None:
        upto = _mark_events(connection, after, end)
    write_meta(connection, "marked", upto)
    return bool(upto < end)


def _mark_events(connection: sqlite3.Connection, after: int, end: int) -> int:
    """Mark so many events; gives the position of the last."""
    upto = end
    if end - after > MARK_MAX:
        (upto,) = connection.execute(STEP, {"after": after, "most": MARK_MAX}).fetchone()
    connection.execute(MARK, {"after": after, "upto": upto})
    return upto


def _mark_scopes(connection: sqlite3.Connection, after: int, end: int) -> int | None:
    """Mark to the end of the present stretch by its scopes; gives how far that is, or None: they are too many."""
    stretch = (after + 1) >> STRETCH_BITS
    upto = min(end, ((stretch + 1) << STRETCH_BITS) - 1)
    count, scopes = connection.execute(SCOPES, {"stretch": stretch}).fetchone()
    if count > _SCOPES_MAX:
        return None
    wanted = {"stretch": stretch, "after": after, "upto": upto, "scopes": scopes}
    connection.execute(MARK_SCOPES, wanted)
    return upto
