"""Events: from a publish request to drafts, and from a placed draft to the bytes every receiver gets.

The bytes are rendered once, at append: compact JSON, raw UTF-8, keys in the order user, created_at, action, resource,
parent, change (contract §12.22). Asana's own Node receiver re-serialises what it parsed before it checks the
signature, so the text must be what `JSON.stringify` would write: that is why numbers with a fraction and keys that
look like array indices are refused in a change's values.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from tidings.errors import BadRequest
from tidings.limits import (
    EVENT_BYTES_MAX,
    EVENTS_PER_PUBLISH_MAX,
    EXTERNAL_ID_CHARS_MAX,
    FIELD_CHARS_MAX,
    VALUE_DEPTH_MAX,
)
from tidings.model import (
    Action,
    Change,
    EventDraft,
    Idempotency,
    Micros,
    Publication,
    Resource,
    ResourceDraft,
)
from tidings.wire import times, values
from tidings.wire.bodies import Body, data_entries
from tidings.wire.resources import parse_inline

CHANGE_ACTIONS: Final = ("changed", "added", "removed")
_CHANGE_VALUES: Final = ("new_value", "added_value", "removed_value")
# Which actions tell receivers the parent (contract §12.21).
_PARENT_TOLD: Final = frozenset({Action.ADDED, Action.REMOVED})
# JavaScript keeps integers exactly up to here; beyond, a receiver in Node would sign another text.
_SAFE_INTEGER_MAX: Final = 2**53 - 1
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_NULL: Final = b"null"

_NO_VALUES: Final[Mapping[str, bytes]] = MappingProxyType({})
_ACTIONS: Final = {action.value: action for action in Action}
_PLAIN: Final = ("resource", "action", "user", "change")
_PLAIN_KEYS: Final = frozenset(_PLAIN)
# Pieces of events that come again and again, as bytes; each is bounded, so that all take a megabyte or two.
_REMEMBERED_MAX: Final = 4_096

_encode = msgspec.json.Encoder().encode


def parse_publication(
    body: Body, *, workspaces: frozenset[str] | None, idempotency: Idempotency | None
) -> Publication:
    """Read `POST /events`: one event or up to 1 000.

    Raises:
        BadRequest: naming the event, the field and what is wrong with it.
    """
    resources: list[ResourceDraft] = []
    events = tuple(
        [
            _plain_event(entry, path) or _parse_event(values.record(entry, path or "data"), path, resources)
            for path, entry in data_entries(body, length_max=EVENTS_PER_PUBLISH_MAX)
        ]
    )
    return Publication(
        events=events, resources=tuple(resources), workspaces=workspaces, idempotency=idempotency
    )


def _plain_event(entry: object, path: str) -> EventDraft | None:
    """The commonest event there is, a resource and a user by their gids and perhaps a change without values, read in a
    fraction of the time; None for any other, right or wrong: `_parse_event` says which."""
    if type(entry) is not dict or not entry.keys() <= _PLAIN_KEYS:
        return None
    resource, kind, user, change = (entry.get(key) for key in _PLAIN)
    action = _ACTIONS.get(kind) if type(kind) is str else None
    if action is None or type(resource) is not str or not values.is_gid(resource):
        return None
    if user is not None and (type(user) is not str or not values.is_gid(user)):
        return None
    what = None
    if action is Action.CHANGED:
        what = _plain_change(change) if type(change) is dict and len(change) == 2 else None
        if what is None:
            return None
    elif change is not None:
        return None
    return EventDraft(
        resource=resource,
        action=action,
        user=_NULL if user is None else _user_of(user),
        parent=None,
        change=what,
        created_at=None,
        external_id=None,
        path=path,
    )


def _plain_change(change: dict[str, object]) -> Change | None:
    field, kind = change.get("field"), change.get("action")
    if type(field) is not str or type(kind) is not str or kind not in CHANGE_ACTIONS:
        return None
    if not 0 < len(field) <= FIELD_CHARS_MAX or "\x00" in field:
        return None
    return Change(field=field, action=kind, values=_NO_VALUES)


def _parse_event(record: Mapping[str, object], path: str, resources: list[ResourceDraft]) -> EventDraft:
    if record.get("resource") is None:
        raise BadRequest.at(values.join(path, "resource"), "Missing input", code="missing_input")
    action = _parse_action(record.get("action"), values.join(path, "action"))
    external_id = record.get("id")
    created_at = record.get("created_at")
    parent = record.get("parent")
    return EventDraft(
        resource=parse_inline(record["resource"], values.join(path, "resource"), resources),
        action=action,
        user=_render_user(record.get("user"), values.join(path, "user")),
        parent=None if parent is None else parse_inline(parent, values.join(path, "parent"), resources),
        change=_parse_change(record.get("change"), action, values.join(path, "change")),
        created_at=(None if created_at is None else times.parse(created_at, values.join(path, "created_at"))),
        external_id=(
            None
            if external_id is None
            else values.text(external_id, values.join(path, "id"), chars_max=EXTERNAL_ID_CHARS_MAX)
        ),
        path=path,
    )


def _parse_action(value: object, path: str) -> Action:
    if value is None:
        raise BadRequest.at(path, "Missing input", code="missing_input")
    try:
        return Action(values.text(value, path, chars_max=FIELD_CHARS_MAX))
    except ValueError as error:
        raise BadRequest.at(
            path, f"must be one of {', '.join(Action)}, not {values.shown(value)}", code="invalid_action"
        ) from error


def _render_user(value: object, path: str) -> bytes:
    """A user need not be registered: a gid or a compact record, or null for the system's own doing."""
    if value is None:
        return _NULL
    if isinstance(value, dict):
        gid = values.gid(value.get("gid"), values.join(path, "gid"))
        kind = values.optional_type_name(value.get("resource_type"), values.join(path, "resource_type"))
        return _encode({"gid": gid, "resource_type": kind or "user"})
    return _user_of(values.gid(value, path))


@lru_cache(_REMEMBERED_MAX)
def _user_of(gid: str) -> bytes:
    return _encode({"gid": gid, "resource_type": "user"})


def _parse_change(value: object, action: Action, path: str) -> Change | None:
    if action is not Action.CHANGED:
        if value is not None:
            raise BadRequest.at(path, f'only an event with the action "changed" has one, not "{action}"')
        return None
    if value is None:
        raise BadRequest.at(path, 'Missing input (the action is "changed")', code="missing_input")
    record = values.record(value, path)
    kind = record.get("action")
    if kind not in CHANGE_ACTIONS:
        raise BadRequest.at(
            values.join(path, "action"),
            f"must be one of {', '.join(CHANGE_ACTIONS)}, not {values.shown(kind)}",
            code="invalid_action",
        )
    return Change(
        field=values.text(record.get("field"), values.join(path, "field"), chars_max=FIELD_CHARS_MAX),
        action=str(kind),
        values={
            name: _encode(_value_object(record[name], values.join(path, name)))
            for name in _CHANGE_VALUES
            if name in record
        },
    )


def _value_object(value: object, path: str) -> object:
    """A new, added or removed value: a compact object or null; names are never told (contract §4.2)."""
    if value is None:
        return None
    return _plain(values.record(value, path), path, VALUE_DEPTH_MAX)


def _plain(value: object, path: str, depth: int) -> object:
    if depth == 0:
        raise BadRequest.at(path, f"nested more than {VALUE_DEPTH_MAX} levels deep")
    match value:
        case dict():
            return {
                _key(key, path): _plain(below, values.join(path, key), depth - 1)
                for key, below in value.items()
                if key != "name"
            }
        case list():
            return [_plain(entry, path, depth - 1) for entry in value]
        case float():
            raise BadRequest.at(path, "numbers with a fraction or an exponent are not carried; send a string")
        case int() if abs(value) > _SAFE_INTEGER_MAX:
            raise BadRequest.at(path, "integers beyond 2^53 are not carried exactly; send a string")
        case _:
            return value


def _key(key: str, path: str) -> str:
    if not _KEY.fullmatch(key):
        raise BadRequest.at(path, f"not a name for a key: {values.shown(key)}")
    return key


def render(draft: EventDraft, *, resource: Resource, parent: Resource | None, created_at: Micros) -> bytes:
    """Write the event as receivers get it.

    Raises:
        BadRequest: the event is over its bound.
    """
    told = parent if draft.action in _PARENT_TOLD else None
    wire = b'{"user":%b,"created_at":"%b","action":"%b","resource":%b,"parent":%b%b}' % (
        draft.user,
        times.render(created_at).encode(),
        draft.action.encode(),
        _compact(resource.gid, resource.resource_type, resource.resource_subtype),
        _NULL if told is None else _compact(told.gid, told.resource_type, told.resource_subtype),
        b"" if draft.change is None else _render_change(draft.change),
    )
    if len(wire) > EVENT_BYTES_MAX:
        raise BadRequest.at(
            draft.path or "data",
            f"an event has at most {EVENT_BYTES_MAX} bytes, this one {len(wire)}",
            code="event_too_large",
        )
    return wire


@lru_cache(_REMEMBERED_MAX)
def _compact(gid: str, resource_type: str, resource_subtype: str | None) -> bytes:
    record = {"gid": gid, "resource_type": resource_type}
    if resource_subtype is not None:
        record["resource_subtype"] = resource_subtype
    return _encode(record)


def _render_change(change: Change) -> bytes:
    head = _change_head(change.field, change.action)
    tail = b"".join([b',"%b":%b' % (name.encode(), value) for name, value in change.values.items()])
    return b"%b%b}" % (head, tail)


@lru_cache(_REMEMBERED_MAX)
def _change_head(field: str, action: str) -> bytes:
    return b',"change":{"field":%b,"action":"%b"' % (_encode(field), action.encode())


def envelope(wires: Sequence[bytes]) -> bytes:
    """The body of a delivery; of none, the heartbeat's (contract §0.10)."""
    return b'{"events":[' + b",".join(wires) + b"]}"
