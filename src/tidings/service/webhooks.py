"""Webhooks: establish with a handshake, read, list, replace the filters, remove (contract §0a, §1, §3)."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from tidings import delivery, signing
from tidings.delivery import Policy
from tidings.errors import (
    BadRequest,
    EqualCreate,
    Forbidden,
    NotFound,
    StoreUnavailable,
    TooManyRequests,
)
from tidings.hierarchy import WORKSPACE, no_access, unknown_object
from tidings.limits import (
    LEASE_SLACK,
    MICROSECONDS_PER_SECOND,
    PAGE_SIZE_MAX,
    UNPAGED_LIST_MAX,
)
from tidings.matching import check_filters
from tidings.model import (
    Answer,
    Delivery,
    Filter,
    Micros,
    NewWebhook,
    NoAnswer,
    Owner,
    Post,
    Quotas,
    Resource,
    Scope,
    SealedSecret,
    Token,
    Trouble,
    Webhook,
)
from tidings.service.tokens import require
from tidings.store import LoggedAttempt, Reservation, Store
from tidings.targets import Rules, parse_target
from tidings.wire import offsets, values
from tidings.wire.webhooks import CreateRequest

# Handshakes under way at once: each holds a caller and a connection for up to the delivery timeout.
HANDSHAKES_MAX: Final = 128
# Of these, for one owner: slow targets, or creates that queue, are to leave others theirs. Twice as many as the real
# service takes calls that write at once.
OWNER_HANDSHAKES_MAX: Final = 32
# How soon a create looks again whether an equal one of another process is done, seconds: first, and at most.
_QUEUE_SECONDS: Final = 0.05
_QUEUE_SECONDS_MAX: Final = 1.0
# The statuses that complete a handshake (contract §1.3).
_SHAKEN: Final = (200, 204)
_NO_HANDSHAKE: Final = "The remote server which is intended to receive the webhook"


@dataclass(frozen=True, slots=True)
class Dice:
    """Where the unguessable comes from: gids, secrets, and seals of secrets (secret, webhook gid)."""

    new_gid: Callable[[], str]
    new_secret: Callable[[], str]
    seal: Callable[[str, str], SealedSecret]
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Established:
    """A webhook that has shaken hands, and its secret: told to the caller now, and never again."""

    webhook: Webhook
    secret: str


@dataclass(frozen=True, slots=True)
class ListQuery:
    """`GET /webhooks` as it was asked; None where it was not."""

    workspace: str | None
    resource: str | None = None
    limit: str | None = None
    offset: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `offset` leads to the next one; `paged` says whether the caller asked for pages."""

    webhooks: tuple[Webhook, ...]
    paged: bool
    offset: str | None
    limit: int


class WebhookDesk:
    """The five calls. `withdraw` tells the dispatcher which webhook has ended."""

    def __init__(
        self,
        store: Store,
        post: Post,
        *,
        policy: Policy,
        rules: Rules,
        quotas: Quotas,
        now: Callable[[], Micros],
        dice: Dice,
        offset_key: bytes,
        withdraw: Callable[[str], None],
    ) -> None:
        self._store = store
        self._post = post
        self._policy = policy
        self._rules = rules
        self._quotas = quotas
        self._now = now
        self._dice = dice
        self._offset_key = offset_key
        self._withdraw = withdraw
        self._establishing: dict[asyncio.Task[Established], Owner] = {}
        # Where equal creates of this process queue: by owner, resource and target, for as long as there are any.
        self._queues: WeakValueDictionary[tuple[Owner, str, str], asyncio.Lock] = WeakValueDictionary()

    # -- establishing ------------------------------------------------------------------------------

    async def establish(self, caller: Token, request: CreateRequest) -> Established:
        """Shake hands with the target and insert the webhook. It finishes even if the caller hangs up.

        Raises:
            RequestError: nothing was established; the message says what was wrong, or what the target did.
        """
        require(caller, Scope.WEBHOOKS_WRITE)
        target = parse_target(request.target, self._rules)
        resource = await self._visible(caller, request.resource, path="resource")
        check_filters(request.filters, resource_type=resource.resource_type)
        of_owner = sum(owner == caller.owner for owner in self._establishing.values())
        if len(self._establishing) >= HANDSHAKES_MAX or of_owner >= OWNER_HANDSHAKES_MAX:
            raise TooManyRequests(
                "Too many handshakes are under way. Please retry after the given amount of time.",
                code="overloaded",
                retry_after=1,
            )
        task = asyncio.create_task(self._establish(caller, request, origin=target.origin))
        self._establishing[task] = caller.owner
        task.add_done_callback(self._establishing.pop)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for the handshakes under way: their receivers may already have kept a secret."""
        if self._establishing:
            await asyncio.wait(self._establishing)

    async def _establish(self, caller: Token, request: CreateRequest, *, origin: str) -> Established:
        """Queue behind equal creates, so that a receiver never sees a second secret; then it is this one's turn."""
        lifetime = self._policy.delivery_timeout + LEASE_SLACK
        until = asyncio.get_running_loop().time() + 2 * lifetime / MICROSECONDS_PER_SECOND
        place = (caller.owner, request.resource, request.target)
        queue = self._queues.setdefault(place, asyncio.Lock())
        try:
            async with asyncio.timeout_at(until):
                await queue.acquire()
        except TimeoutError:
            raise EqualCreate from None
        try:
            return await self._establish_next(caller, request, origin=origin, until=until)
        finally:
            queue.release()

    async def _establish_next(
        self, caller: Token, request: CreateRequest, *, origin: str, until: float
    ) -> Established:
        gid, secret = self._dice.new_gid(), self._dice.new_secret()
        created_at = self._now()
        reservation = await self._reserve(caller, request, key=gid, until=until)
        try:
            if self._now() + self._policy.delivery_timeout > reservation.until:
                # This process stood still: by the time the secret arrives another may have told its own.
                raise EqualCreate
            await self._shake_hands(request.target, secret)
            shaken_at = self._now()
            webhook = await self._store.add_webhook(
                NewWebhook(
                    gid=gid,
                    owner=caller.owner,
                    resource=request.resource,
                    target=request.target,
                    origin=origin,
                    filters=request.filters,
                    secrets=(self._dice.seal(secret, gid),),
                    created_at=created_at,
                    shaken_at=shaken_at,
                    heartbeat_at=delivery.next_heartbeat(
                        shaken_at, jitter=self._dice.jitter(), policy=self._policy
                    ),
                ),
                reservation=reservation,
                quotas=self._quotas,
            )
        except BaseException:
            # If it cannot be given back it runs out; the caller is told what went wrong before.
            with contextlib.suppress(StoreUnavailable):
                await self._store.release(reservation)
            raise
        return Established(webhook, secret)

    async def _reserve(self, caller: Token, request: CreateRequest, *, key: str, until: float) -> Reservation:
        """Wait for equal creates of other processes: until that time of the loop."""
        loop = asyncio.get_running_loop()
        lifetime = self._policy.delivery_timeout + LEASE_SLACK
        pause = _QUEUE_SECONDS
        while True:
            now = self._now()
            reservation = await self._store.reserve(
                owner=caller.owner,
                resource=request.resource,
                target=request.target,
                key=key,
                quotas=self._quotas,
                now=now,
                until=now + lifetime,
            )
            if reservation is not None:
                return reservation
            if loop.time() >= until:
                raise EqualCreate
            await asyncio.sleep(pause)
            pause = min(2 * pause, _QUEUE_SECONDS_MAX)

    async def _shake_hands(self, target: str, secret: str) -> None:
        """Post the secret, and judge what comes back (contract §1.3, §2.2, §12.4, §12.5)."""
        reply = await self._post(
            Delivery(
                target,
                signing.handshake_headers(secret),
                signing.HANDSHAKE_BODY,
                self._policy.delivery_timeout,
            )
        )
        match reply:
            case NoAnswer(trouble=Trouble.REFUSED_ADDRESS, text=text):
                raise Forbidden(f"target: {text}", code="forbidden_target")
            case NoAnswer(text=text):
                raise BadRequest(f"{_NO_HANDSHAKE} did not answer: {text}", code="handshake_failed")
            case Answer(status=status) if status not in _SHAKEN:
                raise BadRequest(
                    f"{_NO_HANDSHAKE} responded with an incorrect status code: {status}",
                    code="handshake_failed",
                )
            case Answer() if not signing.echoed(secret, reply.header("x-hook-secret")):
                raise BadRequest(
                    f"{_NO_HANDSHAKE} did not respond with the handshake secret.", code="handshake_failed"
                )

    async def _visible(self, caller: Token, gid: str, *, path: str) -> Resource:
        resource = await self._store.get_resource(gid)
        if resource is None:
            raise unknown_object(path, gid)
        if not caller.covers(resource.workspace):
            raise no_access(resource)
        return resource

    # -- reading and changing ----------------------------------------------------------------------

    async def get(self, caller: Token, gid: str) -> Webhook:
        require(caller, Scope.WEBHOOKS_READ)
        return await self._owned(caller, gid, reading=True)

    async def list_page(self, caller: Token, query: ListQuery) -> Page:
        """The caller's webhooks in a workspace: a page if pages were asked for, else the whole list."""
        require(caller, Scope.WEBHOOKS_READ)
        workspace = await self._workspace(caller, query.workspace)
        if query.resource is not None:
            await self._visible(caller, values.gid(query.resource, "resource"), path="resource")
        paged = query.limit is not None or query.offset is not None
        limit = (
            PAGE_SIZE_MAX
            if query.limit is None
            else values.whole_number(query.limit, "limit", low=1, high=PAGE_SIZE_MAX)
        )
        bound = f"{caller.owner.user}\n{caller.owner.app}\n{workspace}\n{query.resource or ''}"
        now = self._now()
        after = (
            0
            if query.offset is None
            else offsets.read(query.offset, query=bound, now=now, key=self._offset_key)
        )
        most = limit if paged else UNPAGED_LIST_MAX
        found = await self._store.list_webhooks(
            caller.owner, workspace=workspace, resource=query.resource, after=after, limit=most + 1
        )
        if len(found) <= most:
            return Page(found, paged, None, limit)
        if not paged:
            raise BadRequest(
                "The result is too large. You should use pagination (may require specifying a workspace)!",
                code="result_too_large",
            )
        page = found[:limit]
        offset = offsets.issue(page[-1].sequence, query=bound, now=now, key=self._offset_key)
        return Page(page, paged, offset, limit)

    async def _workspace(self, caller: Token, gid: str | None) -> str:
        if not gid:
            raise BadRequest.at("workspace", "Missing input", code="missing_input")
        workspace = await self._visible(caller, values.gid(gid, "workspace"), path="workspace")
        if workspace.resource_type != WORKSPACE:
            raise BadRequest.at("workspace", f"Not a workspace: {gid}", code="not_a_workspace")
        return gid

    async def replace_filters(self, caller: Token, gid: str, filters: tuple[Filter, ...]) -> Webhook:
        """Replace the filters whole; they decide for everything the webhook has not read yet."""
        require(caller, Scope.WEBHOOKS_WRITE)
        webhook = await self._owned(caller, gid)
        check_filters(filters, resource_type=webhook.resource.resource_type)
        changed = await self._store.replace_filters(gid, filters)
        if changed is None:
            raise _unknown(gid)
        return changed

    async def remove(self, caller: Token, gid: str) -> None:
        """End a webhook. A delivery in flight may still arrive; none is started after."""
        require(caller, Scope.WEBHOOKS_DELETE)
        await self._owned(caller, gid)
        self._withdraw(gid)
        if not await self._store.remove_webhook(gid, now=self._now()):
            raise _unknown(gid)

    async def list_attempts(
        self, caller: Token, gid: str, *, before: int | None, limit: int
    ) -> tuple[LoggedAttempt, ...]:
        """What was tried for a webhook, newest first."""
        require(caller, Scope.WEBHOOKS_READ)
        await self._owned(caller, gid, reading=True)
        return await self._store.list_attempts(gid, before=before, limit=limit)

    async def _owned(self, caller: Token, gid: str, *, reading: bool = False) -> Webhook:
        """The webhook, if it is the caller's; another owner's is as unknown as none. `admin` may read all."""
        webhook = await self._store.get_webhook(gid)
        if webhook is None:
            raise _unknown(gid)
        if webhook.owner != caller.owner and not (reading and Scope.ADMIN in caller.scopes):
            raise _unknown(gid)
        if not caller.covers(webhook.resource.workspace):
            raise no_access(webhook.resource)
        return webhook


def _unknown(gid: str) -> NotFound:
    return NotFound(f"webhook: Unknown object: {values.shown(gid)}", code="unknown_object")
