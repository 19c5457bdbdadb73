"""Establishing, listing, changing and ending webhooks."""

from __future__ import annotations

import asyncio

import pytest

from tests.store.building import (
    AMPLE,
    ELSEWHERE,
    FOREIGN_PROJECT,
    HEARTBEAT,
    MINUTE,
    NOON,
    OTHER_OWNER,
    OTHER_PROJECT,
    OWNER,
    PROJECT,
    WORKSPACE,
    Case,
    delivered,
    failed,
    fields,
)
from tidings.errors import BadRequest, DuplicateWebhook, EqualCreate, Forbidden
from tidings.model import Filter, Health, Micros, Owner, Quotas, SealedSecret, Webhook
from tidings.store import Reservation

TARGET = "http://receiver.example/hook"
FILTERS = (
    Filter(resource_type="task", action="changed", fields=("name", "due_on")),
    Filter(resource_type="project"),
)


async def reserve(
    case: Case,
    key: str,
    *,
    owner: Owner = OWNER,
    resource: str = PROJECT,
    target: str = TARGET,
    quotas: Quotas = AMPLE,
    now: Micros = NOON,
) -> Reservation | None:
    return await case.store.reserve(
        owner=owner, resource=resource, target=target, key=key, quotas=quotas, now=now, until=now + MINUTE
    )


async def add(case: Case, gid: str, reservation: Reservation | None, *, quotas: Quotas = AMPLE) -> Webhook:
    assert reservation is not None
    return await case.store.add_webhook(case.new_webhook(gid), reservation=reservation, quotas=quotas)


async def listed(
    case: Case,
    *,
    owner: Owner = OWNER,
    workspace: str = WORKSPACE,
    resource: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Webhook]:
    return list(
        await case.store.list_webhooks(
            owner, workspace=workspace, resource=resource, after=after, limit=limit
        )
    )


async def establish_several(case: Case, count: int) -> list[Webhook]:
    return [await case.establish(f"{TARGET}/{number}") for number in range(count)]


# -- adding ----------------------------------------------------------------------------------------


async def test_what_was_added_is_found_as_it_was(case: Case) -> None:
    added = await case.establish(filters=FILTERS)
    assert await case.webhook(added.gid) == added
    assert (added.owner, added.target, added.filters) == (OWNER, TARGET, FILTERS)
    assert added.secrets == (SealedSecret("key", b"\x00sealed\xff"),)
    assert added.health == Health(last_success_at=NOON, heartbeat_at=NOON + HEARTBEAT)
    assert (added.resource.gid, added.resource.name, added.resource.workspace) == (
        PROJECT,
        "Bugs",
        WORKSPACE,
    )
    assert (added.created_at, added.active, added.lost_at) == (NOON, True, None)


async def test_nothing_is_found_under_an_unknown_gid(case: Case) -> None:
    assert await case.store.get_webhook("404") is None
    assert await case.attempts("404") == []


async def test_a_new_webhook_receives_nothing_from_before(case: Case) -> None:
    await case.publish("before")
    webhook = await case.establish()
    assert await case.claimed() == {}
    await case.publish("after")
    claim = await case.only()
    assert (claim.gid, claim.cursor) == (webhook.gid, webhook.cursor)
    assert fields(claim) == ["after"]


async def test_the_end_of_the_log_is_that_of_the_insert_not_of_the_handshake(case: Case) -> None:
    reservation = await reserve(case, "a")
    await case.publish("while shaking hands")
    await add(case, "900", reservation)
    assert await case.claimed() == {}


async def test_a_webhook_shows_its_resource_as_it_is_now(case: Case) -> None:
    webhook = await case.establish()
    await case.store.delete_resource(PROJECT, now=NOON)
    assert (await case.webhook(webhook.gid)).resource.deleted


# -- reserving -------------------------------------------------------------------------------------


async def test_a_reservation_names_the_resource(case: Case) -> None:
    reservation = await reserve(case, "a")
    assert reservation is not None
    assert (reservation.resource, reservation.key) == (await case.store.get_resource(PROJECT), "a")


async def test_an_equal_create_waits_until_the_first_has_released(case: Case) -> None:
    first = await reserve(case, "a")
    assert first is not None
    assert await reserve(case, "b") is None
    assert await reserve(case, "b") is None
    await case.store.release(first)
    assert await reserve(case, "b") is not None


async def test_of_equal_creates_at_the_same_moment_one_may_shake_hands(case: Case) -> None:
    results = await asyncio.gather(*(reserve(case, key) for key in "abcd"))
    assert sum(result is not None for result in results) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"owner": OTHER_OWNER},
        {"owner": Owner("7", "another")},
        {"resource": OTHER_PROJECT},
        {"target": TARGET + "/"},
    ],
    ids=["user", "app", "resource", "target"],
)
async def test_a_create_that_differs_does_not_wait(case: Case, other: dict[str, object]) -> None:
    await reserve(case, "a")
    assert await reserve(case, "b", **other) is not None  # type: ignore[arg-type] # a table of differences


async def test_an_equal_create_is_a_duplicate_once_the_first_was_added(case: Case) -> None:
    first = await reserve(case, "a")
    assert await reserve(case, "b") is None
    await add(case, "900", first)
    with pytest.raises(DuplicateWebhook) as error:
        await reserve(case, "b")
    assert error.value.gid == "900"


async def test_a_reservation_runs_out(case: Case) -> None:
    await reserve(case, "a")
    assert await reserve(case, "b", now=NOON + MINUTE - 1) is None
    assert await reserve(case, "b", now=NOON + MINUTE) is not None


async def test_a_reservation_by_a_clock_that_was_set_back_runs_out(case: Case) -> None:
    await reserve(case, "a", now=NOON + 60 * MINUTE)
    assert await reserve(case, "b", now=NOON) is not None


async def test_releasing_twice_or_late_takes_nothing_from_another(case: Case) -> None:
    first = await reserve(case, "a")
    assert first is not None
    assert await reserve(case, "b", now=NOON + MINUTE) is not None
    await case.store.release(first)
    await case.store.release(first)
    assert await reserve(case, "c", now=NOON + MINUTE) is None


@pytest.mark.parametrize(("gid", "code"), [("404", "unknown_object"), ("x-404", "unrecognized_id")])
async def test_an_unknown_resource_cannot_be_reserved(case: Case, gid: str, code: str) -> None:
    with pytest.raises(BadRequest) as error:
        await reserve(case, "a", resource=gid)
    assert error.value.code == code


# -- duplicates and quotas -------------------------------------------------------------------------


async def test_a_duplicate_is_refused_and_named(case: Case) -> None:
    webhook = await case.establish()
    with pytest.raises(DuplicateWebhook) as error:
        await reserve(case, "a")
    assert error.value.gid == webhook.gid


async def test_a_duplicate_is_refused_again_when_it_is_added(case: Case) -> None:
    """The first one's handshake outlived its reservation: two came through, one may be."""
    late = await reserve(case, "late")
    await add(case, "900", await reserve(case, "b", now=NOON + MINUTE))
    with pytest.raises(DuplicateWebhook) as error:
        await add(case, "901", late)
    assert error.value.gid == "900"
    assert await case.store.get_webhook("901") is None
    assert len(await listed(case)) == 1


async def test_who_lost_the_reservation_to_another_is_not_added(case: Case) -> None:
    """The other may have given the receiver its own secret since: what is added must be the last that it was told."""
    late = await reserve(case, "late")
    other = await reserve(case, "b", now=NOON + MINUTE)
    with pytest.raises(EqualCreate):
        await add(case, "900", late)
    assert await case.store.get_webhook("900") is None
    await add(case, "901", other)


async def test_an_ended_webhook_is_no_duplicate(case: Case) -> None:
    webhook = await case.establish()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    assert (await case.establish()).gid != webhook.gid


QUOTAS = {
    "resource": (Quotas(2, 100), {"owner": OTHER_OWNER}, "quota_per_resource"),
    "owner": (Quotas(100, 2), {"resource": OTHER_PROJECT}, "quota_per_owner"),
}


@pytest.mark.parametrize(("quotas", "other", "code"), QUOTAS.values(), ids=QUOTAS)
async def test_a_quota_is_kept_when_reserving(
    case: Case, quotas: Quotas, other: dict[str, object], code: str
) -> None:
    """A resource's quota counts every owner's webhooks, an owner's every resource's."""
    first = await case.establish(f"{TARGET}/1", quotas=quotas)
    await case.establish(f"{TARGET}/2", quotas=quotas, **other)  # type: ignore[arg-type] # a table of differences
    with pytest.raises(Forbidden) as error:
        await reserve(case, "a", quotas=quotas)
    assert error.value.code == code
    await case.store.remove_webhook(first.gid, now=NOON)
    assert await reserve(case, "a", quotas=quotas) is not None


@pytest.mark.parametrize(("quotas", "other", "code"), QUOTAS.values(), ids=QUOTAS)
async def test_a_quota_is_kept_again_when_adding(
    case: Case, quotas: Quotas, other: dict[str, object], code: str
) -> None:
    late = await reserve(case, "late", quotas=quotas)
    await case.establish(f"{TARGET}/1", quotas=quotas)
    await case.establish(f"{TARGET}/2", quotas=quotas, **other)  # type: ignore[arg-type] # a table of differences
    with pytest.raises(Forbidden) as error:
        await add(case, "900", late, quotas=quotas)
    assert error.value.code == code
    assert await case.store.get_webhook("900") is None


# -- listing ---------------------------------------------------------------------------------------


async def test_webhooks_are_listed_in_the_order_of_creation(case: Case) -> None:
    webhooks = await establish_several(case, 4)
    assert await listed(case) == webhooks
    sequences = [webhook.sequence for webhook in webhooks]
    assert sequences == sorted(set(sequences))
    assert sequences[0] > 0


async def test_pages_stay_put_while_webhooks_come_and_go(case: Case) -> None:
    """Nothing that stands throughout is missed or met twice."""
    first, second, third, fourth, fifth = await establish_several(case, 5)
    assert await listed(case, limit=2) == [first, second]
    await case.store.remove_webhook(first.gid, now=NOON)
    await case.store.remove_webhook(second.gid, now=NOON)
    await case.store.remove_webhook(fourth.gid, now=NOON)
    new = await case.establish(f"{TARGET}/new")
    assert await listed(case, after=second.sequence, limit=2) == [third, fifth]
    assert await listed(case, after=fifth.sequence, limit=2) == [new]
    assert await listed(case, after=new.sequence) == []


async def test_a_list_is_of_one_owner(case: Case) -> None:
    ours = await case.establish()
    theirs = await case.establish(owner=OTHER_OWNER)
    through_another_app = await case.establish(owner=Owner(OWNER.user, "another"))
    assert await listed(case) == [ours]
    assert await listed(case, owner=OTHER_OWNER) == [theirs]
    assert await listed(case, owner=Owner(OWNER.user, "another")) == [through_another_app]


async def test_a_list_is_of_one_workspace(case: Case) -> None:
    here = await case.establish()
    there = await case.establish(resource=FOREIGN_PROJECT)
    assert await listed(case) == [here]
    assert await listed(case, workspace=ELSEWHERE) == [there]


async def test_a_list_may_be_of_one_resource(case: Case) -> None:
    """Of that resource itself, not of what is below it."""
    on_project = await case.establish()
    on_workspace = await case.establish(resource=WORKSPACE)
    assert await listed(case, resource=PROJECT) == [on_project]
    assert await listed(case, resource=WORKSPACE) == [on_workspace]
    assert await listed(case, resource=OTHER_PROJECT) == []


# -- filters ---------------------------------------------------------------------------------------


async def test_filters_are_replaced_and_given_to_the_next_claim(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    replaced = await case.store.replace_filters(webhook.gid, FILTERS)
    assert replaced is not None
    assert replaced.filters == FILTERS
    assert (await case.webhook(webhook.gid)).filters == FILTERS
    assert (await case.only()).filters == FILTERS


async def test_new_filters_decide_anew_what_a_failed_batch_holds(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.record(failed(claim, now=NOON, batch_end=claim.head))
    await case.publish("b")
    await case.store.replace_filters(webhook.gid, FILTERS)
    again = await case.only(now=NOON + MINUTE)
    assert again.epoch > claim.epoch
    assert again.batch_end is None
    assert fields(again) == ["a", "b"]


async def test_new_filters_during_an_attempt_unpin_its_batch(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.store.replace_filters(webhook.gid, FILTERS)
    await case.record(failed(claim, now=NOON, batch_end=claim.head))
    again = await case.only(now=NOON + MINUTE)
    assert (again.batch_end, again.epoch > claim.epoch) == (None, True)


async def test_new_filters_during_an_attempt_do_not_undo_what_was_delivered(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    claim = await case.only()
    await case.store.replace_filters(webhook.gid, FILTERS)
    await case.record(delivered(claim, now=NOON))
    assert await case.claimed() == {}


async def test_filters_of_an_ended_webhook_cannot_be_replaced(case: Case) -> None:
    webhook = await case.establish()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    assert await case.store.replace_filters(webhook.gid, FILTERS) is None
    assert await case.store.replace_filters("404", FILTERS) is None


# -- ending ----------------------------------------------------------------------------------------


async def test_a_webhook_is_removed_once(case: Case) -> None:
    webhook = await case.establish()
    await case.publish("a")
    assert await case.store.remove_webhook(webhook.gid, now=NOON) is True
    assert await case.store.remove_webhook(webhook.gid, now=NOON) is False
    assert await case.store.get_webhook(webhook.gid) is None
    assert await listed(case) == []
    assert await case.claimed(now=NOON + 2 * HEARTBEAT) == {}


async def test_an_unknown_webhook_cannot_be_removed(case: Case) -> None:
    assert await case.store.remove_webhook("404", now=NOON) is False


async def test_of_two_removals_at_the_same_moment_one_counts(case: Case) -> None:
    webhook = await case.establish()
    removals = (case.store.remove_webhook(webhook.gid, now=NOON) for _ in range(2))
    assert sorted(await asyncio.gather(*removals)) == [False, True]


async def test_a_webhook_that_is_removed_during_an_attempt_stays_removed(case: Case) -> None:
    """What the lease covered is still written down, and changes nothing about the end."""
    webhook = await case.establish()
    await case.publish("a", "b")
    claim = await case.only()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    await case.record(delivered(claim, now=NOON, cursor=claim.page[0].position))
    assert await case.store.get_webhook(webhook.gid) is None
    assert await case.claimed() == {}
    assert len(await case.attempts(webhook.gid)) == 1
