"""What the platform says: events, and the resources they are about."""

import hashlib
from collections.abc import Callable
from typing import Final

from tidings.errors import BadRequest, NotFound, TooManyRequests
from tidings.hierarchy import no_access
from tidings.limits import IDEMPOTENCY_KEY_CHARS_MAX
from tidings.model import Idempotency, Micros, Published, Resource, Scope, Token
from tidings.service.tokens import require
from tidings.store import Store
from tidings.wire import events as wire_events
from tidings.wire import resources as wire_resources
from tidings.wire import values
from tidings.wire.bodies import Body

# Publishes that may wait for their transaction. At a megabyte each they fit in memory, and the last of them is written
# within seconds; beyond that we say so rather than make publishers wait.
WAITING_MAX: Final = 256


class Publishing:
    """Appends events and keeps the hierarchy. `wake` tells the dispatcher that there may be work."""

    def __init__(self, store: Store, *, now: Callable[[], Micros], wake: Callable[[], None]) -> None:
        self._store = store
        self._now = now
        self._wake = wake

    async def publish(self, caller: Token, body: Body, *, raw: bytes, key: str | None) -> Published:
        """Append all events of a call, or none; durable when this returns."""
        require(caller, Scope.EVENTS_WRITE)
        publication = wire_events.parse_publication(
            body, workspaces=caller.workspaces, idempotency=_idempotency(caller, key, raw)
        )
        if publication.resources:
            require(caller, Scope.RESOURCES_WRITE)
        if self._store.waiting >= WAITING_MAX:
            raise TooManyRequests(
                "The service cannot keep up. Nothing was accepted; please retry after the given amount of time.",
                code="overloaded",
                retry_after=1,
            )
        published = await self._store.publish(publication, now=self._now())
        self._wake()
        return published

    async def put(self, caller: Token, gid: str, body: Body) -> Resource:
        """Create or replace one resource and its place."""
        require(caller, Scope.RESOURCES_WRITE)
        draft = wire_resources.parse_put(body, gid)
        (resource,) = await self._store.put_resources([draft], workspaces=caller.workspaces, now=self._now())
        return resource

    async def put_many(self, caller: Token, body: Body) -> tuple[Resource, ...]:
        """Create or replace up to 1 000 resources, all or none; they may refer to later ones."""
        require(caller, Scope.RESOURCES_WRITE)
        drafts = wire_resources.parse_bulk(body)
        return await self._store.put_resources(drafts, workspaces=caller.workspaces, now=self._now())

    async def get(self, caller: Token, gid: str) -> Resource:
        require(caller, Scope.RESOURCES_READ)
        return await self._visible(caller, gid)

    async def delete(self, caller: Token, gid: str) -> None:
        """Mark a resource as deleted. Publishes nothing; events on it are still accepted."""
        require(caller, Scope.RESOURCES_WRITE)
        await self._visible(caller, gid)
        await self._store.delete_resource(gid, now=self._now())

    async def _visible(self, caller: Token, gid: str) -> Resource:
        resource = await self._store.get_resource(gid)
        if resource is None:
            raise NotFound(f"resource: Unknown object: {values.shown(gid)}", code="unknown_object")
        if not caller.covers(resource.workspace):
            raise no_access(resource)
        return resource


def _idempotency(caller: Token, key: str | None, raw: bytes) -> Idempotency | None:
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        raise BadRequest.at(
            "Idempotency-Key", f"must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters"
        )
    return Idempotency(token=caller.gid, key=key, digest=hashlib.sha256(raw).digest())
