"""`opt_fields`: exactly what was named, and the gid."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.limits import OPT_FIELD_DEPTH_MAX, OPT_FIELDS_MAX
from tidings.wire import fields

RECORD: dict[str, object] = {
    "gid": "17",
    "resource_type": "webhook",
    "active": True,
    "resource": {
        "gid": "1",
        "resource_type": "project",
        "name": "Bugs",
        "workspace": {"gid": "w", "name": "W"},
    },
    "target": "https://receiver.example/",
    "last_failure_at": None,
    "filters": [
        {"resource_type": "task", "resource_subtype": None, "action": "changed", "fields": ["name"]},
        {"resource_type": "story", "resource_subtype": None, "action": None, "fields": None},
    ],
}
WORKSPACE = {"gid": "w", "name": "W"}
COMPACT = {"gid": "1", "resource_type": "project", "name": "Bugs"}


def selected(text: str) -> dict[str, object]:
    return fields.select(RECORD, fields.parse(text.split(",")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the gid is always there, and nothing else is
        ("", {}),
        (",,", {}),
        ("gid", {}),
        ("target", {"target": RECORD["target"]}),
        ("target,active", {"active": True, "target": RECORD["target"]}),
        (" target , active ", {"active": True, "target": RECORD["target"]}),
        ("target,target", {"target": RECORD["target"]}),
        ("last_failure_at", {"last_failure_at": None}),
        # objects: their compact form, or what is named of them
        ("resource", {"resource": COMPACT}),
        ("resource.name", {"resource": {"gid": "1", "name": "Bugs"}}),
        ("resource.gid", {"resource": {"gid": "1"}}),
        ("resource.workspace", {"resource": {"gid": "1", "workspace": {"gid": "w", "name": "W"}}}),
        ("resource.workspace.name", {"resource": {"gid": "1", "workspace": {"gid": "w", "name": "W"}}}),
        ("resource,resource.name", {"resource": COMPACT}),
        ("resource.name,resource", {"resource": COMPACT}),
        ("resource,resource.workspace", {"resource": {**COMPACT, "workspace": {"gid": "w", "name": "W"}}}),
        # filters have no gid
        ("filters", {"filters": RECORD["filters"]}),
        ("filters.action", {"filters": [{"action": "changed"}, {"action": None}]}),
        ("filters,filters.action", {"filters": RECORD["filters"]}),
        ("filters.gid", {"filters": [{}, {}]}),
        # syntax
        ("this.target", {"target": RECORD["target"]}),
        ("this.resource.name", {"resource": {"gid": "1", "name": "Bugs"}}),
        ("(target|active)", {"active": True, "target": RECORD["target"]}),
        ("this.(target|active)", {"active": True, "target": RECORD["target"]}),
        ("this.(resource|owner).name", {"resource": {"gid": "1", "name": "Bugs"}}),
        (
            "filters.(action|resource_type)",
            {
                "filters": [
                    {"resource_type": "task", "action": "changed"},
                    {"resource_type": "story", "action": None},
                ]
            },
        ),
        # names nobody knows, and noise
        ("followers,assignee", {}),
        ("offset,path,uri", {}),
        ("resource.nothing", {"resource": {"gid": "1"}}),
        ("target.name", {"target": RECORD["target"]}),
        ("this", {}),
        ("this.", {}),
        ("()", {}),
        ("(", {}),
        (")", {}),
        ("(|)", {}),
        ("...", {}),
        ("(target", {"target": RECORD["target"]}),
        (".target.", {"target": RECORD["target"]}),
        ("resource..name", {"resource": {"gid": "1", "name": "Bugs"}}),
        (
            "resource.(name|workspace).name",
            {"resource": {"gid": "1", "name": "Bugs", "workspace": WORKSPACE}},
        ),
        (
            "(resource|filters).(name|action)",
            {
                "resource": {"gid": "1", "name": "Bugs"},
                "filters": [{"action": "changed"}, {"action": None}],
            },
        ),
        ("this.this.target", {}),
        ("THIS.target", {}),
        ("Target", {}),
    ],
)
def test_exactly_what_was_named_and_the_gid(text: str, expected: dict[str, object]) -> None:
    """Contract §3."""
    assert selected(text) == {"gid": "17", **expected}


def test_all_the_reference_names_gives_all_there_is() -> None:
    """Who copies the reference's list of values loses nothing by its naming parts beside wholes."""
    everything = (
        "active,filters,filters.action,filters.fields,filters.resource_subtype,resource,resource.name,target"
    )
    assert selected(everything)["filters"] == RECORD["filters"]
    assert selected(everything)["resource"] == COMPACT


def test_the_records_own_order_is_kept() -> None:
    assert list(selected("target,resource,active")) == ["gid", "active", "resource", "target"]


def test_a_record_without_a_gid_gets_none() -> None:
    assert fields.select({"a": 1, "b": 2}, fields.parse(["a"])) == {"a": 1}


@pytest.mark.parametrize(
    "names",
    [
        ["a"] * (OPT_FIELDS_MAX + 1),
        ["(" + "|".join("a" * (OPT_FIELDS_MAX + 1)) + ")"],
        [".".join(["(a|b|c|d|e|f|g|h)"] * OPT_FIELD_DEPTH_MAX)],
        [".".join("a" * (OPT_FIELD_DEPTH_MAX + 1))],
        [".".join(["a"] * 100_000)],
    ],
)
def test_more_than_can_be_meant_is_refused_cheaply(names: list[str]) -> None:
    with pytest.raises(BadRequest) as refused:
        fields.parse(names)
    assert refused.value.message.startswith("opt_fields: ")


def test_as_much_as_can_be_meant_is_taken() -> None:
    assert fields.parse(["a"] * OPT_FIELDS_MAX)
    assert fields.parse([".".join("a" * OPT_FIELD_DEPTH_MAX)])


names = st.sampled_from(
    ["gid", "target", "resource", "filters", "name", "action", "workspace", "resource_type", "nobody"]
)
paths = st.lists(names, min_size=1, max_size=4)


@given(st.lists(paths, max_size=6), st.randoms(use_true_random=False))
def test_order_repetition_and_this_make_no_difference(named: list[list[str]], dice: Random) -> None:
    plain = [".".join(path) for path in named]
    shuffled = [dice.choice(["", "this."]) + path for path in plain * 2]
    dice.shuffle(shuffled)
    expected = fields.select(RECORD, fields.parse(plain))
    assert fields.select(RECORD, fields.parse(shuffled)) == expected


@given(st.lists(st.lists(names, min_size=1, max_size=3, unique=True), min_size=1, max_size=4))
def test_a_group_is_its_paths_one_by_one(segments: list[list[str]]) -> None:
    """`this.(a|b).c` is `a.c,b.c`."""
    grouped = "this." + ".".join(f"({'|'.join(segment)})" for segment in segments)
    spelt_out = [".".join(path) for path in product(*segments)]
    assert fields.parse([grouped]) == fields.parse(spelt_out)


@given(st.lists(paths, max_size=5), paths)
def test_naming_more_never_takes_anything_away(named: list[list[str]], more: list[str]) -> None:
    """An object and its parts beside each other are both told."""
    few = [".".join(path) for path in named]
    assert covers(
        fields.select(RECORD, fields.parse([*few, ".".join(more)])), fields.select(RECORD, fields.parse(few))
    )


def covers(more: object, less: object) -> bool:
    """Whether everything `less` says is said by `more`."""
    if isinstance(more, dict) and isinstance(less, dict):
        return all(key in more and covers(more[key], value) for key, value in less.items())
    if isinstance(more, list) and isinstance(less, list):
        return len(more) == len(less) and all(map(covers, more, less))
    return more == less


@given(st.text(alphabet="ab.|()this, ", max_size=40))
def test_no_text_gives_more_than_the_record_holds(text: str) -> None:
    record: dict[str, object] = {"gid": "1", "a": {"gid": "2", "b": 1, "name": "n"}, "b": [{"a": 1}]}
    try:
        named = fields.parse(text.split(","))
    except BadRequest:
        # Too deep: it gives nothing at all.
        return
    got = fields.select(record, named)
    assert got["gid"] == "1"
    assert got.keys() <= record.keys()
