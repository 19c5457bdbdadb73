"""The bytes of a POST: one head, checked, and the body as it came."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tidings.targets import Target

# RFC 9110 §5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
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
    lines = [opening]
    for name, value in headers:
        # Controls end or split headers somewhere, and what is not ASCII means something else everywhere
        # (RFC 9110 §5.5).
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of header {name!r} holds a control or non-ASCII character")
        lines.append(_line_start(name))
        lines.append(value)
        lines.append("\r\n")
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "".join(lines).encode("ascii") + body


@lru_cache(maxsize=_NAMES_REMEMBERED_MAX)
def _line_start(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in _OURS:
        raise ValueError(f"the sender says {name!r} itself")
    return f"{name}: "
