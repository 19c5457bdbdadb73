"""No new delivery after delete, expiry, a lost lease or lost access; and what goes on again when it may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.engine.rig import (
    FAILED,
    HIERARCHY,
    HOUR,
    MINUTE,
    OK,
    OWNER,
    SECOND,
    WORKSPACE,
    Between,
    Post,
    Rig,
    names,
    running,
    until,
)
from tidings.limits import LEASE_SLACK
from tidings.model import Answer, Micros, Record, Recorded, Reply, Scope, StopReason
from tidings.wire.tokens import TokenRequest


@pytest.mark.parametrize("answer", [OK, FAILED])
async def test_a_webhook_deleted_in_flight_starts_nothing_more(rig: Rig, answer: Answer) -> None:
    """The delivery under way ends as it will; neither its retry nor the rest of the backlog follows."""
    webhook = await rig.establish()
    await rig.publish(*names(150))
    rig.target.gate = asyncio.Event()
    rig.target.answer = answer
    async with running(rig.dispatcher):
        await until(lambda: rig.target.posts)
        await rig.desk.remove(rig.caller, webhook.gid)
        rig.target.gate.set()
        await until(lambda: not rig.dispatcher.in_flight)
    await rig.live_through(48 * HOUR)
    assert len(rig.target.posts) == 1
    assert await rig.ended(webhook)


async def test_a_webhook_deleted_while_it_is_being_claimed_gets_nothing(rig: Rig) -> None:
    """The claim's transaction came first, the delete's second, and both are known in the same turn of the loop."""
    first = await rig.establish("http://first.example/")
    second = await rig.establish("http://second.example/")
    await rig.publish("a")
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    # What the desk does first, once it has looked whose the webhook is.
    between.on_claimed = lambda count: dispatcher.withdraw(second.gid)
    assert await dispatcher.run_once() == 2
    await rig.store.remove_webhook(second.gid, now=rig.clock.now)
    await rig.settle_all()
    assert [post.header("X-Tidings-Webhook") for post in rig.target.posts] == [first.gid]


async def test_a_withdrawal_that_came_to_nothing_costs_one_turn(rig: Rig) -> None:
    """The delete failed after all (the store was down): the delivery is made at the next claim."""
    webhook = await rig.establish()
    await rig.publish("a")
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    between.on_claimed = lambda count: dispatcher.withdraw(webhook.gid)
    assert await dispatcher.run_once() == 1
    assert rig.target.names() == []
    between.on_claimed = lambda count: None
    assert await dispatcher.run_once() == 1
    assert rig.target.names() == ["a"]


async def test_a_delivery_starts_only_with_its_deadline_left_on_the_lease(rig: Rig) -> None:
    """What was claimed and then kept back too long is given back unsent, unharmed."""
    await rig.establish()
    await rig.publish("a")
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    between.on_claimed = lambda count: rig.clock.turn(LEASE_SLACK + 1)
    assert await dispatcher.run_once() == 1
    assert rig.target.names() == []
    between.on_claimed = lambda count: None
    assert await dispatcher.run_once() == 1
    assert rig.target.names() == ["a"]


async def test_a_stale_record_changes_nothing(rig: Rig) -> None:
    """Its holder stood still past the lease; another dispatcher has delivered since."""
    webhook = await rig.establish()
    await rig.publish("a")
    gate = asyncio.Event()

    async def hang(post: Post) -> Reply:
        await gate.wait()
        return FAILED

    rig.target.answer = hang
    stuck = asyncio.create_task(rig.run_once())
    await until(lambda: rig.target.posts)
    rig.clock.turn(rig.policy.delivery_timeout + LEASE_SLACK + SECOND)
    rig.target.answer = OK
    rig.target.in_flight.clear()
    other = rig.make_dispatcher()
    assert await other.run_once() == 1
    gate.set()
    await stuck
    record = await rig.record(webhook)
    assert record["last_failure_at"] is None
    assert [entry.attempt.result for entry in await rig.attempts(webhook)] == ["delivered"]
    assert await rig.run_once() == 0


async def test_access_lost_stops_and_regained_resumes(rig: Rig) -> None:
    """Inactive with the reason while no live token of the owner covers the workspace; then all that waited."""
    webhook = await rig.establish()
    (token,) = await rig.tokens.list_all()
    await rig.tokens.revoke(token.gid)
    await rig.publish(*names(3))
    await rig.live_through(24 * HOUR)
    assert rig.target.posts == []
    record = await rig.record(webhook)
    assert (record["active"], record["inactive_reason"]) == (False, StopReason.ACCESS_LOST)
    # One for another workspace is not enough.
    elsewhere = replace(HIERARCHY[0], gid="2")
    await rig.store.put_resources([elsewhere], workspaces=None, now=rig.clock.now)
    await rig.tokens.create(
        TokenRequest(owner=OWNER, scopes=frozenset(Scope), workspaces=frozenset({elsewhere.gid}))
    )
    assert await rig.run_once() == 0
    await rig.tokens.create(
        TokenRequest(owner=OWNER, scopes=frozenset(Scope), workspaces=frozenset({WORKSPACE}))
    )
    await rig.settle_all()
    assert rig.target.names(webhook) == names(3)
    assert (await rig.record(webhook))["active"] is True


async def test_access_lost_during_failure_does_not_expire_it(rig: Rig) -> None:
    """Nobody was trying meanwhile: the run goes on where it was."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.live_through(HOUR)
    (token,) = await rig.tokens.list_all()
    await rig.tokens.revoke(token.gid)
    await rig.live_through(48 * HOUR)
    await rig.tokens.create(TokenRequest(owner=OWNER, scopes=frozenset(Scope)))
    await rig.live_through(MINUTE)
    assert not await rig.ended(webhook)
    await rig.live_through(24 * HOUR)
    assert await rig.ended(webhook)


@pytest.mark.parametrize("took", [SECOND, 9 * SECOND])
async def test_a_slow_answer_is_counted_from_its_end(rig: Rig, took: Micros) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    start = rig.clock.now

    def slowly(post: Post) -> Reply:
        rig.clock.turn(took)
        return FAILED

    rig.target.answer = slowly
    await rig.run_once()
    health = (await rig.current(webhook)).health
    assert health.last_failure_at == start + took
    assert health.next_attempt_at == start + took + round(7.5 * SECOND)
    assert (await rig.attempts(webhook))[0].attempt.duration == took


async def test_a_delete_during_a_delivery_is_not_followed_by_the_next_batch(rig: Rig) -> None:
    """Its record may keep the lease just before the delete, in one commit with it: the delete was said before."""

    class DeletedBehind(Between):
        async def record(self, records: Sequence[Record]) -> Recorded:
            recorded = await self.inner.record(records)
            if recorded.onward:
                await self.inner.remove_webhook(webhook.gid, now=rig.clock.now)
            return recorded

    dispatcher = rig.make_dispatcher(store=DeletedBehind(rig.store).as_store())
    webhook = await rig.establish()
    await rig.publish(*names(150))
    rig.target.gate = asyncio.Event()
    async with running(dispatcher):
        await until(lambda: rig.target.posts)
        dispatcher.withdraw(webhook.gid)
        rig.target.gate.set()
        await until(lambda: not dispatcher.in_flight)
    assert [len(post.events) for post in rig.target.posts] == [100]
    assert await rig.ended(webhook)
