"""Resources: `PUT /resources/{gid}`, `POST /resources`, and those described within an event."""

from collections.abc import Mapping
from typing import Final

from tidings.errors import BadRequest
from tidings.limits import NAME_CHARS_MAX, PARENTS_MAX, RESOURCES_PER_PUT_MAX
from tidings.model import Resource, ResourceDraft
from tidings.wire import values
from tidings.wire.bodies import Body, data_entries, data_record

_DESCRIBED_BY: Final = ("resource_type", "resource_subtype", "name", "parents")


def parse_put(body: Body, gid: str) -> ResourceDraft:
    """Read a resource that replaces whatever stood under this gid."""
    record = data_record(body)
    named = record.get("gid")
    if named is not None and named != gid:
        raise BadRequest.at("gid", f"{values.shown(named)} is not the gid of the path, {gid}")
    return _parse_draft(record, gid=values.gid(gid, "resource"), path="", keep_omitted=False)


def parse_bulk(body: Body) -> tuple[ResourceDraft, ...]:
    """Read up to 1 000 resources, each with its gid."""
    drafts = []
    for path, entry in data_entries(body, length_max=RESOURCES_PER_PUT_MAX):
        record = values.record(entry, path or "data")
        gid = values.gid(_required(record, "gid", path), values.join(path, "gid"))
        drafts.append(_parse_draft(record, gid=gid, path=path, keep_omitted=False))
    seen: set[str] = set()
    for draft in drafts:
        if draft.gid in seen:
            raise BadRequest.at(values.join(draft.path, "gid"), f"{draft.gid} stands here twice")
        seen.add(draft.gid)
    return tuple(drafts)


def parse_inline(value: object, path: str, described: list[ResourceDraft]) -> str:
    """Read a resource within an event: a gid, or an object that creates or updates it on the way.

    Returns the gid; a description is added to `described`.
    """
    if not isinstance(value, dict):
        return values.gid(value, path)
    gid = values.gid(_required(value, "gid", path), values.join(path, "gid"))
    if any(key in value for key in _DESCRIBED_BY):
        described.append(_parse_draft(value, gid=gid, path=path, keep_omitted=True))
    return gid


def _required(record: Mapping[str, object], key: str, path: str) -> object:
    value = record.get(key)
    if value is None:
        raise BadRequest.at(values.join(path, key), "Missing input", code="missing_input")
    return value


def _parse_draft(record: Mapping[str, object], *, gid: str, path: str, keep_omitted: bool) -> ResourceDraft:
    name = record.get("name")
    return ResourceDraft(
        gid=gid,
        resource_type=values.type_name(
            _required(record, "resource_type", path), values.join(path, "resource_type")
        ),
        resource_subtype=values.optional_type_name(
            record.get("resource_subtype"), values.join(path, "resource_subtype")
        ),
        name=(
            None
            if name is None
            else values.text(name, values.join(path, "name"), chars_max=NAME_CHARS_MAX, empty=True)
        ),
        parents=_parse_parents(record.get("parents"), values.join(path, "parents")),
        keep_omitted=keep_omitted,
        path=path,
    )


def _parse_parents(value: object, path: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    entries = values.array(value, path, length_max=PARENTS_MAX)
    return tuple(values.gid(entry, f"{path}: [{index}]") for index, entry in enumerate(entries))


def render(resource: Resource) -> dict[str, object]:
    """The full record of a resource."""
    return {
        "gid": resource.gid,
        "resource_type": resource.resource_type,
        "resource_subtype": resource.resource_subtype,
        "name": resource.name,
        "parents": list(resource.parents),
        "workspace": {"gid": resource.workspace, "resource_type": "workspace"},
        "deleted": resource.deleted,
    }
