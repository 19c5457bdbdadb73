"""Request bodies: JSON `{"data": …, "options": …}`, or bare fields of a form (contract §3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from tidings.errors import BadRequest
from tidings.limits import OPT_FIELDS_MAX
from tidings.wire import values

_FORM_FIELDS_MAX: Final = 100
_TOP_LEVEL: Final = ("data", "options")
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Options:
    """How the answer is to be shaped. `fields` is None when the caller did not say."""

    fields: tuple[str, ...] | None = None
    pretty: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What a request says: `data` is None where it said nothing."""

    data: object = None
    options: Options = field(default_factory=Options)


def parse(raw: bytes, content_type: str | None) -> Body:
    """Read a body by its content type; a missing one is read as JSON (contract §12.28).

    Raises:
        BadRequest: another content type, not JSON, or a key beside `data` and `options`.
    """
    media_type = (content_type or _JSON).split(";", 1)[0].strip().lower()
    if media_type == _JSON:
        return _parse_json(raw)
    if media_type == _FORM:
        return _parse_form(raw)
    raise BadRequest(
        f"Unsupported Content-Type: {values.shown(media_type)}. Send {_JSON} or {_FORM}.",
        code="unsupported_content_type",
    )


def decode_json(raw: bytes | str) -> object:
    """Parse JSON.

    Raises:
        BadRequest: it is not JSON, not UTF-8, or nested beyond reason.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest("Could not parse request data, invalid JSON", code="invalid_json") from error


def _parse_json(raw: bytes) -> Body:
    if not raw.strip():
        return Body()
    parsed = decode_json(raw)
    if not isinstance(parsed, dict):
        raise BadRequest(
            f"Could not parse request data, expected an object, got {values.json_type(parsed)}",
            code="invalid_body",
        )
    for key in parsed:
        if key not in _TOP_LEVEL:
            raise BadRequest(
                f"Unrecognized request field {values.shown(key)} . "
                "The only allowed keys at the top level are: data, options.",
                code="unrecognized_field",
            )
    return Body(parsed.get("data"), _json_options(parsed.get("options")))


def _json_options(value: object) -> Options:
    if value is None:
        return Options()
    record = values.record(value, "options")
    fields = record.get("fields")
    if isinstance(fields, str):
        fields = fields.split(",")
    if fields is not None:
        names = values.array(fields, "options: fields", length_max=OPT_FIELDS_MAX)
        fields = tuple(name for name in names if isinstance(name, str))
    return Options(fields, record.get("pretty") is True)


def _parse_form(raw: bytes) -> Body:
    try:
        pairs = parse_qsl(
            raw.decode("utf-8"), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX, errors="strict"
        )
    except ValueError as error:
        raise BadRequest("Could not parse request data, invalid form", code="invalid_form") from error
    fields = dict(pairs)
    options = query_options(fields)
    data: dict[str, object] = {key: value for key, value in fields.items() if not key.startswith("opt_")}
    if "filters" in data:
        # A form has no arrays: the field holds them as JSON.
        data["filters"] = decode_json(fields["filters"])
    return Body(data, options)


def query_options(fields: Mapping[str, str]) -> Options:
    """Read `opt_fields` and `opt_pretty` from a query string or a form; the flag may be bare."""
    named = fields.get("opt_fields")
    names = None if named is None else tuple(named.split(",")[: OPT_FIELDS_MAX + 1])
    if names is not None and len(names) > OPT_FIELDS_MAX:
        raise BadRequest.at("opt_fields", f"at most {OPT_FIELDS_MAX} fields", code="too_many")
    return Options(names, fields.get("opt_pretty", "false").lower() in ("", "true", "1"))


def merge(first: Options, second: Options) -> Options:
    """The options of the query and those of the body, the body's fields first."""
    return Options(
        second.fields if second.fields is not None else first.fields, first.pretty or second.pretty
    )


def data_record(body: Body) -> Mapping[str, object]:
    """`data` as an object; missing reads as empty, so that the first missing field is what is named."""
    return {} if body.data is None else values.record(body.data, "data")


def data_entries(body: Body, *, length_max: int) -> Sequence[tuple[str, object]]:
    """`data` as one object or an array of 1 to `length_max`, each with its path for errors."""
    if isinstance(body.data, dict):
        return [("", body.data)]
    if body.data is None:
        raise BadRequest.at("data", "Missing input", code="missing_input")
    entries = values.array(body.data, "data", length_max=length_max)
    if not entries:
        raise BadRequest.at("data", "must not be empty", code="missing_input")
    return [(f"[{index}]", entry) for index, entry in enumerate(entries)]
