"""What a store does, in the domain's verbs. Each method is one transaction; the conformance suite is the contract.

Nothing but this protocol stands here: who uses a store does not know which one it is.

Every method may raise `StoreUnavailable`; those that take something from a caller may raise a `RequestError`. In both
cases nothing was written. `spread_heartbeats` alone is many transactions, and says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidings.model import (
    Attempt,
    Claimed,
    ClaimRequest,
    Filter,
    Keeping,
    Micros,
    NewWebhook,
    Owner,
    Publication,
    Published,
    Quotas,
    Record,
    Recorded,
    Resource,
    ResourceDraft,
    Sweep,
    Token,
    Webhook,
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to shake hands for one (owner, resource, target), until then."""

    resource: Resource
    key: str
    until: Micros


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """An attempt and its place in the log of attempts."""

    sequence: int
    attempt: Attempt


class Log(Protocol):
    """The events, and the hierarchy they are seen through."""

    async def publish(self, publication: Publication, *, now: Micros) -> Published:
        """Append all events of a publication, or none; durable when this returns."""
        ...

    async def put_resources(
        self, drafts: Sequence[ResourceDraft], *, workspaces: frozenset[str] | None, now: Micros
    ) -> tuple[Resource, ...]:
        """Create or replace resources, all or none; gives them back in the order of the drafts."""
        ...

    async def get_resource(self, gid: str) -> Resource | None: ...

    async def delete_resource(self, gid: str, *, now: Micros) -> None:
        """Mark a resource as deleted; it keeps its place."""
        ...

    async def note_uptime(self, passed: Callable[[], Micros], *, since: Micros, now: Micros) -> Micros:
        """Note that the service has been up for so long since an uptime, unless that is not the last; gives the last.

        Uptime counts from 0, through all lives of the service. What is there when it is noted is as old as what is
        noted later exceeds it: that alone says what is past keeping. So `passed` is read within the transaction: what
        was accepted while this waited for it must not count as older.
        """
        ...

    async def survey(self, *, now: Micros, keeping: Keeping) -> Sweep:
        """Find what is past keeping. Costs by the number of webhooks: asked once, for as many steps as it takes."""
        ...

    async def trim(self, sweep: Sweep, *, now: Micros) -> int:
        """Take a bounded step of a sweep; gives the number of rows it deleted, 0 when the sweep is done.

        If that was not `last`, there is more that only another survey finds.
        """
        ...


class Webhooks(Protocol):
    """What is established."""

    async def reserve(
        self,
        *,
        owner: Owner,
        resource: str,
        target: str,
        key: str,
        quotas: Quotas,
        now: Micros,
        until: Micros,
    ) -> Reservation | None:
        """Reserve the right to shake hands; None while an equal create has it.

        Raises:
            BadRequest: the resource is not registered.
            DuplicateWebhook, Forbidden: there is an equal webhook, or a quota is used up.
        """
        ...

    async def release(self, reservation: Reservation) -> None:
        """Give a reservation back that led to nothing."""
        ...

    async def add_webhook(self, new: NewWebhook, *, reservation: Reservation, quotas: Quotas) -> Webhook:
        """Insert a webhook that has shaken hands, its cursor at the visible end of the log as of this transaction.

        Raises:
            DuplicateWebhook, Forbidden: as `reserve`, judged again.
            EqualCreate: the reservation has run out, and another create may have shaken hands since.
        """
        ...

    async def get_webhook(self, gid: str) -> Webhook | None:
        """A webhook that has not ended, whoever owns it."""
        ...

    async def list_webhooks(
        self, owner: Owner, *, workspace: str, resource: str | None, after: int, limit: int
    ) -> tuple[Webhook, ...]:
        """An owner's webhooks in a workspace, in the order of creation, behind the sequence `after`."""
        ...

    async def replace_filters(self, gid: str, filters: Sequence[Filter]) -> Webhook | None:
        """Replace the filters; they decide for everything not yet read. None if it has ended."""
        ...

    async def remove_webhook(self, gid: str, *, now: Micros) -> bool:
        """End a webhook; False if it had ended before. No delivery starts after."""
        ...

    async def list_attempts(self, gid: str, *, before: int | None, limit: int) -> tuple[LoggedAttempt, ...]:
        """What was tried for a webhook, newest first, before the sequence `before`."""
        ...


class Engine(Protocol):
    """What a dispatcher needs."""

    async def take_holder(self, *, now: Micros) -> int:
        """Register this process as one that holds leases, and take back those of processes that are gone."""
        ...

    async def drop_holder(self, holder: int) -> None:
        """Give back every lease of this holder, and forget it."""
        ...

    async def release_dead_holders(self) -> int:
        """Take back the leases of processes that are gone; gives how many processes were."""
        ...

    async def claim(self, request: ClaimRequest, *, clock: Callable[[], Micros] | None = None) -> Claimed:
        """Mark new events, then lease webhooks that have something to do, each with the page behind its cursor.

        Healthy webhooks with events come first, then failing ones, then heartbeats; who was served longest ago
        goes first. All but those that were served well lately share their own limit. Need not be flushed to disk.

        `clock` is read within the transaction and replaces the request's `now`: a request that had to wait for it (a
        locked file, a process that stood still) must not judge others' leases by a time gone by.
        """
        ...

    async def record(self, records: Sequence[Record]) -> Recorded:
        """Write what claims came to, and release them. Written when this returns, and on disk soon after.

        A process that is killed loses nothing of it; a power cut at most the last record of each webhook, and only of a
        delivery that went well.

        A record whose fence is stale changes nothing. One that asks for it keeps its lease, unless what lies behind
        the cursor has been decided anew since the claim, or nothing may be delivered any more.
        """
        ...

    async def next_due_at(self) -> Micros | None:
        """When the next retry, heartbeat or end of a lease is due; None if there is none to come."""
        ...

    async def changed(self) -> bool:
        """Whether anything was written since this was last asked, by whichever process. Cheap: asked often."""
        ...

    async def spread_heartbeats(self, *, now: Micros, overdue_by: Micros, interval: Micros) -> None:
        """Spread heartbeats over a tenth of the interval, so that they do not come at once.

        Meant are those that an outage left overdue, and those further ahead than the interval (another setting,
        a clock that went back). Many transactions, each bounded; if one is refused, those before it stand.
        """
        ...

    async def oldest_due_at(self, *, now: Micros) -> Micros | None:
        """Since when the healthy webhook that was served longest ago has waited for us; None if none waits.

        It waits since it was last served, or since its first unread event if that came later. Who waits for a
        receiver that is busy, or has a backlog of its own making to read, does not wait for us; nor does one that was
        not served lately (`PROVEN_WITHIN`) while others like it are being tried.
        """
        ...


class Tokens(Protocol):
    """Who may use the API."""

    async def add_token(self, token: Token, *, digest: bytes, only_first: bool = False) -> bool:
        """Keep a token under its hash. With `only_first`, only if there is none yet; False if it was not kept."""
        ...

    async def find_token(self, digest: bytes) -> Token | None: ...

    async def list_tokens(self) -> tuple[Token, ...]: ...

    async def revoke_token(self, gid: str, *, now: Micros) -> bool:
        """Revoke a token, stopping the webhooks its owner loses access to; False if there is no such token."""
        ...

    async def touch_tokens(self, used: Mapping[str, Micros]) -> None:
        """Note when each of these tokens, by gid, was last used. Need not be flushed to disk."""
        ...

    async def review_access(self, *, now: Micros) -> None:
        """Stop the webhooks whose owners' last tokens have expired."""
        ...


class Store(Log, Webhooks, Engine, Tokens, Protocol):
    """All of it, on one database."""

    @property
    def waiting(self) -> int:
        """How many writes wait for their transaction: the measure for holding publishers back."""
        ...

    async def check(self) -> None:
        """Raise `StoreUnavailable` unless the database can be read and written."""
        ...

    async def close(self) -> None: ...
