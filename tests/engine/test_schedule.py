"""Failing: the back-off, what the record shows at each step, the end of it (contract §6, §12.15-18)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.engine.rig import FAILED, GONE, HOUR, MINUTE, NOON, OK, SECOND, Post, Rig, names, with_retry_after
from tidings.model import Answer, Micros, NoAnswer, Reply, Trouble
from tidings.wire import times

DAY = 24 * HOUR


@pytest.mark.parametrize(("jitter", "least", "most"), [(0.0, 50, 62), (0.5, 38, 44), (0.999, 31, 35)])
async def test_a_day_of_failure(rig: Rig, jitter: float, least: int, most: int) -> None:
    """Doubling from 10 s to 1 h, jittered between half and all; the last attempt at the deletion time sharp."""
    rig.jitter = jitter
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    start = rig.clock.now
    await rig.live_through(2 * DAY)
    attempts = rig.target.times
    assert least <= len(attempts) <= most
    assert attempts[0] == start
    assert attempts[-1] == start + DAY
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    for number, wait in enumerate(waits[:-1]):
        nominal = min(10 * SECOND * 2**number, HOUR)
        assert wait == int(nominal * (0.5 + jitter / 2))
    assert await rig.ended(webhook)
    assert len({post.body for post in rig.target.posts}) == 1
    assert len({post.id for post in rig.target.posts}) == 1


async def test_nothing_is_sent_after_the_deletion(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.live_through(DAY)
    assert await rig.ended(webhook)
    sent = len(rig.target.posts)
    rig.target.answer = OK
    await rig.publish("b")
    await rig.live_through(2 * DAY)
    assert len(rig.target.posts) == sent


async def test_a_success_at_the_last_moment_keeps_the_webhook(rig: Rig) -> None:
    """One attempt is always made at the deletion time, and it counts."""
    webhook = await rig.establish()
    await rig.publish("a")
    ends_at = rig.clock.now + DAY

    def answer(post: Post) -> Reply:
        return OK if post.at >= ends_at else FAILED

    rig.target.answer = answer
    await rig.live_through(DAY)
    assert not await rig.ended(webhook)
    assert (await rig.record(webhook))["failure_deletion_timestamp"] is None


async def test_a_success_resets_the_run(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    for _ in range(3):
        rig.target.answer = FAILED
        await rig.live_through(20 * HOUR)
        rig.target.answer = OK
        await rig.live_through(HOUR)
        await rig.publish("b")
    assert not await rig.ended(webhook)


async def test_recovery_loses_and_reorders_nothing(rig: Rig) -> None:
    """What piled up while the receiver was away comes within an hour of its return, oldest first."""
    webhook = await rig.establish()
    rig.target.answer = FAILED
    expected = names(500)
    for start in range(0, 500, 50):
        await rig.publish(*expected[start : start + 50])
        await rig.live_through(HOUR)
    failed = len(rig.target.posts)
    rig.target.answer = OK
    await rig.live_through(HOUR)
    delivered = [name for post in rig.target.posts[failed:] for name in post.names]
    assert delivered == expected
    # The batch that failed comes as it was; the rest at once, in full batches.
    assert [len(post.events) for post in rig.target.posts[failed:]] == [50, 100, 100, 100, 100, 50]
    assert len(set(rig.target.times[failed:])) == 1
    assert (await rig.current(webhook)).health.failures == 0


async def test_the_record_at_each_step(rig: Rig) -> None:
    """Fresh, after the first failure, after a failed retry, after a success."""
    webhook = await rig.establish()
    fresh = await rig.record(webhook)
    shown = times.render
    expected: dict[str, Any] = {
        "active": True,
        "last_success_at": shown(NOON),
        "last_failure_at": None,
        "last_failure_content": "",
        "delivery_retry_count": 0,
        "next_attempt_after": None,
        "failure_deletion_timestamp": None,
    }
    assert fresh == fresh | expected

    rig.clock.turn(MINUTE)
    first = rig.clock.now
    rig.target.answer = FAILED
    await rig.publish("a")
    await rig.settle_all()
    failed = await rig.record(webhook)
    expected |= {
        "last_failure_at": shown(first),
        "last_failure_content": "500 Server Error\n\nCould not complete the request",
        "delivery_retry_count": 0,
        "next_attempt_after": shown(first + round(7.5 * SECOND)),
        "failure_deletion_timestamp": shown(first + DAY),
    }
    assert failed == failed | expected

    second = first + round(7.5 * SECOND)
    rig.clock.turn_to(second)
    rig.target.answer = NoAnswer(Trouble.TIMEOUT, "no answer within 10 s")
    await rig.settle_all()
    retried = await rig.record(webhook)
    expected |= {
        "last_failure_at": shown(second),
        "last_failure_content": "no answer within 10 s",
        "delivery_retry_count": 1,
        "next_attempt_after": shown(second + 15 * SECOND),
    }
    assert retried == retried | expected

    third = second + 15 * SECOND
    rig.clock.turn_to(third)
    rig.target.answer = Answer(204, "No Content", (), b"")
    await rig.settle_all()
    recovered = await rig.record(webhook)
    expected |= {
        "last_success_at": shown(third),
        "delivery_retry_count": 0,
        "next_attempt_after": None,
        "failure_deletion_timestamp": None,
    }
    assert recovered == recovered | expected
    assert [(entry.attempt.status, entry.attempt.result) for entry in await rig.attempts(webhook)] == [
        (204, "delivered"),
        (None, "timeout"),
        (500, "refused"),
    ]


async def test_gone_ends_at_once(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = GONE
    await rig.settle_all()
    assert await rig.ended(webhook)
    rig.target.answer = OK
    await rig.publish("b")
    await rig.live_through(2 * DAY)
    assert len(rig.target.posts) == 1


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("120", 2 * MINUTE),
        ("1", round(7.5 * SECOND)),
        ("7200", HOUR),
        ("99999999999999999999999", HOUR),
        (format_datetime(datetime.fromtimestamp(NOON // SECOND + 600, UTC), usegmt=True), 10 * MINUTE),
        ("tomorrow", round(7.5 * SECOND)),
    ],
    ids=["longer", "shorter", "over the cap", "absurd", "a date", "nonsense"],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_lengthens_the_wait_up_to_the_cap(
    rig: Rig, asked: str, wait: Micros, status: int
) -> None:
    await rig.establish()
    await rig.publish("a")
    rig.target.answer = with_retry_after(asked, status)
    await rig.settle_all()
    await rig.live_through(wait - 1)
    assert len(rig.target.posts) == 1
    await rig.live_through(1)
    assert len(rig.target.posts) == 2


async def test_retry_after_does_not_put_off_the_deletion(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = with_retry_after("3600")
    start = rig.clock.now
    await rig.live_through(2 * DAY)
    assert rig.target.times[-1] == start + DAY
    assert await rig.ended(webhook)


async def test_our_own_outage_does_not_count(rig: Rig) -> None:
    """The service was off for two days in the middle of a run: the run goes on where it was."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    start = rig.clock.now
    await rig.live_through(10 * HOUR)
    due = (await rig.current(webhook)).health.next_attempt_at
    assert due is not None
    rig.clock.turn_to(due + 2 * DAY)
    rig.dispatcher = rig.make_dispatcher()
    await rig.live_through(2 * DAY)
    assert await rig.ended(webhook)
    assert rig.target.times[-1] == start + DAY + 2 * DAY
