"""Times as text, there and back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.wire import times

RECORDED = 1_630_418_587_687_000  # 2021-08-31T14:03:07.687Z, contract §1.1
LAST = 253_402_300_799_999_999


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.000Z"),
        (1_000, "1970-01-01T00:00:00.001Z"),
        (RECORDED, "2021-08-31T14:03:07.687Z"),
        (RECORDED + 999, "2021-08-31T14:03:07.687Z"),
        (LAST, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_written_with_three_decimals_cut(at: int, text: str) -> None:
    """Contract §1.1: always three."""
    assert times.render(at) == text
    assert times.render_optional(at) == text


def test_no_instant_is_null() -> None:
    assert times.render_optional(None) is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2021-08-31T14:03:07.687Z", RECORDED),
        ("2021-08-31T14:03:07.687+00:00", RECORDED),
        ("2021-08-31T16:03:07.687+02:00", RECORDED),
        ("2021-08-31T05:33:07.687-08:30", RECORDED),
        ("2021-08-31 14:03:07.687Z", RECORDED),
        ("2021-08-31T14:03:07.687999Z", RECORDED + 999),
        ("2021-08-31T14:03:07Z", RECORDED - 687_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("9999-12-31T23:59:59.999999Z", LAST),
    ],
)
def test_an_instant_is_read_with_its_offset(text: str, at: int) -> None:
    assert times.parse(text, "created_at") == at


@pytest.mark.parametrize(
    "value",
    [
        None,
        17,
        1.5,
        True,
        [],
        {},
        "",
        "yesterday",
        "2021-08-31",
        "2021-08-31T14:03:07.687",
        "2021-13-31T14:03:07Z",
        "2021-02-30T14:03:07Z",
        "2021-08-31T25:03:07Z",
        "2021-08-31T14:03:07+99:00",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+12:00",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:00-00:01",
        "9999-12-31T23:59:59-23:59",
        "2021-08-31T14:03:07.687Z" + " " * 40,
        "２０２１-08-31T14:03:07Z",
        "1630418587",
    ],
)
def test_what_is_no_instant_is_refused_by_name(value: object) -> None:
    """No offset, no such day, or out of what can be written again: never an error of ours."""
    with pytest.raises(BadRequest) as refused:
        times.parse(value, "[3]: created_at")
    assert refused.value.code == "invalid_time"
    assert refused.value.message == (
        "[3]: created_at: expected a time with its offset, such as 2026-02-22T02:06:58.158Z"
    )


@given(st.integers(0, LAST))
def test_there_and_back_loses_less_than_a_millisecond(at: int) -> None:
    assert times.parse(times.render(at), "") == at // 1_000 * 1_000


@given(st.integers(0, LAST // 2), st.integers(-14 * 60, 14 * 60))
def test_any_offset_names_the_same_instant(at: int, minutes: int) -> None:
    whole = at + 15 * 3_600 * 1_000_000
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=whole)
    text = (moment + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    sign = "-" if minutes < 0 else "+"
    zone = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    assert times.parse(text + zone, "") == whole


@given(st.text(max_size=45))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    try:
        times.render(times.parse(text, "x"))
    except BadRequest as refused:
        assert refused.code == "invalid_time"
