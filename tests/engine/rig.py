"""A dispatcher on a real store, with a clock turned by hand and a target that is a function.

`Rig` puts together what the composition root would, but for the network, the time and the dice: the store is a
SQLite file, secrets are sealed, webhooks are established by the desk. `run_once` takes one turn; `settle_all` and
`live_through` take turns as `run` would, jumping from one due time to the next.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from tests.sending import Posting
from tidings.delivery import Policy
from tidings.dispatcher import Clocks, Dispatcher
from tidings.errors import StoreUnavailable
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import (
    Action,
    Answer,
    Change,
    Claimed,
    ClaimRequest,
    Delivery,
    EventDraft,
    Filter,
    Micros,
    Owner,
    Publication,
    Published,
    Quotas,
    Record,
    Recorded,
    Reply,
    ResourceDraft,
    Scope,
    Token,
    Webhook,
)
from tidings.sealing import NONCE_BYTES, Sealer
from tidings.service.tokens import TokenDesk
from tidings.service.webhooks import Dice, WebhookDesk
from tidings.store import LoggedAttempt, Store
from tidings.store.sqlite import SqliteStore, open_store
from tidings.targets import Rules
from tidings.wire import webhooks as wire
from tidings.wire.tokens import TokenRequest
from tidings.wire.webhooks import CreateRequest

SECOND: Final[Micros] = MICROSECONDS_PER_SECOND
MINUTE: Final[Micros] = 60 * SECOND
HOUR: Final[Micros] = 60 * MINUTE
# 2026-01-05 12:00 UTC; any instant will do.
NOON: Final[Micros] = 1_767_614_400 * SECOND

WORKSPACE: Final = "1"
PROJECT: Final = "10"
TASK: Final = "100"
HIERARCHY: Final = (
    ResourceDraft(gid=WORKSPACE, resource_type="workspace", name="Home"),
    ResourceDraft(gid=PROJECT, resource_type="project", name="Bugs", parents=(WORKSPACE,)),
    ResourceDraft(gid=TASK, resource_type="task", resource_subtype="default_task", parents=(PROJECT,)),
)
OWNER: Final = Owner("7", "app")
TARGET: Final = "http://receiver.example/hook"

OK: Final = Answer(200, "OK", (), b"")
FAILED: Final = Answer(500, "Server Error", (), b"Could not complete the request")
GONE: Final = Answer(410, "Gone", (), b"")


def with_retry_after(value: str, status: int = 503) -> Answer:
    return Answer(status, "Service Unavailable", (("retry-after", value),), b"")


@dataclass
class Clock:
    """The time of day and a clock that only goes forward; `jump` turns only the first, as people do."""

    now: Micros = NOON
    elapsed: Micros = 0

    def turn(self, by: Micros) -> None:
        self.now += by
        self.elapsed += by

    def turn_to(self, at: Micros) -> None:
        self.turn(max(0, at - self.now))

    def jump(self, by: Micros) -> None:
        self.now += by


@dataclass(frozen=True)
class Post:
    """One delivery as it reached the target, and when it did."""

    at: Micros
    delivery: Delivery

    def header(self, name: str) -> str:
        return dict(self.delivery.headers)[name]

    @property
    def id(self) -> str:
        return self.header("X-Tidings-Delivery")

    @property
    def body(self) -> bytes:
        return self.delivery.body

    @property
    def events(self) -> list[dict[str, Any]]:
        events = json.loads(self.delivery.body)["events"]
        assert isinstance(events, list)
        return events

    @property
    def names(self) -> list[str]:
        """What the events of `Rig.publish` are told apart by."""
        return [event["change"]["field"] for event in self.events]


Behaviour = Callable[[Post], Reply | Awaitable[Reply]]


@dataclass
class Target:
    """The network: records deliveries and answers them as it was told, per URL or for all."""

    clock: Clock
    answer: Reply | Behaviour = OK
    answers: dict[str, Reply | Behaviour] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)
    # How many deliveries each origin had in flight at once, at most; and all together under "".
    peaks: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    # How many webhooks had two deliveries in flight at once. Never any.
    overlaps: int = 0
    # Arrivals wait here while a test holds them back.
    gate: asyncio.Event | None = None

    async def post(self, delivery: Delivery) -> Reply:
        secret = dict(delivery.headers).get("X-Hook-Secret")
        if secret is not None:
            return Answer(200, "OK", (("x-hook-secret", secret),), b"")
        post = Post(self.clock.now, delivery)
        self.posts.append(post)
        origin = delivery.url.split("/")[2]
        webhook = post.header("X-Tidings-Webhook")
        self.overlaps += self.in_flight[webhook] > 0
        for key in ("", origin, webhook):
            self.in_flight[key] += 1
            self.peaks[key] = max(self.peaks[key], self.in_flight[key])
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answers.get(delivery.url, self.answer)
            if not callable(answer):
                return answer
            reply = answer(post)
            return await reply if isinstance(reply, Awaitable) else reply
        finally:
            for key in ("", origin, webhook):
                self.in_flight[key] -= 1

    def to(self, webhook: Webhook) -> list[Post]:
        return [post for post in self.posts if post.header("X-Tidings-Webhook") == webhook.gid]

    def names(self, webhook: Webhook | None = None) -> list[str]:
        """The events that were posted, in order; repeats included."""
        return [name for post in (self.posts if webhook is None else self.to(webhook)) for name in post.names]

    @property
    def times(self) -> list[Micros]:
        return [post.at for post in self.posts]


class Rig:
    """Everything an engine needs. Made by the fixture `rig`, or by `Rig.open` for other policies."""

    def __init__(self, store: SqliteStore, *, policy: Policy, path: Path) -> None:
        self.store = store
        self.policy = policy
        self.path = path
        self.clock = Clock()
        self.target = Target(self.clock)
        # The dice: what the next throws give, in [0, 1).
        self.jitter = 0.5
        self._gids = itertools.count(1000)
        self.sealer = Sealer(bytes(32))
        self.dispatcher = self.make_dispatcher()
        self.tokens = TokenDesk(
            store,
            now=lambda: self.clock.now,
            new_gid=self._new_gid,
            new_text=lambda: f"token-{self._new_gid():0>32}",
        )
        self.desk = self.make_desk()
        self.caller = self._caller(OWNER)

    @classmethod
    async def open(cls, path: Path, *, policy: Policy | None = None) -> Rig:
        store = open_store(str(path), migrate=True, generation="g", key_id=Sealer(bytes(32)).key_id)
        rig = cls(store, policy=policy or Policy(), path=path)
        await store.put_resources(HIERARCHY, workspaces=None, now=rig.clock.now)
        # Webhooks run only while a live token of their owner covers the workspace.
        await rig.tokens.create(TokenRequest(owner=OWNER, scopes=frozenset(Scope)))
        return rig

    async def close(self) -> None:
        await self.tokens.finish()
        await self.store.close()
        assert self.target.overlaps == 0, "a webhook had two deliveries in flight"

    def _new_gid(self) -> str:
        return str(next(self._gids))

    def _caller(self, owner: Owner) -> Token:
        return Token(
            gid="1",
            owner=owner,
            user_name=None,
            prefix="",
            scopes=frozenset(Scope),
            workspaces=None,
            created_at=self.clock.now,
        )

    def make_dispatcher(
        self, *, store: Store | None = None, concurrency: int = 64, policy: Policy | None = None
    ) -> Dispatcher:
        return Dispatcher(
            store or self.store,
            Posting(self.target.post).send,
            policy=policy or self.policy,
            clocks=Clocks(
                now=lambda: self.clock.now, elapsed=lambda: self.clock.elapsed, jitter=lambda: self.jitter
            ),
            unseal=lambda secret, gid: self.sealer.unseal(secret, webhook=gid),
            concurrency=concurrency,
        )

    def make_desk(self) -> WebhookDesk:
        return WebhookDesk(
            self.store,
            self.target.post,
            policy=self.policy,
            rules=Rules(),
            quotas=Quotas(1_000, 10_000),
            now=lambda: self.clock.now,
            dice=Dice(
                new_gid=self._new_gid,
                new_secret=lambda: "5ec2e7" * 10 + "abcd",
                seal=lambda secret, gid: self.sealer.seal(
                    secret, webhook=gid, nonce=int(gid).to_bytes(NONCE_BYTES, "big")
                ),
                jitter=lambda: self.jitter,
            ),
            offset_key=bytes(32),
            withdraw=lambda gid: self.dispatcher.withdraw(gid),
        )

    # -- doing -------------------------------------------------------------------------------------

    async def establish(
        self, target: str = TARGET, *, resource: str = PROJECT, filters: Sequence[Filter] = ()
    ) -> Webhook:
        request = CreateRequest(resource=resource, target=target, filters=tuple(filters))
        return (await self.desk.establish(self.caller, request)).webhook

    async def publish(self, *names: str, resource: str = TASK, padding: int = 0) -> Published:
        """Publish a change of each field named; `padding` bytes of values make an event large."""
        values = {"new_value": json.dumps("x" * padding).encode()} if padding else {}
        drafts = tuple(
            EventDraft(
                resource=resource,
                action=Action.CHANGED,
                user=b"null",
                parent=None,
                change=Change(field=name, action="changed", values=values),
                created_at=None,
                external_id=None,
                path="",
            )
            for name in names
        )
        return await self.store.publish(Publication(events=drafts), now=self.clock.now)

    async def run_once(self) -> int:
        return await self.dispatcher.run_once()

    async def settle_all(self, most: int = 1_000) -> int:
        """Take turns at this instant until nothing is due; gives how many claims there were."""
        claims = 0
        for _ in range(most):
            claimed = await self.run_once()
            if not claimed:
                return claims
            claims += claimed
        raise AssertionError(f"still claiming after {most} turns")

    async def live_through(self, span: Micros) -> None:
        """Let time pass, taking a turn whenever something is due, as `run` does."""
        end = self.clock.now + span
        while True:
            await self.settle_all()
            due = await self.store.next_due_at()
            if due is None or due > end:
                break
            assert due > self.clock.now, "what is due was not claimed"
            self.clock.turn_to(due)
        self.clock.turn_to(end)

    async def record(self, webhook: Webhook) -> dict[str, Any]:
        """The record as the API shows it."""
        return wire.render(await self.desk.get(self.caller, webhook.gid), self.policy)

    async def ended(self, webhook: Webhook) -> bool:
        return await self.store.get_webhook(webhook.gid) is None

    async def attempts(self, webhook: Webhook) -> list[LoggedAttempt]:
        """Newest first."""
        return list(await self.store.list_attempts(webhook.gid, before=None, limit=1_000))

    async def current(self, webhook: Webhook) -> Webhook:
        found = await self.store.get_webhook(webhook.gid)
        assert found is not None, "the webhook has ended"
        return found


def policy_of(**changes: Any) -> Policy:
    return replace(Policy(), **changes)


def names(count: int, prefix: str = "e") -> list[str]:
    """So many distinct names, in order."""
    return [f"{prefix}{number}" for number in range(count)]


async def until(predicate: Callable[[], object], *, seconds: float = 10, message: str = "") -> None:
    """Return once `predicate()` is true; the loop runs in between."""
    async with asyncio.timeout(seconds):
        while not predicate():
            await asyncio.sleep(0.001)


async def _nothing() -> None:
    pass


class Between:
    """A store with a test between it and the dispatcher: what is set here happens instead, or before."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        # While set, recording fails with this.
        self.failing: StoreUnavailable | None = None
        self.failed_records = 0
        # While set, claiming fails with this.
        self.refusing_claims: StoreUnavailable | None = None
        self.claims = 0
        # Of those, how many gave any, and how many times something was recorded.
        self.claimed = 0
        self.records = 0
        # Awaited before the store is asked for claims.
        self.before_claim: Callable[[], Awaitable[None]] = _nothing
        # Called once so many were claimed.
        self.on_claimed: Callable[[int], None] = lambda count: None
        self.next_dues = 0
        # Called once it is known when the next thing is due.
        self.on_next_due: Callable[[], None] = lambda: None

    def as_store(self) -> Store:
        return cast(Store, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def record(self, records: Sequence[Record]) -> Recorded:
        if self.failing is not None:
            self.failed_records += len(records)
            raise self.failing
        recorded = await self.inner.record(records)
        self.records += 1
        return recorded

    async def claim(self, request: ClaimRequest, *, clock: Callable[[], Micros] | None = None) -> Claimed:
        self.claims += 1
        await self.before_claim()
        if self.refusing_claims is not None:
            raise self.refusing_claims
        claimed = await self.inner.claim(request, clock=clock)
        self.claimed += bool(claimed.claims)
        self.on_claimed(len(claimed.claims))
        return claimed

    async def next_due_at(self) -> Micros | None:
        due = await self.inner.next_due_at()
        self.next_dues += 1
        self.on_next_due()
        return due


@asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator[asyncio.Task[None]]:
    """A dispatcher that runs beside the test, and is drained at its end."""
    task = asyncio.create_task(dispatcher.run())
    try:
        yield task
    finally:
        dispatcher.drain()
        async with asyncio.timeout(10):
            await task
