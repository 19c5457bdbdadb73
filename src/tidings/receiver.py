"""For other people's programs: shake hands and verify deliveries, over raw bytes and headers.

Nothing but the standard library is needed. One pure function does everything; whatever web framework you use,
hand it the headers and the body *as they arrived* (not parsed and serialised again) and act on what it returns.
While no secret is known, a handshake is welcome:

>>> secret = "0123456789abcdef" * 4
>>> handshake = receive({"X-Hook-Secret": secret}, b"{}", secret=None)
>>> handshake.answer_headers == {"X-Hook-Secret": secret}
True

Keep its `secret`, and answer 200 with its `answer_headers`. From then on:

>>> from tidings.signing import signature
>>> body = b'{"events":[{"action":"added","resource":{"gid":"12","resource_type":"task"}}]}'
>>> delivery = receive({"x-hook-signature": signature(secret, body)}, body, secret=secret)
>>> [event["action"] for event in delivery.events]
['added']

Answer any 2xx once the events are safe with you. Whatever is not a genuine request raises `VerificationError`;
answer that with 401:

>>> receive({"X-Hook-Signature": "0" * 64}, body, secret=secret)
Traceback (most recent call last):
    ...
tidings.receiver.VerificationError: the signature is not of these bytes by a known secret

A delivery may come more than once (your answer may have been lost), then with the same `delivery_id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final, NoReturn, TypeAlias

from tidings import signing

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names in any case; as pairs if your framework keeps several values under one name."""

Event: TypeAlias = dict[str, Any]
"""One event as it was sent: user, created_at, action, resource, parent, change (contract §4.2)."""

# Sixteen times the largest batch of Tidings; the real service documents no bound.
BODY_BYTES_MAX: Final = 16 << 20
# Secrets are 64 characters here, 32 or 64 at the real service. What is echoed and kept has to end somewhere.
SECRET_CHARS_MAX: Final = 256
# More secrets in force at once than a rotation needs; each costs a pass over the body.
SECRETS_MAX: Final = 16
SIGNATURES_MAX: Final = 16
MESSAGE_ID_CHARS_MAX: Final = 256
# Digits of a time in seconds; enough for thirty thousand years.
TIMESTAMP_CHARS_MAX: Final = 12
# What the Standard Webhooks libraries allow for clocks that differ and networks that dawdle.
TOLERANCE_SECONDS: Final = 300.0


class VerificationError(Exception):
    """The request is not a genuine handshake or delivery. Do not act on it; answer 401.

    The text says what is wrong, for your log; it repeats nothing of the request.
    """


@dataclass(frozen=True, slots=True)
class Handshake:
    """The service asks whether you want a webhook: keep the secret, answer 200 (or 204) with it."""

    secret: str = field(repr=False)

    @property
    def answer_headers(self) -> dict[str, str]:
        """The headers your answer must carry."""
        return {signing.SECRET_HEADER: self.secret}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Verified events, in the order in which they happened.

    `webhook` is the webhook's gid as its header tells, outside of any signature: a hint for your log.
    `delivery_id` is the same when the same batch comes again, and signed; both are None from services that send
    none.
    """

    events: tuple[Event, ...]
    webhook: str | None = None
    delivery_id: str | None = None

    @property
    def heartbeat(self) -> bool:
        """Whether this only says that the service lives. Answer it like any other."""
        return not self.events


def receive(
    headers: Headers,
    body: bytes,
    *,
    secret: str | Sequence[str] | None,
    rehandshake: bool = False,
    now: float | None = None,
    tolerance: float = TOLERANCE_SECONDS,
) -> Handshake | Delivery:
    """Say what a request to your target is: a handshake, or a delivery whose signature is right.

    `secret` is what you kept from the handshake; None while there was none. While a secret is being replaced, give
    both: any of them counts.

    Once a secret is known, a handshake is refused: anybody who can reach your target can send one, and would sign
    whatever you then believe (contract §10.7). Pass `rehandshake=True` only while you are creating a webhook
    towards this target, or give each webhook a target of its own, which is better.

    Asana's signature does not cover the time, so that a recorded delivery can be sent again later. Pass `now`
    (seconds since the epoch) to refuse whatever is older or younger than `tolerance` seconds; that requires the
    Standard Webhooks headers, which Tidings sends and Asana does not.

    Raises `VerificationError` for every request that is not genuine, whatever is in it; `ValueError` or
    `TypeError` for arguments that only a mistake in your program explains.
    """
    if not isinstance(body, bytes):
        raise TypeError("hand over the body as it arrived: bytes, neither text nor parsed JSON")
    secrets = _secrets(secret)
    named = _Named(headers)
    if len(body) > BODY_BYTES_MAX:
        raise VerificationError("the body is too large")
    offered = named.one(signing.SECRET_HEADER)
    if offered is not None:
        return _handshake(offered, named, known=bool(secrets) and not rehandshake)
    delivery_id = _verify(named, body, secrets, now=now, tolerance=tolerance)
    return Delivery(_events(body), named.one(signing.WEBHOOK_HEADER), delivery_id)


class _Named:
    """Headers by lower-case name."""

    def __init__(self, headers: Headers) -> None:
        self._values: dict[str, list[str]] = {}
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def one(self, name: str) -> str | None:
        """The value under this name. Two that differ are a trick: proxies disagree on which one counts."""
        values = set(self._values.get(name.lower(), ()))
        if len(values) > 1:
            raise VerificationError(f"more than one {name}")
        return values.pop() if values else None


def _secrets(secret: str | Sequence[str] | None) -> tuple[str, ...]:
    secrets = () if secret is None else (secret,) if isinstance(secret, str) else tuple(secret)
    if len(secrets) > SECRETS_MAX:
        raise ValueError(f"at most {SECRETS_MAX} secrets")
    if not all(_printable(each, SECRET_CHARS_MAX) for each in secrets):
        # An empty one would let anybody sign.
        raise ValueError("a secret is 1 to 256 printable ASCII characters; pass None while there is none")
    return secrets


def _printable(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isascii() and text.isprintable() and " " not in text


def _handshake(offered: str, named: _Named, *, known: bool) -> Handshake:
    if named.one(signing.SIGNATURE_HEADER) or named.one(signing.SIGNATURE_HEADER_TOO):
        raise VerificationError("a handshake and a delivery at once")
    if known:
        raise VerificationError("a handshake, although a secret is known already")
    if not _printable(offered, SECRET_CHARS_MAX):
        raise VerificationError("the offered secret is malformed")
    return Handshake(offered)


def _verify(
    named: _Named, body: bytes, secrets: tuple[str, ...], *, now: float | None, tolerance: float
) -> str | None:
    """Check the strongest signature there is; the delivery's id if that covers it."""
    if not secrets:
        raise VerificationError("a delivery, although no secret is known yet")
    if named.one(signing.STANDARD_SIGNATURE_HEADER) is not None:
        return _verify_standard(named, body, secrets, now=now, tolerance=tolerance)
    if now is not None:
        raise VerificationError("nothing signed says when this was sent")
    claimed = named.one(signing.SIGNATURE_HEADER) or named.one(signing.SIGNATURE_HEADER_TOO)
    if claimed is None:
        raise VerificationError("no signature")
    if not any([signing.matches(secret, body, claimed) for secret in secrets]):
        raise VerificationError("the signature is not of these bytes by a known secret")
    return None


def _verify_standard(
    named: _Named, body: bytes, secrets: tuple[str, ...], *, now: float | None, tolerance: float
) -> str:
    message_id = named.one(signing.STANDARD_ID_HEADER) or ""
    timestamp = named.one(signing.STANDARD_TIMESTAMP_HEADER) or ""
    claimed = (named.one(signing.STANDARD_SIGNATURE_HEADER) or "").split(" ")
    if not _printable(message_id, MESSAGE_ID_CHARS_MAX):
        raise VerificationError("webhook-id is missing or malformed")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= TIMESTAMP_CHARS_MAX):
        raise VerificationError("webhook-timestamp is missing or malformed")
    if len(claimed) > SIGNATURES_MAX:
        raise VerificationError("too many signatures")
    sent = int(timestamp)
    expected = [
        signing.standard_signature(secret, body, message_id=message_id, timestamp_seconds=sent).encode()
        for secret in secrets
    ]
    given = [each.encode(errors="surrogatepass") for each in claimed]
    if not any([compare_digest(right, each) for right in expected for each in given]):
        raise VerificationError("the signature is not of these bytes by a known secret")
    if now is not None and abs(now - sent) > tolerance:
        raise VerificationError("sent too long ago, or in the future")
    return message_id


def _events(body: bytes) -> tuple[Event, ...]:
    """The events of a body that is known to be genuine; it may still be broken."""
    try:
        parsed = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise VerificationError("the body is not JSON") from None
    # An empty object is what the real service's "empty payload" may be (contract §1.4).
    events = parsed.get("events", None if parsed else []) if isinstance(parsed, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise VerificationError("the body holds no list of events")
    return tuple(events)


def _no_number(text: str) -> NoReturn:
    """`NaN` and `Infinity` are Python's own additions to JSON."""
    raise ValueError(text)
