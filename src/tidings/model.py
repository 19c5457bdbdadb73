"""The nouns of the service: frozen, typed, without behaviour beyond questions about themselves.

What is made by the thousand each second is a `msgspec.Struct` (made in a tenth of the time of a frozen dataclass, which
is measurable in deliveries per second); the rest are dataclasses.

Times are integer microseconds since the epoch (`Micros`), in the core as in the stores: exact, ordered, cheap to
compare, and the same on every clock. Text appears only on the wire (`wire/times.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

Micros: TypeAlias = int
"""An instant (microseconds since the epoch) or a span (microseconds)."""

Position: TypeAlias = int
"""A place in the log: positive, rising, never used twice. 0 is before the first event."""


class Action(StrEnum):
    """What an event says happened to its resource (contract §4.2)."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"
    REMOVED = "removed"
    UNDELETED = "undeleted"


class Scope(StrEnum):
    """What a token may be used for (contract §8)."""

    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    WEBHOOKS_DELETE = "webhooks:delete"
    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    RESOURCES_READ = "resources:read"
    RESOURCES_WRITE = "resources:write"
    ADMIN = "admin"


# -- resources and events --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A thing of the platform, and its place in the hierarchy."""

    gid: str
    resource_type: str
    resource_subtype: str | None = None
    name: str | None = None
    parents: tuple[str, ...] = ()
    # The one workspace it leads to; a workspace is its own.
    workspace: str
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceDraft:
    """A resource as a publisher describes it: None is none, or as it was where `keep_omitted` says so."""

    gid: str
    resource_type: str
    resource_subtype: str | None = None
    name: str | None = None
    parents: tuple[str, ...] | None = None
    # Given within an event: what is left out stays as it was. Given on its own: left out means none.
    keep_omitted: bool = False
    # Where in the request it stands, for the error that names it.
    path: str = ""


class Change(Struct, frozen=True, kw_only=True):
    """What changed, for an event whose action is `changed`. The values are wire bytes, or absent."""

    field: str
    action: str
    values: Mapping[str, bytes]


class EventDraft(Struct, frozen=True, kw_only=True):
    """One event as it was published: parsed and bounded, not yet placed in the hierarchy."""

    resource: str
    action: Action
    # Rendered: an object with gid and resource_type, or null.
    user: bytes
    parent: str | None
    change: Change | None
    created_at: Micros | None
    external_id: str | None
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Everything one call publishes, to be appended in one transaction or not at all."""

    events: tuple[EventDraft, ...]
    # Resources described within the events, in order.
    resources: tuple[ResourceDraft, ...] = ()
    workspaces: frozenset[str] | None = None
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """`Idempotency-Key` of one publish: per token, bound to the bytes of the body."""

    token: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish promises: `accepted` events are durable, none lies after `last`."""

    accepted: int
    last: Position


class Traits(Struct, frozen=True, array_like=True):
    """What filters match of an event."""

    resource_type: str
    resource_subtype: str | None
    action: str
    field: str | None


class Event(Struct, frozen=True):
    """An event of the log, as a reader sees it: the bytes that are sent, and its traits where filters ask for them."""

    position: Position
    wire: bytes
    traits: Traits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One entry of a webhook's filters; an unset key matches everything (contract §5)."""

    resource_type: str | None = None
    resource_subtype: str | None = None
    action: str | None = None
    fields: tuple[str, ...] | None = None


# -- webhooks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a webhook is: a user through an app."""

    user: str
    app: str


class StopReason(StrEnum):
    """Why a webhook that exists is not delivering (contract §12.19)."""

    PAUSED = "paused"
    ACCESS_LOST = "access_lost"


class EndReason(StrEnum):
    """Why a webhook ended. It is kept for a while and can then be restored."""

    DELETED = "deleted"
    EXPIRED = "expired"
    GONE = "gone"


class Health(Struct, frozen=True, kw_only=True):
    """How a webhook's deliveries go. `failures` counts the unbroken run that began at `failing_since`."""

    last_success_at: Micros | None
    last_failure_at: Micros | None = None
    last_failure_content: str = ""
    failing_since: Micros | None = None
    failures: int = 0
    # When a failing webhook is tried again; None while it is healthy.
    next_attempt_at: Micros | None = None
    # When a healthy webhook that stays quiet is next told that we live.
    heartbeat_at: Micros


class SealedSecret(Struct, frozen=True):
    """A webhook's secret as it is stored. `valid_until` is None for the one in force."""

    key_id: str
    sealed: bytes
    valid_until: Micros | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A cursor over the log, and where to send what lies behind it."""

    gid: str
    owner: Owner
    resource: Resource
    target: str
    filters: tuple[Filter, ...]
    secrets: tuple[SealedSecret, ...]
    created_at: Micros
    cursor: Position
    health: Health
    stopped: StopReason | None = None
    ended: EndReason | None = None
    ended_at: Micros | None = None
    # When retention's ceiling took events this webhook had not read.
    lost_at: Micros | None = None
    # The order of creation; lists follow it and page tokens point into it.
    sequence: int = 0

    @property
    def active(self) -> bool:
        return self.stopped is None and self.ended is None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What establishing needs to insert, once the target has shaken hands."""

    gid: str
    owner: Owner
    resource: str
    target: str
    origin: str
    filters: tuple[Filter, ...]
    secrets: tuple[SealedSecret, ...]
    created_at: Micros
    shaken_at: Micros
    heartbeat_at: Micros


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many webhooks a resource may have over all apps, and an owner over all resources."""

    per_resource: int
    per_owner: int


# -- tokens ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token: what it may do, for whom. The secret itself is not kept, only its hash."""

    gid: str
    owner: Owner
    user_name: str | None
    prefix: str
    scopes: frozenset[Scope]
    # None means every workspace.
    workspaces: frozenset[str] | None
    created_at: Micros
    expires_at: Micros | None = None
    last_used_at: Micros | None = None
    revoked_at: Micros | None = None

    def covers(self, workspace: str) -> bool:
        return self.workspaces is None or workspace in self.workspaces

    def live(self, now: Micros) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


# -- delivering ------------------------------------------------------------------------------------


class Lease(Struct, frozen=True):
    """The right to deliver to one webhook for a while. Only the fence decides whether a record counts."""

    webhook: int
    fence: int
    until: Micros


class Claim(Struct, frozen=True, kw_only=True):
    """A webhook that has something to do, leased, with the page behind its cursor as of the same snapshot."""

    lease: Lease
    gid: str
    target: str
    # Stands for scheme, host and port: the key of fairness between hosts.
    origin: int
    workspace: str
    filters: tuple[Filter, ...]
    secrets: tuple[SealedSecret, ...]
    cursor: Position
    head: Position
    # Moves when what the cursor will deliver is decided anew (filters replaced, replay).
    epoch: int
    # The end of a batch that failed: a retry sends the same bytes.
    batch_end: Position | None
    health: Health
    page: tuple[Event, ...]
    # Whether the log holds more behind the page.
    more: bool
    # Whether it took a delivery lately, and so had its place among the slots kept for such as it.
    proven: bool = False
    # How many batches of the page were delivered under this lease before.
    delivered: int = 0
    # Bytes of the log that are held for it: its page, or its batch where the rest is of no use.
    bytes_held: int = 0


class Claimed(Struct, frozen=True):
    """What a claim gave; `behind` says that the marker has more new events to look at."""

    claims: tuple[Claim, ...]
    behind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """How much a dispatcher can take on now."""

    now: Micros
    holder: int
    lease: Micros
    # How many deliveries it has room for; how many of those may be to webhooks that are not proven, and of those again
    # to failing ones.
    limit: int
    unproven_limit: int
    failing_limit: int
    # How many failing ones, and how many heartbeats, go before everybody else. What else is due of them comes last.
    failing_first: int
    quiet_first: int
    # Healthy webhooks with events are proven that were served since then, and had taken a delivery lately.
    proven_since: Micros
    # How many each origin may have in flight, and how many the busy ones have.
    per_origin: int
    in_flight: Mapping[int, int]
    # The most events one delivery carries: a page of webhooks that send only one under a lease holds no more, unless
    # filters are to drop some.
    batch_max: int
    # Bytes that pages may hold, beyond one event of the largest size each; those of failing webhooks do not count.
    room: int
    # No wait of the policy is longer: a due time beyond it was set by a clock that since went back.
    wait_max: Micros
    # Webhooks it is delivering to, whatever a clock that was turned since says of their leases.
    held: tuple[int, ...] = ()


class Batch(Struct, frozen=True):
    """The events of one delivery, and where the cursor stands once they are delivered."""

    events: tuple[Event, ...]
    end: Position


class Delivery(Struct, frozen=True):
    """One POST, ready to be sent: these bytes, with these headers, within this time."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: Micros


class Trouble(StrEnum):
    """What kept a POST from being answered, by the stage it happened in."""

    REFUSED_ADDRESS = "refused_address"  # the guard: a forbidden address, by URL or after DNS
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"  # what came back is not HTTP/1.1, or over a bound
    CLOSED = "closed"  # the connection ended before the response did
    SEALED = "sealed"  # our own: the secret does not open


class Answer(Struct, frozen=True):
    """What the target answered. `body` is an excerpt, cut at a bound; header names are lower-case."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The last value under this lower-case name, or None."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


class NoAnswer(Struct, frozen=True):
    """Why there was no answer. `text` is one line for people; it never holds a secret.

    `ours`: for want of something that this service needs for any target, so that it says nothing of this one.
    """

    trouble: Trouble
    text: str
    ours: bool = False


Reply: TypeAlias = Answer | NoAnswer

Post: TypeAlias = Callable[[Delivery], Awaitable[Reply]]
"""The seam to the network for whoever waits. It never raises for anything a target does or fails to do."""

Told: TypeAlias = Callable[[Reply | Exception], None]
"""Is told what came of a delivery: a reply, or an exception that is a fault of ours."""

Send: TypeAlias = Callable[[Delivery, Told], object]
"""The same seam for whoever sends so many that a task, or a future, for each would be felt: what came is told, once,
perhaps before it returns."""


class Network(Protocol):
    """Both."""

    def post(self, delivery: Delivery) -> Awaitable[Reply]: ...

    def send(self, delivery: Delivery, told: Told) -> object: ...


class Delivered(Struct, frozen=True):
    """The target took the delivery."""


class Refused(Struct, frozen=True):
    """The target did not take it; `retry_after` is the wait it asked for, 0 if none."""

    content: str
    retry_after: Micros = 0


class Hindered(Struct, frozen=True):
    """This service could not send it, for a reason of its own: nothing was learnt of the target."""

    content: str


class Gone(Struct, frozen=True):
    """The target says it will never take anything again (410)."""

    content: str


Outcome: TypeAlias = Delivered | Refused | Hindered | Gone


class Keep(Struct, frozen=True):
    """The webhook lives on, with this health."""

    health: Health


class End(Struct, frozen=True):
    """The webhook ends, for this reason, with this last health."""

    health: Health
    reason: EndReason


Verdict: TypeAlias = Keep | End


class Attempt(Struct, frozen=True, kw_only=True):
    """One line of a webhook's log: what was tried and what came of it."""

    delivery: str
    started_at: Micros
    duration: Micros
    events: int
    status: int | None
    # "delivered", or what went wrong.
    result: str
    excerpt: str
    heartbeat: bool = False


class Record(Struct, frozen=True, kw_only=True):
    """What a claim comes to. Written only if its fence is still the webhook's.

    `attempt` is None when nothing was sent: every event of the page was refused by the filters.
    """

    lease: Lease
    verdict: Verdict
    cursor: Position
    # The end of the batch that has to be sent again, and the epoch it was cut in.
    batch_end: Position | None
    epoch: int
    attempt: Attempt | None
    settled_at: Micros
    # It went well, and well before: only the cursor and the time of the last success move, nothing else of the health.
    steady: bool = False
    # Steady, and the lease is to be kept: more of the page that was read is to be sent under it.
    onward: bool = False


class Recorded(Struct, frozen=True):
    """How many records counted, and which webhooks keep their lease, of those whose records asked to."""

    counted: int
    onward: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How long things are kept (microseconds)."""

    # Events, attempts.
    retention: Micros
    # Events that a webhook has yet to read, at most.
    ceiling: Micros
    # Ended webhooks.
    restore_within: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What was found to be past keeping."""

    # The marker is yet to pass events that are: it has to go first, and nothing else is found until it has.
    unmarked: bool
    # Webhooks that have yet to read some of them and will not: their records have to say so before any are deleted.
    losing: tuple[int, ...]
    # The first and the last event.
    first_event: Position
    last_event: Position
    # The last attempt.
    last_attempt: int
    # Idempotency keys made, and webhooks ended, before this (the time of day).
    keys_before: Micros
    ended_before: Micros
    # Some tokens that were revoked or have expired; the next sweep has others.
    dead_tokens: tuple[int, ...]
    # What was noted of the uptime before this.
    uptime_before: Micros

    @property
    def last(self) -> bool:
        """Whether nothing past keeping is left once it is done."""
        return not self.unmarked and not self.losing


NO_POSITION: Final[Position] = 0
