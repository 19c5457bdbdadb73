"""What a delivery is signed with, and how a receiver's answers and signatures are judged.

Two schemes travel on every delivery, over the exact bytes of the body, both keyed with the ASCII text of the
webhook's secret:

- Asana's (contract §6): lower-case hex HMAC-SHA256 of the body, in two equal headers.
- Standard Webhooks' (contract §12.30): base64 HMAC-SHA256 of `id.timestamp.body`, by which a receiver can also
  reject replays. That scheme writes a secret as `whsec_` and the base64 of the key's bytes; `standard_secret`
  gives ours in that form, for any library that speaks it.
"""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from hmac import compare_digest
from typing import Final

from tidings import __version__

USER_AGENT: Final = f"Tidings/{__version__}"
CONTENT_TYPE: Final = "application/json"

SECRET_HEADER: Final = "X-Hook-Secret"
SIGNATURE_HEADER: Final = "X-Hook-Signature"
# The older name; some receivers look at nothing else (contract §0.8).
SIGNATURE_HEADER_TOO: Final = "X-Asana-Request-Signature"
WEBHOOK_HEADER: Final = "X-Tidings-Webhook"
DELIVERY_HEADER: Final = "X-Tidings-Delivery"
STANDARD_ID_HEADER: Final = "webhook-id"
STANDARD_TIMESTAMP_HEADER: Final = "webhook-timestamp"
STANDARD_SIGNATURE_HEADER: Final = "webhook-signature"

# The busiest webhooks' keys are taken once, not with each delivery; one takes about a kilobyte.
KEYS_REMEMBERED_MAX: Final = 10_000

# SHA-256's block, and the two pads (RFC 2104 §2): each byte of a key, exclusive or the pad.
_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))

# What is posted to shake hands (contract §12.1).
HANDSHAKE_BODY: Final = b"{}"


@lru_cache(KEYS_REMEMBERED_MAX)
def _keyed(secret: str) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """The inner and the outer hash of an HMAC (RFC 2104 §2), which have taken the key and nothing else.

    To copy them costs less than to take the key anew, and than to copy an HMAC of the library.
    """
    key = _key(secret)
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(key.translate(_INNER_PAD)), hashlib.sha256(key.translate(_OUTER_PAD))


def _hmac(secret: str, message: bytes) -> bytes:
    """HMAC-SHA256. Not `hmac.digest`: that gives up Python's global lock whatever the length, and under load waiting
    to get it back costs many times the digest; this gives it up only for more than 2 KiB."""
    inner, outer = _keyed(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.digest()


def signature(secret: str, body: bytes) -> str:
    """The value of `X-Hook-Signature` for these bytes: 64 lower-case hex characters (contract §0.7)."""
    return _hmac(secret, body).hex()


def matches(secret: str, body: bytes, claimed: str) -> bool:
    """Whether `claimed` is the signature of these bytes; takes the same time wherever they differ."""
    return compare_digest(signature(secret, body).encode(), claimed.encode(errors="surrogatepass"))


def echoed(secret: str, answer: str | None) -> bool:
    """Whether a target's `X-Hook-Secret` (None: it sent none) is the secret, exactly; in constant time."""
    return answer is not None and compare_digest(_key(secret), answer.encode(errors="surrogatepass"))


def standard_signature(secret: str, body: bytes, *, message_id: str, timestamp_seconds: int) -> str:
    """One Standard Webhooks signature, `v1,<base64>`; the key is the secret's ASCII text, as above."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_seconds, body)
    return "v1," + b64encode(_hmac(secret, signed)).decode()


def standard_secret(secret: str) -> str:
    """The secret as Standard Webhooks libraries want it: `whsec_` and the base64 of its ASCII text."""
    return "whsec_" + b64encode(_key(secret)).decode()


def delivery_headers(
    secrets: Sequence[str], body: bytes, *, webhook: str, delivery: str, timestamp_seconds: int
) -> tuple[tuple[str, str], ...]:
    """Every header of a signed delivery but those of the transport (Host, Content-Length).

    `secrets` are those in force, the newest first. Asana's headers hold one signature, by the first;
    `webhook-signature` holds one by each, so that a receiver may know either while they overlap. `delivery`
    stays the same when the same batch is sent again; `timestamp_seconds` (since the epoch) is this attempt's.
    """
    signed = signature(secrets[0], body)
    standard = " ".join(
        standard_signature(secret, body, message_id=delivery, timestamp_seconds=timestamp_seconds)
        for secret in secrets
    )
    return (
        ("Content-Type", CONTENT_TYPE),
        ("User-Agent", USER_AGENT),
        (SIGNATURE_HEADER, signed),
        (SIGNATURE_HEADER_TOO, signed),
        (WEBHOOK_HEADER, webhook),
        (DELIVERY_HEADER, delivery),
        (STANDARD_ID_HEADER, delivery),
        (STANDARD_TIMESTAMP_HEADER, str(timestamp_seconds)),
        (STANDARD_SIGNATURE_HEADER, standard),
    )


def handshake_headers(secret: str) -> tuple[tuple[str, str], ...]:
    """Every header of a handshake but those of the transport (contract §12.1)."""
    return (("Content-Type", CONTENT_TYPE), ("User-Agent", USER_AGENT), (SECRET_HEADER, secret))


def _key(secret: str) -> bytes:
    return secret.encode("ascii")
