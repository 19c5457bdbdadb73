"""Writing what claims came to: cursors, fences, pinned batches, ends, and the log of attempts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.store.building import (
    HEARTBEAT,
    HOUR,
    KEEPING,
    LEASE,
    MINUTE,
    NOON,
    OWNER,
    PROJECT,
    SECOND,
    TASK,
    WORKSPACE,
    Case,
    attempt,
    delivered,
    failed,
    fields,
    given_up,
    names_of,
    recorded,
    steady,
    token,
)
from tidings.model import Attempt, EndReason, Filter, Health, Keep, Recorded, StopReason


async def deliver_all(case: Case, *names: str) -> None:
    """Publish and deliver these events one by one; each attempt carries the name of its event."""
    for number, name in enumerate(names):
        now = NOON + number * SECOND
        await case.publish(name, now=now)
        claim = await case.only(now=now)
        await case.record(delivered(claim, now=now, delivery=name))


# -- cursors ---------------------------------------------------------------------------------------


async def test_what_was_delivered_is_not_read_again(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    assert await case.record(delivered(claim, now=NOON)) == 1
    assert await case.claimed() == {}
    assert (await case.webhook(webhook.gid)).cursor == claim.page[-1].position


async def test_what_was_not_delivered_is_read_next(case: Case) -> None:
    await case.establish()
    await case.publish("a", "b", "c")
    claim = await case.only()
    await case.record(delivered(claim, now=NOON, cursor=claim.page[0].position))
    assert fields(await case.only()) == ["b", "c"]


async def test_a_cursor_never_moves_back(case: Case) -> None:
    webhook = await case.establish()
    await deliver_all(case, "a")
    before = (await case.webhook(webhook.gid)).cursor
    await case.publish("b")
    claim = await case.only()
    await case.record(recorded(claim, Keep(claim.health), now=NOON, cursor=webhook.cursor))
    assert (await case.webhook(webhook.gid)).cursor == before
    assert fields(await case.only()) == ["b"]


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "not yet marked"])
async def test_events_that_arrive_during_an_attempt_are_claimed_after_it(case: Case, marked: bool) -> None:
    await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.publish("b")
    if marked:
        assert await case.claimed() == {}
    await case.record(delivered(claim, now=NOON))
    assert fields(await case.only()) == ["b"]


async def test_a_turn_that_sends_nothing_moves_the_cursor_alone(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.record(recorded(claim, Keep(claim.health), now=NOON, cursor=claim.page[0].position))
    assert await case.attempts(webhook.gid) == []
    assert (await case.webhook(webhook.gid)).health == webhook.health
    assert fields(await case.only()) == ["b"]


async def test_a_turn_that_sends_nothing_goes_to_the_back(case: Case) -> None:
    first = await case.establish("http://receiver.example/1")
    second = await case.establish("http://receiver.example/2", now=NOON + SECOND)
    await case.publish("a", "b")
    claim = await case.only(limit=1)
    assert claim.gid == first.gid
    await case.record(recorded(claim, Keep(claim.health), now=NOON + MINUTE, cursor=claim.page[0].position))
    assert (await case.only(limit=1)).gid == second.gid


# -- steady records, and going on under the same lease ---------------------------------------------


async def test_a_steady_record_writes_what_a_whole_one_does(case: Case) -> None:
    """The same delivery, recorded in both ways."""
    short, whole = [await case.establish(f"http://receiver.example/{number}") for number in range(2)]
    await case.publish("a", "b")
    claims = await case.claimed()
    records = [steady(claims[gid], now=NOON + SECOND, events=1) for gid in (short.gid, whole.gid)]
    assert await case.record(records[0], replace(records[1], steady=False)) == 2
    one, other = [await case.webhook(webhook.gid) for webhook in (short, whole)]
    assert one.health == other.health
    assert one.health.last_success_at == NOON + SECOND
    assert one.cursor == other.cursor == claims[short.gid].page[0].position
    logged = [[entry.attempt for entry in await case.attempts(gid)] for gid in (short.gid, whole.gid)]
    assert logged[0] == logged[1]
    assert {gid: fields(claim) for gid, claim in (await case.claimed(now=NOON + SECOND)).items()} == {
        short.gid: ["b"],
        whole.gid: ["b"],
    }


async def test_a_lease_is_kept_for_what_is_left_of_a_page(case: Case) -> None:
    """Under the same fence, for as long as it lasted; each record in between is durable."""
    webhook = await case.establish()
    await case.publish("a", "b", "c")
    claim = await case.only()
    webhook_id = claim.lease.webhook
    for events in (1, 2):
        record = steady(claim, now=NOON + events, events=events, onward=True)
        assert await case.store.record([record]) == Recorded(1, frozenset({webhook_id}))
        assert (await case.webhook(webhook.gid)).cursor == claim.page[events - 1].position
        assert await case.claimed() == {}
    assert await case.store.record([steady(claim, now=NOON + 3, events=3)]) == Recorded(1)
    assert len(await case.attempts(webhook.gid)) == 3
    await case.publish("d")
    again = await case.only(now=NOON + SECOND)
    assert fields(again) == ["d"]
    assert again.lease.fence == claim.lease.fence + 1


async def test_a_kept_lease_runs_out_as_it_would_have(case: Case) -> None:
    await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.record(steady(claim, now=NOON + SECOND, events=1, onward=True))
    assert await case.claimed(now=NOON + LEASE - 1) == {}
    assert fields(await case.only(now=NOON + LEASE)) == ["b"]
    assert await case.record(steady(claim, now=NOON + LEASE, events=2)) == 0


@pytest.mark.parametrize("what", ["filters", "deleted", "access lost"])
async def test_a_lease_is_not_kept_for_what_was_decided_anew(case: Case, what: str) -> None:
    """The delivery itself counts; the next one is claimed, or not, as things stand now."""
    webhook = await case.establish()
    others = await case.establish("http://receiver.example/other")
    await case.publish("a", "b")
    claims = await case.claimed()
    if what == "filters":
        await case.store.replace_filters(webhook.gid, [Filter(resource_type="story")])
    elif what == "deleted":
        await case.store.remove_webhook(webhook.gid, now=NOON)
    else:
        await case.store.add_token(token("t"), digest=b"t")
        await case.store.revoke_token("t", now=NOON)
    records = [steady(claim, now=NOON + SECOND, events=1, onward=True) for claim in claims.values()]
    kept = frozenset() if what == "access lost" else frozenset({claims[others.gid].lease.webhook})
    assert await case.store.record(records) == Recorded(2, kept)
    assert len(await case.attempts(webhook.gid)) == 1
    claimed = await case.claimed(now=NOON + MINUTE)
    assert (webhook.gid in claimed) == (what == "filters")


async def test_a_stale_record_keeps_no_lease(case: Case) -> None:
    await case.establish()
    await case.publish("a", "b")
    stale = await case.only()
    claim = await case.only(now=NOON + LEASE)
    assert await case.store.record([steady(stale, now=NOON + LEASE, events=1, onward=True)]) == Recorded(0)
    assert await case.record(steady(claim, now=NOON + LEASE, events=2)) == 1


async def test_many_are_recorded_at_once(case: Case) -> None:
    for number in range(20):
        await case.establish(f"http://receiver.example/{number}")
    await case.publish("a")
    claims = await case.claimed()
    records = [
        delivered(claim, now=NOON) if number % 2 else failed(claim, now=NOON)
        for number, claim in enumerate(claims.values())
    ]
    assert await case.record(*records) == 20
    assert len(await case.claimed(now=NOON + MINUTE)) == 10


async def test_recording_nothing_counts_nothing(case: Case) -> None:
    assert await case.record() == 0


# -- fences ----------------------------------------------------------------------------------------


async def test_a_stale_record_changes_nothing(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a", "b")
    stale = await case.only()
    fresh = await case.only(now=NOON + LEASE)
    before = await case.webhook(webhook.gid)
    for late in (delivered(stale, now=NOON), failed(stale, now=NOON), given_up(stale, now=NOON)):
        assert await case.record(late) == 0
    assert await case.webhook(webhook.gid) == before
    assert await case.attempts(webhook.gid) == []
    # The lease of the other still stands, and its record counts.
    assert await case.claimed(now=NOON + LEASE) == {}
    assert await case.record(delivered(fresh, now=NOON + LEASE)) == 1
    # Two events and one attempt: the stale ones left none that only trimming would meet.
    assert sum(await case.trim_all(now=NOON + KEEPING.ceiling)) == 3


async def test_a_stale_record_does_not_take_fresh_ones_with_it(case: Case) -> None:
    first = await case.establish("http://receiver.example/1", resource=PROJECT)
    await case.publish("a")
    stale = await case.only()
    second = await case.establish("http://receiver.example/2", resource=TASK)
    await case.publish("b")
    fresh = await case.claimed(now=NOON + LEASE)
    records = (
        delivered(stale, now=NOON, delivery="stale"),
        delivered(fresh[second.gid], now=NOON, delivery="2"),
        delivered(fresh[first.gid], now=NOON, delivery="1"),
    )
    assert await case.record(*records) == 2
    assert [entry.attempt.delivery for entry in await case.attempts(first.gid)] == ["1"]
    assert [entry.attempt.delivery for entry in await case.attempts(second.gid)] == ["2"]


async def test_a_record_after_its_lease_counts_while_nobody_else_has_claimed(case: Case) -> None:
    """The fence decides, not the clock."""
    await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.claim(now=NOON + LEASE, limit=0)
    assert await case.record(delivered(claim, now=NOON + HOUR)) == 1
    assert await case.claimed(now=NOON + HOUR) == {}


async def test_a_lease_nobody_gave_counts_for_nothing(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    claim = await case.only()
    for lease in (replace(claim.lease, fence=claim.lease.fence + 1), replace(claim.lease, webhook=10**6)):
        assert await case.record(delivered(replace(claim, lease=lease), now=NOON)) == 0


# -- failures --------------------------------------------------------------------------------------


async def test_a_failure_is_kept(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.record(failed(await case.only(), now=NOON, content="out of order ☹"))
    assert (await case.webhook(webhook.gid)).health == Health(
        last_success_at=NOON,
        last_failure_at=NOON,
        last_failure_content="out of order ☹",
        failing_since=NOON,
        failures=1,
        next_attempt_at=NOON + MINUTE,
        heartbeat_at=NOON + HEARTBEAT,
    )
    assert (await case.only(now=NOON + MINUTE)).health == (await case.webhook(webhook.gid)).health


async def test_what_a_failure_said_outlives_the_next_success(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.record(failed(await case.only(), now=NOON, content="out of order"))
    later = NOON + MINUTE
    health = Health(
        last_success_at=later,
        last_failure_at=NOON,
        last_failure_content="out of order",
        heartbeat_at=later + HEARTBEAT,
    )
    claim = await case.only(now=later)
    await case.record(recorded(claim, Keep(health), now=later, cursor=claim.head, tried=attempt(later)))
    assert (await case.webhook(webhook.gid)).health == health


async def test_a_batch_that_failed_is_read_again_as_it_was(case: Case) -> None:
    """Neither what came since nor what was left out of it is on the page."""
    await case.establish()
    await case.publish("a", "b", "c")
    claim = await case.only()
    end = claim.page[1].position
    await case.record(failed(claim, now=NOON, batch_end=end))
    await case.publish("d")
    again = await case.only(now=NOON + MINUTE)
    assert (again.batch_end, again.page) == (end, claim.page[:2])
    await case.record(failed(again, now=NOON + MINUTE, batch_end=end))
    once_more = await case.only(now=NOON + 2 * MINUTE)
    assert once_more.page == again.page
    await case.record(delivered(once_more, now=NOON + 2 * MINUTE))
    rest = await case.only(now=NOON + 2 * MINUTE)
    assert (rest.batch_end, fields(rest)) == (None, ["c", "d"])


async def test_a_pinned_batch_may_be_as_large_as_a_batch_can(case: Case) -> None:
    await case.establish()
    await case.publish(*names_of(150))
    claim = await case.only()
    end = claim.page[99].position
    await case.record(failed(claim, now=NOON, batch_end=end))
    again = await case.only(now=NOON + MINUTE)
    assert (again.batch_end, again.page) == (end, claim.page[:100])


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [EndReason.EXPIRED, EndReason.GONE])
async def test_an_end_ends(case: Case, reason: EndReason) -> None:
    webhook = await case.establish()
    await case.publish("a")
    assert await case.record(given_up(await case.only(), now=NOON, reason=reason)) == 1
    assert await case.store.get_webhook(webhook.gid) is None
    listed = await case.store.list_webhooks(OWNER, workspace=WORKSPACE, resource=None, after=0, limit=10)
    assert listed == ()
    assert await case.store.remove_webhook(webhook.gid, now=NOON) is False
    assert await case.claimed(now=NOON + HOUR) == {}
    assert await case.store.next_due_at() is None


async def test_attempts_of_an_ended_webhook_can_be_read(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.record(given_up(await case.only(), now=NOON))
    assert [entry.attempt.result for entry in await case.attempts(webhook.gid)] == ["failed"]


async def test_a_success_does_not_revive_what_lost_its_access_meanwhile(case: Case) -> None:
    await case.store.add_token(token("t"), digest=b"t")
    webhook = await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.store.revoke_token("t", now=NOON)
    await case.record(delivered(claim, now=NOON, cursor=claim.page[0].position))
    assert (await case.webhook(webhook.gid)).stopped is StopReason.ACCESS_LOST
    assert await case.claimed(now=NOON + HOUR) == {}


# -- attempts --------------------------------------------------------------------------------------


async def test_an_attempt_is_kept_as_it_was(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    claim = await case.only()
    tried = Attempt(
        delivery="delivery",
        started_at=NOON + 1,
        duration=12_345,
        events=0,
        status=None,
        result="timeout",
        excerpt="line\nline ☹ \x01",
        heartbeat=True,
    )
    await case.record(recorded(claim, Keep(claim.health), now=NOON, tried=tried))
    (entry,) = await case.attempts(webhook.gid)
    assert entry.attempt == tried


async def test_attempts_are_listed_newest_first(case: Case) -> None:
    webhook = await case.establish()
    await deliver_all(case, "a", "b", "c")
    entries = await case.attempts(webhook.gid)
    assert [entry.attempt.delivery for entry in entries] == ["c", "b", "a"]
    sequences = [entry.sequence for entry in entries]
    assert sequences == sorted(set(sequences), reverse=True)


async def test_attempts_are_paged_back_from_a_sequence(case: Case) -> None:
    """Attempts made while someone pages shift nothing."""
    webhook = await case.establish()
    await deliver_all(case, *names_of(5, "first"))
    page = await case.attempts(webhook.gid, limit=2)
    await deliver_all(case, "later")
    seen = [entry.attempt.delivery for entry in page]
    while page := await case.attempts(webhook.gid, before=page[-1].sequence, limit=2):
        assert len(page) <= 2
        seen += [entry.attempt.delivery for entry in page]
    assert seen == names_of(5, "first")[::-1]


async def test_attempts_are_those_of_one_webhook(case: Case) -> None:
    first = await case.establish("http://receiver.example/1")
    second = await case.establish("http://receiver.example/2")
    for name in ("a", "b"):
        await case.publish(name)
        claims = await case.claimed()
        await case.record(
            *(delivered(claim, now=NOON, delivery=f"{claim.gid} {name}") for claim in claims.values())
        )
    for webhook in (first, second):
        deliveries = [entry.attempt.delivery for entry in await case.attempts(webhook.gid)]
        assert deliveries == [f"{webhook.gid} b", f"{webhook.gid} a"]


async def test_a_sequence_of_another_webhooks_attempt_shows_nothing_of_it(case: Case) -> None:
    first = await case.establish("http://receiver.example/1", resource=PROJECT)
    await deliver_all(case, "a", "b")
    (newest, _) = await case.attempts(first.gid)
    second = await case.establish("http://receiver.example/2", resource=PROJECT)
    assert await case.attempts(second.gid, before=newest.sequence) == []
