"""The bytes of a POST: one head, checked, and the body as it came."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tidings.targets import Target

# RFC 9110 §5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS: Final = bytes([*range(0x20), 0x7F])
# These say where a request ends and what becomes of its connection. They are ours to say.
_OURS: Final = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "expect",
        "te",
        "trailer",
    )
)
# Deliveries carry fewer than a dozen names, always the same ones.
_NAMES_REMEMBERED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Destination:
    """A target, and the beginning of every request to it."""

    target: Target
    # Request line and Host, up to the first header of the delivery.
    opening: str

    @classmethod
    def of(cls, target: Target) -> "Destination":
        return cls(target, f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\n")


def render(opening: str, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    """Put a request together. `ValueError` for a header that could end, split or redefine it: a fault of ours."""
    lines = "".join([f"{_line_start(name)}{value}\r\n" for name, value in headers])
    try:
        head = f"{opening}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii")
    except UnicodeEncodeError:
        raise _unfit(headers) from None
    # Controls end or split headers somewhere (RFC 9110 §5.5). Ours are two for each line, the opening's two and the
    # empty one included: one look at the whole head costs less than one at each value.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 4):
        raise _unfit(headers)
    return head + body


def _unfit(headers: tuple[tuple[str, str], ...]) -> ValueError:
    """Say which header it is that must not be sent; what is not ASCII means something else everywhere."""
    names = [name for name, value in headers if not (value.isascii() and value.isprintable())]
    return ValueError(f"the value of header {names[0]!r} holds a control or non-ASCII character")


@lru_cache(maxsize=_NAMES_REMEMBERED_MAX)
def _line_start(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in _OURS:
        raise ValueError(f"the sender says {name!r} itself")
    return f"{name}: "
