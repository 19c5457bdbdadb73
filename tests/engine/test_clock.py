"""A time of day that somebody turns: nothing expires by it, nothing stalls, nothing is sent twice at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.rig import (
    FAILED,
    HOUR,
    MINUTE,
    OK,
    SECOND,
    Between,
    Post,
    Rig,
    running,
    until,
    with_retry_after,
)
from tidings.dispatcher import Clocks
from tidings.model import Keeping, Micros, Reply
from tidings.upkeep import Upkeep


def upkeep_of(rig: Rig) -> Upkeep:
    clocks = Clocks(now=lambda: rig.clock.now, elapsed=lambda: rig.clock.elapsed, jitter=lambda: rig.jitter)
    keeping = Keeping(retention=14 * 24 * HOUR, ceiling=28 * 24 * HOUR, restore_within=7 * 24 * HOUR)
    return Upkeep(rig.store, policy=rig.policy, keeping=keeping, clocks=clocks, wake=rig.dispatcher.wake)


@pytest.mark.parametrize("by", [-48 * HOUR, -1, 14 * SECOND, 16 * SECOND, 48 * HOUR])
async def test_a_clock_turned_during_a_delivery_starts_no_second_one(rig: Rig, by: Micros) -> None:
    """The lease may look expired, or made in the future; who holds it knows that it is in flight."""
    webhook = await rig.establish()
    rig.target.gate = asyncio.Event()
    async with running(rig.dispatcher):
        await rig.publish("a")
        rig.dispatcher.wake()
        await until(lambda: rig.target.posts)
        rig.clock.jump(by)
        await rig.publish("b")
        # Another webhook's delivery shows that claiming went on.
        other = await rig.establish("http://other.example/hook")
        await rig.publish("c")
        rig.dispatcher.wake()
        await until(lambda: rig.target.to(other))
        rig.target.gate.set()
        await until(lambda: rig.target.names(webhook) == ["a", "b", "c"])


@pytest.mark.parametrize("by", [48 * HOUR, 25 * HOUR, 90 * MINUTE])
async def test_a_jump_forward_does_not_expire(rig: Rig, by: Micros) -> None:
    """Time in which nobody was trying does not count: the run's start moves along with the clock."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.live_through(2 * HOUR)
    before = await rig.current(webhook)
    assert before.health.failing_since is not None
    assert before.health.next_attempt_at is not None
    late = rig.clock.now + by - before.health.next_attempt_at
    rig.clock.jump(by)
    await rig.settle_all()
    after = await rig.current(webhook)
    assert after.health.failing_since == before.health.failing_since + late
    # What is left of the 24 hours is lived through as if nothing had been.
    await rig.live_through(21 * HOUR)
    assert not await rig.ended(webhook)
    await rig.live_through(2 * HOUR)
    assert await rig.ended(webhook)


@pytest.mark.parametrize("jump", [0, -HOUR, 20 * SECOND])
async def test_a_claim_that_was_held_up_takes_no_lease_that_holds(rig: Rig, jump: Micros) -> None:
    """The clock is read when the claim is made: by the time of the request, a lease given since looks wrong."""
    await rig.establish()
    await rig.publish("a")
    rig.target.gate = asyncio.Event()
    between = Between(rig.store)
    delivering: list[asyncio.Task[int]] = []

    async def hold_up() -> None:
        rig.clock.turn(MINUTE)
        rig.clock.jump(jump)
        delivering.append(asyncio.create_task(rig.run_once()))
        await until(lambda: rig.target.posts)

    between.before_claim = hold_up
    late = asyncio.create_task(rig.make_dispatcher(store=between.as_store()).run_once())
    await until(lambda: late.done() or len(rig.target.posts) > 1)
    rig.target.gate.set()
    assert await late == 0
    assert [await task for task in delivering] == [1]
    assert rig.target.names() == ["a"]


@pytest.mark.parametrize("by", [48 * HOUR, 2 * HOUR, 61 * SECOND])
async def test_a_jump_back_stalls_no_retry(rig: Rig, by: Micros) -> None:
    """A retry that is now far ahead is made at once, and the run does not begin in the future."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.live_through(2 * HOUR)
    rig.clock.jump(-by)
    upkeep = upkeep_of(rig)
    rig.target.answer = OK
    await upkeep.look()
    await rig.live_through(HOUR)
    assert rig.target.names(webhook)[-1] == "a"
    assert (await rig.record(webhook))["delivery_retry_count"] == 0


@pytest.mark.parametrize("by", [1, SECOND])
async def test_a_clock_that_is_nudged_back_makes_no_retry_due(rig: Rig, by: Micros) -> None:
    """A wait of exactly the longest, as a receiver may ask for, looks longer than any by a clock a little behind."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = with_retry_after("3600")
    assert await rig.run_once() == 1
    assert (await rig.current(webhook)).health.next_attempt_at == rig.clock.now + HOUR
    rig.clock.jump(-by)
    assert await rig.run_once() == 0


async def test_a_jump_back_during_failure_keeps_the_24_hours(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.live_through(HOUR)
    rig.clock.jump(-10 * HOUR)
    await rig.settle_all()
    await rig.live_through(23 * HOUR)
    assert not await rig.ended(webhook)
    await rig.live_through(3 * HOUR)
    assert await rig.ended(webhook)


@pytest.mark.parametrize("by", [-48 * HOUR, 48 * HOUR])
async def test_heartbeats_go_on_after_a_jump(rig: Rig, by: Micros) -> None:
    """Upkeep sees the turned clock and spreads what is overdue, or too far ahead, over a tenth of the interval."""
    webhook = await rig.establish()
    await rig.settle_all()
    upkeep = upkeep_of(rig)
    rig.clock.jump(by)
    await upkeep.look()
    jumped_at = rig.clock.now
    await rig.live_through(rig.policy.heartbeat_every)
    assert rig.target.to(webhook)[0].at <= jumped_at + rig.policy.heartbeat_every // 10


async def test_heartbeats_go_on_after_a_jump_back_while_it_failed(rig: Rig) -> None:
    """Upkeep moves the times of healthy webhooks; that of a failing one is mended when it recovers."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.settle_all()
    upkeep = upkeep_of(rig)
    rig.clock.jump(-48 * HOUR)
    await upkeep.look()
    rig.target.answer = OK
    await rig.live_through(HOUR)
    assert rig.target.names(webhook)[-1] == "a"
    posts = len(rig.target.posts)
    await rig.live_through(rig.policy.heartbeat_every)
    assert len(rig.target.posts) == posts + 1


@pytest.mark.parametrize("by", [-48 * HOUR, 48 * HOUR])
async def test_events_are_delivered_after_a_jump(rig: Rig, by: Micros) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    await rig.settle_all()
    rig.clock.jump(by)
    await rig.publish("b")
    await rig.settle_all()
    assert [name for name in rig.target.names(webhook)] == ["a", "b"]


async def test_what_becomes_due_between_claim_and_rest_is_not_overlooked(rig: Rig) -> None:
    """The time that passes between looking for work and asking when there will be some must not hide any."""
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    webhook = await rig.establish()
    rig.target.answer = FAILED
    await rig.publish("a")
    await rig.settle_all()
    due = (await rig.current(webhook)).health.next_attempt_at
    assert due is not None
    rig.clock.turn_to(due - SECOND)
    rig.target.answer = OK
    posted = len(rig.target.posts)
    async with running(dispatcher):
        # At rest: it has seen its own writes, and found nothing to do.
        await until(lambda: between.next_dues >= 2)
        between.on_next_due = lambda: rig.clock.turn_to(due + 1)
        dispatcher.wake()
        await until(lambda: len(rig.target.posts) > posted, seconds=3)


async def test_a_full_origin_does_not_hide_when_others_are_due(rig: Rig) -> None:
    """Work that is due and cannot be claimed is the earliest; what is due behind it is seen all the same."""
    # One delivery per origin.
    dispatcher = rig.make_dispatcher(concurrency=4)
    rig.target.answer = FAILED
    slow = await rig.establish("http://slow.example/failing")
    await rig.publish("a")
    await rig.settle_all()
    other = await rig.establish("http://other.example/hook")
    await rig.publish("b")
    rig.clock.turn(SECOND)
    await rig.settle_all()
    slow_due = (await rig.current(slow)).health.next_attempt_at
    other_due = (await rig.current(other)).health.next_attempt_at
    assert slow_due is not None
    assert other_due is not None
    assert slow_due < other_due
    never = asyncio.Event()

    async def hang(post: Post) -> Reply:
        await never.wait()
        return OK

    hanging = await rig.establish("http://slow.example/hanging")
    rig.target.answers[hanging.target] = hang
    await rig.publish("c")
    posted = len(rig.target.to(other))
    async with running(dispatcher):
        await until(lambda: rig.target.to(hanging))
        rig.clock.turn_to(slow_due)
        dispatcher.wake()
        rig.clock.turn_to(other_due)
        await until(lambda: len(rig.target.to(other)) > posted, seconds=3)
        assert len(rig.target.to(slow)) == 1
        never.set()
