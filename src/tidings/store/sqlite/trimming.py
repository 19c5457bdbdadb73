"""Trimming in SQLite: what is past keeping is found by one look, then deleted in bounded steps.

A row is as old as the service has been up since (`upkeep.py` says how that is counted, and why it is not the time of
day). Whenever the uptime is noted, a *milestone* keeps where the log ended: what stands up to there is at least that
old. So no row holds its age, and what is past keeping is all that stands up to one position.

The look reads beside the writer, as it passes over every cursor. What it found stays true, however much later a step is
taken: it reaches no further than the marker had come, a cursor never goes back, and a head that is raised later is
raised for events beyond.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from tidings.limits import DEAD_TOKEN_KEPT, IDEMPOTENCY_LIFETIME
from tidings.model import Keeping, Micros, Sweep
from tidings.store.sqlite.marking import mark
from tidings.store.sqlite.rows import end_of, end_of_log, read_meta
from tidings.store.sqlite.stretches import UNREAD_AFTER, stretch_of, visible

# Rows of each kind that a step deletes, and webhooks that it lets lose events: some milliseconds.
TRIM_STEP: Final = 1_000
# Of events, it deletes no more than are visible from so many scopes together, but for a single one: a row each.
TRIM_STEP_SCOPES: Final = 5_000

# -- uptime ----------------------------------------------------------------------------------------

_UPTIME: Final = "SELECT coalesce(max(uptime), 0) FROM milestones"
# The last milestone before an uptime.
_MILESTONE: Final = """
    SELECT now, position, attempt FROM milestones WHERE uptime < ? ORDER BY uptime DESC LIMIT 1
"""
# Those before the last of them.
_TRIM_MILESTONES: Final = f"""
    DELETE FROM milestones WHERE uptime IN (
        SELECT uptime FROM milestones WHERE uptime < (SELECT max(uptime) FROM milestones WHERE uptime < ?)
        ORDER BY uptime LIMIT {TRIM_STEP}
    )
"""


def note_uptime(
    connection: sqlite3.Connection, passed: Callable[[], Micros], *, since: Micros, now: Micros
) -> Micros:
    noted = _uptime(connection)
    if noted != since:
        return noted
    uptime = since + passed()
    connection.execute(
        "INSERT OR REPLACE INTO milestones (uptime, now, position, attempt) VALUES (?, ?, ?, ?)",
        (uptime, now, end_of_log(connection), end_of(connection, "attempts")),
    )
    return uptime


def _uptime(connection: sqlite3.Connection) -> Micros:
    return int(connection.execute(_UPTIME).fetchone()[0])


def _milestone(connection: sqlite3.Connection, before: Micros) -> tuple[Micros, int, int]:
    """The time of day and the ends at the last milestone before an uptime; zeros if there is none."""
    now, position, attempt = connection.execute(_MILESTONE, (before,)).fetchone() or (0, 0, 0)
    return now, position, attempt


# -- the look --------------------------------------------------------------------------------------

# Whether a webhook has yet to read some of the events from `:first` to `:last`.
_UNREAD: Final = f"""
    c.head > c.cursor AND c.cursor < :last AND EXISTS (
        {visible(scope="c.scope", after=f"max({UNREAD_AFTER}, :first - 1)", upto=":last")}
    )
"""
_HELD: Final = f"SELECT min({UNREAD_AFTER}) FROM cursors c WHERE c.head > c.cursor"
_LOSING: Final = f"SELECT c.webhook FROM cursors c WHERE {_UNREAD} LIMIT {TRIM_STEP}"
_DEAD_TOKENS: Final = (
    f"SELECT id FROM tokens WHERE revoked_at < :before OR expires_at < :before LIMIT {TRIM_STEP}"
)


def survey(connection: sqlite3.Connection, *, now: Micros, keeping: Keeping) -> Sweep:
    """Find what is past keeping. Webhooks that have yet to read hold events back, up to the ceiling."""
    uptime = _uptime(connection)
    _, retained, attempt = _milestone(connection, uptime - keeping.retention)
    first, last, unmarked, losing = _survey_events(connection, uptime, retained, keeping)
    a_day_ago, _, _ = _milestone(connection, uptime - IDEMPOTENCY_LIFETIME)
    restorable, _, _ = _milestone(connection, uptime - keeping.restore_within)
    listed, _, _ = _milestone(connection, uptime - DEAD_TOKEN_KEPT)
    return Sweep(
        unmarked=unmarked,
        losing=losing,
        first_event=first,
        last_event=last,
        last_attempt=attempt,
        # Neither the time of day nor uptime alone may call these old.
        keys_before=min(now - IDEMPOTENCY_LIFETIME, a_day_ago),
        ended_before=min(now - keeping.restore_within, restorable),
        dead_tokens=_dead_tokens(connection, min(now - DEAD_TOKEN_KEPT, listed)),
        uptime_before=uptime
        - max(keeping.ceiling, keeping.restore_within, IDEMPOTENCY_LIFETIME, DEAD_TOKEN_KEPT),
    )


def _survey_events(
    connection: sqlite3.Connection, uptime: Micros, retained: int, keeping: Keeping
) -> tuple[int, int, bool, tuple[int, ...]]:
    """The first and the last event to go, whether the marker is yet to pass them, and who would lose some."""
    (first,) = connection.execute("SELECT min(position) FROM events").fetchone()
    if first is None or first > retained:
        return 0, 0, False, ()
    # What the marker has not seen may concern a webhook.
    if int(read_meta(connection, "marked")) < retained:
        return 0, 0, True, ()
    # A look at every cursor: an index on what moves with each delivery would cost more.
    (held,) = connection.execute(_HELD).fetchone()
    if held is None or held >= retained:
        return first, retained, False, ()
    _, ceiling, _ = _milestone(connection, uptime - keeping.ceiling)
    last = max(held, ceiling)
    losing = connection.execute(_LOSING, {"first": first, "last": last}).fetchall() if held < last else ()
    return first, last, False, tuple(webhook for (webhook,) in losing)


def _dead_tokens(connection: sqlite3.Connection, before: Micros) -> tuple[int, ...]:
    """Some tokens that were revoked or expired before that time. A look at all there may be, few as they are."""
    rows = connection.execute(_DEAD_TOKENS, {"before": before})
    return tuple(token for (token,) in rows)


# -- the steps -------------------------------------------------------------------------------------

_LOSE: Final = f"""
    UPDATE cursors AS c SET lost_at = :now, cursor = :last, batch_end = NULL, epoch = epoch + 1
    WHERE c.webhook IN (SELECT value FROM json_each(:losing)) AND {_UNREAD}
"""

_OLDEST: Final = f"""
    SELECT position, json_array_length(scopes) FROM events WHERE position <= ? ORDER BY position LIMIT {TRIM_STEP}
"""
TRIM_SCOPES: Final = f"""
    DELETE FROM event_scopes WHERE (stretch, scope, position) IN (
        SELECT {stretch_of("e.position")}, s.value, e.position FROM events e, json_each(e.scopes) s
        WHERE e.position <= ?
    )
"""


def trim(connection: sqlite3.Connection, sweep: Sweep, *, now: Micros) -> int:
    """Take one step; gives the number of rows that it deleted."""
    if sweep.unmarked:
        # The marker moves on here too, in case nobody delivers.
        mark(connection)
        return 0
    if sweep.losing:
        losing = {"losing": json.dumps(sweep.losing), "first": sweep.first_event, "last": sweep.last_event}
        connection.execute(_LOSE, {**losing, "now": now})
        return 0
    connection.execute(_TRIM_MILESTONES, (sweep.uptime_before,))
    return (
        _trim_events(connection, sweep.last_event)
        + _trim_attempts(connection, sweep.last_attempt)
        + _trim_idempotency(connection, sweep.keys_before)
        + _purge_ended(connection, sweep.ended_before)
        + _purge_tokens(connection, sweep.dead_tokens)
    )


def _trim_events(connection: sqlite3.Connection, last: int) -> int:
    upto, scopes = 0, 0
    for position, count in connection.execute(_OLDEST, (last,)).fetchall():
        scopes += count
        if upto and scopes > TRIM_STEP_SCOPES:
            break
        upto = position
    if not upto:
        return 0
    connection.execute(TRIM_SCOPES, (upto,))
    return connection.execute("DELETE FROM events WHERE position <= ?", (upto,)).rowcount


def _trim_attempts(connection: sqlite3.Connection, last: int) -> int:
    return connection.execute(
        "DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE id <= ? ORDER BY id LIMIT ?)",
        (last, TRIM_STEP),
    ).rowcount


def _trim_idempotency(connection: sqlite3.Connection, before: Micros) -> int:
    return connection.execute(
        "DELETE FROM idempotency WHERE (token, key) IN"
        " (SELECT token, key FROM idempotency WHERE created_at < ? LIMIT ?)",
        (before, TRIM_STEP),
    ).rowcount


def _purge_ended(connection: sqlite3.Connection, before: Micros) -> int:
    ended = connection.execute(
        "SELECT webhook FROM cursors WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT ?", (before, TRIM_STEP)
    ).fetchall()
    connection.executemany("DELETE FROM cursors WHERE webhook = ?", ended)
    return connection.executemany("DELETE FROM webhooks WHERE id = ?", ended).rowcount if ended else 0


def _purge_tokens(connection: sqlite3.Connection, tokens: Sequence[int]) -> int:
    """A dead token covers nothing: that it is forgotten changes no webhook."""
    return connection.execute(
        "DELETE FROM tokens WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(tokens),)
    ).rowcount
