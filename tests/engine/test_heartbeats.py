"""Heartbeats: after so much quiet, spread, and only then (contract §6, §12.2)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.engine.rig import FAILED, HOUR, MINUTE, OK, SECOND, Rig, names
from tidings.model import Filter

DELETED_ONLY = (Filter(resource_type="task", action="deleted"),)


@pytest.mark.parametrize(("jitter", "after"), [(0.0, 7.2), (0.5, 7.6), (0.999, 7.9992)])
async def test_eight_hours_of_quiet(rig: Rig, jitter: float, after: float) -> None:
    """Between 0.9 and 1.0 of the interval, three times in a day, empty, signed, logged as what they are."""
    rig.jitter = jitter
    webhook = await rig.establish()
    start = rig.clock.now
    await rig.live_through(24 * HOUR)
    assert rig.target.times == [start + round(after * HOUR) * number for number in (1, 2, 3)]
    assert {post.body for post in rig.target.posts} == {b'{"events":[]}'}
    assert len({post.id for post in rig.target.posts}) == 3
    logged = (await rig.attempts(webhook))[0].attempt
    assert (logged.heartbeat, logged.events, logged.result) == (True, 0, "delivered")
    health = (await rig.current(webhook)).health
    assert health.last_success_at == rig.target.times[-1]


async def test_a_delivery_postpones_the_heartbeat(rig: Rig) -> None:
    await rig.establish()
    await rig.live_through(7 * HOUR)
    await rig.publish("a")
    await rig.settle_all()
    delivered_at = rig.clock.now
    await rig.live_through(8 * HOUR)
    assert rig.target.times == [delivered_at, delivered_at + round(7.6 * HOUR)]


async def test_a_steady_trickle_needs_no_heartbeat(rig: Rig) -> None:
    await rig.establish()
    for name in names(24):
        await rig.publish(name)
        await rig.live_through(HOUR)
    assert all(post.events for post in rig.target.posts)


async def test_refused_events_do_not_postpone_the_heartbeat(rig: Rig) -> None:
    """A turn that drops everything is neither success nor failure."""
    webhook = await rig.establish(filters=DELETED_ONLY)
    start = rig.clock.now
    await rig.live_through(4 * HOUR)
    await rig.publish("a")
    await rig.live_through(4 * HOUR)
    assert rig.target.times == [start + round(7.6 * HOUR)]
    health = (await rig.current(webhook)).health
    assert health.last_success_at == rig.target.times[-1]
    assert [entry.attempt.heartbeat for entry in await rig.attempts(webhook)] == [True]


async def test_refused_events_that_never_stop_do_not_starve_the_heartbeat(rig: Rig) -> None:
    """The webhook always has something behind its cursor; its receiver must hear from us all the same."""
    webhook = await rig.establish(filters=DELETED_ONLY)
    await rig.live_through(7 * HOUR)
    for name in names(90):
        rig.clock.turn(MINUTE)
        await rig.publish(name)
        await rig.run_once()
    assert [post.events for post in rig.target.to(webhook)] == [[]]


async def test_refused_events_that_never_stop_do_not_starve_a_retry(rig: Rig) -> None:
    """Its filters were replaced while it failed: what is left to ask is whether the receiver is back."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.settle_all()
    await rig.desk.replace_filters(rig.caller, webhook.gid, DELETED_ONLY)
    rig.target.answer = OK
    for name in names(10):
        rig.clock.turn(10 * SECOND)
        await rig.publish(name)
        await rig.run_once()
    assert [len(post.events) for post in rig.target.to(webhook)] == [1, 0]
    assert (await rig.record(webhook))["next_attempt_after"] is None


async def test_an_event_beside_an_overdue_heartbeat_is_one_delivery(rig: Rig) -> None:
    """Both reasons to claim a webhook hold at once; it is claimed once, and the event is what is sent."""
    await rig.establish()
    await rig.run_once()
    rig.clock.turn(9 * HOUR)
    await rig.publish("a")
    assert await rig.run_once() == 1
    assert [post.names for post in rig.target.posts] == [["a"]]


async def test_a_failed_heartbeat_is_retried_like_any_delivery(rig: Rig) -> None:
    webhook = await rig.establish()
    rig.target.answer = FAILED
    await rig.live_through(8 * HOUR)
    assert len(rig.target.posts) > 2
    assert {post.body for post in rig.target.posts} == {b'{"events":[]}'}
    assert (await rig.record(webhook))["delivery_retry_count"] == len(rig.target.posts) - 1
    rig.target.answer = OK
    await rig.live_through(HOUR)
    assert (await rig.record(webhook))["delivery_retry_count"] == 0


async def test_an_event_after_a_failed_heartbeat_goes_with_the_retry(rig: Rig) -> None:
    webhook = await rig.establish()
    rig.target.answer = FAILED
    await rig.live_through(round(7.6 * HOUR))
    assert len(rig.target.posts) == 1
    rig.target.answer = OK
    await rig.publish("a")
    await rig.live_through(MINUTE)
    assert rig.target.names(webhook) == ["a"]


async def test_heartbeats_that_our_own_outage_left_overdue_are_spread(rig: Rig) -> None:
    """Over a tenth of the interval, not all at once; nobody is left out."""
    webhooks = [await rig.establish(f"http://host{number}.example/") for number in range(100)]
    rig.clock.turn(72 * HOUR)
    restarted = rig.clock.now
    rig.dispatcher = rig.make_dispatcher(concurrency=200)
    await rig.live_through(rig.policy.heartbeat_every // 10)
    assert {post.header("X-Tidings-Webhook") for post in rig.target.posts} == {each.gid for each in webhooks}
    assert len(rig.target.posts) == 100
    tenths = Counter((at - restarted) * 100 // rig.policy.heartbeat_every for at in rig.target.times)
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) <= 20
