"""What descriptions are made of: references, parameters, bodies and the answers that many calls share."""

from typing import Any, Final, TypeAlias

from tidings.limits import GID_CHARS_MAX, IDEMPOTENCY_KEY_CHARS_MAX, OPT_FIELDS_MAX, PAGE_SIZE_MAX

Description: TypeAlias = dict[str, Any]

GID: Final[Description] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_.-]+$",
    "minLength": 1,
    "maxLength": GID_CHARS_MAX,
    "examples": ["8675309"],
}


def schema(name: str) -> Description:
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str) -> Description:
    return {"$ref": f"#/components/parameters/{name}"}


def response(name: str) -> Description:
    return {"$ref": f"#/components/responses/{name}"}


def record(
    properties: Description, *, required: tuple[str, ...] = (), closed: bool = True, **more: Any
) -> Description:
    """An object. What we answer with is closed; in what we are asked, unknown keys are ignored."""
    described: Description = {"type": "object", "properties": properties, **more}
    if required:
        described["required"] = list(required)
    if closed:
        described["additionalProperties"] = False
    return described


def array(items: Description, **bounds: int) -> Description:
    return {"type": "array", "items": items, **bounds}


def nullable(described: Description) -> Description:
    if "$ref" in described or "enum" in described:
        return {"anyOf": [described, {"type": "null"}]}
    return {**described, "type": [described["type"], "null"]}


def envelope(data: Description, **beside: Description) -> Description:
    """`{"data": …}`, and what stands beside it."""
    return record({"data": data, **beside}, required=("data", *beside))


def body(data: Description, *, form: Description | None = None) -> Description:
    """A request's body: `{"data": …, "options": …}` as JSON, or bare fields of a form."""
    whole = record({"data": data, "options": schema("Options")}, required=("data",))
    content = {"application/json": {"schema": whole}}
    if form is not None:
        content["application/x-www-form-urlencoded"] = {"schema": form}
    return {"required": True, "content": content}


def answer(description: str, described: Description, *, headers: Description | None = None) -> Description:
    """A JSON answer."""
    made: Description = {"description": description, "content": {"application/json": {"schema": described}}}
    if headers:
        made["headers"] = headers
    return made


# -- parameters ------------------------------------------------------------------------------------


def _query(name: str, described: Description, description: str, **more: Any) -> Description:
    return {"name": name, "in": "query", "description": description, "schema": described, **more}


PARAMETERS: Final[Description] = {
    "gid": {
        "name": "gid",
        "in": "path",
        "required": True,
        "description": "The gid of what the call is about.",
        "schema": GID,
    },
    "workspace": _query("workspace", GID, "The workspace to list.", required=True),
    "resource": _query("resource", GID, "Only webhooks on this resource."),
    "limit": _query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_SIZE_MAX},
        "Records per page. Without it the answer is the whole list, and has no `next_page`.",
    ),
    "offset": _query(
        "offset",
        {"type": "string", "minLength": 1},
        "`next_page.offset` of the page before. It belongs to the query it was issued for.",
    ),
    "opt_fields": _query(
        "opt_fields",
        array({"type": "string"}, maxItems=OPT_FIELDS_MAX),
        "Exactly these fields, and `gid`: paths such as `resource.name`, groups such as "
        "`resource.(name|resource_type)`. Unknown ones are ignored.",
        style="form",
        explode=False,
    ),
    "opt_pretty": _query(
        "opt_pretty",
        {"type": "boolean"},
        "Answer with line ends and indentation. May stand without a value.",
        allowEmptyValue=True,
    ),
    "idempotency_key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same bytes within 24 h answers the same and appends nothing.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": IDEMPOTENCY_KEY_CHARS_MAX,
            "pattern": "^[!-~]+( +[!-~]+)*$",
        },
    },
}

# -- answers that many calls share -----------------------------------------------------------------

_RETRY_AFTER: Final[Description] = {
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}


def _refusal(description: str, *, headers: Description | None = None) -> Description:
    return answer(description, schema("Errors"), headers=headers)


RESPONSES: Final[Description] = {
    "BadRequest": _refusal("The request itself is wrong; the message names the field."),
    "NotAuthorized": _refusal("No token, or one that is unknown, revoked or expired."),
    "Forbidden": _refusal(
        "The token lacks the scope or the workspace, or the thing asked for is not allowed."
    ),
    "NotFound": _refusal("No such thing for this caller."),
    "Conflict": _refusal("The idempotency key came with another body before."),
    "TooLarge": _refusal("The body is over its bound; the connection is closed."),
    "TooManyRequests": _refusal("Come back later. Nothing was done.", headers=_RETRY_AFTER),
    "ServerError": _refusal("A mistake of the service. `phrase` finds the line of its log."),
    "Unavailable": _refusal("The database cannot be reached. Nothing was accepted.", headers=_RETRY_AFTER),
}
