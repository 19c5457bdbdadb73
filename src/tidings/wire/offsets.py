"""Page tokens: opaque, signed, bound to the query they were issued for, valid for 30 minutes (contract §12.13)."""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from tidings.errors import BadRequest
from tidings.limits import OFFSET_LIFETIME
from tidings.model import Micros

_TAG_BYTES: Final = 16
_NUMBER_BYTES: Final = 8
_TOKEN_BYTES: Final = 2 * _NUMBER_BYTES + _TAG_BYTES


def issue(after: int, *, query: str, now: Micros, key: bytes) -> str:
    """Make the token of the page behind the record of sequence `after`."""
    payload = after.to_bytes(_NUMBER_BYTES, "big") + (now + OFFSET_LIFETIME).to_bytes(_NUMBER_BYTES, "big")
    return _write(payload + _tag(payload, query, key))


def _write(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(token: str, *, query: str, now: Micros, key: bytes) -> int:
    """Give back the sequence a token of ours points behind.

    Raises:
        BadRequest: not issued by us for this query, or expired; in the recorded words (contract §2.2).
    """
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    payload, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    # The decoder passes over padding and spare bits: only the very text we wrote is ours.
    ours = len(raw) == _TOKEN_BYTES and _write(raw) == token
    if not ours or not hmac.compare_digest(tag, _tag(payload, query, key)):
        raise BadRequest.at("offset", "Your pagination token is invalid.", code="invalid_offset")
    if now >= int.from_bytes(payload[_NUMBER_BYTES:], "big"):
        raise BadRequest.at("offset", "Your pagination token has expired.", code="expired_offset")
    return int.from_bytes(payload[:_NUMBER_BYTES], "big")


def _tag(payload: bytes, query: str, key: bytes) -> bytes:
    return hmac.digest(key, payload + query.encode(), hashlib.sha256)[:_TAG_BYTES]
