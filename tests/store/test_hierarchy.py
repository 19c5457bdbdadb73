"""Resources and their places: what may be put where, and where events are visible from."""

from __future__ import annotations

import pytest

from tests.store.building import (
    ELSEWHERE,
    FOREIGN_PROJECT,
    HIERARCHY,
    NOON,
    OTHER_PROJECT,
    PROJECT,
    TASK,
    WORKSPACE,
    Case,
    change,
    fields,
)
from tidings.errors import BadRequest, Forbidden
from tidings.model import Filter, Publication, Resource, ResourceDraft, Traits
from tidings.store import Store


def draft(gid: str, *parents: str, kind: str = "task", name: str | None = None) -> ResourceDraft:
    return ResourceDraft(gid=gid, resource_type=kind, name=name, parents=parents)


async def put(
    case: Case, *drafts: ResourceDraft, workspaces: frozenset[str] | None = None
) -> tuple[Resource, ...]:
    return await case.store.put_resources(drafts, workspaces=workspaces, now=NOON)


async def found(case: Case, gid: str) -> Resource:
    resource = await case.store.get_resource(gid)
    assert resource is not None
    return resource


async def readers(case: Case, *resources: str) -> dict[str, str]:
    """A webhook on each resource: their gids, and the resource each is on."""
    webhooks = {}
    for resource in resources:
        webhooks[(await case.establish(resource=resource)).gid] = resource
    return webhooks


async def read(case: Case, webhooks: dict[str, str]) -> dict[str, list[str | None]]:
    """What there is to read, by the resource it is seen from."""
    return {webhooks[gid]: fields(claim) for gid, claim in (await case.claimed()).items()}


# -- putting ---------------------------------------------------------------------------------------


async def test_what_was_put_is_found(case: Case) -> None:
    (made,) = await put(case, draft("new", OTHER_PROJECT, PROJECT, name="New"))
    assert made == Resource(
        gid="new",
        resource_type="task",
        name="New",
        parents=(OTHER_PROJECT, PROJECT),
        workspace=WORKSPACE,
    )
    assert await found(case, "new") == made


async def test_nothing_is_found_under_an_unknown_gid(store: Store) -> None:
    assert await store.get_resource("404") is None


async def test_resources_are_given_back_in_the_order_of_the_drafts(case: Case) -> None:
    made = await put(case, draft("b", "a"), draft("a", PROJECT), draft("c", "b"))
    assert [resource.gid for resource in made] == ["b", "a", "c"]
    assert {resource.workspace for resource in made} == {WORKSPACE}


async def test_a_whole_hierarchy_may_refer_forward(store: Store) -> None:
    made = await store.put_resources(tuple(reversed(HIERARCHY)), workspaces=None, now=NOON)
    assert {resource.gid: resource.workspace for resource in made}[TASK] == WORKSPACE


async def test_putting_replaces_and_what_is_left_out_is_none(case: Case) -> None:
    await put(case, draft("new", PROJECT, OTHER_PROJECT, name="New"))
    await put(case, draft("new", OTHER_PROJECT))
    assert (await found(case, "new")).name is None
    assert (await found(case, "new")).parents == (OTHER_PROJECT,)


async def test_putting_the_same_again_changes_nothing(case: Case) -> None:
    first = await put(case, draft("new", PROJECT, name="New"))
    assert await put(case, draft("new", PROJECT, name="New")) == first


REFUSED = {
    "an unknown parent": (draft("bad", "404"), "unknown_object"),
    "an unknown parent with letters": (draft("bad", "x-404"), "unrecognized_id"),
    "no workspace above": (draft("bad"), "no_workspace"),
    "a second workspace": (draft("bad", PROJECT, FOREIGN_PROJECT), "second_workspace"),
    "a move to another workspace": (draft(TASK, FOREIGN_PROJECT), "second_workspace"),
    "itself as its parent": (draft(TASK, TASK, PROJECT), "hierarchy_cycle"),
    "a place below itself": (draft(PROJECT, WORKSPACE, TASK, kind="project"), "hierarchy_cycle"),
    "a workspace below another": (draft("bad", WORKSPACE, kind="workspace"), "second_workspace"),
}


@pytest.mark.parametrize(("refused", "code"), REFUSED.values(), ids=REFUSED)
async def test_one_refused_draft_refuses_all(case: Case, refused: ResourceDraft, code: str) -> None:
    before = {draft.gid: await case.store.get_resource(draft.gid) for draft in HIERARCHY}
    with pytest.raises(BadRequest) as error:
        await put(case, draft("good", PROJECT), refused, draft(OTHER_PROJECT, WORKSPACE, name="Renamed"))
    assert error.value.code == code
    assert {draft.gid: await case.store.get_resource(draft.gid) for draft in HIERARCHY} == before
    assert await case.store.get_resource("good") is None
    assert await case.store.get_resource("bad") is None


async def test_a_cycle_of_drafts_that_refer_to_each_other_is_refused(case: Case) -> None:
    with pytest.raises(BadRequest) as error:
        await put(case, draft("a", "b", PROJECT), draft("b", "c"), draft("c", "a"))
    assert error.value.code == "hierarchy_cycle"


async def test_a_gid_of_a_refused_call_is_free_for_another_use(case: Case) -> None:
    """What a refused call would have made leaves no trace that a later one stumbles on."""
    with pytest.raises(BadRequest):
        await put(case, draft("a", PROJECT), draft("b", "404"))
    await put(case, draft("b", OTHER_PROJECT))
    await put(case, draft("a", OTHER_PROJECT))
    webhooks = await readers(case, "a", "b")
    await case.publish("on a", resource="a")
    await case.publish("on b", resource="b")
    assert await read(case, webhooks) == {"a": ["on a"], "b": ["on b"]}


@pytest.mark.parametrize(
    "drafts",
    [
        (draft("new", FOREIGN_PROJECT),),
        (draft(FOREIGN_PROJECT, ELSEWHERE, kind="project", name="Taken"),),
        (draft("w", kind="workspace"),),
    ],
    ids=["below", "itself", "a workspace of its own"],
)
async def test_what_lies_in_another_workspace_cannot_be_put(
    case: Case, drafts: tuple[ResourceDraft, ...]
) -> None:
    before = await case.store.get_resource(drafts[0].gid)
    with pytest.raises(Forbidden):
        await put(case, draft("good", PROJECT), *drafts, workspaces=frozenset({WORKSPACE}))
    assert await case.store.get_resource("good") is None
    assert await case.store.get_resource(drafts[0].gid) == before


# -- deleting --------------------------------------------------------------------------------------


async def test_a_deleted_resource_keeps_its_place(case: Case) -> None:
    webhooks = await readers(case, WORKSPACE, PROJECT)
    await case.store.delete_resource(PROJECT, now=NOON)
    assert (await found(case, PROJECT)).deleted
    assert (await found(case, PROJECT)).parents == (WORKSPACE,)
    await case.publish("a", resource=TASK)
    await case.publish("b", resource=PROJECT)
    assert await read(case, webhooks) == {WORKSPACE: ["b"], PROJECT: ["a", "b"]}


async def test_putting_brings_a_deleted_resource_back(case: Case) -> None:
    await case.store.delete_resource(TASK, now=NOON)
    await put(case, draft(TASK, PROJECT))
    assert not (await found(case, TASK)).deleted


async def test_deleting_what_is_unknown_changes_nothing(case: Case) -> None:
    await case.store.delete_resource("404", now=NOON)
    assert await case.store.get_resource("404") is None


# -- where events are visible from -----------------------------------------------------------------


async def test_an_event_is_visible_from_its_resource_and_everything_above(case: Case) -> None:
    webhooks = await readers(case, WORKSPACE, PROJECT, OTHER_PROJECT, TASK)
    await case.publish("a", resource=TASK)
    await case.publish("b", resource=PROJECT)
    # Tasks do not rise to what is larger than a project.
    assert await read(case, webhooks) == {TASK: ["a"], PROJECT: ["a", "b"], WORKSPACE: ["b"]}


async def test_an_event_is_visible_from_its_parent_too(case: Case) -> None:
    """A task removed from a project still tells that project."""
    webhooks = await readers(case, PROJECT, OTHER_PROJECT)
    events = (change("a", parent=OTHER_PROJECT), change("b"))
    await case.store.publish(Publication(events=events), now=NOON)
    assert await read(case, webhooks) == {PROJECT: ["a", "b"], OTHER_PROJECT: ["a"]}


async def test_an_event_reaches_the_top_of_a_diamond_once(case: Case) -> None:
    await put(
        case,
        draft("area", WORKSPACE, kind="area"),
        draft("left", "area", kind="epic"),
        draft("right", "area", kind="epic"),
        draft("bottom", "left", "right", "area", kind="epic"),
    )
    webhooks = await readers(case, "area", "left", "right", "bottom")
    events = (change("a", resource="bottom", parent="right"),)
    await case.store.publish(Publication(events=events), now=NOON)
    assert await read(case, webhooks) == {gid: ["a"] for gid in webhooks.values()}


async def test_a_move_changes_what_comes_after_it_only(case: Case) -> None:
    webhooks = await readers(case, PROJECT, OTHER_PROJECT)
    await case.publish("before")
    await put(case, draft(TASK, OTHER_PROJECT))
    await case.publish("after")
    assert await read(case, webhooks) == {PROJECT: ["before"], OTHER_PROJECT: ["after"]}


async def test_a_move_further_up_moves_everything_below(case: Case) -> None:
    await put(case, draft("area", WORKSPACE, kind="area"))
    webhooks = await readers(case, "area")
    await case.publish("before")
    await put(case, draft(PROJECT, "area", kind="project"))
    await case.publish("after")
    assert await read(case, webhooks) == {"area": ["after"]}


async def test_a_move_within_a_publish_counts_for_its_events(case: Case) -> None:
    webhooks = await readers(case, PROJECT, OTHER_PROJECT)
    await case.publish("before")
    moved = ResourceDraft(gid=TASK, resource_type="task", parents=(OTHER_PROJECT,), keep_omitted=True)
    await case.store.publish(Publication(events=(change("after"),), resources=(moved,)), now=NOON)
    assert await read(case, webhooks) == {PROJECT: ["before"], OTHER_PROJECT: ["after"]}


async def test_a_move_that_was_refused_moves_nothing(case: Case) -> None:
    webhooks = await readers(case, PROJECT, OTHER_PROJECT)
    with pytest.raises(BadRequest):
        await put(case, draft(TASK, OTHER_PROJECT), draft("bad", "404"))
    await case.publish("a")
    assert await read(case, webhooks) == {PROJECT: ["a"]}


async def test_an_event_carries_the_type_its_resource_has_now(case: Case) -> None:
    await case.establish(filters=[Filter(resource_type="task", resource_subtype="milestone")])
    await case.publish("before")
    subtyped = ResourceDraft(gid=TASK, resource_type="task", resource_subtype="milestone", parents=(PROJECT,))
    await put(case, subtyped)
    await case.publish("after")
    page = (await case.only()).page
    kinds = [("default_task", "before"), ("milestone", "after")]
    traits = [event.traits for event in page]
    assert traits == [Traits("task", subtype, "changed", name) for subtype, name in kinds]
