"""Where events are visible from, and which moves are allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest, Forbidden, RequestError
from tidings.hierarchy import Hierarchy, no_access, unknown_object
from tidings.limits import ANCESTORS_MAX
from tidings.matching import LARGER_SCOPED, NEVER_RISE
from tidings.model import Resource, ResourceDraft


def resource(
    gid: str,
    resource_type: str,
    *parents: str,
    workspace: str = "w",
    name: str | None = None,
    subtype: str | None = None,
    deleted: bool = False,
) -> Resource:
    return Resource(
        gid=gid,
        resource_type=resource_type,
        resource_subtype=subtype,
        name=name,
        parents=parents,
        workspace=workspace,
        deleted=deleted,
    )


def draft(gid: str, resource_type: str, *parents: str, path: str = "") -> ResourceDraft:
    """A resource on its own: what is left out is none."""
    return ResourceDraft(gid=gid, resource_type=resource_type, parents=parents, path=path)


def inline(
    gid: str,
    resource_type: str,
    parents: tuple[str, ...] | None = None,
    *,
    name: str | None = None,
    subtype: str | None = None,
) -> ResourceDraft:
    """A resource within an event: what is left out stays as it was."""
    return ResourceDraft(
        gid=gid,
        resource_type=resource_type,
        resource_subtype=subtype,
        name=name,
        parents=parents,
        keep_omitted=True,
    )


WORLD = (
    resource("w", "workspace"),
    resource("v", "workspace", workspace="v"),
    resource("team", "team", "w"),
    resource("folio", "portfolio", "w"),
    resource("bugs", "project", "team", "folio", name="Bugs"),
    resource("plans", "project", "team"),
    resource("todo", "section", "bugs"),
    resource("task", "task", "bugs", "plans", subtype="default_task"),
    resource("sub", "task", "task"),
    resource("note", "story", "sub"),
    resource("file", "attachment", "task"),
    resource("member", "team_membership", "team"),
    resource("alien", "project", "v", workspace="v"),
)


def world(*more: Resource, workspaces: frozenset[str] | None = None) -> Hierarchy:
    return Hierarchy((*WORLD, *more), workspaces=workspaces)


def refusal(hierarchy: Hierarchy, *drafts: ResourceDraft) -> RequestError:
    with pytest.raises(RequestError) as refused:
        hierarchy.apply(drafts)
    return refused.value


# -- scopes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gid", "parent", "expected"),
    [
        # each once, however many ways lead there
        ("task", None, {"task", "bugs", "plans"}),
        ("sub", None, {"sub", "task", "bugs", "plans"}),
        ("note", None, {"note", "sub", "task", "bugs", "plans"}),
        ("file", None, {"file", "task", "bugs", "plans"}),
        ("todo", None, {"todo", "bugs"}),
        ("bugs", None, {"bugs", "team", "folio", "w"}),
        ("plans", None, {"plans", "team", "w"}),
        ("member", None, {"member", "team", "w"}),
        ("team", None, {"team", "w"}),
        ("w", None, {"w"}),
        # the event's parent and what is above it, in or out of the hierarchy
        ("task", "todo", {"task", "bugs", "plans", "todo"}),
        ("todo", "plans", {"todo", "bugs", "plans"}),
        ("plans", "folio", {"plans", "team", "w", "folio"}),
        ("task", "w", {"task", "bugs", "plans"}),
        ("task", "task", {"task", "bugs", "plans"}),
    ],
)
def test_where_an_event_is_visible_from(gid: str, parent: str | None, expected: set[str]) -> None:
    """Contract §5: the resource, the event's parent, all above both; some types stay below the larger-scoped."""
    scopes = world().scopes(gid, parent)
    assert scopes[0] == gid
    assert len(scopes) == len(set(scopes))
    assert set(scopes) == expected


@pytest.mark.parametrize("resource_type", sorted(NEVER_RISE))
@pytest.mark.parametrize("parent", ["w", "team", "folio", "bugs"])
def test_what_happens_within_a_project_stays_below(resource_type: str, parent: str) -> None:
    hierarchy = world(resource("x", resource_type, parent))
    assert not {"w", "team", "folio"} & set(hierarchy.scopes("x", parent))


def test_any_other_type_rises_all_the_way() -> None:
    hierarchy = world(resource("x", "something_of_ours", "bugs"))
    assert set(hierarchy.scopes("x", None)) == {"x", "bugs", "team", "folio", "w"}


def test_a_diamond_counts_once() -> None:
    hierarchy = world(resource("x", "project", "bugs", "plans", "team"))
    assert hierarchy.ancestors("x") == ("bugs", "plans", "team", "folio", "w")


def test_deleted_resources_keep_their_place() -> None:
    hierarchy = Hierarchy(
        [
            resource("w", "workspace"),
            resource("p", "project", "w", deleted=True),
            resource("t", "task", "p", deleted=True),
        ],
        workspaces=None,
    )
    assert hierarchy.scopes("t", None) == ("t", "p")
    assert hierarchy.scopes("p", None) == ("p", "w")


def test_an_event_does_not_reach_over_to_its_parents_workspace() -> None:
    """A webhook sees its own workspace: an event whose parent is in another would be seen from there."""
    with pytest.raises(BadRequest) as refused:
        world().scopes("bugs", "alien")
    assert refused.value.code == "second_workspace"


def _chain(length: int, *, top: str = "w") -> list[Resource]:
    return [resource(f"c{index}", "folder", f"c{index - 1}" if index else top) for index in range(length)]


def test_a_thousand_ancestors_are_carried_and_no_more() -> None:
    """A move far above may leave a resource with more than it could have been given."""
    chain = _chain(ANCESTORS_MAX + 2)
    hierarchy = world(*chain)
    assert len(hierarchy.scopes(f"c{ANCESTORS_MAX - 1}", None)) == ANCESTORS_MAX + 1
    for gid, parent in ((f"c{ANCESTORS_MAX + 1}", None), ("bugs", f"c{ANCESTORS_MAX + 1}")):
        with pytest.raises(BadRequest) as refused:
            hierarchy.scopes(gid, parent)
        assert refused.value.code == "too_many_ancestors"


# -- visible ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gid", "code", "message"),
    [
        ("9999", "unknown_object", "resource: Unknown object: 9999"),
        ("a-b", "unrecognized_id", "resource: Not a recognized ID: a-b"),
        ("٣", "unrecognized_id", "resource: Not a recognized ID: ٣"),
    ],
)
def test_unknown_gids_answer_by_their_looks(gid: str, code: str, message: str) -> None:
    """Interface §5: all digits is unknown, anything else is not recognized."""
    with pytest.raises(BadRequest) as refused:
        world().visible(gid, path="resource")
    assert (refused.value.code, refused.value.message) == (code, message)
    assert unknown_object("resource", gid).message == message


def test_what_exists_elsewhere_is_forbidden_in_the_recorded_words() -> None:
    hierarchy = world(workspaces=frozenset({"v"}))
    assert hierarchy.visible("alien", path="resource").gid == "alien"
    with pytest.raises(Forbidden) as refused:
        hierarchy.visible("bugs", path="resource")
    assert refused.value.message == "You do not have access to this project."
    assert no_access(WORLD[2]).message == "You do not have access to this team."


# -- creating and replacing ------------------------------------------------------------------------


def test_a_new_resource_finds_its_workspace() -> None:
    hierarchy = world()
    hierarchy.apply([draft("x", "task", "bugs")])
    assert hierarchy.changed == {"x": resource("x", "task", "bugs")}


def test_a_workspace_is_its_own() -> None:
    hierarchy = world()
    hierarchy.apply([draft("u", "workspace")])
    assert hierarchy.changed["u"].workspace == "u"


def test_what_stays_as_it_was_is_not_written() -> None:
    hierarchy = world()
    hierarchy.apply([draft("plans", "project", "team"), inline("bugs", "project")])
    assert hierarchy.changed == {}


def test_replacing_takes_away_what_is_left_out() -> None:
    hierarchy = world(resource("old", "task", "bugs", "plans", name="Old", subtype="x", deleted=True))
    hierarchy.apply([draft("old", "task", "plans")])
    assert hierarchy.changed["old"] == resource("old", "task", "plans")


def test_a_resource_put_without_parents_no_longer_leads_anywhere() -> None:
    error = refusal(world(), draft("task", "task"))
    assert error.code == "no_workspace"


def test_within_an_event_what_is_left_out_stays() -> None:
    before = resource("old", "task", "bugs", "plans", name="Old", subtype="x", deleted=True)
    hierarchy = world(before)
    hierarchy.apply([inline("old", "task", name="New")])
    assert hierarchy.changed["old"] == resource(
        "old", "task", "bugs", "plans", name="New", subtype="x", deleted=True
    )
    hierarchy.apply([inline("old", "task", parents=("plans",), subtype="y")])
    assert hierarchy.changed["old"] == resource("old", "task", "plans", name="New", subtype="y", deleted=True)


def test_parents_count_once_in_the_order_given() -> None:
    hierarchy = world()
    hierarchy.apply([draft("x", "task", "plans", "bugs", "plans")])
    assert hierarchy.changed["x"].parents == ("plans", "bugs")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_drafts_may_refer_forward(order: tuple[int, ...]) -> None:
    drafts = [draft("a", "workspace"), draft("b", "project", "a"), draft("c", "task", "b")]
    hierarchy = world()
    hierarchy.apply([drafts[place] for place in order])
    assert {gid: placed.workspace for gid, placed in hierarchy.changed.items()} == {
        "a": "a",
        "b": "a",
        "c": "a",
    }
    assert hierarchy.scopes("c", None) == ("c", "b")


@pytest.mark.parametrize("workspaces", [None, frozenset({"w"})])
def test_one_new_resource_may_be_described_several_times(workspaces: frozenset[str] | None) -> None:
    """As the events of one publish do; the last word counts, and what it leaves out is what was said before."""
    hierarchy = world(workspaces=workspaces)
    hierarchy.apply(
        [
            inline("x", "task", ("bugs",), name="One"),
            inline("x", "task", name="Two"),
            inline("x", "task", ("plans",)),
        ]
    )
    assert hierarchy.changed == {"x": resource("x", "task", "plans", name="Two")}


def test_a_move_shows_in_the_scopes_at_once() -> None:
    hierarchy = world()
    assert "bugs" in hierarchy.scopes("sub", None)
    hierarchy.apply([draft("task", "task", "plans")])
    assert set(hierarchy.scopes("sub", None)) == {"sub", "task", "plans"}


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "drafts",
    [
        [draft("x", "project", "x")],
        [draft("x", "project", "w", "x")],
        [draft("bugs", "project", "team", "task")],
        [draft("bugs", "project", "team", "note")],
        [draft("x", "project", "y"), draft("y", "project", "x")],
        [draft("x", "project", "w", "y"), draft("y", "project", "z"), draft("z", "project", "x")],
        [draft("team", "team", "w", "x"), draft("x", "project", "bugs")],
    ],
)
def test_nothing_gets_above_itself(drafts: list[ResourceDraft]) -> None:
    """Itself, through what is registered, or through several drafts."""
    assert refusal(world(), *drafts).code == "hierarchy_cycle"


@pytest.mark.parametrize(
    ("drafts", "message"),
    [
        ([draft("x", "task", "404")], "parents: Unknown object: 404"),
        ([draft("x", "task", "bugs", "nope")], "parents: Not a recognized ID: nope"),
        (
            [draft("x", "task", "y", path="[0]"), draft("y", "task", "404", path="[1]")],
            "[1]: parents: Unknown object: 404",
        ),
        (
            [draft("y", "task", "404", path="[0]"), draft("x", "task", "y", path="[1]")],
            "[0]: parents: Unknown object: 404",
        ),
    ],
)
def test_unknown_parents_are_named_where_they_stand(drafts: list[ResourceDraft], message: str) -> None:
    assert refusal(world(), *drafts).message == message


@pytest.mark.parametrize(
    ("drafts", "code"),
    [
        ([draft("x", "project", "bugs", "alien")], "second_workspace"),
        ([draft("x", "project", "w", "v")], "second_workspace"),
        ([draft("bugs", "project", "v")], "second_workspace"),
        ([draft("task", "task", "alien")], "second_workspace"),
        ([draft("task", "task", "x"), draft("x", "project", "v")], "second_workspace"),
        ([draft("team", "workspace")], "second_workspace"),
        ([draft("u", "workspace", "w")], "second_workspace"),
        ([draft("w", "workspace", "v")], "second_workspace"),
        ([draft("w", "team", "v")], "second_workspace"),
        ([draft("w", "team")], "no_workspace"),
        ([draft("x", "project")], "no_workspace"),
        ([draft("x", "project", "y"), draft("y", "project")], "no_workspace"),
    ],
)
def test_everything_leads_to_one_workspace_and_stays_there(drafts: list[ResourceDraft], code: str) -> None:
    assert refusal(world(), *drafts).code == code


def test_a_thousand_ancestors_may_be_given_and_no_more() -> None:
    chain = _chain(ANCESTORS_MAX)
    hierarchy = world(*chain)
    hierarchy.apply([draft("low", "task", f"c{ANCESTORS_MAX - 2}")])
    assert len(hierarchy.ancestors("low")) == ANCESTORS_MAX
    assert refusal(hierarchy, draft("lower", "task", f"c{ANCESTORS_MAX - 1}")).code == "too_many_ancestors"


@pytest.mark.parametrize(
    "drafts",
    [
        [draft("bugs", "project", "team")],
        [draft("x", "task", "bugs")],
        [draft("alien", "project", "v"), draft("x", "task", "bugs")],
        [draft("u", "workspace")],
        [draft("x", "task", "y"), draft("y", "project", "w")],
    ],
)
def test_a_token_of_another_workspace_changes_nothing(drafts: list[ResourceDraft]) -> None:
    assert isinstance(refusal(world(workspaces=frozenset({"v"})), *drafts), Forbidden)


gids = st.sampled_from(["w", "v", *"abcdef"])
graphs = st.lists(
    st.tuples(
        gids,
        st.sampled_from(["workspace", "team", "project", "task", "goal"]),
        st.lists(gids, max_size=3),
        st.booleans(),
    ),
    max_size=8,
)


@given(st.lists(graphs, max_size=4))
def test_whatever_is_applied_leaves_a_sound_hierarchy(
    batches: list[list[tuple[str, str, list[str], bool]]],
) -> None:
    """No draft makes it raise anything but a refusal; what is taken is acyclic, in one workspace each."""
    known: dict[str, Resource] = {
        "w": resource("w", "workspace"),
        "v": resource("v", "workspace", workspace="v"),
    }
    for batch in batches:
        hierarchy = Hierarchy(known.values(), workspaces=None)
        drafts = [
            inline(gid, kind, tuple(parents)) if keep else draft(gid, kind, *parents)
            for gid, kind, parents, keep in batch
        ]
        try:
            hierarchy.apply(drafts)
        except BadRequest:
            continue
        known |= hierarchy.changed
        view = Hierarchy(known.values(), workspaces=None)
        for placed in known.values():
            above = view.ancestors(placed.gid)
            assert placed.gid not in above
            tops = {gid for gid in (placed.gid, *above) if known[gid].resource_type == "workspace"}
            assert tops == {placed.workspace}
            scopes = view.scopes(placed.gid, None)
            assert set(scopes) <= {placed.gid, *above}
            if placed.resource_type in NEVER_RISE:
                assert not {known[gid].resource_type for gid in scopes} & LARGER_SCOPED
