"""`opt_fields`: exactly the named fields plus `gid` (contract §3).

A field is a path (`resource.name`), may begin with `this.`, and may hold a group (`this.(a|b).c`). Naming an object
gives its compact form. Unknown names are ignored. Objects without a gid (filters) get none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final, TypeAlias

from tidings.errors import BadRequest
from tidings.limits import OPT_FIELD_DEPTH_MAX, OPT_FIELDS_MAX

# What is wanted below each key; `_ITSELF` among them asks for the value's compact form.
Selection: TypeAlias = dict[str, "Selection"]

_SEGMENT: Final = re.compile(r"\(([^()]*)\)|([^.()]+)")
# Stands for the object itself, beside fields of it: `resource,resource.name` is its compact form and its name.
_ITSELF: Final = ""
_COMPACT: Final = ("gid", "resource_type", "name")


def parse(fields: Iterable[str]) -> Selection:
    """Read the fields a caller named.

    Raises:
        BadRequest: more of them, or deeper ones, than can be meant.
    """
    selection: Selection = {}
    count = 0
    for field in fields:
        for path in _paths(field.strip()):
            count += 1
            if count > OPT_FIELDS_MAX:
                raise BadRequest.at("opt_fields", f"at most {OPT_FIELDS_MAX} fields", code="too_many")
            below = selection
            for key in path:
                below = below.setdefault(key, {})
            below[_ITSELF] = {}
    return selection


def _paths(field: str) -> Iterator[tuple[str, ...]]:
    segments = [
        group.split("|") if group else [name] for group, name in _SEGMENT.findall(field.removeprefix("this."))
    ]
    if len(segments) > OPT_FIELD_DEPTH_MAX:
        raise BadRequest.at("opt_fields", f"at most {OPT_FIELD_DEPTH_MAX} levels deep")
    if segments:
        yield from product(*segments)


def select(record: Mapping[str, object], selection: Selection) -> dict[str, object]:
    """Take from a full record what was asked for, in the record's own order."""
    return {
        key: _select_value(value, selection.get(key, {}))
        for key, value in record.items()
        if key in selection or key == "gid"
    }


def _select_value(value: object, below: Selection) -> object:
    match value:
        case dict():
            named = select(value, below)
            return {**_compact(value), **named} if _ITSELF in below else named
        case list():
            return [_select_value(entry, below) for entry in value]
        case _:
            return value


def _compact(value: dict[str, object]) -> dict[str, object]:
    if "gid" not in value:
        return value
    return {key: value[key] for key in _COMPACT if key in value}
