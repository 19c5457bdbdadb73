"""Filters: which events they accept, and where they may stand."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.matching import LARGER_SCOPED, NEVER_RISE, accepted, check_filters
from tidings.model import Action, Event, Filter, Traits


def event(
    resource_type: str = "task",
    subtype: str | None = "default_task",
    action: str = "changed",
    field: str | None = "name",
) -> Event:
    return Event(7, b"{}", Traits(resource_type, subtype, action, field))


# -- which events a filter accepts -----------------------------------------------------------------


def accepts(filters: Sequence[Filter], subject: Event) -> bool:
    (verdict,) = accepted(filters, [subject])
    return verdict


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Filter(), True),
        (Filter(resource_type="task"), True),
        (Filter(resource_type="story"), False),
        (Filter(resource_type="Task"), False),
        (Filter(resource_subtype="default_task"), True),
        (Filter(resource_subtype="milestone"), False),
        (Filter(action="changed"), True),
        (Filter(action="added"), False),
        (Filter(action="changed", fields=("name",)), True),
        (Filter(action="changed", fields=("due_on", "name")), True),
        (Filter(action="changed", fields=("due_on",)), False),
        (Filter(action="changed", fields=("nam",)), False),
        (Filter(resource_type="task", resource_subtype="milestone"), False),
        (Filter(resource_type="story", action="changed"), False),
        (
            Filter(resource_type="task", resource_subtype="default_task", action="changed", fields=("name",)),
            True,
        ),
    ],
)
def test_each_key_of_a_filter_counts_and_unset_ones_accept_all(entry: Filter, expected: bool) -> None:
    """Contract §5: unset filter keys match everything."""
    assert accepts([entry], event()) is expected


@pytest.mark.parametrize(
    ("subject", "entry"),
    [
        (event(subtype=None), Filter(resource_subtype="default_task")),
        (event(action="added", field=None), Filter(action="changed", fields=("name",))),
        (event(field=None), Filter(fields=("name",))),
    ],
)
def test_what_an_event_does_not_have_no_filter_finds(subject: Event, entry: Filter) -> None:
    assert not accepts([entry], subject)


def test_no_filters_accept_everything() -> None:
    assert accepts([], event())


def test_each_event_of_a_page_is_judged_for_itself() -> None:
    page = [event(field=name) for name in ("name", "notes", "due_on")]
    assert accepted([Filter(fields=("due_on",)), Filter(fields=("name",))], page) == [True, False, True]


filters = st.builds(
    Filter,
    resource_type=st.none() | st.sampled_from(["task", "story"]),
    resource_subtype=st.none() | st.sampled_from(["default_task", "milestone"]),
    action=st.none() | st.sampled_from([action.value for action in Action]),
    fields=st.none() | st.lists(st.sampled_from(["name", "due_on"]), min_size=1).map(tuple),
)
events = st.builds(
    event,
    st.sampled_from(["task", "story", "project"]),
    st.none() | st.sampled_from(["default_task", "milestone"]),
    st.sampled_from([action.value for action in Action]),
    st.none() | st.sampled_from(["name", "due_on", "notes"]),
)


@given(st.lists(filters, min_size=1, max_size=4), events)
def test_any_filter_is_enough(entries: list[Filter], subject: Event) -> None:
    """Several filters are a union, in whatever order they stand."""
    alone = [accepts([entry], subject) for entry in entries]
    assert accepts(entries, subject) is any(alone)
    assert accepts(entries[::-1], subject) is any(alone)


@given(filters, events)
def test_a_wider_filter_accepts_no_less(entry: Filter, subject: Event) -> None:
    if accepts([entry], subject):
        wider = Filter(resource_type=entry.resource_type, action=entry.action)
        assert accepts([wider], subject)
        assert accepts([Filter()], subject)


# -- where a filter may stand ----------------------------------------------------------------------


@pytest.mark.parametrize("resource_type", ["task", "project", "section", "goal", "something_of_ours"])
@pytest.mark.parametrize(
    "entries",
    [
        [],
        [Filter()],
        [Filter(resource_type="task")],
        [Filter(resource_type="project", action="added")],
        [Filter(action="changed", fields=("name",))],
    ],
)
def test_below_the_larger_scoped_all_is_allowed(resource_type: str, entries: list[Filter]) -> None:
    check_filters(entries, resource_type=resource_type)


@pytest.mark.parametrize("action", [None, "added", "deleted", "removed", "undeleted"])
@pytest.mark.parametrize("resource_type", ["task", "workspace"])
def test_fields_need_the_action_changed(action: str | None, resource_type: str) -> None:
    entries = [Filter(resource_type="project"), Filter(action=action, fields=("name",))]
    with pytest.raises(BadRequest) as refused:
        check_filters(entries, resource_type=resource_type)
    assert refused.value.code == "invalid_filter"
    assert refused.value.message.startswith("filters: [1]: fields: ")


@pytest.mark.parametrize("resource_type", sorted(LARGER_SCOPED))
@pytest.mark.parametrize(
    "entry",
    [
        Filter(resource_type="project"),
        Filter(resource_type="project", action="added"),
        Filter(resource_type="team_membership", action="removed"),
        Filter(resource_type="goal"),
        Filter(resource_type="something_of_ours", resource_subtype="x"),
    ],
)
def test_larger_scoped_take_what_rises(resource_type: str, entry: Filter) -> None:
    """A workspace webhook on added projects is recorded as accepted (contract §5)."""
    check_filters([entry], resource_type=resource_type)


@pytest.mark.parametrize("resource_type", sorted(LARGER_SCOPED))
@pytest.mark.parametrize(
    ("entries", "code", "at"),
    [
        ([], "filters_required", "filters: "),
        ([Filter()], "invalid_filter", "filters: [0]: resource_type: "),
        (
            [Filter(resource_type="project"), Filter(action="added")],
            "invalid_filter",
            "filters: [1]: resource_type: ",
        ),
        *(
            ([Filter(resource_type=never)], "invalid_filter", "filters: [0]: resource_type: ")
            for never in sorted(NEVER_RISE)
        ),
        (
            [Filter(resource_type="project", action="changed", fields=("name",))],
            "invalid_filter",
            "filters: [0]: fields: ",
        ),
    ],
)
def test_larger_scoped_refuse_what_cannot_come(
    resource_type: str, entries: list[Filter], code: str, at: str
) -> None:
    """Contract §12.9: filters are mandatory there, and the message says which one is wrong."""
    with pytest.raises(BadRequest) as refused:
        check_filters(entries, resource_type=resource_type)
    assert refused.value.code == code
    assert refused.value.message.startswith(at)
    assert "larger-scoped" in refused.value.message
    assert resource_type in refused.value.message
