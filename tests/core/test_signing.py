"""Signatures: recorded vectors, both directions, hostile headers."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings import __version__, signing

# Recorded traffic of the real service and a computed heartbeat (contract §6).
RECORDED_SECRET = "cfecd97ea57de2b55a0a1a343c16fe3e"
RECORDED_BODY = (
    b'{"events":[{"user":{"gid":"1198829643564474","resource_type":"user"},'
    b'"created_at":"2021-10-29T02:44:21.987Z","action":"changed","parent":null,'
    b'"change":{"field":"completed","action":"changed"},'
    b'"resource":{"gid":"1199170056173519","resource_type":"task","resource_subtype":"default_task"}},'
    b'{"user":{"gid":"1198829643564474","resource_type":"user"},'
    b'"created_at":"2021-10-29T02:44:21.987Z","action":"changed",'
    b'"resource":{"gid":"1199170056173519","resource_type":"task","resource_subtype":"default_task"},'
    b'"parent":null,"change":{"field":"completed_at","action":"changed"}}]}'
)
GOLDEN = [
    (RECORDED_BODY, "11c89fb59db2a2cfe5eef26a3d7dc77d3ad0bbdd7f23700d7aff2fe6ff8e2581"),
    (b'{"events":[]}', "e9ea635f418b587f8e86ef2fb31db29f7ce40070c31f249474ba844093500e67"),
]

SECRET = "0123456789abcdef" * 4
secrets = st.text("0123456789abcdef", min_size=64, max_size=64)


@pytest.mark.parametrize(("body", "expected"), GOLDEN)
def test_golden_vectors_of_the_real_service(body: bytes, expected: str) -> None:
    assert signing.signature(RECORDED_SECRET, body) == expected
    assert signing.matches(RECORDED_SECRET, body, expected)


@given(st.text("0123456789abcdef", min_size=1, max_size=200), st.binary(max_size=5_000))
def test_a_signature_is_the_hmac_of_the_library(secret: str, body: bytes) -> None:
    """Keys of any length: longer ones than a block are hashed first (RFC 2104 §2)."""
    assert signing.signature(secret, body) == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@given(secrets, st.binary(), st.integers(min_value=0))
def test_one_changed_byte_no_longer_matches(secret: str, body: bytes, where: int) -> None:
    claimed = signing.signature(secret, body)
    assert signing.matches(secret, body, claimed)
    assert not signing.matches(secret, body + b"\n", claimed)
    if body:
        at = where % len(body)
        other = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert not signing.matches(secret, other, claimed)


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_in_a_header_makes_the_comparison_raise(claimed: str) -> None:
    body = b"{}"
    assert signing.matches(SECRET, body, claimed) == (claimed == signing.signature(SECRET, body))
    assert signing.echoed(SECRET, claimed) == (claimed == SECRET)


@pytest.mark.parametrize(
    "claimed",
    [
        "",
        " ",
        "sha256=",
        "é",
        "\udcff",
        "\ud800",
        signing.signature(SECRET, b"x").upper(),
        "0" * 64,
        "0" * 10_000,
    ],
)
def test_anything_but_the_exact_signature_is_refused(claimed: str) -> None:
    assert not signing.matches(SECRET, b"x", claimed)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (SECRET, True),
        (None, False),
        ("", False),
        (SECRET.upper(), False),
        (SECRET[:-1], False),
        (SECRET + " ", False),
        ("é" * 64, False),
    ],
)
def test_only_the_exact_secret_counts_as_echoed(answer: str | None, expected: bool) -> None:
    assert signing.echoed(SECRET, answer) is expected


def test_a_standard_webhooks_library_verifies_with_the_secret_in_its_form() -> None:
    """The steps of the Standard Webhooks specification, taken with the key out of `whsec_…`."""
    body = '{"events":[{"é":"/"}]}'.encode()
    sent = signing.standard_signature(SECRET, body, message_id="d-1", timestamp_seconds=1_700_000_000)
    key = base64.b64decode(signing.standard_secret(SECRET).removeprefix("whsec_"))
    signed = hmac.new(key, b"d-1.1700000000." + body, hashlib.sha256).digest()
    assert sent == "v1," + base64.b64encode(signed).decode()


def test_headers_of_a_delivery() -> None:
    body = b'{"events":[]}'
    headers = signing.delivery_headers([SECRET], body, webhook="12", delivery="d-7", timestamp_seconds=99)
    assert headers == (
        ("Content-Type", "application/json"),
        ("User-Agent", f"Tidings/{__version__}"),
        ("X-Hook-Signature", signing.signature(SECRET, body)),
        ("X-Asana-Request-Signature", signing.signature(SECRET, body)),
        ("X-Tidings-Webhook", "12"),
        ("X-Tidings-Delivery", "d-7"),
        ("webhook-id", "d-7"),
        ("webhook-timestamp", "99"),
        (
            "webhook-signature",
            signing.standard_signature(SECRET, body, message_id="d-7", timestamp_seconds=99),
        ),
    )


def test_two_secrets_in_force_both_sign_and_the_newest_comes_first() -> None:
    newer, older = "a" * 64, "b" * 64
    headers = dict(
        signing.delivery_headers([newer, older], b"{}", webhook="1", delivery="d", timestamp_seconds=5)
    )
    assert headers["X-Hook-Signature"] == signing.signature(newer, b"{}")
    assert headers["webhook-signature"].split(" ") == [
        signing.standard_signature(secret, b"{}", message_id="d", timestamp_seconds=5)
        for secret in (newer, older)
    ]


def test_headers_of_a_handshake() -> None:
    assert signing.handshake_headers(SECRET) == (
        ("Content-Type", "application/json"),
        ("User-Agent", f"Tidings/{__version__}"),
        ("X-Hook-Secret", SECRET),
    )
