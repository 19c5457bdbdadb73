"""Finding work: who is claimed, in which order, for how long, and with which page."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.store.building import (
    DAY,
    HEARTBEAT,
    HOUR,
    LEASE,
    MINUTE,
    NOON,
    OTHER_PROJECT,
    PROJECT,
    SECOND,
    TASK,
    WORKSPACE,
    Case,
    change,
    delivered,
    failed,
    fields,
    given_up,
    names_of,
    recorded,
    token,
)
from tests.store.conftest import Database
from tidings.limits import (
    BATCH_BYTES_MAX,
    BATCHES_PER_LEASE_MAX,
    EVENT_BYTES_MAX,
    EVENTS_PER_PUBLISH_MAX,
    MARK_MAX,
    SCAN_MAX,
)
from tidings.model import Claim, Filter, Keep, Micros, Publication, Record, ResourceDraft, Webhook

EVERY_TASK = (Filter(resource_type="task"),)


async def several(case: Case, count: int, *, origin: str = "http://receiver.example:80") -> list[Webhook]:
    """Webhooks that were served one after the other, a second apart."""
    return [
        await case.establish(f"{origin}/{number}", origin=origin, now=NOON + number * SECOND)
        for number in range(count)
    ]


async def one_by_one(
    case: Case, *, now: Micros, most: int = 10, limit: int = 1, quiet_first: int = 0
) -> list[str]:
    """Who is claimed when there is room for one at a time."""
    order: list[str] = []
    for _ in range(most):
        claims = (await case.claim(now=now, limit=limit, quiet_first=quiet_first)).claims
        if not claims:
            break
        order += [claim.gid for claim in claims]
    return order


# -- what a claim carries --------------------------------------------------------------------------


async def test_a_claim_carries_all_that_a_delivery_needs(case: Case) -> None:
    webhook = await case.establish(filters=EVERY_TASK)
    await case.publish("a")
    claim = await case.only(now=NOON + SECOND)
    assert (claim.gid, claim.target, claim.workspace) == (webhook.gid, webhook.target, WORKSPACE)
    assert (claim.filters, claim.secrets, claim.health) == (webhook.filters, webhook.secrets, webhook.health)
    assert (claim.cursor, claim.head) == (webhook.cursor, claim.page[-1].position)
    assert (claim.batch_end, claim.more) == (None, False)
    assert claim.lease.until == NOON + SECOND + LEASE


async def test_nothing_is_claimed_where_nothing_is_due(case: Case) -> None:
    await case.establish()
    await case.publish("a", resource=OTHER_PROJECT)
    claimed = await case.claim()
    assert (claimed.claims, claimed.behind) == ((), False)


async def test_one_origin_has_one_number(case: Case) -> None:
    await several(case, 2, origin="http://one.example:80")
    await case.establish(origin="http://two.example:80")
    await case.publish("a")
    origins = [claim.origin for claim in (await case.claimed()).values()]
    assert sorted(origins.count(origin) for origin in set(origins)) == [1, 2]


# -- order -----------------------------------------------------------------------------------------


async def quiet_failing_and_healthy(case: Case) -> tuple[Webhook, Webhook, Webhook]:
    """One with its heartbeat due, one that failed and is due again, one with events; all due an hour after noon."""
    failing = await case.establish("http://receiver.example/failing", resource=TASK)
    await case.publish("a")
    await case.make_failing(failing, due=NOON + MINUTE)
    quiet = await case.establish("http://receiver.example/quiet", resource=OTHER_PROJECT, heartbeat_at=NOON)
    healthy = await case.establish("http://receiver.example/healthy")
    await case.publish("b")
    return quiet, failing, healthy


async def test_events_of_the_healthy_go_first_then_failing_ones_then_heartbeats(case: Case) -> None:
    quiet, failing, healthy = await quiet_failing_and_healthy(case)
    assert await one_by_one(case, now=NOON + HOUR) == [healthy.gid, failing.gid, quiet.gid]


async def test_some_failing_ones_and_some_heartbeats_may_go_first(case: Case) -> None:
    quiet, failing, healthy = await quiet_failing_and_healthy(case)
    first = {"failing_first": 1, "quiet_first": 1}
    order = [(await case.only(now=NOON + HOUR, limit=1, **first)).gid for _ in range(3)]
    assert order == [failing.gid, quiet.gid, healthy.gid]


@pytest.mark.parametrize("limits", [{"failing_limit": 0}, {"unproven_limit": 0}])
async def test_who_goes_first_stays_within_the_other_limits(case: Case, limits: dict[str, int]) -> None:
    _quiet, failing, _healthy = await quiet_failing_and_healthy(case)
    assert failing.gid not in await case.claimed(now=NOON + HOUR, failing_first=1, **limits)


async def test_no_more_go_first_than_are_asked_for(case: Case) -> None:
    failing = await several(case, 3)
    await case.publish("a")
    claims = await case.claimed()
    await case.record(*(failed(claim, now=NOON) for claim in claims.values()))
    quiet = [
        await case.establish(f"http://quiet{number}.example/", resource=OTHER_PROJECT, heartbeat_at=NOON)
        for number in range(3)
    ]
    healthy = [await case.establish(f"http://healthy{number}.example/") for number in range(8)]
    await case.publish("b")
    gids = await case.claimed(now=NOON + HOUR, limit=8, failing_first=1, quiet_first=2)
    assert [len(gids.keys() & {each.gid for each in some}) for some in (failing, quiet, healthy)] == [1, 2, 5]
    # With room for all, the rest of them comes last.
    assert len(await case.claimed(now=NOON + HOUR, failing_first=1, quiet_first=2)) == 6


async def test_retries_set_by_a_clock_that_went_back_may_go_first_too(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.make_failing(webhook, due=NOON + 2 * DAY)
    await several(case, 2)
    await case.publish("b")
    assert await case.gids(now=NOON, limit=1, failing_first=1) == [webhook.gid]


async def test_whoever_has_events_is_not_among_the_heartbeats_that_go_first(case: Case) -> None:
    busy = await several(case, 3)
    quiet = await case.establish("http://quiet.example/", resource=OTHER_PROJECT, heartbeat_at=NOON + DAY)
    await case.publish("a")
    now = NOON + DAY
    assert await one_by_one(case, now=now, quiet_first=1) == [quiet.gid, *(webhook.gid for webhook in busy)]


async def test_with_room_for_all_all_are_claimed_at_once(case: Case) -> None:
    webhooks = await quiet_failing_and_healthy(case)
    assert await case.gids(now=NOON + HOUR) == sorted(webhook.gid for webhook in webhooks)


async def test_a_heartbeat_is_claimed_with_an_empty_page_once_due(case: Case) -> None:
    await case.establish(heartbeat_at=NOON + HOUR)
    assert await case.claimed(now=NOON + HOUR - 1) == {}
    claim = await case.only(now=NOON + HOUR)
    assert (claim.page, claim.more) == ((), False)


async def test_a_failing_webhook_waits_for_its_time_whatever_is_published(case: Case) -> None:
    webhook = await case.establish(heartbeat_at=NOON)
    await case.make_failing(webhook, due=NOON + HOUR)
    await case.publish("a")
    assert await case.claimed(now=NOON + HOUR - 1) == {}
    assert fields(await case.only(now=NOON + HOUR)) == ["a"]


async def test_a_retry_beyond_any_wait_was_set_by_a_clock_that_went_back(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.make_failing(webhook, due=NOON + 2 * DAY)
    assert await case.claimed(now=NOON + DAY) == {}
    assert await case.gids(now=NOON + DAY - 1) == [webhook.gid]


async def test_who_was_served_longest_ago_goes_first(case: Case) -> None:
    first, second, third = await several(case, 3)
    await case.publish("a")
    assert await one_by_one(case, now=NOON + MINUTE) == [first.gid, second.gid, third.gid]


async def test_who_was_just_served_goes_to_the_back(case: Case) -> None:
    first, second, third = await several(case, 3)
    await case.publish("a", "b")
    claim = await case.only(now=NOON + MINUTE, limit=1)
    assert claim.gid == first.gid
    await case.record(delivered(claim, now=NOON + MINUTE, cursor=claim.page[0].position))
    assert await one_by_one(case, now=NOON + MINUTE) == [second.gid, third.gid, first.gid]


async def test_failing_ones_go_in_the_order_they_are_due(case: Case) -> None:
    webhooks = await several(case, 3)
    await case.publish("a")
    claims = await case.claimed()
    dues = [NOON + 3 * MINUTE, NOON + MINUTE, NOON + 2 * MINUTE]
    await case.record(
        *(
            failed(claims[webhook.gid], now=NOON, next_attempt_at=due)
            for webhook, due in zip(webhooks, dues, strict=True)
        )
    )
    first, second, third = (webhook.gid for webhook in webhooks)
    assert await one_by_one(case, now=NOON + HOUR) == [second, third, first]


# -- room ------------------------------------------------------------------------------------------


async def test_no_more_than_the_limit_is_claimed(case: Case) -> None:
    await several(case, 5)
    await case.publish("a")
    assert len(await case.claimed(limit=3)) == 3
    assert len(await case.claimed(limit=3)) == 2


async def test_without_room_nothing_is_claimed(case: Case) -> None:
    await quiet_failing_and_healthy(case)
    assert await case.claimed(now=NOON + HOUR, limit=0) == {}
    assert len(await case.claimed(now=NOON + HOUR)) == 3


async def test_failing_ones_have_a_limit_of_their_own(case: Case) -> None:
    await several(case, 4)
    await case.publish("a")
    claims = await case.claimed()
    await case.record(*(failed(claim, now=NOON) for claim in claims.values()))
    healthy = await case.establish("http://receiver.example/healthy")
    await case.publish("b")
    assert await case.gids(now=NOON + HOUR, failing_limit=0) == [healthy.gid]
    assert len(await case.claimed(now=NOON + HOUR, failing_limit=3)) == 3
    assert len(await case.claimed(now=NOON + HOUR, failing_limit=3)) == 1


async def test_an_origin_gives_no_more_than_its_share(case: Case) -> None:
    """Who waits behind a full origin does not keep others waiting."""
    await several(case, 5, origin="http://busy.example:80")
    late = await case.establish("http://idle.example/", origin="http://idle.example:80", now=NOON + MINUTE)
    await case.publish("a")
    claims = await case.claimed(limit=4, per_origin=2)
    assert late.gid in claims
    assert len(claims) == 3


async def test_an_origin_that_fills_up_behind_others_does_not_stop_the_search(case: Case) -> None:
    """Who was chosen before it is found again when the search goes on, and must not be taken for somebody new."""
    for number in range(3):
        await case.establish(
            f"http://{number}.example/", origin=f"http://{number}.example:80", now=NOON + number
        )
    await several(case, 3, origin="http://busy.example:80")
    late = await case.establish("http://late.example/", origin="http://late.example:80", now=NOON + MINUTE)
    await case.publish("a")
    claims = await case.claimed(limit=6, per_origin=2)
    assert len(claims) == 6
    assert late.gid in claims


async def test_what_is_in_flight_counts_towards_an_origins_share(case: Case) -> None:
    await several(case, 4, origin="http://busy.example:80")
    await case.publish("a")
    (claim,) = (await case.claim(limit=1)).claims
    in_flight = {claim.origin: 1}
    assert await case.claimed(per_origin=1, in_flight=in_flight) == {}
    assert len(await case.claimed(per_origin=3, in_flight=in_flight)) == 2


async def test_an_origins_share_is_one_for_events_failures_and_heartbeats(case: Case) -> None:
    await quiet_failing_and_healthy(case)
    assert len(await case.claimed(now=NOON + HOUR, per_origin=2)) == 2


# -- leases ----------------------------------------------------------------------------------------


async def test_a_lease_excludes_every_other_claim(case: Case) -> None:
    await several(case, 3)
    await case.publish("a")
    assert len(await case.claimed()) == 3
    assert await case.claimed() == {}
    assert await case.claimed(now=NOON + LEASE - 1) == {}


async def test_claims_at_the_same_moment_share_no_webhook(case: Case) -> None:
    await several(case, 12)
    await case.publish("a")
    other = await case.store.take_holder(now=NOON)
    results = await asyncio.gather(
        *(case.claim(limit=4, holder=holder) for holder in (case.holder, other, case.holder, other))
    )
    gids = [claim.gid for result in results for claim in result.claims]
    assert len(gids) == len(set(gids)) == 12


async def test_claims_over_two_stores_share_no_webhook(lasting_database: Database) -> None:
    case = await Case.on(await lasting_database.open())
    await several(case, 12)
    await case.publish("a")
    store = await lasting_database.open()
    other = Case(store, await store.take_holder(now=NOON))
    results = await asyncio.gather(case.claim(limit=6), other.claim(limit=6), case.claim(), other.claim())
    gids = [claim.gid for result in results for claim in result.claims]
    assert len(gids) == len(set(gids)) == 12


async def test_a_lease_that_ran_out_is_given_anew(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    first = await case.only()
    second = await case.only(now=NOON + LEASE)
    assert second.lease.webhook == first.lease.webhook
    assert second.lease.fence > first.lease.fence
    assert second.page == first.page


async def test_a_held_lease_does_not_run_out(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    claim = await case.only()
    assert await case.claimed(now=NOON + HOUR, held=(claim.lease.webhook,)) == {}
    assert await case.claimed(now=NOON - DAY, held=(claim.lease.webhook,)) == {}
    assert await case.gids(now=NOON + HOUR) == [claim.gid]


async def test_a_lease_of_a_clock_that_was_set_back_is_given_anew(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.only(now=NOON + HOUR)
    assert await case.gids(now=NOON) == [webhook.gid]


async def test_a_lease_of_a_clock_a_little_ahead_is_respected(case: Case) -> None:
    """The clocks of processes beside each other are not the same."""
    await case.establish()
    await case.publish("a")
    await case.only(now=NOON + SECOND)
    assert await case.claimed(now=NOON) == {}


# -- who is never claimed --------------------------------------------------------------------------


async def test_a_stopped_webhook_is_not_claimed(case: Case) -> None:
    await case.store.add_token(token("t"), digest=b"t")
    await quiet_failing_and_healthy(case)
    await case.store.revoke_token("t", now=NOON)
    assert await case.claimed(now=NOON + HOUR) == {}
    assert await case.store.next_due_at() is None


async def test_a_removed_webhook_is_not_claimed(case: Case) -> None:
    for webhook in await quiet_failing_and_healthy(case):
        await case.store.remove_webhook(webhook.gid, now=NOON)
    assert await case.claimed(now=NOON + HOUR) == {}


async def test_an_ended_webhook_is_not_claimed(case: Case) -> None:
    await quiet_failing_and_healthy(case)
    claims = await case.claimed(now=NOON + HOUR)
    await case.record(*(given_up(claim, now=NOON + HOUR) for claim in claims.values()))
    await case.publish("c")
    assert await case.claimed(now=NOON + DAY) == {}


# -- the proven and the others ---------------------------------------------------------------------


async def test_only_so_many_are_claimed_that_were_not_served_lately(case: Case) -> None:
    """Those with events, those that fail and those that are quiet share the limit; the proven have the rest."""
    old = [await case.establish(f"http://old{number}.example/", now=NOON) for number in range(3)]
    new = [
        await case.establish(f"http://new{number}.example/", now=NOON + HOUR + number) for number in range(3)
    ]
    await case.publish("a", now=NOON + HOUR)
    now = NOON + HOUR + SECOND
    claimed = (await case.claim(now=now, proven_since=NOON + HOUR, unproven_limit=2)).claims
    assert {claim.gid: claim.proven for claim in claimed} == {
        **{webhook.gid: False for webhook in old[:2]},
        **{webhook.gid: True for webhook in new},
    }
    rest = await case.claimed(now=now, proven_since=NOON + HOUR, unproven_limit=0)
    assert rest == {}
    assert list(await case.claimed(now=now, proven_since=NOON + HOUR, unproven_limit=1)) == [old[2].gid]


def dropped(claim: Claim, *, now: Micros, steady: bool) -> Record:
    """The page was read, and nothing of it wanted."""
    return replace(
        recorded(claim, Keep(claim.health), now=now, cursor=claim.page[-1].position), steady=steady
    )


async def proven(case: Case, webhook: Webhook, *, now: Micros) -> bool:
    """Give it an event, and look whether it is claimed as one that took a delivery within five minutes."""
    await case.publish("another", now=now)
    claims = await case.claimed(now=now, proven_since=now - 5 * MINUTE, unproven_limit=0)
    if not claims:
        assert not (await case.only(now=now, proven_since=now - 5 * MINUTE)).proven
    else:
        assert claims[webhook.gid].proven
    await case.store.drop_holder(case.holder)
    case.holder = await case.store.take_holder(now=now)
    return bool(claims)


@pytest.mark.parametrize("steady", [True, False])
async def test_nobody_is_proven_by_what_its_filters_refuse(case: Case, steady: bool) -> None:
    """However lately it was served: nothing was posted, so its target may have died long ago."""
    webhook = await case.establish(filters=EVERY_TASK)
    now = NOON + HOUR
    for _ in range(2):
        assert not await proven(case, webhook, now=now)
        await case.record(dropped(await case.only(now=now), now=now, steady=steady))
        now += SECOND
    await case.publish("a", now=now)
    await case.record(delivered(await case.only(now=now), now=now))
    assert await proven(case, webhook, now=now + SECOND)


@pytest.mark.parametrize("steady", [True, False])
async def test_what_its_filters_refuse_leaves_a_webhook_proven_for_as_long_as_it_was(
    case: Case, steady: bool
) -> None:
    webhook = await case.establish(filters=EVERY_TASK)
    for after, still in ((MINUTE, True), (4 * MINUTE, True), (6 * MINUTE, False)):
        await case.publish("a", now=NOON + after)
        await case.record(
            dropped(await case.only(now=NOON + after), now=NOON + after, steady=steady),
        )
        assert await proven(case, webhook, now=NOON + after + SECOND) == still


async def test_whoever_is_not_proven_goes_in_the_order_of_service_whatever_the_reason(case: Case) -> None:
    """Because it took a delivery too long ago, or was served since with nothing to be sent."""
    early, dropping, late = [
        await case.establish(f"http://receiver.example/{number}", now=NOON - number * HOUR)
        for number in range(3)
    ]
    await case.publish("a")
    claims = await case.claimed()
    await case.record(
        delivered(claims[early.gid], now=NOON),
        dropped(claims[dropping.gid], now=NOON + MINUTE, steady=True),
        delivered(claims[late.gid], now=NOON + 2 * MINUTE),
    )
    await case.publish("b", now=NOON + HOUR)
    order = [
        (await case.only(now=NOON + HOUR, limit=1, proven_since=NOON + 55 * MINUTE)).gid for _ in range(3)
    ]
    assert order == [early.gid, dropping.gid, late.gid]


@pytest.mark.parametrize("why", ["failing", "quiet"])
async def test_who_fails_or_is_quiet_is_not_proven(case: Case, why: str) -> None:
    now = NOON + HOUR
    webhook = await case.establish(heartbeat_at=now)
    if why == "failing":
        await case.publish("a")
        await case.make_failing(webhook, due=now)
    assert await case.claimed(now=now, proven_since=NOON, unproven_limit=0) == {}
    claim = await case.only(now=now, proven_since=NOON, unproven_limit=1)
    assert not claim.proven


# -- pages -----------------------------------------------------------------------------------------


async def test_without_filters_a_page_holds_what_one_lease_may_deliver_and_one_more(case: Case) -> None:
    await case.establish()
    names = names_of(50 * BATCHES_PER_LEASE_MAX + 50)
    await case.publish(*names)
    claim = await case.only(batch_max=50)
    assert fields(claim) == names[: 50 * BATCHES_PER_LEASE_MAX + 1]
    assert claim.more


@pytest.mark.parametrize("batch_max", [1, 3])
async def test_small_batches_have_small_pages(case: Case, batch_max: int) -> None:
    await case.establish()
    names = names_of(100)
    await case.publish(*names)
    claim = await case.only(batch_max=batch_max)
    assert fields(claim) == names[: batch_max * BATCHES_PER_LEASE_MAX + 1]
    assert claim.more


@pytest.mark.parametrize("why", ["not proven", "failing"])
async def test_who_sends_one_batch_under_a_lease_gets_a_page_of_one(case: Case, why: str) -> None:
    webhook = await case.establish()
    names = names_of(120)
    await case.publish(*names)
    if why == "failing":
        await case.make_failing(webhook, due=NOON)
    claim = await case.only(batch_max=50, proven_since=NOON + HOUR if why == "not proven" else 0)
    assert fields(claim) == names[:50]
    assert claim.more


@pytest.mark.parametrize("filters", [(), EVERY_TASK], ids=["without filters", "with filters"])
@pytest.mark.parametrize(("count", "size"), [(60, 60_000), (800, 1_500)])
@pytest.mark.parametrize("room", [0, EVENT_BYTES_MAX, 4 * BATCH_BYTES_MAX])
async def test_pages_share_the_room_there_is(
    case: Case, filters: tuple[Filter, ...], count: int, size: int, room: int
) -> None:
    """Each holds an event of the largest size, or as many bytes; more only where there is room for it."""
    webhooks = [await case.establish(f"http://{number}.example/", filters=filters) for number in range(12)]
    await case.publish(*names_of(count), size=size)
    claims = await case.claimed(room=room)
    assert claims.keys() == {webhook.gid for webhook in webhooks}
    held = [sum(len(event.wire) for event in claim.page) for claim in claims.values()]
    assert [claim.bytes_held for claim in claims.values()] == held
    assert sum(max(0, each - EVENT_BYTES_MAX) for each in held) <= room
    assert min(held) > EVENT_BYTES_MAX - size - 1_000
    assert all(fields(claim) == names_of(len(claim.page)) and claim.more for claim in claims.values())


async def test_a_batch_that_failed_is_read_as_it_was_whatever_room_there_is(case: Case) -> None:
    await case.establish()
    await case.publish(*names_of(30), size=60_000)
    claim = await case.only()
    end = claim.page[-1].position
    assert claim.bytes_held > BATCH_BYTES_MAX // 2
    await case.record(failed(claim, now=NOON, next_attempt_at=NOON, batch_end=end))
    again = await case.only(room=0)
    assert (again.batch_end, again.page) == (end, claim.page)


async def test_with_filters_a_page_holds_what_one_turn_may_scan(case: Case) -> None:
    await case.establish(filters=EVERY_TASK)
    names = names_of(SCAN_MAX + 50)
    await case.publish(*names[:SCAN_MAX])
    await case.publish(*names[SCAN_MAX:])
    while (claimed := await case.claim(limit=0)).behind:
        assert claimed.claims == ()
    claim = await case.only()
    assert fields(claim) == names[:SCAN_MAX]
    assert claim.more
    await case.record(delivered(claim, now=NOON))
    rest = await case.only()
    assert fields(rest) == names[SCAN_MAX:]
    assert not rest.more


@pytest.mark.parametrize(("count", "size"), [(60, 60_000), (900, 1_500)])
@pytest.mark.parametrize("filters", [(), EVERY_TASK], ids=["without filters", "with filters"])
async def test_a_page_is_bounded_in_bytes(
    case: Case, filters: tuple[Filter, ...], count: int, size: int
) -> None:
    """It holds as many events as come to a batch's worth of bytes; all are found on the pages that follow."""
    await case.establish(filters=filters)
    names = names_of(count)
    await case.publish(*names, size=size)
    seen: list[str | None] = []
    while claims := await case.claimed():
        (claim,) = claims.values()
        sizes = [len(event.wire) for event in claim.page]
        assert sum(sizes) <= BATCH_BYTES_MAX
        assert claim.more == (len(seen) + len(sizes) < len(names))
        if claim.more:
            assert sum(sizes) + sizes[-1] > BATCH_BYTES_MAX
        seen += fields(claim)
        await case.record(delivered(claim, now=NOON))
    assert seen == names


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100])
async def test_a_page_that_holds_everything_says_so(case: Case, count: int) -> None:
    await case.establish()
    await case.publish(*names_of(count))
    claim = await case.only()
    assert len(claim.page) == count
    assert not claim.more


async def test_a_page_holds_only_what_is_visible_from_the_resource(case: Case) -> None:
    here = await case.establish(resource=PROJECT)
    there = await case.establish(resource=OTHER_PROJECT)
    events = tuple(
        change(name, resource=TASK if number % 3 else OTHER_PROJECT)
        for number, name in enumerate(names_of(90))
    )
    await case.store.publish(Publication(events=events), now=NOON)
    claims = await case.claimed()
    assert len(claims[here.gid].page) == 60
    assert fields(claims[there.gid]) == names_of(90)[::3]


# -- marking ---------------------------------------------------------------------------------------


async def test_new_events_are_marked_in_steps(case: Case) -> None:
    """A claim says when there is more to look at; once it does not, everything has been found."""
    early = await case.establish(resource=PROJECT)
    late = await case.establish(resource=OTHER_PROJECT)
    tasks = [
        ResourceDraft(gid=f"9{number}", resource_type="task", parents=(PROJECT,)) for number in range(100)
    ]
    await case.store.put_resources(tasks, workspaces=None, now=NOON)
    calls = 3
    for _ in range(calls):
        events = tuple(
            change(name, resource=tasks[number % len(tasks)].gid)
            for number, name in enumerate(names_of(EVENTS_PER_PUBLISH_MAX))
        )
        await case.store.publish(Publication(events=events), now=NOON)
    await case.publish("last", resource=OTHER_PROJECT)
    found: dict[str, Claim] = {}
    steps = 0
    behind = True
    while behind:
        claimed = await case.claim()
        found |= {claim.gid: claim for claim in claimed.claims}
        behind = claimed.behind
        steps += 1
        assert steps <= calls * EVENTS_PER_PUBLISH_MAX // MARK_MAX + 2
    assert steps > 1
    assert found.keys() == {early.gid, late.gid}
    assert fields(found[late.gid]) == ["last"]


async def test_marking_goes_on_without_room_to_claim(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    await case.claim(limit=0)
    assert await case.store.oldest_due_at(now=NOON) == NOON
    assert await case.gids() == [webhook.gid]


# -- when to look again ----------------------------------------------------------------------------


async def test_nothing_is_due_in_an_empty_store(case: Case) -> None:
    assert await case.store.next_due_at() is None
    assert await case.store.oldest_due_at(now=NOON) is None


async def test_the_next_due_time_is_the_earliest_of_heartbeats_retries_and_leases(case: Case) -> None:
    webhook = await case.establish()
    assert await case.store.next_due_at() == NOON + HEARTBEAT
    await case.publish("a")
    claim = await case.only()
    assert await case.store.next_due_at() == claim.lease.until
    await case.record(failed(claim, now=NOON, next_attempt_at=NOON + MINUTE))
    assert await case.store.next_due_at() == NOON + MINUTE
    await case.establish("http://receiver.example/2", heartbeat_at=NOON + SECOND)
    assert await case.store.next_due_at() == NOON + SECOND
    assert await case.store.remove_webhook(webhook.gid, now=NOON)
    assert await case.store.next_due_at() == NOON + SECOND


async def test_nothing_is_due_for_what_has_ended(case: Case) -> None:
    webhook = await case.establish()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    assert await case.store.next_due_at() is None


async def test_who_has_events_waits_since_the_first_of_them(case: Case) -> None:
    await case.establish()
    await case.publish("a", now=NOON + MINUTE)
    await case.publish("b", now=NOON + HOUR)
    await case.claim(limit=0)
    assert await case.store.oldest_due_at(now=NOON + HOUR) == NOON + MINUTE


async def test_who_has_a_backlog_waits_since_it_was_last_served(case: Case) -> None:
    await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.record(delivered(claim, now=NOON + HOUR, cursor=claim.page[0].position))
    assert await case.store.oldest_due_at(now=NOON + HOUR) == NOON + HOUR


async def test_who_is_failing_being_served_quiet_or_ended_does_not_wait(case: Case) -> None:
    _quiet, _failing, healthy = await quiet_failing_and_healthy(case)
    await case.claim(limit=0)
    assert await case.store.oldest_due_at(now=NOON + HOUR) == NOON
    (claim,) = (await case.claim(now=NOON + HOUR, limit=1)).claims
    assert claim.gid == healthy.gid
    assert await case.store.oldest_due_at(now=NOON + HOUR) is None
    await case.record(given_up(claim, now=NOON + HOUR))
    assert await case.store.oldest_due_at(now=NOON + HOUR) is None


async def test_who_waits_for_a_busy_receiver_does_not_wait_for_us(case: Case) -> None:
    await several(case, 2)
    await case.publish("a")
    await case.claim(limit=1)
    assert await case.store.oldest_due_at(now=NOON) is None


async def test_who_waits_while_others_are_tried_for_the_first_time_does_not_wait_for_us(case: Case) -> None:
    """Thousands of targets that have died are found out in turns: that must not take the API out."""
    later = NOON + HOUR
    trying = await case.establish("http://one.example/", origin="http://one.example:80")
    waiting = await case.establish("http://two.example/", origin="http://two.example:80")
    await case.publish("a", now=NOON)
    assert await case.store.oldest_due_at(now=later) is None  # nothing is marked yet
    claim = await case.only(now=later, limit=1)
    assert claim.gid == trying.gid
    assert await case.store.oldest_due_at(now=later) is None
    # Nobody is tried any more: it waits for us.
    assert await case.store.oldest_due_at(now=claim.lease.until) == NOON
    await case.record(delivered(claim, now=later))
    assert await case.store.oldest_due_at(now=later) == NOON
    assert await case.gids(now=later) == [waiting.gid]


async def test_whoever_only_dropped_what_it_read_waits_behind_first_tries_too(case: Case) -> None:
    later = NOON + HOUR
    await case.establish("http://one.example/", origin="http://one.example:80")
    await case.publish("a", now=later)
    await case.record(dropped(await case.only(now=later), now=later, steady=True))
    trying = await case.establish("http://two.example/", origin="http://two.example:80", now=NOON)
    await case.publish("b", now=later)
    (claim,) = (await case.claim(now=later, limit=1, proven_since=later - MINUTE)).claims
    assert claim.gid == trying.gid
    assert await case.store.oldest_due_at(now=later + SECOND) is None
    assert await case.store.oldest_due_at(now=claim.lease.until) == later


async def test_a_first_try_hides_nobody_who_was_served_lately(case: Case) -> None:
    later = NOON + HOUR
    served = await case.establish("http://one.example/", origin="http://one.example:80")
    await case.publish("a", now=NOON)
    await case.record(delivered(await case.only(now=later), now=later))
    trying = await case.establish("http://two.example/", origin="http://two.example:80")
    await case.publish("b", now=later)
    (claim,) = (await case.claim(now=later, limit=1)).claims
    assert claim.gid == trying.gid
    assert await case.store.oldest_due_at(now=later + SECOND) == later
    assert await case.gids(now=later) == [served.gid]


# -- heartbeats ------------------------------------------------------------------------------------


async def test_overdue_heartbeats_are_spread(case: Case) -> None:
    webhooks = [await case.establish(f"http://receiver.example/{number}") for number in range(20)]
    now = NOON + 2 * DAY
    await case.store.spread_heartbeats(now=now, overdue_by=HOUR, interval=HEARTBEAT)
    times = [(await case.webhook(webhook.gid)).health.heartbeat_at for webhook in webhooks]
    assert all(now <= at <= now + HEARTBEAT // 10 for at in times)
    assert len(set(times)) > 10
    # On few moments, so that those of very many come together.
    assert all((at - now) % (HEARTBEAT // 10_000) == 0 for at in times)
    assert max(times) - min(times) > HEARTBEAT // 40


async def test_heartbeats_further_ahead_than_the_interval_are_spread(case: Case) -> None:
    webhook = await case.establish(heartbeat_at=NOON + 3 * HEARTBEAT)
    await case.store.spread_heartbeats(now=NOON, overdue_by=HOUR, interval=HEARTBEAT)
    assert NOON <= (await case.webhook(webhook.gid)).health.heartbeat_at <= NOON + HEARTBEAT // 10


@pytest.mark.parametrize("at", [NOON - HOUR, NOON, NOON + HEARTBEAT])
async def test_heartbeats_in_time_are_left_alone(case: Case, at: Micros) -> None:
    webhook = await case.establish(heartbeat_at=at)
    await case.store.spread_heartbeats(now=NOON, overdue_by=HOUR, interval=HEARTBEAT)
    assert (await case.webhook(webhook.gid)).health.heartbeat_at == at


# -- holders ---------------------------------------------------------------------------------------


async def test_a_holder_that_is_dropped_gives_its_leases_back_and_no_others(case: Case) -> None:
    await several(case, 2)
    await case.publish("a")
    other = await case.store.take_holder(now=NOON)
    assert other != case.holder
    ours = await case.only(limit=1)
    theirs = await case.only(holder=other)
    await case.store.drop_holder(other)
    assert await case.gids() == [theirs.gid]
    await case.store.drop_holder(case.holder)
    assert await case.gids(holder=await case.store.take_holder(now=NOON)) == sorted([ours.gid, theirs.gid])


async def test_holders_that_live_keep_their_leases(case: Case) -> None:
    await case.establish()
    await case.publish("a")
    await case.only()
    assert await case.store.release_dead_holders() == 0
    assert await case.claimed() == {}


async def test_leases_of_a_store_that_is_gone_are_taken_back(lasting_database: Database) -> None:
    case = await Case.on(await lasting_database.open())
    webhook = await case.establish()
    await case.publish("a")
    gone = await lasting_database.open()
    await Case(gone, await gone.take_holder(now=NOON)).only()
    assert await case.store.release_dead_holders() == 0
    await gone.close()
    assert await case.claimed() == {}
    assert await case.store.release_dead_holders() == 1
    assert await case.gids() == [webhook.gid]
    assert await case.store.release_dead_holders() == 0


async def test_taking_a_holder_takes_back_leases_of_those_that_are_gone(lasting_database: Database) -> None:
    gone = await lasting_database.open()
    dead = await Case.on(gone)
    webhook = await dead.establish()
    await dead.publish("a")
    await dead.only()
    await gone.close()
    store = await lasting_database.open()
    case = Case(store, await store.take_holder(now=NOON))
    assert await case.gids() == [webhook.gid]


async def test_what_another_process_writes_is_noticed(lasting_database: Database) -> None:
    case = await Case.on(await lasting_database.open())
    other = Case(await lasting_database.open(), holder=0)
    await case.store.changed()
    assert not await case.store.changed()
    await other.publish("a")
    assert await case.store.changed()
    assert not await case.store.changed()
