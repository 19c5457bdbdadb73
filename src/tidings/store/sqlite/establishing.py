"""Webhooks in SQLite: reserving, inserting, reading, changing, ending."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from tidings.errors import DuplicateWebhook, EqualCreate, Forbidden
from tidings.hierarchy import unknown_object
from tidings.model import EndReason, Filter, Micros, NewWebhook, Owner, Quotas, Resource, Webhook
from tidings.store import LoggedAttempt, Reservation
from tidings.store.sqlite.access import stop_if_lost
from tidings.store.sqlite.rows import (
    ATTEMPT_COLUMNS,
    WEBHOOK_COLUMNS,
    dump_filters,
    dump_secrets,
    end_of_log,
    load_attempt,
    load_webhook,
)

_LIVE: Final = "c.ended_at IS NULL"


# From the newest, or from the one asked for, back along the chain, until the limit or where trimming cut it.
_ATTEMPTS: Final = f"""
    WITH RECURSIVE chain (attempt) AS (
        SELECT CASE WHEN :before IS NULL THEN c.last_attempt ELSE (
            SELECT a.previous FROM attempts a WHERE a.id = :before AND a.webhook = c.webhook
        ) END
        FROM cursors c WHERE c.webhook = (SELECT id FROM webhooks WHERE gid = :gid)
        UNION ALL
        SELECT attempts.previous FROM chain JOIN attempts ON attempts.id = chain.attempt
        LIMIT :limit
    )
    SELECT id, {ATTEMPT_COLUMNS} FROM chain JOIN attempts ON attempts.id = chain.attempt ORDER BY id DESC
"""


def load_resource(connection: sqlite3.Connection, gid: str) -> Resource | None:
    """A resource with its parents."""
    row = connection.execute(
        "SELECT id, resource_type, resource_subtype, name, workspace, deleted_at FROM resources WHERE gid = ?",
        (gid,),
    ).fetchone()
    if row is None:
        return None
    identity, resource_type, resource_subtype, name, workspace, deleted_at = row
    parents = connection.execute(
        "SELECT p.gid FROM parents JOIN resources p ON p.id = parents.parent WHERE parents.child = ?"
        " ORDER BY parents.place",
        (identity,),
    )
    return Resource(
        gid=gid,
        resource_type=resource_type,
        resource_subtype=resource_subtype,
        name=name,
        workspace=workspace,
        deleted=deleted_at is not None,
        parents=tuple(parent for (parent,) in parents),
    )


def reserve(
    connection: sqlite3.Connection,
    *,
    owner: Owner,
    resource: str,
    target: str,
    key: str,
    quotas: Quotas,
    now: Micros,
    until: Micros,
) -> Reservation | None:
    found = load_resource(connection, resource)
    if found is None:
        raise unknown_object("resource", resource)
    scope = _scope_of(connection, resource)
    _refuse_duplicate(connection, owner, scope, target)
    # A reservation further ahead than any can last was made by a clock that since went back.
    connection.execute(
        "DELETE FROM reservations WHERE until <= ? OR until > ?", (now, now + 2 * (until - now))
    )
    taken = connection.execute(
        "INSERT OR IGNORE INTO reservations (user, app, scope, target, reserved_by, until) VALUES (?, ?, ?, ?, ?, ?)",
        (owner.user, owner.app, scope, target, key, until),
    ).rowcount
    if not taken:
        return None
    # Last: whoever queues asks again and again, and what is counted here is not bounded by that. A refusal undoes all.
    _refuse_over_quota(connection, owner, scope, quotas)
    return Reservation(found, key, until)


def release(connection: sqlite3.Connection, key: str) -> bool:
    """Give a reservation back; False if it had run out and was cleared away, perhaps for another."""
    return connection.execute("DELETE FROM reservations WHERE reserved_by = ?", (key,)).rowcount == 1


def add(
    connection: sqlite3.Connection, new: NewWebhook, *, reservation: Reservation, quotas: Quotas
) -> Webhook:
    scope = _scope_of(connection, new.resource)
    _refuse_duplicate(connection, new.owner, scope, new.target)
    _refuse_over_quota(connection, new.owner, scope, quotas)
    if not release(connection, reservation.key):
        raise EqualCreate
    (identity,) = connection.execute(
        "INSERT INTO webhooks (gid, user, app, workspace, scope, target, filters, secrets, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            new.gid,
            new.owner.user,
            new.owner.app,
            reservation.resource.workspace,
            scope,
            new.target,
            dump_filters(new.filters),
            dump_secrets(new.secrets),
            new.created_at,
        ),
    ).fetchone()
    end = end_of_log(connection)
    connection.execute(
        "INSERT INTO cursors"
        " (webhook, scope, origin, cursor, head, last_success_at, heartbeat_at, turn, delivered_lately)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (
            identity,
            scope,
            _origin_of(connection, new.origin),
            end,
            end,
            new.shaken_at,
            new.heartbeat_at,
            new.shaken_at,
        ),
    )
    stop_if_lost(connection, identity, owner=new.owner, now=new.shaken_at)
    added = get(connection, new.gid)
    assert added is not None, "inserted in this transaction"
    return added


def _scope_of(connection: sqlite3.Connection, gid: str) -> int:
    (scope,) = connection.execute("SELECT id FROM resources WHERE gid = ?", (gid,)).fetchone()
    return int(scope)


def _origin_of(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("INSERT OR IGNORE INTO origins (name) VALUES (?)", (name,))
    (origin,) = connection.execute("SELECT id FROM origins WHERE name = ?", (name,)).fetchone()
    return int(origin)


def _refuse_duplicate(connection: sqlite3.Connection, owner: Owner, scope: int, target: str) -> None:
    row = connection.execute(
        "SELECT w.gid FROM webhooks w JOIN cursors c ON c.webhook = w.id"
        f" WHERE w.scope = ? AND w.user = ? AND w.app = ? AND w.target = ? AND {_LIVE}",
        (scope, owner.user, owner.app, target),
    ).fetchone()
    if row is not None:
        raise DuplicateWebhook(row[0])


def _refuse_over_quota(connection: sqlite3.Connection, owner: Owner, scope: int, quotas: Quotas) -> None:
    (on_resource,) = connection.execute(
        f"SELECT count(*) FROM cursors c WHERE c.scope = ? AND {_LIVE}", (scope,)
    ).fetchone()
    if on_resource >= quotas.per_resource:
        raise Forbidden(
            f"This resource has reached its quota of {quotas.per_resource} webhooks.",
            code="quota_per_resource",
        )
    (of_owner,) = connection.execute(
        "SELECT count(*) FROM webhooks w JOIN cursors c ON c.webhook = w.id"
        f" WHERE w.user = ? AND w.app = ? AND {_LIVE}",
        (owner.user, owner.app),
    ).fetchone()
    if of_owner >= quotas.per_owner:
        raise Forbidden(
            f"This user and app have reached their quota of {quotas.per_owner} webhooks.",
            code="quota_per_owner",
        )


def get(connection: sqlite3.Connection, gid: str) -> Webhook | None:
    row = connection.execute(f"SELECT {WEBHOOK_COLUMNS} WHERE w.gid = ? AND {_LIVE}", (gid,)).fetchone()
    return None if row is None else load_webhook(row)


def list_of(
    connection: sqlite3.Connection,
    owner: Owner,
    *,
    workspace: str,
    resource: str | None,
    after: int,
    limit: int,
) -> tuple[Webhook, ...]:
    on_resource = "" if resource is None else "AND r.gid = :resource"
    rows = connection.execute(
        f"SELECT {WEBHOOK_COLUMNS} WHERE w.user = :user AND w.app = :app AND w.workspace = :workspace"
        f" AND w.id > :after AND {_LIVE} {on_resource} ORDER BY w.id LIMIT :limit",
        {
            "user": owner.user,
            "app": owner.app,
            "workspace": workspace,
            "resource": resource,
            "after": after,
            "limit": limit,
        },
    )
    return tuple(load_webhook(row) for row in rows)


def replace_filters(connection: sqlite3.Connection, gid: str, filters: Sequence[Filter]) -> Webhook | None:
    """The epoch moves, so that a batch that failed under the old filters is cut anew."""
    if get(connection, gid) is None:
        return None
    connection.execute("UPDATE webhooks SET filters = ? WHERE gid = ?", (dump_filters(filters), gid))
    connection.execute(
        "UPDATE cursors SET epoch = epoch + 1, batch_end = NULL"
        " WHERE webhook = (SELECT id FROM webhooks WHERE gid = ?)",
        (gid,),
    )
    return get(connection, gid)


def remove(connection: sqlite3.Connection, gid: str, *, now: Micros) -> bool:
    return (
        connection.execute(
            "UPDATE cursors SET ended = ?, ended_at = ?"
            " WHERE webhook = (SELECT id FROM webhooks WHERE gid = ?) AND ended_at IS NULL",
            (EndReason.DELETED.value, now, gid),
        ).rowcount
        == 1
    )


def list_attempts(
    connection: sqlite3.Connection, gid: str, *, before: int | None, limit: int
) -> tuple[LoggedAttempt, ...]:
    rows = connection.execute(_ATTEMPTS, {"gid": gid, "before": before, "limit": limit})
    return tuple(LoggedAttempt(row[0], load_attempt(row[1:])) for row in rows)
