"""The log in SQLite: appending. What nobody needs any more is trimmed elsewhere (`trimming.py`).

Positions are given in commit order: one connection writes, and the transaction that reads the end of the log is the
one that moves it.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from tidings.errors import Conflict
from tidings.hierarchy import Hierarchy
from tidings.limits import IDEMPOTENCY_LIFETIME
from tidings.model import EventDraft, Idempotency, Micros, Publication, Published
from tidings.store.sqlite.places import Places, referenced
from tidings.store.sqlite.rows import end_of_log
from tidings.store.sqlite.sets import SetStatement
from tidings.store.sqlite.stretches import stretch_of
from tidings.wire import events as wire

# An event's row but for its position, and where in it stands what says whether the log holds the event already.
_Row = tuple[object, ...]
_WORKSPACE: Final = 0
_EXTERNAL_ID: Final = 6


class Publishing:
    """One publication on its way into the log.

    To render events takes longer than to insert them, and needs nothing but the hierarchy. Where that is remembered it
    is done ahead, before the write lock is taken, and counts if the hierarchy is then still the same.
    """

    def __init__(self, places: Places, publication: Publication, *, now: Micros) -> None:
        self._places = places
        self._publication = publication
        self._now = now
        self._ahead: tuple[int, list[_Row]] | None = None

    def prepare(self) -> None:
        """Render what can be rendered without the database."""
        hierarchy = self._places.remembered(_named(self._publication), self._publication.workspaces)
        if hierarchy is not None and not self._publication.resources:
            rows = _render(self._places, hierarchy, self._publication.events, self._now)
            self._ahead = self._places.version, rows

    def run(self, connection: sqlite3.Connection) -> Published:
        """Append it: idempotency, resources on the way, scopes, events, all in this transaction."""
        publication, now = self._publication, self._now
        repeated = _repeated(connection, publication.idempotency, now)
        if repeated is not None:
            return repeated
        last = _append(connection, self._rows(connection))
        published = Published(len(publication.events), last)
        if publication.idempotency is not None:
            connection.execute(
                "INSERT OR REPLACE INTO idempotency (token, key, digest, accepted, last, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    publication.idempotency.token,
                    publication.idempotency.key,
                    publication.idempotency.digest,
                    published.accepted,
                    published.last,
                    now,
                ),
            )
        return published

    def _rows(self, connection: sqlite3.Connection) -> list[_Row]:
        self._places.validate(connection)
        if self._ahead is not None and self._ahead[0] == self._places.version:
            return self._ahead[1]
        publication = self._publication
        hierarchy = self._places.load(connection, _named(publication), workspaces=publication.workspaces)
        hierarchy.apply(publication.resources)
        self._places.write(connection, hierarchy.changed, now=self._now)
        return _render(self._places, hierarchy, publication.events, self._now)


def _named(publication: Publication) -> list[str]:
    named = [event.resource for event in publication.events]
    named += [event.parent for event in publication.events if event.parent is not None]
    named += referenced(publication.resources)
    return named


def _repeated(
    connection: sqlite3.Connection, idempotency: Idempotency | None, now: Micros
) -> Published | None:
    """What the same request was answered before, if it comes again."""
    if idempotency is None:
        return None
    row = connection.execute(
        "SELECT digest, accepted, last FROM idempotency WHERE token = ? AND key = ? AND created_at > ?",
        (idempotency.token, idempotency.key, now - IDEMPOTENCY_LIFETIME),
    ).fetchone()
    if row is None:
        return None
    digest, accepted, last = row
    if digest != idempotency.digest:
        raise Conflict(
            "Idempotency-Key: this key was used with another request body within 24 hours",
            code="idempotency_conflict",
        )
    return Published(accepted, last)


_EVENT: Final = (
    "position, workspace, resource, resource_type, resource_subtype, action, field, external_id, created_at, "
    "accepted_at, scopes, wire"
)
# 0 stands for null in what may be null, see `sets.py`; all of it is text, so nothing else equals 0.
_VALUES: Final = (
    "position, workspace, resource, resource_type, nullif(resource_subtype, 0), action, nullif(field, 0), "
    "nullif(external_id, 0), created_at, accepted_at, scopes, wire"
)
_EVENTS: Final = SetStatement(
    f"INSERT INTO events ({_EVENT}) SELECT {_VALUES} FROM {{rows}} WHERE position > 0",
    *_EVENT.split(", "),
)

_SCOPES: Final = f"""
    INSERT INTO event_scopes (stretch, scope, position)
    SELECT {stretch_of("e.position")}, s.value, e.position FROM events e, json_each(e.scopes) s WHERE e.position > ?
"""


def _render(places: Places, hierarchy: Hierarchy, drafts: Sequence[EventDraft], now: Micros) -> list[_Row]:
    """The rows of these events, but for their positions."""
    rows: list[_Row] = []
    for draft in drafts:
        resource = hierarchy.visible(draft.resource, path="resource", within=draft.path)
        parent = (
            None
            if draft.parent is None
            else hierarchy.visible(draft.parent, path="parent", within=draft.path)
        )
        created_at = now if draft.created_at is None else draft.created_at
        rows.append(
            (
                resource.workspace,
                resource.gid,
                resource.resource_type,
                0 if resource.resource_subtype is None else resource.resource_subtype,
                draft.action.value,
                0 if draft.change is None else draft.change.field,
                0 if draft.external_id is None else draft.external_id,
                created_at,
                now,
                places.scopes(hierarchy, draft.resource, draft.parent),
                bytearray(wire.render(draft, resource=resource, parent=parent, created_at=created_at)),
            )
        )
    return rows


def _append(connection: sqlite3.Connection, rows: Sequence[_Row]) -> int:
    """Insert events and their scopes: one statement each, however many there are (see `claiming.py` on sets)."""
    end = end_of_log(connection)
    new = [(position, *row) for position, row in enumerate(_unknown(connection, rows), end + 1)]
    if new:
        _EVENTS.run(connection, new)
        connection.execute(_SCOPES, (end,))
    return end + len(new)


def _unknown(connection: sqlite3.Connection, rows: Sequence[_Row]) -> Sequence[_Row]:
    """Those of them that the log does not hold already, by the publisher's own ids in each workspace."""
    named = [(row[_WORKSPACE], row[_EXTERNAL_ID]) for row in rows if row[_EXTERNAL_ID] != 0]
    if not named:
        return rows
    known: set[tuple[object, object]] = set()
    for workspace in {workspace for workspace, _ in named}:
        ids = [external_id for owner, external_id in named if owner == workspace]
        found = connection.execute(
            "SELECT external_id FROM events WHERE workspace = ? AND external_id IN (SELECT value FROM json_each(?))"
            " AND external_id IS NOT NULL",
            (workspace, json.dumps(ids)),
        )
        known.update((workspace, external_id) for (external_id,) in found)
    new = []
    for row in rows:
        identity = row[_WORKSPACE], row[_EXTERNAL_ID]
        if identity not in known:
            new.append(row)
        if row[_EXTERNAL_ID] != 0:
            known.add(identity)
    return new
