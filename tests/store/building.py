"""What the tests of stores are made of: a small hierarchy, drafts, claims and what claims come to.

Everything here goes through the `Store` protocol alone. Positions are compared, never computed: a store may leave gaps.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from tidings.limits import HELD_BYTES_MAX, MICROSECONDS_PER_SECOND
from tidings.model import (
    Action,
    Attempt,
    Change,
    Claim,
    Claimed,
    ClaimRequest,
    End,
    EndReason,
    EventDraft,
    Filter,
    Health,
    Idempotency,
    Keep,
    Keeping,
    Lease,
    Micros,
    NewWebhook,
    Owner,
    Position,
    Publication,
    Published,
    Quotas,
    Record,
    ResourceDraft,
    Scope,
    SealedSecret,
    Token,
    Verdict,
    Webhook,
)
from tidings.store import LoggedAttempt, Store

SECOND: Final[Micros] = MICROSECONDS_PER_SECOND
MINUTE: Final[Micros] = 60 * SECOND
HOUR: Final[Micros] = 60 * MINUTE
DAY: Final[Micros] = 24 * HOUR
# 2026-01-05 12:00 UTC; any instant will do.
NOON: Final[Micros] = 1_767_614_400 * SECOND

WORKSPACE: Final = "1"
PROJECT: Final = "10"
OTHER_PROJECT: Final = "11"
TASK: Final = "100"
ELSEWHERE: Final = "2"
FOREIGN_PROJECT: Final = "20"
HIERARCHY: Final = (
    ResourceDraft(gid=WORKSPACE, resource_type="workspace", name="Home"),
    ResourceDraft(gid=PROJECT, resource_type="project", name="Bugs", parents=(WORKSPACE,)),
    ResourceDraft(gid=OTHER_PROJECT, resource_type="project", name="Ideas", parents=(WORKSPACE,)),
    ResourceDraft(gid=TASK, resource_type="task", resource_subtype="default_task", parents=(PROJECT,)),
    ResourceDraft(gid=ELSEWHERE, resource_type="workspace", name="Elsewhere"),
    ResourceDraft(gid=FOREIGN_PROJECT, resource_type="project", parents=(ELSEWHERE,)),
)
OWNER: Final = Owner("7", "app")
OTHER_OWNER: Final = Owner("8", "app")
AMPLE: Final = Quotas(1_000, 10_000)
LEASE: Final[Micros] = 15 * SECOND
HEARTBEAT: Final[Micros] = 8 * HOUR
KEEPING: Final = Keeping(retention=3 * DAY, ceiling=6 * DAY, restore_within=DAY)


def change(
    name: str,
    *,
    resource: str = TASK,
    parent: str | None = None,
    external_id: str | None = None,
    size: int = 0,
) -> EventDraft:
    """A change of the field `name`, by which tests know the event again; `size` bytes of values make it large."""
    values = {"new_value": b'"%b"' % (b"x" * size)} if size else {}
    return EventDraft(
        resource=resource,
        action=Action.CHANGED,
        user=b"null",
        parent=parent,
        change=Change(field=name, action="changed", values=values),
        created_at=None,
        external_id=external_id,
        path="",
    )


def names_of(count: int, prefix: str = "e") -> list[str]:
    """So many distinct names, in order."""
    return [f"{prefix}{number}" for number in range(count)]


def fields(claim: Claim) -> list[str | None]:
    """The names of the events on a claim's page."""
    changes = [json.loads(event.wire)["change"] for event in claim.page]
    return [None if each is None else each["field"] for each in changes]


def token(
    gid: str,
    *,
    owner: Owner = OWNER,
    workspaces: frozenset[str] | None = None,
    created_at: Micros = NOON,
    expires_at: Micros | None = None,
) -> Token:
    return Token(
        gid=gid,
        owner=owner,
        user_name="Greta",
        prefix=f"tdg_{gid}",
        scopes=frozenset({Scope.WEBHOOKS_READ, Scope.ADMIN}),
        workspaces=workspaces,
        created_at=created_at,
        expires_at=expires_at,
    )


# -- what claims come to ---------------------------------------------------------------------------


def attempt(now: Micros, *, delivery: str = "d", result: str = "delivered", events: int = 1) -> Attempt:
    return Attempt(
        delivery=delivery,
        started_at=now,
        duration=5,
        events=events,
        status=200 if result == "delivered" else 500,
        result=result,
        excerpt="",
    )


def end_of_page(claim: Claim) -> Position:
    return claim.page[-1].position if claim.page else claim.cursor


def recorded(
    claim: Claim,
    verdict: Verdict,
    *,
    now: Micros,
    cursor: Position | None = None,
    batch_end: Position | None = None,
    tried: Attempt | None = None,
    lease: Lease | None = None,
) -> Record:
    return Record(
        lease=lease or claim.lease,
        verdict=verdict,
        cursor=claim.cursor if cursor is None else cursor,
        batch_end=batch_end,
        epoch=claim.epoch,
        attempt=tried,
        settled_at=now,
    )


def delivered(
    claim: Claim, *, now: Micros, cursor: Position | None = None, delivery: str = "d", content: str = ""
) -> Record:
    """The page, or its events up to `cursor`, was taken; `content` is what the last failure before it said."""
    health = Health(last_success_at=now, last_failure_content=content, heartbeat_at=now + HEARTBEAT)
    return recorded(
        claim,
        Keep(health),
        now=now,
        cursor=end_of_page(claim) if cursor is None else cursor,
        tried=attempt(now, delivery=delivery, events=len(claim.page)),
    )


def steady(claim: Claim, *, now: Micros, events: int, onward: bool = False) -> Record:
    """So many events of the page were taken by a webhook that was well before; `onward` asks to keep the lease."""
    record = recorded(
        claim,
        Keep(replace(claim.health, last_success_at=now)),
        now=now,
        cursor=claim.page[events - 1].position,
        tried=attempt(now, delivery="d", events=events),
    )
    return replace(record, steady=True, onward=onward)


def failing(claim: Claim, *, now: Micros, next_attempt_at: Micros, content: str = "500") -> Health:
    return Health(
        last_success_at=claim.health.last_success_at,
        last_failure_at=now,
        last_failure_content=content,
        failing_since=claim.health.failing_since or now,
        failures=claim.health.failures + 1,
        next_attempt_at=next_attempt_at,
        heartbeat_at=claim.health.heartbeat_at,
    )


def failed(
    claim: Claim,
    *,
    now: Micros,
    next_attempt_at: Micros | None = None,
    batch_end: Position | None = None,
    delivery: str = "d",
    content: str = "500",
) -> Record:
    """The page was refused; it is due again after a minute unless told otherwise."""
    due = now + MINUTE if next_attempt_at is None else next_attempt_at
    return recorded(
        claim,
        Keep(failing(claim, now=now, next_attempt_at=due, content=content)),
        now=now,
        batch_end=batch_end,
        tried=attempt(now, delivery=delivery, result="failed"),
    )


def given_up(claim: Claim, *, now: Micros, reason: EndReason = EndReason.EXPIRED) -> Record:
    health = failing(claim, now=now, next_attempt_at=now + HOUR)
    return recorded(claim, End(health, reason), now=now, tried=attempt(now, result="failed"))


# -- a store in use --------------------------------------------------------------------------------


@dataclass
class Case:
    """A store that holds the hierarchy, and a holder that claims from it."""

    store: Store
    holder: int
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    @classmethod
    async def on(cls, store: Store) -> Case:
        await store.put_resources(HIERARCHY, workspaces=None, now=NOON)
        return cls(store, await store.take_holder(now=NOON))

    async def publish(
        self,
        *names: str,
        resource: str = TASK,
        now: Micros = NOON,
        size: int = 0,
        idempotency: Idempotency | None = None,
    ) -> Published:
        drafts = tuple(change(name, resource=resource, size=size) for name in names)
        return await self.store.publish(Publication(events=drafts, idempotency=idempotency), now=now)

    async def establish(
        self,
        target: str = "http://receiver.example/hook",
        *,
        resource: str = PROJECT,
        owner: Owner = OWNER,
        origin: str = "http://receiver.example:80",
        filters: Sequence[Filter] = (),
        now: Micros = NOON,
        heartbeat_at: Micros | None = None,
        quotas: Quotas = AMPLE,
    ) -> Webhook:
        """Reserve and add, as a request that shakes hands would."""
        gid = str(next(self._numbers))
        reservation = await self.store.reserve(
            owner=owner,
            resource=resource,
            target=target,
            key=f"key-{gid}",
            quotas=quotas,
            now=now,
            until=now + MINUTE,
        )
        assert reservation is not None
        new = self.new_webhook(
            gid,
            owner=owner,
            resource=resource,
            target=target,
            origin=origin,
            filters=tuple(filters),
            now=now,
            heartbeat_at=heartbeat_at,
        )
        return await self.store.add_webhook(new, reservation=reservation, quotas=quotas)

    @staticmethod
    def new_webhook(
        gid: str,
        *,
        owner: Owner = OWNER,
        resource: str = PROJECT,
        target: str = "http://receiver.example/hook",
        origin: str = "http://receiver.example:80",
        filters: tuple[Filter, ...] = (),
        now: Micros = NOON,
        heartbeat_at: Micros | None = None,
    ) -> NewWebhook:
        return NewWebhook(
            gid=gid,
            owner=owner,
            resource=resource,
            target=target,
            origin=origin,
            filters=filters,
            secrets=(SealedSecret("key", b"\x00sealed\xff"),),
            created_at=now,
            shaken_at=now,
            heartbeat_at=now + HEARTBEAT if heartbeat_at is None else heartbeat_at,
        )

    async def claim(
        self,
        *,
        now: Micros = NOON,
        limit: int = 64,
        unproven_limit: int = 64,
        failing_limit: int = 64,
        failing_first: int = 0,
        quiet_first: int = 0,
        proven_since: Micros = 0,
        per_origin: int = 64,
        in_flight: Mapping[int, int] | None = None,
        batch_max: int = 100,
        room: int = HELD_BYTES_MAX,
        held: tuple[int, ...] = (),
        holder: int | None = None,
    ) -> Claimed:
        request = ClaimRequest(
            now=now,
            holder=self.holder if holder is None else holder,
            lease=LEASE,
            limit=limit,
            unproven_limit=unproven_limit,
            failing_limit=failing_limit,
            failing_first=failing_first,
            quiet_first=quiet_first,
            proven_since=proven_since,
            per_origin=per_origin,
            in_flight=in_flight or {},
            batch_max=batch_max,
            room=room,
            wait_max=DAY,
            held=held,
        )
        return await self.store.claim(request)

    async def claimed(self, **changes: Any) -> dict[str, Claim]:
        """One claim for everything that is due, by the webhook's gid."""
        return {claim.gid: claim for claim in (await self.claim(**changes)).claims}

    async def only(self, **changes: Any) -> Claim:
        """The one claim there is."""
        (claim,) = (await self.claim(**changes)).claims
        return claim

    async def gids(self, **changes: Any) -> list[str]:
        """The webhooks one claim gives, sorted."""
        return sorted(await self.claimed(**changes))

    async def record(self, *records: Record) -> int:
        return (await self.store.record(records)).counted

    async def make_failing(self, webhook: Webhook, *, now: Micros = NOON, due: Micros) -> None:
        """Let a webhook that has events, or a heartbeat due, fail; it is due again at `due`."""
        claims = await self.claimed(now=now)
        assert claims.keys() == {webhook.gid}, "something else is due as well"
        await self.record(failed(claims[webhook.gid], now=now, next_attempt_at=due))

    async def webhook(self, gid: str) -> Webhook:
        found = await self.store.get_webhook(gid)
        assert found is not None, "the webhook has ended"
        return found

    async def attempts(self, gid: str, *, before: int | None = None, limit: int = 100) -> list[LoggedAttempt]:
        return list(await self.store.list_attempts(gid, before=before, limit=limit))

    async def live_until(self, now: Micros) -> None:
        """Let the service be up, from NOON on, until then; what is there was there when it last was."""
        since = await self.store.note_uptime(lambda: 0, since=-1, now=now)
        for uptime in (since, max(since, now - NOON)):
            passed = partial(int, uptime - since)
            since = await self.store.note_uptime(passed, since=since, now=now)

    async def trim_all(self, *, now: Micros, keeping: Keeping = KEEPING) -> list[int]:
        """Live until then and trim until there is nothing left to; gives the number of rows of each step."""
        await self.live_until(now)
        steps: list[int] = []
        done = False
        while not done:
            sweep = await self.store.survey(now=now, keeping=keeping)
            while (count := await self.store.trim(sweep, now=now)) > 0:
                steps.append(count)
                assert len(steps) < 1_000, "trimming does not come to an end"
            done = sweep.last
        return steps
