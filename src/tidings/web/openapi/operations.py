"""Every call, by path and method."""

from typing import Any, Final

from tidings.limits import BODY_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_PER_PUBLISH_MAX, RESOURCES_PER_PUT_MAX
from tidings.model import Scope
from tidings.web.openapi.parts import (
    Description,
    answer,
    array,
    body,
    envelope,
    nullable,
    parameter,
    response,
    schema,
)

_SHAPED: Final = ("opt_fields", "opt_pretty")
_EMPTY: Final = answer("Done.", envelope(schema("Empty")))


def _call(
    name: str,
    summary: str,
    *,
    tag: str,
    scope: Scope,
    parameters: tuple[str, ...] = ("opt_pretty",),
    refusals: tuple[tuple[str, str], ...] = (),
    **more: Any,
) -> Description:
    """An operation that needs a token: what every such call has in common, and what this one adds."""
    answers = more.pop("responses")
    for status, refusal in (
        ("400", "BadRequest"),
        ("401", "NotAuthorized"),
        ("403", "Forbidden"),
        *refusals,
        ("413", "TooLarge"),
        ("500", "ServerError"),
        ("503", "Unavailable"),
    ):
        answers[status] = response(refusal)
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "security": [{"token": [scope.value]}],
        "parameters": [parameter(each) for each in parameters],
        **more,
        "responses": answers,
    }


_UNKNOWN: Final = ("404", "NotFound")
_LATER: Final = ("429", "TooManyRequests")
_CONFLICT: Final = ("409", "Conflict")


def _webhook(name: str, summary: str, **more: Any) -> Description:
    """One of Asana's own calls: metered."""
    more["refusals"] = (*more.get("refusals", ()), _LATER)
    return _call(name, summary, tag="Webhooks", **more)


_NEXT_PAGE: Final = nullable(schema("NextPage"))
_LIST: Final[Description] = envelope(array(schema("Webhook")))
_LIST["properties"]["next_page"] = {
    **_NEXT_PAGE,
    "description": "Only where a limit or an offset was given; null on the last page.",
}

_WEBHOOKS: Final[Description] = {
    "/api/1.0/webhooks": {
        "post": _webhook(
            "createWebhook",
            "Establish a webhook: the target must shake hands while this call waits.",
            description="The target is sent a POST with `X-Hook-Secret` and must answer 200 or 204 with the same "
            "header. What is published from then on is delivered to it.",
            scope=Scope.WEBHOOKS_WRITE,
            parameters=_SHAPED,
            requestBody=body(schema("WebhookRequest"), form=schema("WebhookForm")),
            responses={
                "201": answer(
                    "The webhook, and the secret its deliveries are signed with, told this once.",
                    envelope(
                        schema("Webhook"),
                        **{"X-Hook-Secret": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
                    ),
                    headers={"Location": {"required": True, "schema": {"type": "string"}}},
                )
            },
        ),
        "get": _webhook(
            "getWebhooks",
            "List the caller's webhooks in a workspace, in the order of creation.",
            scope=Scope.WEBHOOKS_READ,
            parameters=("workspace", "resource", "limit", "offset", *_SHAPED),
            responses={"200": answer("Compact records, unless fields are named.", _LIST)},
        ),
    },
    "/api/1.0/webhooks/{gid}": {
        "parameters": [parameter("gid")],
        "get": _webhook(
            "getWebhook",
            "Read a webhook.",
            scope=Scope.WEBHOOKS_READ,
            parameters=_SHAPED,
            refusals=(_UNKNOWN,),
            responses={"200": answer("The full record.", envelope(schema("Webhook")))},
        ),
        "put": _webhook(
            "updateWebhook",
            "Replace a webhook's filters.",
            description="They decide for everything that was not yet delivered.",
            scope=Scope.WEBHOOKS_WRITE,
            parameters=_SHAPED,
            refusals=(_UNKNOWN,),
            requestBody=body(schema("WebhookUpdate"), form=schema("WebhookUpdateForm")),
            responses={"200": answer("The full record.", envelope(schema("Webhook")))},
        ),
        "delete": _webhook(
            "deleteWebhook",
            "End a webhook.",
            description="A delivery in flight may still arrive; none is started after.",
            scope=Scope.WEBHOOKS_DELETE,
            refusals=(_UNKNOWN,),
            responses={"200": _EMPTY},
        ),
    },
    "/api/1.0/webhooks/{gid}/attempts": {
        "parameters": [parameter("gid")],
        "get": _call(
            "getAttempts",
            "List what was tried for a webhook, newest first.",
            tag="Webhooks",
            scope=Scope.WEBHOOKS_READ,
            parameters=("limit", "offset", *_SHAPED),
            refusals=(_UNKNOWN,),
            responses={
                "200": answer("A page.", envelope(array(schema("Attempt")), next_page=_NEXT_PAGE)),
            },
        ),
    },
}

_PUBLISHING: Final[Description] = {
    "/api/1.0/events": {
        "post": _call(
            "publishEvents",
            f"Publish 1 to {EVENTS_PER_PUBLISH_MAX} events, all or nothing.",
            description=f"At most {BODY_BYTES_MAX} bytes in all, {EVENT_BYTES_MAX} for an event. Events that describe "
            f"their resource also need the scope `{Scope.RESOURCES_WRITE.value}`.",
            tag="Publishing",
            scope=Scope.EVENTS_WRITE,
            parameters=("idempotency_key", "opt_pretty"),
            refusals=(_CONFLICT, _LATER),
            requestBody=body(schema("EventsRequest")),
            responses={"201": answer("Every event is on disk.", envelope(schema("Published")))},
        ),
    },
    "/api/1.0/resources": {
        "post": _call(
            "putResources",
            f"Create or replace 1 to {RESOURCES_PER_PUT_MAX} resources, all or nothing.",
            description="They may refer to later ones.",
            tag="Publishing",
            scope=Scope.RESOURCES_WRITE,
            parameters=_SHAPED,
            requestBody=body(schema("ResourcesRequest")),
            responses={"200": answer("The resources.", envelope(array(schema("Resource"))))},
        ),
    },
    "/api/1.0/resources/{gid}": {
        "parameters": [parameter("gid")],
        "put": _call(
            "putResource",
            "Create or replace a resource, and its place in the hierarchy.",
            description="What is left out is none. Every resource leads to exactly one workspace.",
            tag="Publishing",
            scope=Scope.RESOURCES_WRITE,
            parameters=_SHAPED,
            refusals=(_UNKNOWN,),
            requestBody=body(schema("ResourceRequest")),
            responses={"200": answer("The resource.", envelope(schema("Resource")))},
        ),
        "get": _call(
            "getResource",
            "Read a resource.",
            tag="Publishing",
            scope=Scope.RESOURCES_READ,
            parameters=_SHAPED,
            refusals=(_UNKNOWN,),
            responses={"200": answer("The resource.", envelope(schema("Resource")))},
        ),
        "delete": _call(
            "deleteResource",
            "Mark a resource as deleted.",
            description="It keeps its place, nothing is published, and events on it are still accepted.",
            tag="Publishing",
            scope=Scope.RESOURCES_WRITE,
            refusals=(_UNKNOWN,),
            responses={"200": _EMPTY},
        ),
    },
}

_TOKENS: Final[Description] = {
    "/api/1.0/tokens": {
        "post": _call(
            "createToken",
            "Make a token.",
            description="A token of some workspaces can only make tokens for those.",
            tag="Tokens",
            scope=Scope.ADMIN,
            requestBody=body(schema("TokenRequest")),
            responses={"201": answer("The record and the token.", envelope(schema("NewToken")))},
        ),
        "get": _call(
            "getTokens",
            "List the tokens.",
            tag="Tokens",
            scope=Scope.ADMIN,
            parameters=_SHAPED,
            responses={"200": answer("Records without the tokens.", envelope(array(schema("Token"))))},
        ),
    },
    "/api/1.0/tokens/{gid}": {
        "parameters": [parameter("gid")],
        "delete": _call(
            "deleteToken",
            "Revoke a token.",
            description="Webhooks of its owner stop where no other token of theirs covers the workspace.",
            tag="Tokens",
            scope=Scope.ADMIN,
            refusals=(_UNKNOWN,),
            responses={"200": _EMPTY},
        ),
    },
}


def _open(name: str, summary: str, responses: Description) -> Description:
    """An operation that needs no token."""
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "tags": ["Service"],
            "security": [],
            "responses": {**responses, "500": response("ServerError")},
        }
    }


_STATUS: Final = schema("Status")

_SERVICE: Final[Description] = {
    "/healthz": _open("getHealth", "Say that the process answers.", {"200": answer("It does.", _STATUS)}),
    "/readyz": _open(
        "getReadiness",
        "Say whether the service does its work.",
        {
            "200": answer("It does.", _STATUS),
            "503": answer("It does not; `troubles` says why.", _STATUS),
        },
    ),
    "/openapi.json": _open(
        "getDescription", "This description.", {"200": answer("OpenAPI 3.1.", {"type": "object"})}
    ),
}

PATHS: Final[Description] = {**_WEBHOOKS, **_PUBLISHING, **_TOKENS, **_SERVICE}
