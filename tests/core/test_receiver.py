"""The receiver kit: what the real service and Tidings send is taken, everything else is one error."""

import doctest
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_signing import RECORDED_BODY, RECORDED_SECRET
from tidings import receiver, signing
from tidings.receiver import Delivery, Handshake, VerificationError, receive

SECRET = "0123456789abcdef" * 4
OTHER = "f" * 64
HEARTBEAT = b'{"events":[]}'
NOW = 1_700_000_000


def signed(body: bytes, *secrets: str, at: int = NOW) -> dict[str, str]:
    """The headers of a delivery of Tidings."""
    return dict(
        signing.delivery_headers(
            secrets or (SECRET,), body, webhook="12", delivery="d-7", timestamp_seconds=at
        )
    )


def recorded(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The headers of a delivery of the real service."""
    signature = signing.signature(secret, body)
    return {"X-Hook-Signature": signature, "X-Asana-Request-Signature": signature}


def test_the_examples_of_the_documentation_are_true() -> None:
    result = doctest.testmod(receiver)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("name", ["X-Hook-Secret", "x-hook-secret", "X-HOOK-SECRET"])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"events":[]}', b"not json"])
def test_a_handshake_gives_the_secret_to_keep_and_to_echo(name: str, body: bytes) -> None:
    """Whatever its body: test suites of the real service show three (contract §1.3)."""
    handshake = receive({name: SECRET}, body, secret=None)
    assert handshake == Handshake(SECRET)
    assert handshake.answer_headers == {"X-Hook-Secret": SECRET}
    assert SECRET not in repr(handshake)


@pytest.mark.parametrize("secret", [SECRET, [SECRET, OTHER]])
@pytest.mark.parametrize("offered", [SECRET, OTHER])
def test_a_second_handshake_is_refused_unless_asked_for(secret: Any, offered: str) -> None:
    with pytest.raises(VerificationError, match="known already"):
        receive({"X-Hook-Secret": offered}, b"{}", secret=secret)
    assert receive({"X-Hook-Secret": offered}, b"{}", secret=secret, rehandshake=True) == Handshake(offered)


@pytest.mark.parametrize("offered", ["", " ", "a b", "a\r\nSet-Cookie: x", "\x00", "é", "\udcff", "x" * 257])
def test_a_malformed_secret_is_never_echoed(offered: str) -> None:
    with pytest.raises(VerificationError):
        receive({"X-Hook-Secret": offered}, b"{}", secret=None)


def test_a_recorded_delivery_of_the_real_service_is_taken() -> None:
    delivery = receive(recorded(RECORDED_BODY, RECORDED_SECRET), RECORDED_BODY, secret=RECORDED_SECRET)
    assert isinstance(delivery, Delivery)
    assert [event["change"]["field"] for event in delivery.events] == ["completed", "completed_at"]
    assert (delivery.webhook, delivery.delivery_id, delivery.heartbeat) == (None, None, False)


@pytest.mark.parametrize("name", ["x-hook-signature", "X-ASANA-REQUEST-SIGNATURE"])
def test_either_of_the_two_headers_will_do(name: str) -> None:
    headers = [(name, signing.signature(SECRET, HEARTBEAT)), ("Accept", "a"), ("Accept", "b")]
    delivery = receive(headers, HEARTBEAT, secret=SECRET)
    assert delivery == Delivery(())
    assert delivery.heartbeat


def test_a_delivery_of_tidings_tells_its_id_and_its_webhook() -> None:
    body = '{"events":[{"a":"é/\\""}]}'.encode()
    assert receive(signed(body), body, secret=SECRET) == Delivery(({"a": 'é/"'},), "12", "d-7")


@pytest.mark.parametrize("known", [SECRET, OTHER, [SECRET, OTHER], [OTHER, SECRET], ("e" * 64, OTHER)])
def test_while_secrets_overlap_either_is_enough(known: Any) -> None:
    assert isinstance(receive(signed(HEARTBEAT, SECRET, OTHER), HEARTBEAT, secret=known), Delivery)


@pytest.mark.parametrize("headers", [signed(HEARTBEAT), recorded(HEARTBEAT)])
@pytest.mark.parametrize("known", [None, [], OTHER, [OTHER, "e" * 64]])
def test_a_delivery_by_an_unknown_secret_is_refused(headers: dict[str, str], known: Any) -> None:
    with pytest.raises(VerificationError):
        receive(headers, HEARTBEAT, secret=known)


@pytest.mark.parametrize("age", [-300, -1, 0, 1, 300])
def test_a_fresh_delivery_is_taken(age: int) -> None:
    assert isinstance(receive(signed(HEARTBEAT), HEARTBEAT, secret=SECRET, now=NOW + age), Delivery)


@pytest.mark.parametrize(
    ("headers", "now", "tolerance"),
    [
        (signed(HEARTBEAT), NOW + 301, 300.0),
        (signed(HEARTBEAT), NOW - 301, 300.0),
        (signed(HEARTBEAT), NOW + 2, 1.0),
        (recorded(HEARTBEAT), NOW, 300.0),
    ],
)
def test_a_stale_delivery_is_refused_when_asked_to(
    headers: dict[str, str], now: float, tolerance: float
) -> None:
    assert receive(headers, HEARTBEAT, secret=SECRET)
    with pytest.raises(VerificationError):
        receive(headers, HEARTBEAT, secret=SECRET, now=now, tolerance=tolerance)


def replaced(**changes: str | None) -> dict[str, str]:
    """The headers of a genuine heartbeat of Tidings, some replaced or taken away."""
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    kept = {name: value for name, value in signed(HEARTBEAT).items() if name not in changed}
    return kept | {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hook-Signature": ""},
        {"X-Hook-Signature": "sha256=" + signing.signature(SECRET, HEARTBEAT)},
        {"X-Hook-Signature": signing.signature(SECRET, HEARTBEAT).upper()},
        {"X-Hook-Signature": "é"},
        {"X-Hook-Signature": "\ud800"},
        recorded(HEARTBEAT) | {"X-Hook-Secret": SECRET},
        [("X-Hook-Signature", signing.signature(SECRET, HEARTBEAT)), ("x-hook-signature", "0")],
        [("X-Hook-Secret", SECRET), ("x-hook-secret", OTHER)],
        replaced(webhook_id="d-8"),
        replaced(webhook_id=None),
        replaced(webhook_id="a b"),
        replaced(webhook_id="x" * 257),
        replaced(webhook_timestamp=str(NOW + 1)),
        replaced(webhook_timestamp=None),
        replaced(webhook_timestamp="-1"),
        replaced(webhook_timestamp="1e9"),
        replaced(webhook_timestamp="²"),
        replaced(webhook_timestamp="9" * 5_000),
        replaced(webhook_signature=""),
        replaced(webhook_signature="v1"),
        replaced(webhook_signature="v1,"),
        replaced(webhook_signature="v1,é \udcff"),
        replaced(webhook_signature="v1a,AAAA v1,AAAA"),
        replaced(webhook_signature=" ".join(["v1,x"] * 17)),
    ],
)
@pytest.mark.parametrize("known", [SECRET, None])
def test_every_hostile_header_ends_in_the_one_error(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], known: str | None
) -> None:
    with pytest.raises(VerificationError):
        receive(headers, HEARTBEAT, secret=known)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"events"',
        b'{"events":null}',
        b'{"events":{}}',
        b'{"events":[1]}',
        b'{"events":[null]}',
        b'{"data":[]}',
        b'{"events":[NaN]}',
        b'{"events":[{"a":Infinity}]}',
        b'{"events":[{"a":"\xff"}]}',
        b'\xef\xbb\xbf{"events":[]}',
        '{"events":[]}'.encode("utf-16"),
        b'{"events":[]}x',
        b'{"events":[{"a":' + b"9" * 5_000 + b"}]}",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_signed_but_broken_ends_in_the_same_error(body: bytes) -> None:
    with pytest.raises(VerificationError):
        receive(recorded(body), body, secret=SECRET)


def test_an_empty_object_is_taken_as_a_heartbeat() -> None:
    assert receive(recorded(b"{}"), b"{}", secret=SECRET) == Delivery(())


def test_a_body_beyond_the_bound_is_not_even_hashed() -> None:
    with pytest.raises(VerificationError, match="too large"):
        receive(recorded(HEARTBEAT), b" " * (receiver.BODY_BYTES_MAX + 1), secret=SECRET)


def test_nothing_is_parsed_before_it_is_verified() -> None:
    """A body that cannot be parsed is refused for its signature, not for its form."""
    with pytest.raises(VerificationError, match="signature"):
        receive({"X-Hook-Signature": "0" * 64}, b"[" * 100_000, secret=SECRET)


@pytest.mark.parametrize("secret", ["", [""], [SECRET, ""], "é", "a b", "x" * 257, [SECRET] * 17])
def test_a_secret_that_only_a_mistake_explains_is_an_error_of_the_program(secret: Any) -> None:
    with pytest.raises(ValueError, match="secret"):
        receive(signed(HEARTBEAT), HEARTBEAT, secret=secret)


@pytest.mark.parametrize("body", ['{"events":[]}', {"events": []}, None])
def test_a_body_that_is_not_bytes_is_an_error_of_the_program(body: Any) -> None:
    with pytest.raises(TypeError, match="as it arrived"):
        receive(recorded(HEARTBEAT), body, secret=SECRET)


names = st.sampled_from(
    ["X-Hook-Secret", "X-Hook-Signature", "webhook-id", "webhook-timestamp", "webhook-signature", "Host"]
)
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(list(signed(HEARTBEAT).values()))


@given(st.lists(st.tuples(names, texts)), st.binary() | st.just(HEARTBEAT), st.booleans())
def test_nothing_but_the_one_error_escapes(headers: list[tuple[str, str]], body: bytes, know: bool) -> None:
    try:
        received = receive(headers, body, secret=SECRET if know else None, now=NOW)
    except VerificationError as error:
        assert str(error)
    else:
        assert isinstance(received, Delivery if know else Handshake)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(), st.lists))
def test_what_is_signed_is_what_is_received(value: Any) -> None:
    body = json.dumps({"events": [{"value": value}]}).encode()
    delivery = receive(signed(body), body, secret=SECRET, now=NOW)
    assert isinstance(delivery, Delivery)
    assert delivery.events == ({"value": value},)
