"""When there will be work, how long work has waited, and spreading what would come all at once."""

import sqlite3
from typing import Final

from tidings.limits import PROVEN_WITHIN
from tidings.model import Micros
from tidings.store.sqlite.claiming import IDLE, READY
from tidings.store.sqlite.stretches import UNREAD_AFTER, visible

# -- when to look again ----------------------------------------------------------------------------

NEXT_DUE: Final = f"""
    SELECT min(at) FROM (
        SELECT min(next_attempt_at) AS at FROM cursors WHERE failures > 0 AND {IDLE}
        UNION ALL SELECT min(heartbeat_at) FROM cursors WHERE failures = 0 AND {IDLE}
        UNION ALL SELECT min(lease_until) FROM cursors WHERE lease_until IS NOT NULL
    )
"""

# Who has waited longest since it was last served, or since its first unread event if that came later. Origins that are
# being served are left out: their webhooks wait for a receiver, not for us. So do those that are not proven, while
# others like them are being tried: where thousands of targets have died, their first deliveries time out in turns.
_TRYING: Final = """
    EXISTS (
        SELECT 1 FROM cursors
        WHERE lease_until > :now AND failures = 0 AND (delivered_lately = 0 OR turn < :proven_since)
    )
"""
_NOT_SERVED: Final = f"{READY} AND origin NOT IN (SELECT origin FROM cursors WHERE lease_until IS NOT NULL)"
OLDEST_READY: Final = f"""
    SELECT max(c.turn, (
        SELECT e.accepted_at FROM (
            {visible(scope="c.scope", after=UNREAD_AFTER, upto="c.head")} LIMIT 1
        ) AS next JOIN events e ON e.position = next.position
    )) FROM cursors c
    WHERE c.webhook = (
        SELECT webhook FROM (
            SELECT webhook, turn FROM cursors
            WHERE {_NOT_SERVED} AND delivered_lately = 1 AND turn >= iif({_TRYING}, :proven_since, 0)
            UNION ALL SELECT webhook, turn FROM cursors
            WHERE {_NOT_SERVED} AND delivered_lately = 0 AND NOT {_TRYING}
            ORDER BY turn LIMIT 1
        )
    )
"""

# Webhooks whose heartbeats are moved in one transaction: some ten milliseconds.
SPREAD_STEP: Final = 2_000

# Knuth's multiplicative hash spreads consecutive ids evenly; no dice, so that a run can be repeated. A thousand moments
# in the window, so that those of very many webhooks come together (`delivery.next_heartbeat`).
SPREAD: Final = f"""
    UPDATE cursors
    SET heartbeat_at = :now + (webhook * 2654435761 % 4294967296 * 1000 / 4294967296) * (:window / 1000)
    WHERE webhook IN (
        SELECT webhook FROM cursors WHERE failures = 0 AND {IDLE} AND heartbeat_at < :before
        UNION ALL SELECT webhook FROM cursors WHERE failures = 0 AND {IDLE} AND heartbeat_at > :now + :interval
        LIMIT {SPREAD_STEP}
    )
"""


def next_due_at(connection: sqlite3.Connection) -> Micros | None:
    (at,) = connection.execute(NEXT_DUE).fetchone()
    return None if at is None else int(at)


def oldest_due_at(connection: sqlite3.Connection, *, now: Micros) -> Micros | None:
    row = connection.execute(OLDEST_READY, {"now": now, "proven_since": now - PROVEN_WITHIN}).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def spread_heartbeats(
    connection: sqlite3.Connection, *, now: Micros, overdue_by: Micros, interval: Micros
) -> int:
    """Take one step; gives how many were moved, 0 when all are spread."""
    parameters = {"now": now, "before": now - overdue_by, "interval": interval, "window": interval // 10}
    return connection.execute(SPREAD, parameters).rowcount
