"""The bytes of a request, and that no header can end, split or redefine it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.targets import Rules, parse_target
from tidings.transport.request import Destination, render

OPENING = Destination.of(parse_target("https://example.com/hook?a=1", Rules())).opening


def test_a_request_byte_for_byte() -> None:
    headers = (("Content-Type", "application/json"), ("X-Hook-Secret", "abc"))
    assert render(OPENING, headers, b'{"events":[]}') == (
        b"POST /hook?a=1 HTTP/1.1\r\n"
        b"Host: example.com\r\n"
        b"Content-Type: application/json\r\n"
        b"X-Hook-Secret: abc\r\n"
        b"Content-Length: 13\r\n"
        b"\r\n"
        b'{"events":[]}'
    )


def test_an_empty_body_has_a_length_too() -> None:
    assert render(OPENING, (), b"").endswith(b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "value", ["a\r\nX: y", "a\nb", "a\rb", "a\x00b", "a\tb", "a\x7fb", "é", "\u2028", "\x85", "a\udc80"]
)
def test_a_value_that_could_split_the_request_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="X-Hook-Secret"):
        render(OPENING, (("X-Hook-Secret", value),), b"")


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "A\n", "é", "A\x00", "(a)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a header name"):
        render(OPENING, ((name, "v"),), b"")


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Expect", "Upgrade", "TE"]
)
def test_what_frames_the_request_is_not_the_callers_to_say(name: str) -> None:
    with pytest.raises(ValueError, match="itself"):
        render(OPENING, ((name, "v"),), b"")


@given(st.text(max_size=20), st.text(max_size=40))
def test_whatever_is_accepted_adds_exactly_one_line(name: str, value: str) -> None:
    try:
        request = render(OPENING, ((name, value),), b"")
    except ValueError:
        return
    lines = request.split(b"\r\n")
    assert lines[2] == f"{name}: {value}".encode()
    assert len(lines) == 6
    assert request.count(b"\r") == request.count(b"\n") == 5
