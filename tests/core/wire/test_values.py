"""Single values out of a body: given, or named with what is wrong."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.wire import values


def message(read: Callable[[], object]) -> str:
    with pytest.raises(BadRequest) as refused:
        read()
    return refused.value.message


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "boolean"),
        (1, "number"),
        (1.5, "number"),
        ("", "string"),
        ([], "array"),
        ((), "array"),
        ({}, "object"),
    ],
)
def test_types_have_their_names_in_json(value: object, name: str) -> None:
    assert values.json_type(value) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        (17, "17"),
        ("a\nb\x00c", "a\ufffdb\ufffdc"),
        ("\u202eabc", "\ufffdabc"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 80 + "…"),
        ("é" * 1_000, "é" * 80 + "…"),
    ],
)
def test_wrong_values_are_repeated_within_bounds_on_one_line(value: object, text: str) -> None:
    assert values.shown(value) == text


def test_paths_join() -> None:
    assert values.join("", "action") == "action"
    assert values.join("filters: [0]", "action") == "filters: [0]: action"


@pytest.mark.parametrize(
    "gid", ["1", "1200890863508545", "a", "A-b_c.d", "x" * 64, "3f2b1c00-1111-4222-8333-abcdefabcdef"]
)
def test_gids_of_any_platform(gid: str) -> None:
    """Interface §5: 1 to 64 letters, digits, `-`, `_`, `.`."""
    assert values.gid(gid, "resource") == gid


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (17, "resource: Not a valid GID type: number"),
        (None, "resource: Not a valid GID type: null"),
        (["1"], "resource: Not a valid GID type: array"),
        ({"gid": "1"}, "resource: Not a valid GID type: object"),
        ("", "resource: Not a recognized ID: "),
        ("a b", "resource: Not a recognized ID: a b"),
        ("1\n", "resource: Not a recognized ID: 1\ufffd"),
        ("a/b", "resource: Not a recognized ID: a/b"),
        ("é", "resource: Not a recognized ID: é"),
        ("١", "resource: Not a recognized ID: ١"),
        ("x" * 65, "resource: Not a recognized ID: " + "x" * 65),
    ],
)
def test_wrong_gids_answer_in_the_recorded_words(value: object, expected: str) -> None:
    """Contract §2.2."""
    assert message(lambda: values.gid(value, "resource")) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (17, "t: expected a string, got number"),
        ("", "t: not a type name: "),
        ("a b", "t: not a type name: a b"),
        ("x" * 65, "t: not a type name: " + "x" * 65),
        ("task\n", "t: not a type name: task\ufffd"),
    ],
)
def test_wrong_type_names_are_named(value: object, expected: str) -> None:
    assert message(lambda: values.type_name(value, "t")) == expected
    assert message(lambda: values.optional_type_name(value, "t")) == expected


def test_type_names() -> None:
    assert values.type_name("x" * 64, "t") == "x" * 64
    assert values.optional_type_name("default_task", "t") == "default_task"
    assert values.optional_type_name(None, "t") is None


@pytest.mark.parametrize(
    ("value", "empty", "expected"),
    [
        (None, True, "t: expected a string, got null"),
        ([], False, "t: expected a string, got array"),
        ("", False, "t: must not be empty"),
        ("x" * 6, False, "t: at most 5 characters, not 6"),
        ("a\x00b", True, "t: must not contain a NUL character"),
    ],
)
def test_wrong_texts_are_named(value: object, empty: bool, expected: str) -> None:
    assert message(lambda: values.text(value, "t", chars_max=5, empty=empty)) == expected


@pytest.mark.parametrize(
    ("value", "empty"), [("", True), ("abcde", False), ("😀" * 5, False), ("\x01\n", False)]
)
def test_texts_are_taken_as_they_are(value: str, empty: bool) -> None:
    assert values.text(value, "t", chars_max=5, empty=empty) == value


def test_records_and_arrays() -> None:
    assert values.record({"a": 1}, "data") == {"a": 1}
    assert message(lambda: values.record([], "data")) == "data: expected an object, got array"
    assert values.array([1, 2], "list", length_max=2) == [1, 2]
    assert message(lambda: values.array({}, "list", length_max=2)) == "list: expected an array, got object"
    assert message(lambda: values.array([1, 2, 3], "list", length_max=2)) == "list: at most 2 entries, not 3"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", "limit: Must be between 1 and 100, not 0"),
        ("101", "limit: Must be between 1 and 100, not 101"),
        ("-5", "limit: Must be between 1 and 100, not -5"),
        ("", "limit: Not a number: "),
        ("-", "limit: Not a number: -"),
        ("--5", "limit: Not a number: --5"),
        ("+5", "limit: Not a number: +5"),
        ("5.0", "limit: Not a number: 5.0"),
        (" 5", "limit: Not a number:  5"),
        ("٥", "limit: Not a number: ٥"),
        ("1_0", "limit: Not a number: 1_0"),
        ("9" * 19, "limit: Must be between 1 and 100, not " + "9" * 19),
        ("9" * 5_000, "limit: Must be between 1 and 100, not " + "9" * 80 + "…"),
        ("0" * 5_000, "limit: Must be between 1 and 100, not " + "0" * 80 + "…"),
    ],
)
def test_numbers_of_a_query_string(value: str, expected: str) -> None:
    """Contract §12.10; whatever its length, cheap to refuse."""
    assert message(lambda: values.whole_number(value, "limit", low=1, high=100)) == expected


@pytest.mark.parametrize(
    ("read", "code"),
    [
        (lambda: values.gid(1, "t"), "invalid_gid_type"),
        (lambda: values.gid("a b", "t"), "unrecognized_id"),
        (lambda: values.type_name(1, "t"), "invalid_type"),
        (lambda: values.type_name("a b", "t"), "invalid_value"),
        (lambda: values.text(1, "t", chars_max=5), "invalid_type"),
        (lambda: values.text("", "t", chars_max=5), "invalid_value"),
        (lambda: values.record(1, "t"), "invalid_type"),
        (lambda: values.array(1, "t", length_max=1), "invalid_type"),
        (lambda: values.array([1, 2], "t", length_max=1), "too_many"),
        (lambda: values.whole_number("x", "t", low=1, high=2), "invalid_value"),
        (lambda: values.whole_number("3", "t", low=1, high=2), "invalid_value"),
    ],
)
def test_each_kind_of_mistake_has_its_code(read: Callable[[], object], code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read()
    assert refused.value.code == code


@given(st.integers(-(10**17) + 1, 10**17))
def test_numbers_below_nought_and_large_ones(number: int) -> None:
    """As a query string writes them, up to 18 characters."""
    assert values.whole_number(str(number), "t", low=-(10**17), high=10**17) == number


@given(st.integers(1, 100))
def test_numbers_within_bounds(number: int) -> None:
    assert values.whole_number(str(number), "limit", low=1, high=100) == number
