"""Between rows and the model: the one place that knows how a value is kept in a column."""

import json
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from tidings.model import (
    Attempt,
    EndReason,
    Filter,
    Health,
    Owner,
    Resource,
    Scope,
    SealedSecret,
    StopReason,
    Token,
    Webhook,
)
from tidings.wire.webhooks import render_filter

_encode: Final = msgspec.json.Encoder().encode


def read_meta(connection: sqlite3.Connection, name: str) -> Any:
    """A value of `meta`, or None."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def write_meta(connection: sqlite3.Connection, name: str, value: object) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


def end_of(connection: sqlite3.Connection, table: str) -> int:
    """The last key ever used in a table with AUTOINCREMENT; 0 before the first. Deleting rows does not lower it."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])


def end_of_log(connection: sqlite3.Connection) -> int:
    """The last position ever used."""
    return end_of(connection, "events")


def dump_set(rows: object) -> str:
    """Rows as one JSON text, for a statement that works on a set of them (see `claiming.py`)."""
    return _encode(rows).decode()


# -- filters and secrets ---------------------------------------------------------------------------


def dump_filters(filters: Sequence[Filter]) -> str:
    return dump_set([render_filter(entry) for entry in filters])


# What was read of a filter takes up to twenty times the memory of its text.
_FILTERS_REMEMBERED_MAX: Final = 4_096
_FILTERS_REMEMBERED_CHARS_MAX: Final = 512

_decode_filters: Final = msgspec.json.Decoder(tuple[Filter, ...]).decode
_remembered_filters: Final = lru_cache(maxsize=_FILTERS_REMEMBERED_MAX)(_decode_filters)


def load_filters(text: str) -> tuple[Filter, ...]:
    """Filters from the text `dump_filters` gave; they are read at every claim, and rarely change."""
    return (_remembered_filters if len(text) <= _FILTERS_REMEMBERED_CHARS_MAX else _decode_filters)(text)


def dump_secrets(secrets: Sequence[SealedSecret]) -> str:
    return json.dumps(
        [[secret.key_id, b64encode(secret.sealed).decode(), secret.valid_until] for secret in secrets]
    )


@lru_cache(maxsize=4096)
def load_secrets(text: str) -> tuple[SealedSecret, ...]:
    return tuple(
        SealedSecret(key_id, b64decode(sealed), valid_until)
        for key_id, sealed, valid_until in json.loads(text)
    )


# -- webhooks --------------------------------------------------------------------------------------

WEBHOOK_COLUMNS: Final = """
    w.gid, w.user, w.app, w.workspace, w.target, w.filters, w.secrets, w.created_at, w.last_failure_content, w.id,
    c.cursor, c.failures, c.failing_since, c.next_attempt_at, c.last_success_at, c.last_failure_at, c.heartbeat_at,
    c.stopped, c.ended, c.ended_at, c.lost_at,
    r.gid, r.resource_type, r.resource_subtype, r.name, r.workspace, r.deleted_at
    FROM webhooks w JOIN cursors c ON c.webhook = w.id JOIN resources r ON r.id = w.scope
"""


def load_webhook(row: Sequence[Any]) -> Webhook:
    """A webhook from a row of `WEBHOOK_COLUMNS`."""
    gid, user, app, _, target, filters, secrets, created_at, failure_content, sequence = row[:10]
    cursor, failures, failing_since, next_attempt_at, last_success_at, last_failure_at, heartbeat_at = row[
        10:17
    ]
    stopped, ended, ended_at, lost_at = row[17:21]
    resource_gid, resource_type, resource_subtype, name, workspace, deleted_at = row[21:]
    return Webhook(
        gid=gid,
        owner=Owner(user, app),
        resource=Resource(
            gid=resource_gid,
            resource_type=resource_type,
            resource_subtype=resource_subtype,
            name=name,
            workspace=workspace,
            deleted=deleted_at is not None,
        ),
        target=target,
        filters=load_filters(filters),
        secrets=load_secrets(secrets),
        created_at=created_at,
        cursor=cursor,
        health=Health(
            last_success_at=last_success_at,
            last_failure_at=last_failure_at,
            last_failure_content=failure_content,
            failing_since=failing_since,
            failures=failures,
            next_attempt_at=next_attempt_at,
            heartbeat_at=heartbeat_at,
        ),
        stopped=None if stopped is None else StopReason(stopped),
        ended=None if ended is None else EndReason(ended),
        ended_at=ended_at,
        lost_at=lost_at,
        sequence=sequence,
    )


# -- attempts --------------------------------------------------------------------------------------

ATTEMPT_COLUMNS: Final = "delivery, started_at, duration, events, heartbeat, status, result, excerpt"


def dump_attempt(attempt: Attempt) -> tuple[object, ...]:
    return (
        attempt.delivery,
        attempt.started_at,
        attempt.duration,
        attempt.events,
        int(attempt.heartbeat),
        attempt.status,
        attempt.result,
        attempt.excerpt,
    )


def load_attempt(row: Sequence[Any]) -> Attempt:
    delivery, started_at, duration, events, heartbeat, status, result, excerpt = row
    return Attempt(
        delivery=delivery,
        started_at=started_at,
        duration=duration,
        events=events,
        heartbeat=bool(heartbeat),
        status=status,
        result=result,
        excerpt=excerpt,
    )


# -- tokens ----------------------------------------------------------------------------------------

TOKEN_COLUMNS: Final = (
    "gid, user, app, user_name, prefix, scopes, workspaces, created_at, expires_at, last_used_at, revoked_at"
)


def dump_names(names: Iterable[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(names))


def load_token(row: Sequence[Any]) -> Token:
    gid, user, app, user_name, prefix, scopes, workspaces = row[:7]
    created_at, expires_at, last_used_at, revoked_at = row[7:]
    return Token(
        gid=gid,
        owner=Owner(user, app),
        user_name=user_name,
        prefix=prefix,
        scopes=frozenset(Scope(name) for name in json.loads(scopes)),
        workspaces=None if workspaces is None else frozenset(json.loads(workspaces)),
        created_at=created_at,
        expires_at=expires_at,
        last_used_at=last_used_at,
        revoked_at=revoked_at,
    )
