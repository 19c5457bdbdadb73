"""A database with very many webhooks, filled by SQL in a few statements.

Through the API each webhook is a handshake and a commit: a million would take an hour. What is written is what the
service would have written: resources below one workspace, origins, webhooks with secrets sealed by the database's own
key, cursors at the end of the log, a last heartbeat within the interval before. The service that then runs on it is the
real one.
"""

import itertools
import json
import sqlite3
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from tidings.delivery import HEARTBEAT_MOMENTS
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.sealing import NONCE_BYTES, Sealer

HEARTBEAT_SECONDS: Final = 8 * 3600
# Users that own the webhooks: so many each.
OWNED: Final = 1_000

_NUMBERS: Final = "WITH RECURSIVE n (i) AS (VALUES (:first) UNION ALL SELECT i + 1 FROM n WHERE i < :last)"

_RESOURCES: Final = (
    f"""
    INSERT INTO resources (gid, resource_type, workspace) {_NUMBERS} SELECT project(i), 'project', :workspace FROM n
    """,
    f"""
    INSERT INTO parents (child, place, parent)
    {_NUMBERS} SELECT r.id, 0, (SELECT id FROM resources WHERE gid = :workspace)
    FROM n JOIN resources r ON r.gid = project(i)
    """,
)

_WEBHOOKS: Final = (
    "INSERT OR IGNORE INTO origins (name) SELECT value FROM json_each(:origins)",
    f"""
    INSERT INTO webhooks (gid, user, app, workspace, scope, target, filters, secrets, created_at)
    {_NUMBERS} SELECT printf('11%014d', i), printf('13%014d', i / {OWNED}), 'bench', :workspace,
        r.id, origin(i) || '/' || i, '[]', sealed(printf('11%014d', i)), :now
    FROM n JOIN resources r ON r.gid = project(i)
    """,
    f"""
    INSERT INTO cursors (webhook, scope, origin, cursor, head, heartbeat_at, turn, last_success_at)
    {_NUMBERS}, due (i, at) AS (
        SELECT i, (:now + :heartbeat * (i - :first + 1) / :count) / :step * :step FROM n
    )
    SELECT w.id, w.scope, o.id, log.end, log.end, due.at, due.at - :heartbeat, due.at - :heartbeat
    FROM (SELECT coalesce(max(seq), 0) AS end FROM sqlite_sequence WHERE name = 'events') AS log, due
    JOIN webhooks w ON w.gid = printf('11%014d', due.i) JOIN origins o ON o.name = origin(due.i)
    """,
)


def project(number: int) -> str:
    """The gid of the resource that webhook `number` is on."""
    return str(1_000_000_000 + number)


def fill(
    database: Path,
    *,
    workspace: str,
    count: int,
    origins: Sequence[str],
    first: int = 0,
    on_one: str | None = None,
) -> None:
    """Add so many healthy, quiet webhooks, numbered from `first`; no process may have the database open.

    Each is on a resource of its own, or all are on the resource with the gid `on_one`, which exists already, as the
    workspace does. Their targets are `<origin>/<number>`, the origins taken in turn.
    """
    nonces = itertools.count(time.time_ns())
    sealer = Sealer(bytes.fromhex(database.with_name(database.name + ".key").read_text().strip()))

    def sealed(gid: str) -> str:
        nonce = next(nonces).to_bytes(NONCE_BYTES, "big")
        secret = sealer.seal(f"{int(gid):064x}", webhook=gid, nonce=nonce)
        return json.dumps([[secret.key_id, b64encode(secret.sealed).decode(), None]])

    parameters = {
        "first": first,
        "last": first + count - 1,
        "count": count,
        "workspace": workspace,
        "origins": json.dumps(list(origins)),
        "now": time.time_ns() // 1000,
        "heartbeat": HEARTBEAT_SECONDS * MICROSECONDS_PER_SECOND,
        "step": HEARTBEAT_SECONDS * MICROSECONDS_PER_SECOND // HEARTBEAT_MOMENTS,
    }
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.create_function("project", 1, lambda number: on_one or project(number), deterministic=True)
        connection.create_function(
            "origin", 1, lambda number: origins[number % len(origins)], deterministic=True
        )
        connection.create_function("sealed", 1, sealed)
        for statement in (*(() if on_one else _RESOURCES), *_WEBHOOKS):
            connection.execute(statement, parameters)
