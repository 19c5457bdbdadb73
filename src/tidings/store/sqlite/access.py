"""Tokens in SQLite, and what their coming and going does to their owners' webhooks."""

import sqlite3
from collections.abc import Mapping
from typing import Final

from tidings.errors import BadRequest
from tidings.limits import TOKENS_MAX
from tidings.model import Micros, Owner, StopReason, Token
from tidings.store.sqlite.rows import TOKEN_COLUMNS, dump_names, end_of, load_token, read_meta, write_meta

# What an owner's live tokens cover (contract §12.24): found once, however many webhooks are held against it.
_LIVE: Final = """
    WITH live AS MATERIALIZED (
        SELECT t.workspaces FROM tokens t
        WHERE t.user = :user AND t.app = :app AND t.revoked_at IS NULL
            AND (t.expires_at IS NULL OR t.expires_at > :now)
    )
"""
# Whether that is the workspace of one of the owner's webhooks.
_COVERED: Final = """
    (
        EXISTS (SELECT 1 FROM live WHERE live.workspaces IS NULL)
        OR w.workspace IN (SELECT value FROM live, json_each(live.workspaces))
    )
"""

# The largest INTEGER: later than any time.
FAR_FUTURE: Final = (1 << 63) - 1

REVIEW: Final = f"""
    {_LIVE}
    UPDATE cursors SET stopped = CASE WHEN stopped IS NULL THEN :reason END
    WHERE webhook IN (
        SELECT w.id FROM webhooks w JOIN cursors c ON c.webhook = w.id
        WHERE w.user = :user AND w.app = :app AND c.ended_at IS NULL
            AND ((c.stopped IS NULL AND NOT {_COVERED}) OR (c.stopped = :reason AND {_COVERED}))
    )
"""


def add(connection: sqlite3.Connection, token: Token, *, digest: bytes, only_first: bool) -> bool:
    # Also when it was long revoked, and is forgotten.
    if only_first and end_of(connection, "tokens"):
        return False
    (count,) = connection.execute("SELECT count(*) FROM tokens").fetchone()
    if count >= TOKENS_MAX:
        raise BadRequest(f"there are {TOKENS_MAX} tokens already, the most there can be", code="too_many")
    connection.execute(
        f"INSERT INTO tokens (hash, {TOKEN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            digest,
            token.gid,
            token.owner.user,
            token.owner.app,
            token.user_name,
            token.prefix,
            dump_names(token.scopes),
            dump_names(token.workspaces),
            token.created_at,
            token.expires_at,
            token.last_used_at,
            token.revoked_at,
        ),
    )
    _review(connection, token.owner, token.created_at)
    return True


def find(connection: sqlite3.Connection, digest: bytes) -> Token | None:
    row = connection.execute(f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE hash = ?", (digest,)).fetchone()
    return None if row is None else load_token(row)


def list_all(connection: sqlite3.Connection) -> tuple[Token, ...]:
    return tuple(
        load_token(row) for row in connection.execute(f"SELECT {TOKEN_COLUMNS} FROM tokens ORDER BY id")
    )


def revoke(connection: sqlite3.Connection, gid: str, *, now: Micros) -> bool:
    row = connection.execute(f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE gid = ?", (gid,)).fetchone()
    if row is None:
        return False
    connection.execute("UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE gid = ?", (now, gid))
    _review(connection, load_token(row).owner, now)
    return True


def touch(connection: sqlite3.Connection, used: Mapping[str, Micros]) -> None:
    connection.executemany(
        "UPDATE tokens SET last_used_at = ? WHERE gid = ?", ((now, gid) for gid, now in used.items())
    )


def review(connection: sqlite3.Connection, *, now: Micros) -> None:
    """Look at the owners whose tokens have expired since this was last done.

    If that was later than now, a clock ran ahead and came back: then at everyone whose token expires at all.
    """
    reviewed = int(read_meta(connection, "reviewed"))
    ahead = reviewed > now
    owners = connection.execute(
        "SELECT DISTINCT user, app FROM tokens"
        " WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND expires_at > ? AND expires_at <= ?",
        (0, FAR_FUTURE) if ahead else (reviewed, now),
    ).fetchall()
    for user, app in owners:
        _review(connection, Owner(user, app), now)
    if owners or ahead:
        write_meta(connection, "reviewed", now)


def stop_if_lost(connection: sqlite3.Connection, webhook: int, *, owner: Owner, now: Micros) -> None:
    """Stop a webhook that is just being added if its owner lost access while hands were shaken."""
    connection.execute(
        f"""
        {_LIVE}
        UPDATE cursors SET stopped = :reason WHERE webhook IN (
            SELECT w.id FROM webhooks w WHERE w.id = :webhook AND NOT {_COVERED}
                AND EXISTS (SELECT 1 FROM tokens t WHERE t.user = :user AND t.app = :app)
        )
        """,
        {"webhook": webhook, **_review_of(owner, now)},
    )


def _review(connection: sqlite3.Connection, owner: Owner, now: Micros) -> None:
    """Stop an owner's webhooks in workspaces no live token covers, and let go on those that one covers again."""
    connection.execute(REVIEW, _review_of(owner, now))


def _review_of(owner: Owner, now: Micros) -> dict[str, object]:
    return {"user": owner.user, "app": owner.app, "now": now, "reason": StopReason.ACCESS_LOST.value}
