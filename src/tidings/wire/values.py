"""Reading single values out of a parsed body: each either gives the value or names the field and what is wrong."""

import re
from collections.abc import Mapping
from typing import Final

from tidings.errors import BadRequest
from tidings.limits import GID_CHARS_MAX, TYPE_CHARS_MAX

_GID: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{GID_CHARS_MAX}}}", re.ASCII)
_TYPE: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{TYPE_CHARS_MAX}}}", re.ASCII)
# How much of a wrong value an error repeats.
_SHOWN_CHARS_MAX: Final = 80


def json_type(value: object) -> str:
    """The name of a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def shown(value: object) -> str:
    """A wrong value as an error repeats it: bounded, on one line."""
    text = value if isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else "\ufffd" for char in text[: _SHOWN_CHARS_MAX + 1])
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…"


def join(path: str, key: str) -> str:
    """A path in an error: `filters: [0]: action`."""
    return f"{path}: {key}" if path else key


def is_gid(value: str) -> bool:
    """Whether this text is written as a resource's gid is."""
    return _GID.fullmatch(value) is not None


def gid(value: object, path: str) -> str:
    """A resource's gid: 1 to 64 letters, digits, `-`, `_`, `.`; wrong ones answer as recorded (contract §2.2)."""
    if not isinstance(value, str):
        raise BadRequest.at(path, f"Not a valid GID type: {json_type(value)}", code="invalid_gid_type")
    if not is_gid(value):
        raise BadRequest.at(path, f"Not a recognized ID: {shown(value)}", code="unrecognized_id")
    return value


def type_name(value: object, path: str) -> str:
    """A resource_type or resource_subtype: a short name of letters, digits, `-`, `_`, `.`."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    if not _TYPE.fullmatch(value):
        raise BadRequest.at(path, f"not a type name: {shown(value)}")
    return value


def optional_type_name(value: object, path: str) -> str | None:
    return None if value is None else type_name(value, path)


def text(value: object, path: str, *, chars_max: int, empty: bool = False) -> str:
    """Free text of at most so many characters, without NUL (no store of ours can promise to keep one)."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    if not value and not empty:
        raise BadRequest.at(path, "must not be empty")
    if len(value) > chars_max:
        raise BadRequest.at(path, f"at most {chars_max} characters, not {len(value)}")
    if "\x00" in value:
        raise BadRequest.at(path, "must not contain a NUL character")
    return value


def record(value: object, path: str) -> Mapping[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    return value


def array(value: object, path: str, *, length_max: int) -> list[object]:
    """A JSON array of at most so many entries."""
    if not isinstance(value, list):
        raise wrong_type(path, "an array", value)
    if len(value) > length_max:
        raise BadRequest.at(path, f"at most {length_max} entries, not {len(value)}", code="too_many")
    return value


def whole_number(value: str, path: str, *, low: int, high: int) -> int:
    """A whole number written in a query string, within bounds."""
    digits = value[1:] if value.startswith("-") else value
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest.at(path, f"Not a number: {shown(value)}")
    # Past any bound of ours, and short enough not to be costly to read.
    number = int(value) if len(value) <= 18 else high + 1
    if not low <= number <= high:
        raise BadRequest.at(path, f"Must be between {low} and {high}, not {shown(value)}")
    return number


def wrong_type(path: str, expected: str, value: object) -> BadRequest:
    return BadRequest.at(path, f"expected {expected}, got {json_type(value)}", code="invalid_type")
