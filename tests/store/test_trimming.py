"""Retention: what is deleted when, what holds it back, and for how long."""

from __future__ import annotations

from tests.store.building import (
    DAY,
    FOREIGN_PROJECT,
    HOUR,
    KEEPING,
    NOON,
    OTHER_PROJECT,
    WORKSPACE,
    Case,
    delivered,
    failed,
    fields,
    given_up,
    names_of,
    token,
)
from tidings.limits import EVENTS_PER_PUBLISH_MAX, PARENTS_MAX
from tidings.model import Idempotency, ResourceDraft, Webhook

RETAINED = NOON + KEEPING.retention
CEILING = NOON + KEEPING.ceiling


async def trimmed(case: Case, *, now: int) -> int:
    """How many rows there were to trim."""
    return sum(await case.trim_all(now=now))


async def lost_at(case: Case, webhook: Webhook) -> int | None:
    return (await case.webhook(webhook.gid)).lost_at


async def test_there_is_nothing_to_trim_in_an_empty_store(case: Case) -> None:
    assert await case.trim_all(now=NOON + 100 * DAY) == []


async def test_events_are_kept_for_the_retention_time(case: Case) -> None:
    await case.publish("a", "b")
    await case.live_until(NOON + HOUR)
    await case.publish("c", now=NOON + HOUR)
    assert await trimmed(case, now=RETAINED) == 0
    assert await trimmed(case, now=RETAINED + 1) == 2
    assert await trimmed(case, now=RETAINED + HOUR + 1) == 1


async def test_trimming_goes_in_bounded_steps(case: Case) -> None:
    calls = 3
    for _ in range(calls):
        await case.publish(*names_of(EVENTS_PER_PUBLISH_MAX))
    steps = await case.trim_all(now=CEILING + 1)
    assert sum(steps) == calls * EVENTS_PER_PUBLISH_MAX
    assert max(steps) <= EVENTS_PER_PUBLISH_MAX


async def test_a_step_is_bounded_by_what_events_are_visible_from(case: Case) -> None:
    """Each scope of an event is a row."""
    parents = [f"p{number}" for number in range(PARENTS_MAX)]
    drafts = [ResourceDraft(gid=gid, resource_type="project", parents=(WORKSPACE,)) for gid in parents]
    drafts.append(ResourceDraft(gid="wide", resource_type="task", parents=tuple(parents)))
    await case.store.put_resources(drafts, workspaces=None, now=NOON)
    await case.publish(*names_of(200), resource="wide")
    steps = await case.trim_all(now=CEILING + 1)
    assert sum(steps) == 200
    assert 0 < max(steps) <= 5_000 // PARENTS_MAX


# -- who holds events back -------------------------------------------------------------------------


async def test_unread_events_are_held_back(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a", "b", "c")
    claim = await case.only()
    await case.record(delivered(claim, now=NOON, cursor=claim.page[0].position))
    assert await trimmed(case, now=RETAINED + 1 - HOUR) == 0
    await trimmed(case, now=CEILING)
    assert fields(await case.only(now=CEILING)) == ["b", "c"]
    assert await lost_at(case, webhook) is None


async def test_what_everyone_has_read_is_not_held_back(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    await case.record(delivered(await case.only(), now=NOON))
    await case.publish("b", now=NOON + DAY)
    await case.only(now=NOON + DAY)
    # The event and the attempt that delivered it.
    assert await trimmed(case, now=RETAINED + 1) == 2


async def test_events_nobody_has_looked_at_are_held_back(case: Case) -> None:
    """An outage of the dispatcher longer than the retention time loses nothing."""
    webhook = await case.establish()
    await case.publish("a")
    assert await trimmed(case, now=RETAINED + 1) == 0
    assert fields(await case.only(now=RETAINED + 1)) == ["a"]
    assert await lost_at(case, webhook) is None


async def test_a_long_outage_loses_nothing_of_a_large_backlog(case: Case) -> None:
    await case.establish(resource=OTHER_PROJECT)
    for _ in range(3):
        await case.publish(*names_of(EVENTS_PER_PUBLISH_MAX), resource=FOREIGN_PROJECT)
    await case.publish("a", resource=OTHER_PROJECT)
    await trimmed(case, now=RETAINED + 1)
    while (claimed := await case.claim(now=RETAINED + 1)).behind and not claimed.claims:
        pass
    assert [fields(claim) for claim in claimed.claims] == [["a"]]


async def test_a_webhook_without_unread_events_holds_nothing_back(case: Case) -> None:
    await case.establish(resource=OTHER_PROJECT)
    await case.publish("a")
    await case.claim()
    assert await trimmed(case, now=RETAINED + 1) == 1


async def test_a_failing_webhook_holds_events_back(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.make_failing(webhook, due=NOON + HOUR)
    # Its attempt is past keeping, its event is not.
    assert await trimmed(case, now=RETAINED + 1) == 1
    assert fields(await case.only(now=RETAINED + 1)) == ["a"]


async def test_a_webhook_without_access_holds_events_back(case: Case) -> None:
    await case.store.add_token(token("t"), digest=b"t")
    await case.establish()
    await case.publish("a")
    await case.claim(limit=0)
    await case.store.revoke_token("t", now=NOON)
    assert await trimmed(case, now=RETAINED + 1) == 0
    await case.store.add_token(token("u"), digest=b"u")
    assert fields(await case.only(now=RETAINED + 1)) == ["a"]


# -- the ceiling -----------------------------------------------------------------------------------


async def test_past_the_ceiling_unread_events_go_and_the_record_says_so(case: Case) -> None:
    webhook = await case.establish()
    other = await case.establish(resource=OTHER_PROJECT)
    await case.publish("a", "b")
    await case.live_until(NOON + HOUR)
    await case.publish("c", now=NOON + HOUR)
    await case.claim(limit=0)
    assert await trimmed(case, now=CEILING) == 0
    assert await trimmed(case, now=CEILING + 1) == 2
    assert await lost_at(case, webhook) == CEILING + 1
    assert await lost_at(case, other) is None
    assert fields((await case.claimed(now=CEILING + 1))[webhook.gid]) == ["c"]


async def test_a_webhook_that_lost_everything_has_nothing_to_read(case: Case) -> None:
    webhook = await case.establish(heartbeat_at=CEILING + DAY)
    await case.publish("a")
    await case.claim(limit=0)
    await trimmed(case, now=CEILING + 1)
    assert await case.claimed(now=CEILING + 1) == {}
    await case.publish("b", now=CEILING + 1)
    assert fields(await case.only(now=CEILING + 1)) == ["b"]
    assert await lost_at(case, webhook) == CEILING + 1


async def test_a_batch_that_was_lost_is_no_longer_pinned(case: Case) -> None:
    await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.record(failed(claim, now=NOON, batch_end=claim.head))
    await case.live_until(NOON + HOUR)
    await case.publish("c", now=NOON + HOUR)
    await case.claim(limit=0)
    await trimmed(case, now=CEILING + 1)
    again = await case.only(now=CEILING + 1)
    assert (again.batch_end, fields(again)) == (None, ["c"])
    assert again.epoch > claim.epoch


async def test_a_delivery_that_was_under_way_does_not_bring_a_lost_batch_back(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    claim = await case.only()
    await trimmed(case, now=CEILING + 1)
    assert await case.record(failed(claim, now=CEILING + 1, batch_end=claim.head)) == 1
    later = await case.only(now=CEILING + HOUR)
    assert (later.batch_end, later.page) == (None, ())
    assert later.cursor >= claim.head


# -- everything else -------------------------------------------------------------------------------


async def test_attempts_are_kept_for_the_retention_time(case: Case) -> None:
    webhook = await case.establish()
    for number, name in enumerate("abc"):
        now = NOON + number * HOUR
        await case.live_until(now)
        await case.publish(name, now=now)
        await case.record(delivered(await case.only(now=now), now=now, delivery=name))
    oldest = (await case.attempts(webhook.gid))[-1]
    await trimmed(case, now=RETAINED + 1)
    entries = await case.attempts(webhook.gid)
    assert [entry.attempt.delivery for entry in entries] == ["c", "b"]
    assert await case.attempts(webhook.gid, before=entries[-1].sequence) == []
    assert await case.attempts(webhook.gid, before=oldest.sequence) == []
    await trimmed(case, now=RETAINED + DAY)
    assert await case.attempts(webhook.gid) == []


async def test_sequences_of_attempts_are_not_used_again(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.record(delivered(await case.only(), now=NOON))
    (before,) = await case.attempts(webhook.gid)
    await trimmed(case, now=CEILING + 1)
    await case.publish("b", now=CEILING + 1)
    await case.record(delivered(await case.only(now=CEILING + 1), now=CEILING + 1))
    (after,) = await case.attempts(webhook.gid)
    assert after.sequence > before.sequence


async def test_idempotency_keys_are_kept_for_a_day(case: Case) -> None:
    await case.publish("a", idempotency=Idempotency(token="t", key="k", digest=b"d"))
    assert await trimmed(case, now=NOON + DAY) == 0
    assert await trimmed(case, now=NOON + DAY + 1) == 1


async def test_ended_webhooks_are_purged_once_they_cannot_be_restored(case: Case) -> None:
    removed = await case.establish("http://receiver.example/1")
    expired = await case.establish("http://receiver.example/2")
    kept = await case.establish("http://receiver.example/3")
    await case.publish("a")
    claims = await case.claimed()
    await case.record(given_up(claims[expired.gid], now=NOON), delivered(claims[kept.gid], now=NOON))
    await case.store.remove_webhook(removed.gid, now=NOON + HOUR)
    assert await trimmed(case, now=NOON + KEEPING.restore_within) == 0
    assert await trimmed(case, now=NOON + KEEPING.restore_within + 1) == 1
    assert await trimmed(case, now=NOON + HOUR + KEEPING.restore_within + 1) == 1
    assert (await case.webhook(kept.gid)).gid == kept.gid
    assert await case.store.get_webhook(removed.gid) is None


async def test_a_purged_webhook_holds_nothing_back(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.claim(limit=0)
    await case.store.remove_webhook(webhook.gid, now=NOON)
    # The webhook, then its event.
    assert await trimmed(case, now=RETAINED + 1) == 1
    assert await trimmed(case, now=RETAINED + 1) == 1


async def test_a_record_for_a_purged_webhook_counts_for_nothing(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    await trimmed(case, now=CEILING + 1)
    assert await case.record(delivered(claim, now=CEILING + 1)) == 0
    assert await case.attempts(webhook.gid) == []
