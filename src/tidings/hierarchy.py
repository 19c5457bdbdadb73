"""Resources above resources: where an event is visible from, and which moves are allowed.

A `Hierarchy` is a partial view: some resources and everything above them, as one transaction of the store sees them.
Drafts are applied to it in order; what changed is then written by the store, in the same transaction. So the rules
(one workspace each, no cycles, at most so many parents and ancestors) live here once, for every store.

The scopes of an event are the resource, the event's `parent`, and all ancestors of both, as a set. Events of types
that never rise leave out larger-scoped ancestors (contract §5).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from tidings.errors import BadRequest, Forbidden
from tidings.limits import ANCESTORS_MAX
from tidings.matching import LARGER_SCOPED, NEVER_RISE
from tidings.model import Resource, ResourceDraft

WORKSPACE: Final = "workspace"


def unknown_object(path: str, gid: str) -> BadRequest:
    """The error for a gid that is not registered (contract §2.2; gids beyond digits are ours)."""
    if gid.isascii() and gid.isdigit():
        return BadRequest.at(path, f"Unknown object: {gid}", code="unknown_object")
    return BadRequest.at(path, f"Not a recognized ID: {gid}", code="unrecognized_id")


def no_access(resource: Resource) -> Forbidden:
    """The error for an object that exists in a workspace the caller may not see (contract §2.2)."""
    return Forbidden(f"You do not have access to this {resource.resource_type}.", code="no_access")


class Hierarchy:
    """A part of the hierarchy that is closed upwards: with each resource, all its ancestors.

    `workspaces` are those the caller may see; None means all.
    """

    def __init__(self, resources: Iterable[Resource], *, workspaces: frozenset[str] | None) -> None:
        self._resources = {resource.gid: resource for resource in resources}
        self._workspaces = workspaces
        self._above: dict[str, tuple[str, ...]] = {}
        self.changed: dict[str, Resource] = {}

    def visible(self, gid: str, *, path: str, within: str = "") -> Resource:
        """The resource of that gid, which was named at a path, `within` another one.

        Raises:
            BadRequest: it is not registered.
            Forbidden: the caller may not see its workspace.
        """
        resource = self._resources.get(gid)
        if resource is None:
            raise unknown_object(f"{within}: {path}" if within else path, gid)
        self._check_access(resource)
        return resource

    def _check_access(self, resource: Resource) -> None:
        if self._workspaces is not None and resource.workspace not in self._workspaces:
            raise no_access(resource)

    def ancestors(self, gid: str) -> tuple[str, ...]:
        """Everything above a resource, nearest first, each once."""
        known = self._above.get(gid)
        if known is None:
            known = self._above[gid] = tuple(self._climb(gid))
        return known

    def _climb(self, gid: str) -> dict[str, None]:
        above: dict[str, None] = {}
        level = self._resources[gid].parents
        while level:
            fresh = [parent for parent in dict.fromkeys(level) if parent not in above]
            above.update(dict.fromkeys(fresh))
            if len(above) > ANCESTORS_MAX:
                break
            level = tuple(up for parent in fresh for up in self._parents(parent))
        return above

    def _parents(self, gid: str) -> tuple[str, ...]:
        resource = self._resources.get(gid)
        return resource.parents if resource is not None else ()

    def scopes(self, resource: str, parent: str | None) -> tuple[str, ...]:
        """The resources an event on `resource` is visible from, itself first, each once.

        Raises:
            BadRequest: the parent is in another workspace, where nobody may see the resource; or a move above one of
                them has left it with more ancestors than an event may concern.
        """
        self._check_same_workspace(resource, parent)
        for gid in (resource, parent):
            if gid is not None and len(self.ancestors(gid)) > ANCESTORS_MAX:
                raise BadRequest(
                    f"{gid} has more than {ANCESTORS_MAX} ancestors; move it before publishing on it",
                    code="too_many_ancestors",
                )
        seen = dict.fromkeys((resource, *self.ancestors(resource)))
        if parent is not None:
            seen.update(dict.fromkeys((parent, *self.ancestors(parent))))
        if self._resources[resource].resource_type in NEVER_RISE:
            return tuple(gid for gid in seen if self._resources[gid].resource_type not in LARGER_SCOPED)
        return tuple(seen)

    def _check_same_workspace(self, resource: str, parent: str | None) -> None:
        ours = self._resources[resource].workspace
        theirs = ours if parent is None else self._resources[parent].workspace
        if theirs != ours:
            raise BadRequest.at(
                "parent",
                f"{parent} belongs to workspace {theirs}, {resource} to {ours}",
                code="second_workspace",
            )

    def apply(self, drafts: Sequence[ResourceDraft]) -> None:
        """Create and replace resources, all or (by raising) none; drafts may refer to later ones.

        Raises:
            BadRequest: an unknown parent, a cycle, a second workspace, too many ancestors.
            Forbidden: a resource or a parent in a workspace the caller may not see.
        """
        befores = {draft.gid: self._resources.get(draft.gid) for draft in drafts}
        for before in befores.values():
            if before is not None:
                self._check_access(before)
        for draft in drafts:
            # One publish may describe a resource several times: each adds to what the one before said.
            self._put(draft, self._resources.get(draft.gid))
        self._above.clear()
        # All parents first: a draft is placed by what is above it, and that may be a draft behind it.
        for draft in drafts:
            self._check_parents(draft)
        for draft in drafts:
            placed = self._place(draft)
            if placed != befores[draft.gid]:
                self.changed[draft.gid] = placed

    def _put(self, draft: ResourceDraft, before: Resource | None) -> None:
        parents = draft.parents
        if parents is None:
            parents = before.parents if before is not None and draft.keep_omitted else ()
        keep = before if before is not None and draft.keep_omitted else None
        self._resources[draft.gid] = Resource(
            gid=draft.gid,
            resource_type=draft.resource_type,
            resource_subtype=draft.resource_subtype or (keep.resource_subtype if keep else None),
            name=draft.name if draft.name is not None else (keep.name if keep else None),
            parents=tuple(dict.fromkeys(parents)),
            workspace=before.workspace if before is not None else "",
            deleted=keep.deleted if keep is not None else False,
        )

    def _check_parents(self, draft: ResourceDraft) -> None:
        for parent in draft.parents or ():
            if parent not in self._resources:
                raise unknown_object(_at(draft, "parents"), parent)

    def _place(self, draft: ResourceDraft) -> Resource:
        """Find the one workspace a resource leads to, now that all drafts are in."""
        resource = self._resources[draft.gid]
        path = _at(draft, "parents")
        above = self.ancestors(draft.gid)
        if draft.gid in above:
            raise BadRequest.at(path, f"{draft.gid} would be above itself", code="hierarchy_cycle")
        if len(above) > ANCESTORS_MAX:
            raise BadRequest.at(
                path, f"{draft.gid} would have more than {ANCESTORS_MAX} ancestors", code="too_many_ancestors"
            )
        workspace = self._workspace_of(resource, above, path)
        if resource.workspace not in ("", workspace):
            raise BadRequest.at(
                path,
                f"{draft.gid} belongs to workspace {resource.workspace} and cannot move to {workspace}",
                code="second_workspace",
            )
        placed = replace(resource, workspace=workspace)
        self._check_access(placed)
        self._resources[draft.gid] = placed
        return placed

    def _workspace_of(self, resource: Resource, above: tuple[str, ...], path: str) -> str:
        if resource.resource_type == WORKSPACE:
            if above:
                raise BadRequest.at(path, "a workspace has no parents", code="second_workspace")
            return resource.gid
        found = [gid for gid in above if self._resources[gid].resource_type == WORKSPACE]
        if len(found) != 1:
            text = (
                f"{resource.gid} must lead to a workspace"
                if not found
                else f"{resource.gid} would lead to more than one workspace: {', '.join(sorted(found))}"
            )
            raise BadRequest.at(path, text, code="no_workspace" if not found else "second_workspace")
        return found[0]


def _at(draft: ResourceDraft, key: str) -> str:
    return f"{draft.path}: {key}" if draft.path else key
