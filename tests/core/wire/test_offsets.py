"""Page tokens: ours, for this query, for half an hour."""

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.limits import OFFSET_LIFETIME
from tidings.wire import offsets

KEY = b"k" * 32
NOW = 1_800_000_000_000_000
QUERY = "user 1/workspace 2"


def read(token: str, *, query: str = QUERY, now: int = NOW, key: bytes = KEY) -> int:
    return offsets.read(token, query=query, now=now, key=key)


def refusal(token: str, *, query: str = QUERY, now: int = NOW, key: bytes = KEY) -> str:
    with pytest.raises(BadRequest) as refused:
        read(token, query=query, now=now, key=key)
    return refused.value.message


INVALID = "offset: Your pagination token is invalid."
EXPIRED = "offset: Your pagination token has expired."
TOKEN = offsets.issue(17, query=QUERY, now=NOW, key=KEY)


@given(st.integers(0, 2**63), st.text(max_size=40))
def test_a_token_leads_back(after: int, query: str) -> None:
    token = offsets.issue(after, query=query, now=NOW, key=KEY)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")
    assert read(token, query=query) == after


@pytest.mark.parametrize(
    ("later", "answer"),
    [
        (-OFFSET_LIFETIME, None),
        (0, None),
        (OFFSET_LIFETIME - 1, None),
        (OFFSET_LIFETIME, EXPIRED),
        (10**15, EXPIRED),
    ],
)
def test_it_lives_half_an_hour(later: int, answer: str | None) -> None:
    """Contract §12.13, in the recorded words."""
    if answer is None:
        assert read(TOKEN, now=NOW + later) == 17
    else:
        assert refusal(TOKEN, now=NOW + later) == answer


@pytest.mark.parametrize("query", ["", "user 1/workspace 3", QUERY + " ", "user 1"])
def test_it_is_good_for_its_own_query_only(query: str) -> None:
    assert refusal(TOKEN, query=query) == INVALID


def test_another_key_did_not_issue_it() -> None:
    assert refusal(TOKEN, key=b"x" * 32) == INVALID
    assert refusal(TOKEN, key=b"x" * 32, now=NOW + 10 * OFFSET_LIFETIME) == INVALID


@pytest.mark.parametrize(("now", "code"), [(-1, "invalid_offset"), (OFFSET_LIFETIME, "expired_offset")])
def test_programs_can_tell_the_two_apart(now: int, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(TOKEN if now > 0 else "x", now=NOW + now)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "17",
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN + "!",
        " " + TOKEN,
        TOKEN[:20] + "\n" + TOKEN[20:],
        "é",
        "A" * 43,
        "A" * 10_000,
    ],
)
def test_what_was_not_issued_is_invalid(token: str) -> None:
    assert refusal(token) == INVALID


@pytest.mark.parametrize("last", sorted({*string.ascii_letters, *string.digits, "-", "_"} - {TOKEN[-1]}))
def test_no_other_last_character_says_the_same(last: str) -> None:
    """Two of its bits mean nothing: they are not free to choose."""
    assert refusal(TOKEN[:-1] + last) == INVALID


@given(st.integers(0, len(TOKEN) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_one_changed_character_makes_it_invalid(place: int, char: str) -> None:
    tampered = TOKEN[:place] + char + TOKEN[place + 1 :]
    if tampered != TOKEN:
        assert refusal(tampered) == INVALID


RAW = urlsafe_b64decode(TOKEN + "=")


@pytest.mark.parametrize("place", range(len(RAW)))
def test_one_changed_byte_makes_it_invalid(place: int) -> None:
    """Sequence, expiry and tag alike, every value of every byte: never "expired", never another page."""
    for byte in set(range(256)) - {RAW[place]}:
        tampered = urlsafe_b64encode(RAW[:place] + bytes([byte]) + RAW[place + 1 :]).rstrip(b"=").decode()
        assert refusal(tampered) == INVALID


@pytest.mark.parametrize("length", [*range(len(RAW)), len(RAW) + 1, 2 * len(RAW)])
def test_cut_or_continued_it_is_invalid(length: int) -> None:
    assert refusal(urlsafe_b64encode((RAW * 2)[:length]).rstrip(b"=").decode()) == INVALID


def test_nothing_of_one_token_serves_in_another() -> None:
    """Neither a later expiry nor another sequence can be lent."""
    other = urlsafe_b64decode(offsets.issue(18, query=QUERY, now=NOW + 1, key=KEY) + "=")
    for start, end in ((0, 8), (8, 16), (16, 32), (0, 16), (8, 32)):
        mixed = RAW[:start] + other[start:end] + RAW[end:]
        assert refusal(urlsafe_b64encode(mixed).rstrip(b"=").decode()) == INVALID


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_refusal(token: str) -> None:
    assert refusal(token) == INVALID
