"""The schemas of what goes in and comes out. Bounds are those of `limits`."""

from typing import Any, Final

from tidings.limits import (
    EVENTS_PER_PUBLISH_MAX,
    EXTERNAL_ID_CHARS_MAX,
    FIELD_CHARS_MAX,
    FILTER_FIELDS_MAX,
    FILTERS_MAX,
    NAME_CHARS_MAX,
    OPT_FIELDS_MAX,
    PARENTS_MAX,
    RESOURCES_PER_PUT_MAX,
    TARGET_CHARS_MAX,
    TOKEN_WORKSPACES_MAX,
    TYPE_CHARS_MAX,
)
from tidings.matching import ACTIONS
from tidings.model import Scope, StopReason
from tidings.web.openapi.parts import GID, Description, array, nullable, record, schema
from tidings.wire.events import CHANGE_ACTIONS

_TEXT: Final[Description] = {"type": "string"}
_COUNT: Final[Description] = {"type": "integer", "minimum": 0}
_FLAG: Final[Description] = {"type": "boolean"}
_TIME: Final[Description] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
    "examples": ["2026-02-22T02:06:58.158Z"],
}
_TIME_IN: Final[Description] = {
    "type": "string",
    "format": "date-time",
    "description": "With its offset from UTC; from 1970 to 9999.",
}
_TYPE: Final[Description] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_.-]+$",
    "minLength": 1,
    "maxLength": TYPE_CHARS_MAX,
    "examples": ["task"],
}
# No store of ours can promise to keep a NUL.
_PLAIN: Final = "^[^\\u0000]*$"
_NAME: Final[Description] = {"type": "string", "maxLength": NAME_CHARS_MAX, "pattern": _PLAIN}
_FIELD: Final[Description] = {
    "type": "string",
    "minLength": 1,
    "maxLength": FIELD_CHARS_MAX,
    "pattern": _PLAIN,
}
_ACTION: Final[Description] = {"type": "string", "enum": list(ACTIONS)}
_SCOPE: Final[Description] = {"type": "string", "enum": [scope.value for scope in Scope]}
_TARGET: Final[Description] = {
    "type": "string",
    "format": "uri",
    "maxLength": TARGET_CHARS_MAX,
    "examples": ["https://receiver.example/hook"],
}


def _constant(value: str) -> Description:
    return {"type": "string", "const": value}


# What a record holds depends on `opt_fields`; the gid is always there (contract §3).
def _answered(resource_type: str, properties: Description, **more: Any) -> Description:
    return record(
        {"gid": GID, "resource_type": _constant(resource_type), **properties}, required=("gid",), **more
    )


_COMPACT: Final = record({"gid": GID, "resource_type": _TYPE, "name": nullable(_NAME)}, required=("gid",))

_FILTER_KEYS: Final[Description] = {
    "resource_type": nullable(_TYPE),
    "resource_subtype": nullable(_TYPE),
    "action": nullable(_ACTION),
    "fields": nullable(array(_FIELD, maxItems=FILTER_FIELDS_MAX)),
}

_WEBHOOKS: Final[Description] = {
    "Filter": record(
        _FILTER_KEYS,
        description="What is left out or null matches everything. `fields` only with the action `changed`.",
        closed=False,
    ),
    "WebhookRequest": record(
        {
            "resource": {**GID, "description": "What to hear about, with everything below it."},
            "target": {**_TARGET, "description": "Where to post to. It must shake hands during this call."},
            "filters": nullable(array(schema("Filter"), maxItems=FILTERS_MAX)),
        },
        required=("resource", "target"),
        closed=False,
    ),
    "WebhookForm": record(
        {
            "resource": GID,
            "target": _TARGET,
            "filters": {"type": "string", "description": "The array of filters, as JSON."},
            "opt_fields": _TEXT,
            "opt_pretty": _TEXT,
        },
        required=("resource", "target"),
        closed=False,
    ),
    "WebhookUpdate": record(
        {"filters": array(schema("Filter"), maxItems=FILTERS_MAX)},
        required=("filters",),
        description="The filters replace the old ones whole.",
        closed=False,
    ),
    "WebhookUpdateForm": record(
        {
            "filters": {"type": "string", "description": "The array of filters, as JSON."},
            "opt_fields": _TEXT,
            "opt_pretty": _TEXT,
        },
        required=("filters",),
        closed=False,
    ),
    "Webhook": _answered(
        "webhook",
        {
            "active": {**_FLAG, "description": "True while healthy or retrying."},
            "resource": schema("Compact"),
            "target": _TEXT,
            "is_workspace_webhook": _FLAG,
            "created_at": _TIME,
            "last_success_at": nullable(_TIME),
            "last_failure_at": nullable(_TIME),
            "last_failure_content": {**_TEXT, "description": "Empty as long as nothing failed."},
            "delivery_retry_count": _COUNT,
            "next_attempt_after": nullable(_TIME),
            "failure_deletion_timestamp": nullable(_TIME),
            "filters": array(record(_FILTER_KEYS)),
            "inactive_reason": {
                "type": "string",
                "enum": [reason.value for reason in StopReason],
                "description": "Why it is not active; absent while it is.",
            },
            "events_lost_at": {
                **_TIME,
                "description": "When events it had not read were past keeping; absent if that never happened.",
            },
        },
    ),
    "Attempt": _answered(
        "attempt",
        {
            "delivery": {**_TEXT, "description": "The same on a retry of the same batch."},
            "created_at": _TIME,
            "duration_ms": _COUNT,
            "events": _COUNT,
            "heartbeat": _FLAG,
            "status": nullable({"type": "integer"}),
            "result": {**_TEXT, "description": "`delivered`, or what went wrong."},
            "response": {**_TEXT, "description": "The beginning of the answer, or the network's trouble."},
        },
    ),
    "NextPage": record(
        {"offset": _TEXT, "path": _TEXT, "uri": {"type": "string", "format": "uri"}},
        required=("offset", "path", "uri"),
    ),
}

_RESOURCE_KEYS: Final[Description] = {
    "resource_type": _TYPE,
    "resource_subtype": nullable(_TYPE),
    "name": nullable(_NAME),
    "parents": nullable(array(GID, maxItems=PARENTS_MAX)),
}

_INLINE: Final[Description] = {
    "description": "A gid, or a description that creates or updates the resource on the way.",
    "anyOf": [GID, record({"gid": GID, **_RESOURCE_KEYS}, required=("gid",), closed=False)],
}
_VALUE: Final[Description] = {
    "type": ["object", "null"],
    "description": "A compact object, without fractions.",
}

_PUBLISHING: Final[Description] = {
    "ResourceRequest": record(_RESOURCE_KEYS, required=("resource_type",), closed=False),
    "ResourceInBulk": record({"gid": GID, **_RESOURCE_KEYS}, required=("gid", "resource_type"), closed=False),
    "ResourcesRequest": {
        "anyOf": [
            schema("ResourceInBulk"),
            array(schema("ResourceInBulk"), minItems=1, maxItems=RESOURCES_PER_PUT_MAX),
        ]
    },
    "Resource": record(
        {
            "gid": GID,
            "resource_type": _TYPE,
            "resource_subtype": nullable(_TYPE),
            "name": nullable(_NAME),
            "parents": array(GID),
            "workspace": schema("Compact"),
            "deleted": _FLAG,
        },
        required=("gid",),
    ),
    "Event": record(
        {
            "resource": _INLINE,
            "action": _ACTION,
            "user": {"anyOf": [GID, schema("UserIn"), {"type": "null"}]},
            "parent": {"anyOf": [*_INLINE["anyOf"], {"type": "null"}]},
            "change": {
                **nullable(schema("Change")),
                "description": "Required with the action `changed`, refused otherwise.",
            },
            "created_at": nullable(_TIME_IN),
            "id": nullable(
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": EXTERNAL_ID_CHARS_MAX,
                    "pattern": _PLAIN,
                    "description": "The publisher's own; a repeat within the retention appends nothing.",
                }
            ),
        },
        required=("resource", "action"),
        closed=False,
    ),
    "UserIn": record({"gid": GID, "resource_type": nullable(_TYPE)}, required=("gid",), closed=False),
    "Change": record(
        {
            "field": _FIELD,
            "action": {"type": "string", "enum": list(CHANGE_ACTIONS)},
            "new_value": _VALUE,
            "added_value": _VALUE,
            "removed_value": _VALUE,
        },
        required=("field", "action"),
        closed=False,
    ),
    "EventsRequest": {
        "anyOf": [schema("Event"), array(schema("Event"), minItems=1, maxItems=EVENTS_PER_PUBLISH_MAX)]
    },
    "Published": record(
        {
            "accepted": {"type": "integer", "minimum": 1},
            "last": {"type": "string", "pattern": "^[0-9]+$", "description": "A position of the log."},
        },
        required=("accepted", "last"),
    ),
}

_TOKEN_KEYS: Final[Description] = {
    "prefix": _TEXT,
    "user": record(
        {"gid": GID, "resource_type": _constant("user"), "name": nullable(_NAME)}, required=("gid",)
    ),
    "app": GID,
    "scopes": array(_SCOPE),
    "workspaces": nullable(array(GID)),
    "created_at": _TIME,
    "expires_at": nullable(_TIME),
    "last_used_at": nullable(_TIME),
    "revoked_at": nullable(_TIME),
}

_TOKENS: Final[Description] = {
    "TokenRequest": record(
        {
            "user": GID,
            "user_name": nullable({**_NAME, "minLength": 1}),
            "app": nullable(GID),
            "scopes": {
                **nullable(array(_SCOPE, minItems=1, maxItems=len(Scope))),
                "description": "All but `admin` by default.",
            },
            "workspaces": {
                **nullable(array(GID, minItems=1, maxItems=TOKEN_WORKSPACES_MAX)),
                "description": "All by default.",
            },
            "expires_at": nullable(_TIME_IN),
        },
        required=("user",),
        closed=False,
    ),
    "Token": _answered("token", _TOKEN_KEYS),
    "NewToken": _answered(
        "token", {**_TOKEN_KEYS, "token": {**_TEXT, "description": "The token itself, told this once."}}
    ),
}

_COMMON: Final[Description] = {
    "Options": nullable(
        record(
            {
                "pretty": _FLAG,
                "fields": {"anyOf": [array(_TEXT, maxItems=OPT_FIELDS_MAX), _TEXT, {"type": "null"}]},
            },
            closed=False,
        )
    ),
    "Compact": _COMPACT,
    "Empty": record({}, maxProperties=0),
    "Errors": record(
        {
            "errors": array(
                record(
                    {
                        "message": {**_TEXT, "description": "For people."},
                        "help": _TEXT,
                        "code": {**_TEXT, "pattern": "^[a-z_]+$", "description": "For programs; stable."},
                        "phrase": {**_TEXT, "description": "On a 500: finds the line of the service's log."},
                        "gid": {**GID, "description": "On a duplicate: the webhook that stands."},
                    },
                    required=("message", "help", "code"),
                ),
                minItems=1,
            )
        },
        required=("errors",),
    ),
    "Status": record(
        {"status": {"type": "string", "enum": ["ok", "unavailable"]}, "troubles": array(_TEXT, minItems=1)},
        required=("status",),
    ),
}

SCHEMAS: Final[Description] = {**_WEBHOOKS, **_PUBLISHING, **_TOKENS, **_COMMON}
