"""Resources as publishers describe them, and as they are told."""

from collections.abc import Callable

import pytest

from tidings.errors import BadRequest
from tidings.limits import NAME_CHARS_MAX, PARENTS_MAX, RESOURCES_PER_PUT_MAX
from tidings.model import Resource, ResourceDraft
from tidings.wire import resources
from tidings.wire.bodies import Body

FULL: dict[str, object] = {
    "resource_type": "task",
    "resource_subtype": "milestone",
    "name": "Ship",
    "parents": ["1", "2"],
    "workspace": "ignored",
}


def message(read: Callable[[], object]) -> str:
    with pytest.raises(BadRequest) as refused:
        read()
    return refused.value.message


@pytest.mark.parametrize(
    ("data", "draft"),
    [
        (
            FULL,
            ResourceDraft(
                gid="9", resource_type="task", resource_subtype="milestone", name="Ship", parents=("1", "2")
            ),
        ),
        (
            {**FULL, "gid": "9", "name": "", "parents": []},
            ResourceDraft(gid="9", resource_type="task", resource_subtype="milestone", name="", parents=()),
        ),
        ({"resource_type": "workspace"}, ResourceDraft(gid="9", resource_type="workspace")),
        (
            {"resource_type": "task", "resource_subtype": None, "name": None, "parents": None},
            ResourceDraft(gid="9", resource_type="task"),
        ),
    ],
)
def test_put_describes_one_resource(data: dict[str, object], draft: ResourceDraft) -> None:
    assert resources.parse_put(Body(data), "9") == draft


@pytest.mark.parametrize(
    ("data", "gid", "expected"),
    [
        (None, "9", "resource_type: Missing input"),
        ([], "9", "data: expected an object, got array"),
        ({"name": "x"}, "9", "resource_type: Missing input"),
        ({"resource_type": 7}, "9", "resource_type: expected a string, got number"),
        ({"resource_type": "a b"}, "9", "resource_type: not a type name: a b"),
        ({**FULL, "gid": "8"}, "9", "gid: 8 is not the gid of the path, 9"),
        ({**FULL, "gid": 9}, "9", "gid: 9 is not the gid of the path, 9"),
        (FULL, "a b", "resource: Not a recognized ID: a b"),
        ({**FULL, "resource_subtype": ""}, "9", "resource_subtype: not a type name: "),
        ({**FULL, "name": 7}, "9", "name: expected a string, got number"),
        ({**FULL, "name": "x" * (NAME_CHARS_MAX + 1)}, "9", "name: at most 1024 characters, not 1025"),
        ({**FULL, "name": "a\x00"}, "9", "name: must not contain a NUL character"),
        ({**FULL, "parents": "1"}, "9", "parents: expected an array, got string"),
        ({**FULL, "parents": ["1", 2]}, "9", "parents: [1]: Not a valid GID type: number"),
        ({**FULL, "parents": ["1"] * (PARENTS_MAX + 1)}, "9", "parents: at most 100 entries, not 101"),
    ],
)
def test_put_names_what_is_wrong(data: object, gid: str, expected: str) -> None:
    assert message(lambda: resources.parse_put(Body(data), gid)) == expected


def test_bulk_describes_several_each_by_its_place() -> None:
    entries = [
        {"gid": "1", "resource_type": "workspace"},
        {"gid": "2", "resource_type": "task", "parents": ["1"]},
    ]
    assert resources.parse_bulk(Body(entries)) == (
        ResourceDraft(gid="1", resource_type="workspace", path="[0]"),
        ResourceDraft(gid="2", resource_type="task", parents=("1",), path="[1]"),
    )
    assert resources.parse_bulk(Body(entries[0])) == (ResourceDraft(gid="1", resource_type="workspace"),)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "data: Missing input"),
        ([], "data: must not be empty"),
        ([1], "[0]: expected an object, got number"),
        ([{"resource_type": "task"}], "[0]: gid: Missing input"),
        ({"resource_type": "task"}, "gid: Missing input"),
        ([{"gid": 1, "resource_type": "task"}], "[0]: gid: Not a valid GID type: number"),
        ([{"gid": "1"}], "[0]: resource_type: Missing input"),
        (
            [{"gid": "1", "resource_type": "task"}, {"gid": "1", "resource_type": "task"}],
            "[1]: gid: 1 stands here twice",
        ),
        ([{}] * (RESOURCES_PER_PUT_MAX + 1), "data: at most 1000 entries, not 1001"),
    ],
)
def test_bulk_names_what_is_wrong(data: object, expected: str) -> None:
    assert message(lambda: resources.parse_bulk(Body(data))) == expected


@pytest.mark.parametrize(
    ("value", "described"),
    [
        ("7", None),
        ({"gid": "7"}, None),
        ({"gid": "7", "whatever": 1}, None),
        (
            {"gid": "7", "resource_type": "task"},
            ResourceDraft(gid="7", resource_type="task", keep_omitted=True, path="r"),
        ),
        (
            {"gid": "7", **FULL},
            ResourceDraft(
                gid="7",
                resource_type="task",
                resource_subtype="milestone",
                name="Ship",
                parents=("1", "2"),
                keep_omitted=True,
                path="r",
            ),
        ),
    ],
)
def test_within_an_event_a_gid_or_a_description(value: object, described: ResourceDraft | None) -> None:
    drafts: list[ResourceDraft] = []
    assert resources.parse_inline(value, "r", drafts) == "7"
    assert drafts == ([] if described is None else [described])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "r: Not a valid GID type: number"),
        ([], "r: Not a valid GID type: array"),
        ({}, "r: gid: Missing input"),
        ({"gid": 7}, "r: gid: Not a valid GID type: number"),
        ({"gid": "7", "name": "x"}, "r: resource_type: Missing input"),
        ({"gid": "7", "resource_type": None}, "r: resource_type: Missing input"),
    ],
)
def test_within_an_event_what_is_wrong_is_named(value: object, expected: str) -> None:
    assert message(lambda: resources.parse_inline(value, "r", [])) == expected


def test_the_record_of_a_resource() -> None:
    resource = Resource(
        gid="7",
        resource_type="task",
        resource_subtype="x",
        name="N",
        parents=("1", "2"),
        workspace="w",
        deleted=True,
    )
    assert resources.render(resource) == {
        "gid": "7",
        "resource_type": "task",
        "resource_subtype": "x",
        "name": "N",
        "parents": ["1", "2"],
        "workspace": {"gid": "w", "resource_type": "workspace"},
        "deleted": True,
    }
