"""The hierarchy in SQLite: loading what lies above some resources, writing what a publisher changed.

What was loaded is remembered, and validated in each transaction by a counter that every change of the hierarchy
moves, in whichever process.
"""

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tidings.hierarchy import Hierarchy
from tidings.model import Micros, Resource, ResourceDraft
from tidings.store.sqlite.rows import dump_set, read_meta

# Resources whose ancestors are remembered: some 100 MiB at the very most, some 10 MiB in practice.
REMEMBERED_MAX: Final = 10_000

_CLOSURE: Final = """
    WITH RECURSIVE up (id) AS (
        SELECT id FROM resources WHERE gid IN (SELECT value FROM json_each(?))
        UNION
        SELECT parents.parent FROM up JOIN parents ON parents.child = up.id
    )
    SELECT r.id, r.gid, r.resource_type, r.resource_subtype, r.name, r.workspace, r.deleted_at,
        (SELECT json_group_array(above.gid) FROM (
            SELECT p.gid FROM parents JOIN resources p ON p.id = parents.parent
            WHERE parents.child = r.id ORDER BY parents.place
        ) AS above)
    FROM up JOIN resources r ON r.id = up.id
"""


class Places:
    """A view of the hierarchy for the transactions of one write connection."""

    def __init__(self) -> None:
        # The version of the hierarchy that what is remembered belongs to; -1 if there is none.
        self.version = -1
        # For each gid asked for: itself and everything above it.
        self._closures: OrderedDict[str, tuple[Resource, ...]] = OrderedDict()
        self._ids: dict[str, int] = {}
        # The scopes of an event on a resource without a parent of its own, as `events.scopes` holds them.
        self._scopes: dict[str, str] = {}

    def load(
        self, connection: sqlite3.Connection, gids: Iterable[str], *, workspaces: frozenset[str] | None
    ) -> Hierarchy:
        """The hierarchy of these resources and everything above them, as this transaction sees it."""
        self.validate(connection)
        wanted = dict.fromkeys(gids)
        found: dict[str, Resource] = {}
        missing = []
        for gid in wanted:
            closure = self._closures.get(gid)
            if closure is None:
                missing.append(gid)
            else:
                found.update((resource.gid, resource) for resource in closure)
        if missing:
            loaded = self._fetch(connection, missing)
            found.update(loaded)
            self._remember(missing, found)
        return Hierarchy(found.values(), workspaces=workspaces)

    def remembered(self, gids: Iterable[str], workspaces: frozenset[str] | None) -> Hierarchy | None:
        """The same without the database, as of `version`; None unless all of it is remembered."""
        found: dict[str, Resource] = {}
        for gid in dict.fromkeys(gids):
            closure = self._closures.get(gid)
            if closure is None:
                return None
            found.update((resource.gid, resource) for resource in closure)
        return Hierarchy(found.values(), workspaces=workspaces)

    def scopes(self, hierarchy: Hierarchy, resource: str, parent: str | None) -> str:
        """The row ids an event is visible from, as a JSON array."""
        known = self._scopes.get(resource) if parent is None else None
        if known is None:
            known = dump_set([self._ids[gid] for gid in hierarchy.scopes(resource, parent)])
            # Not what this transaction itself changed: it may yet be undone.
            if parent is None and not hierarchy.changed and len(self._scopes) < REMEMBERED_MAX:
                self._scopes[resource] = known
        return known

    def write(self, connection: sqlite3.Connection, changed: Mapping[str, Resource], *, now: Micros) -> None:
        """Write resources that were created or changed."""
        if not changed:
            return
        for resource in changed.values():
            self._upsert(connection, resource, now)
        # A parent may have come later in the same publication: rows first, places after.
        for resource in changed.values():
            child = self._ids[resource.gid]
            connection.execute("DELETE FROM parents WHERE child = ?", (child,))
            connection.executemany(
                "INSERT INTO parents (child, place, parent) VALUES (?, ?, ?)",
                [(child, place, self._ids[parent]) for place, parent in enumerate(resource.parents)],
            )
        self.forget(connection)

    def forget(self, connection: sqlite3.Connection) -> None:
        """Say to every process that the hierarchy changed."""
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'hierarchy'")
        self._closures.clear()
        self._scopes.clear()

    def reset(self) -> None:
        """Remember nothing: the transaction it was seen in was undone."""
        self.version = -1

    def validate(self, connection: sqlite3.Connection) -> None:
        """Forget what is no longer so, as this transaction sees it."""
        version = read_meta(connection, "hierarchy")
        if version != self.version:
            self._closures.clear()
            self._scopes.clear()
            self._ids.clear()
            self.version = version

    def _fetch(self, connection: sqlite3.Connection, gids: Sequence[str]) -> dict[str, Resource]:
        resources = {}
        for row in connection.execute(_CLOSURE, (json.dumps(gids),)):
            identity, gid, resource_type, resource_subtype, name, workspace, deleted_at, parents = row
            self._ids[gid] = identity
            resources[gid] = Resource(
                gid=gid,
                resource_type=resource_type,
                resource_subtype=resource_subtype,
                name=name,
                workspace=workspace,
                deleted=deleted_at is not None,
                parents=tuple(json.loads(parents)),
            )
        return resources

    def _remember(self, gids: Sequence[str], found: Mapping[str, Resource]) -> None:
        if len(self._ids) > 10 * REMEMBERED_MAX:
            # Ids of closures long dropped: start over rather than count references.
            self.version = -1
            return
        view = Hierarchy(found.values(), workspaces=None)
        for gid in gids:
            if gid in found:
                above = view.ancestors(gid)
                self._closures[gid] = (found[gid], *(found[name] for name in above))
        while len(self._closures) > REMEMBERED_MAX:
            self._closures.popitem(last=False)

    def _upsert(self, connection: sqlite3.Connection, resource: Resource, now: Micros) -> None:
        (identity,) = connection.execute(
            """
            INSERT INTO resources (gid, resource_type, resource_subtype, name, workspace, deleted_at)
            VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (gid) DO UPDATE SET
                resource_type = excluded.resource_type, resource_subtype = excluded.resource_subtype,
                name = excluded.name, workspace = excluded.workspace,
                deleted_at = CASE WHEN excluded.deleted_at IS NULL THEN NULL ELSE coalesce(deleted_at, ?6) END
            RETURNING id
            """,
            (
                resource.gid,
                resource.resource_type,
                resource.resource_subtype,
                resource.name,
                resource.workspace,
                now if resource.deleted else None,
            ),
        ).fetchone()
        self._ids[resource.gid] = identity


def referenced(drafts: Sequence[ResourceDraft]) -> Iterable[str]:
    """The gids that drafts name: themselves and their parents."""
    for draft in drafts:
        yield draft.gid
        yield from draft.parents or ()
