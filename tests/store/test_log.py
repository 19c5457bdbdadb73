"""Appending: all or nothing, positions, keys of repeats, and the publisher's own ids."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.store.building import (
    DAY,
    ELSEWHERE,
    FOREIGN_PROJECT,
    KEEPING,
    NOON,
    OTHER_PROJECT,
    PROJECT,
    TASK,
    WORKSPACE,
    Case,
    change,
    delivered,
    fields,
    names_of,
)
from tests.store.conftest import Database
from tidings.errors import BadRequest, Conflict, Forbidden, StoreUnavailable
from tidings.limits import EVENT_BYTES_MAX, EVENTS_PER_PUBLISH_MAX
from tidings.model import Action, EventDraft, Filter, Idempotency, Publication, ResourceDraft, Traits

# Filters that let everything through.
ANY = (Filter(),)


def key(name: str = "k", *, token: str = "t", digest: bytes = b"\x00\xff") -> Idempotency:
    return Idempotency(token=token, key=name, digest=digest)


async def read(case: Case) -> list[str | None]:
    """What the one webhook of a test has to read."""
    return fields(await case.only())


async def assert_log_ends_at(case: Case, last: int) -> None:
    """An empty publish tells the end of the log and appends nothing."""
    assert (await case.store.publish(Publication(events=()), now=NOON)).last == last


async def test_events_are_read_in_the_order_they_were_published(case: Case) -> None:
    await case.establish()
    first = await case.publish("a", "b")
    second = await case.publish("c")
    assert (first.accepted, second.accepted) == (2, 1)
    claim = await case.only()
    assert fields(claim) == ["a", "b", "c"]
    positions = [event.position for event in claim.page]
    assert positions == sorted(set(positions))
    assert (positions[1], positions[2]) == (first.last, second.last)


async def test_an_event_carries_the_bytes_that_are_sent(case: Case) -> None:
    await case.establish()
    await case.publish("name")
    (event,) = (await case.only()).page
    assert event.traits is None
    assert event.wire == (
        b'{"user":null,"created_at":"2026-01-05T12:00:00.000Z","action":"changed","resource":{"gid":"100",'
        b'"resource_type":"task","resource_subtype":"default_task"},"parent":null,'
        b'"change":{"field":"name","action":"changed"}}'
    )


@pytest.mark.parametrize("count", [1, 30])
async def test_where_there_are_filters_it_carries_what_they_match(case: Case, count: int) -> None:
    await case.establish(filters=ANY)
    await case.publish(*names_of(count))
    claim = await case.only()
    assert [event.traits for event in claim.page] == [
        Traits("task", "default_task", "changed", name) for name in names_of(count)
    ]
    assert fields(claim) == names_of(count)


@pytest.mark.parametrize("text", ["", "0", "null"])
async def test_text_that_looks_like_nothing_is_text(case: Case, text: str) -> None:
    """And what is not there is not text."""
    subtyped = ResourceDraft(gid="t", resource_type="task", resource_subtype=text or "0", parents=(PROJECT,))
    plain = ResourceDraft(gid="u", resource_type="task", parents=(PROJECT,))
    await case.store.put_resources([subtyped, plain], workspaces=None, now=NOON)
    await case.establish(filters=ANY)
    named = change(text, resource="t", external_id=text)
    bare = replace(change("x", resource="u"), change=None, action=Action.ADDED)
    await case.store.publish(Publication(events=(named, named, bare, bare)), now=NOON)
    page = (await case.only()).page
    assert [event.traits for event in page] == [
        Traits("task", text or "0", "changed", text),
        *[Traits("task", None, "added", None)] * 2,
    ]


@pytest.mark.parametrize("count", [1, 8, 9, 100, 255, 257, 385, 513, 769, EVENTS_PER_PUBLISH_MAX])
async def test_so_many_events_in_one_call_are_so_many(case: Case, count: int) -> None:
    """The sets that they are inserted by have other sizes."""
    names = names_of(count)
    await case.establish()
    published = await case.publish(*names)
    await assert_log_ends_at(case, published.last)
    found: list[str | None] = []
    while claims := (await case.claim()).claims:
        (claim,) = claims
        found += fields(claim)
        await case.record(delivered(claim, now=NOON))
    assert found == names


async def test_text_of_any_script_is_kept_byte_for_byte(case: Case) -> None:
    await case.establish()
    await case.publish('Füße 👣 \u2028 \x01 \\ "')
    claim = await case.only()
    assert fields(claim) == ['Füße 👣 \u2028 \x01 \\ "']
    assert "Füße 👣".encode() in claim.page[0].wire


REFUSED = {
    "an unknown resource": (change("bad", resource="404"), BadRequest),
    "an unknown resource with letters": (change("bad", resource="x-404"), BadRequest),
    "an unknown parent": (change("bad", parent="404"), BadRequest),
    "a resource out of sight": (change("bad", resource=FOREIGN_PROJECT), Forbidden),
    "a parent out of sight": (change("bad", parent=FOREIGN_PROJECT), Forbidden),
    "an event that is too large": (change("bad", size=EVENT_BYTES_MAX), BadRequest),
}


@pytest.mark.parametrize(("draft", "error"), REFUSED.values(), ids=REFUSED)
async def test_one_refused_event_refuses_all(case: Case, draft: EventDraft, error: type[Exception]) -> None:
    """Nothing of the call stays: no event, no resource, no key."""
    await case.establish()
    before = await case.publish("before")
    publication = Publication(
        events=(change("good"), change("good", resource="new"), draft),
        resources=(ResourceDraft(gid="new", resource_type="task", parents=(PROJECT,), keep_omitted=True),),
        workspaces=frozenset({WORKSPACE}),
        idempotency=key(),
    )
    with pytest.raises(error):
        await case.store.publish(publication, now=NOON)
    assert await case.store.get_resource("new") is None
    await assert_log_ends_at(case, before.last)
    await case.publish("after", idempotency=key(digest=b"other"))
    assert await read(case) == ["before", "after"]


@pytest.mark.parametrize(("gid", "code"), [("404", "unknown_object"), ("x-404", "unrecognized_id")])
async def test_an_unknown_gid_is_named(case: Case, gid: str, code: str) -> None:
    with pytest.raises(BadRequest, match=gid) as refused:
        await case.publish("a", resource=gid)
    assert refused.value.code == code


async def test_a_refused_publish_leaves_the_ones_beside_it_alone(case: Case) -> None:
    """Calls that arrive together may share a transaction; they do not share a fate."""
    await case.establish()
    results = await asyncio.gather(
        case.publish("a"), case.publish("b", resource="404"), case.publish("c"), return_exceptions=True
    )
    assert isinstance(results[1], BadRequest)
    assert sorted(await read(case), key=str) == ["a", "c"]


async def test_a_thousand_events_in_one_call(case: Case) -> None:
    await case.establish()
    names = names_of(EVENTS_PER_PUBLISH_MAX)
    assert (await case.publish(*names)).accepted == EVENTS_PER_PUBLISH_MAX
    seen: list[str | None] = []
    for _ in range(EVENTS_PER_PUBLISH_MAX):
        claims = await case.claimed()
        if not claims:
            break
        (claim,) = claims.values()
        seen += fields(claim)
        await case.record(delivered(claim, now=NOON))
    assert seen == names


# -- positions -------------------------------------------------------------------------------------


async def test_positions_are_not_used_again_after_the_log_was_trimmed_empty(case: Case) -> None:
    before = await case.publish("a", "b")
    assert sum(await case.trim_all(now=NOON + KEEPING.ceiling + 1)) == 2
    assert (await case.publish("c")).last > before.last


async def test_positions_are_not_used_again_after_reopening_an_emptied_log(
    lasting_database: Database,
) -> None:
    store = await lasting_database.open()
    case = await Case.on(store)
    before = await case.publish("a", "b")
    await case.trim_all(now=NOON + KEEPING.ceiling + 1)
    await store.close()
    case = Case(await lasting_database.open(), holder=0)
    assert (await case.publish("c")).last > before.last


async def test_what_was_accepted_is_there_after_reopening(lasting_database: Database) -> None:
    store = await lasting_database.open()
    case = await Case.on(store)
    webhook = await case.establish()
    await case.publish("a", "b")
    await store.close()
    store = await lasting_database.open()
    case = Case(store, await store.take_holder(now=NOON))
    assert (await case.webhook(webhook.gid)) == webhook
    assert await read(case) == ["a", "b"]


# -- Idempotency-Key -------------------------------------------------------------------------------


async def test_the_same_request_again_is_answered_the_same_and_appends_nothing(case: Case) -> None:
    await case.establish()
    first = await case.publish("a", idempotency=key())
    await case.publish("b")
    assert await case.publish("a", idempotency=key()) == first
    assert await read(case) == ["a", "b"]


async def test_equal_requests_at_the_same_moment_append_once(case: Case) -> None:
    await case.establish()
    first, second = await asyncio.gather(*(case.publish("a", idempotency=key()) for _ in range(2)))
    assert first == second
    assert await read(case) == ["a"]


async def test_a_key_with_other_bytes_is_a_conflict(case: Case) -> None:
    await case.establish()
    await case.publish("a", idempotency=key())
    with pytest.raises(Conflict):
        await case.publish("b", idempotency=key(digest=b"other"))
    assert await read(case) == ["a"]


async def test_a_key_belongs_to_its_token(case: Case) -> None:
    await case.establish()
    await case.publish("a", idempotency=key())
    await case.publish("b", idempotency=key(token="another", digest=b"other"))
    assert await read(case) == ["a", "b"]


async def test_a_key_is_kept_for_a_day(case: Case) -> None:
    await case.establish()
    await case.publish("a", idempotency=key())
    await case.publish("a", idempotency=key(), now=NOON + DAY - 1)
    assert await read(case) == ["a"]
    await case.publish("b", idempotency=key(digest=b"other"), now=NOON + DAY)
    await case.publish("b", idempotency=key(digest=b"other"), now=NOON + 2 * DAY - 1)
    assert fields(await case.only(now=NOON + 2 * DAY)) == ["a", "b"]


# -- ids of the publisher's ------------------------------------------------------------------------


async def publish_ids(case: Case, *ids: str, resource: str = TASK) -> int:
    drafts = tuple(change(identity, resource=resource, external_id=identity) for identity in ids)
    return (await case.store.publish(Publication(events=drafts), now=NOON)).accepted


async def test_an_id_is_appended_once_within_a_call(case: Case) -> None:
    """A repeat is accepted all the same."""
    await case.establish()
    assert await publish_ids(case, "x", "y", "x") == 3
    assert await read(case) == ["x", "y"]


async def test_an_id_is_appended_once_across_calls(case: Case) -> None:
    await case.establish()
    await publish_ids(case, "x", "y")
    assert await publish_ids(case, "y", "z", "x") == 3
    assert await read(case) == ["x", "y", "z"]


async def test_a_call_of_repeats_alone_tells_an_end_behind_which_nothing_lies(case: Case) -> None:
    first = await case.store.publish(Publication(events=(change("x", external_id="x"),)), now=NOON)
    again = await case.store.publish(Publication(events=(change("x", external_id="x"),)), now=NOON)
    assert again == first


async def test_ids_of_two_workspaces_are_two(case: Case) -> None:
    await case.establish(resource=PROJECT)
    await case.establish(resource=FOREIGN_PROJECT)
    await publish_ids(case, "x")
    await publish_ids(case, "x", resource=FOREIGN_PROJECT)
    assert [fields(claim) for claim in (await case.claimed()).values()] == [["x"], ["x"]]


async def test_an_id_counts_for_the_whole_workspace(case: Case) -> None:
    await case.establish(resource=OTHER_PROJECT)
    await publish_ids(case, "x")
    await publish_ids(case, "x", resource=OTHER_PROJECT)
    assert await case.claimed() == {}


async def test_an_id_may_come_back_once_its_event_was_trimmed(case: Case) -> None:
    await publish_ids(case, "x")
    await case.trim_all(now=NOON + KEEPING.ceiling + 1)
    await case.establish()
    await publish_ids(case, "x")
    assert await read(case) == ["x"]


# -- resources on the way --------------------------------------------------------------------------


def inline(
    gid: str,
    *,
    name: str | None = None,
    resource_subtype: str | None = None,
    parents: tuple[str, ...] | None = None,
) -> ResourceDraft:
    return ResourceDraft(
        gid=gid,
        resource_type="task",
        resource_subtype=resource_subtype,
        name=name,
        parents=parents,
        keep_omitted=True,
    )


async def publish_with(case: Case, draft: ResourceDraft, name: str = "a") -> None:
    publication = Publication(events=(change(name, resource=draft.gid),), resources=(draft,))
    await case.store.publish(publication, now=NOON)


async def test_a_resource_described_in_an_event_is_created(case: Case) -> None:
    await case.establish()
    await publish_with(case, inline("new", name="New", parents=(PROJECT,)))
    made = await case.store.get_resource("new")
    assert made is not None
    assert (made.name, made.parents, made.workspace) == ("New", (PROJECT,), WORKSPACE)
    assert await read(case) == ["a"]


async def test_what_an_event_leaves_out_of_a_resource_stays(case: Case) -> None:
    await publish_with(case, inline("new", name="New", resource_subtype="milestone", parents=(PROJECT,)))
    await publish_with(case, inline("new", name="Newer"))
    made = await case.store.get_resource("new")
    assert made is not None
    assert (made.name, made.resource_subtype, made.parents) == ("Newer", "milestone", (PROJECT,))


async def test_two_events_of_a_call_may_each_describe_a_part(case: Case) -> None:
    publication = Publication(
        events=(change("a", resource="new"), change("b", resource="new")),
        resources=(inline("new", parents=(PROJECT,)), inline("new", name="New")),
    )
    await case.store.publish(publication, now=NOON)
    made = await case.store.get_resource("new")
    assert made is not None
    assert (made.name, made.parents) == ("New", (PROJECT,))


async def test_an_event_on_a_deleted_resource_is_accepted_and_leaves_it_deleted(case: Case) -> None:
    await case.establish()
    await case.store.delete_resource(TASK, now=NOON)
    await case.publish("a")
    await publish_with(case, inline(TASK, name="Named"), "b")
    found = await case.store.get_resource(TASK)
    assert found is not None
    assert (found.deleted, found.name) == (True, "Named")
    assert await read(case) == ["a", "b"]


# -- access ----------------------------------------------------------------------------------------


async def test_what_lies_in_another_workspace_cannot_be_published_on(case: Case) -> None:
    await case.establish(resource=PROJECT)
    with pytest.raises(Forbidden):
        await case.store.publish(
            Publication(events=(change("a"),), workspaces=frozenset({ELSEWHERE})), now=NOON
        )
    assert await case.claimed() == {}


@pytest.mark.parametrize("action", list(Action))
async def test_every_action_is_carried(case: Case, action: Action) -> None:
    await case.establish(filters=ANY)
    draft = EventDraft(
        resource=TASK,
        action=action,
        user=b"null",
        parent=None,
        change=None,
        created_at=NOON - DAY,
        external_id=None,
        path="",
    )
    await case.store.publish(Publication(events=(draft,)), now=NOON)
    (event,) = (await case.only()).page
    assert event.traits == Traits("task", "default_task", action.value, None)
    assert b'"created_at":"2026-01-04T12:00:00.000Z"' in event.wire


async def test_a_closed_store_refuses(case: Case) -> None:
    await case.store.check()
    await case.store.close()
    with pytest.raises(StoreUnavailable):
        await case.publish("a")
    with pytest.raises(StoreUnavailable):
        await case.store.check()
