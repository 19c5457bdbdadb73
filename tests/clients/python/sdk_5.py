"""Drives PyPI asana 5.x as its manual shows; prints what it saw as JSON."""

import importlib
import json
import sys
from typing import Any

# Installed by install.py in a folder of its own, out of the type checker's sight.
asana: Any = importlib.import_module("asana")
rest: Any = importlib.import_module("asana.rest")

wanted: dict[str, Any] = json.loads(sys.argv[1])


def connect(token: str) -> Any:
    configuration = asana.Configuration()
    configuration.host = wanted["base_url"]
    configuration.access_token = token
    return asana.WebhooksApi(asana.ApiClient(configuration))


webhooks = connect(wanted["token"])


def refused(call: Any, *arguments: Any) -> dict[str, Any]:
    """The status and the errors that a call must end with."""
    try:
        call(*arguments)
    except rest.ApiException as error:
        return {"status": error.status, "errors": json.loads(error.body)["errors"]}
    raise AssertionError("the call was not refused")


def create(**data: Any) -> Any:
    return webhooks.create_webhook({"data": data}, {}, full_payload=True)


def refused_create(**data: Any) -> dict[str, Any]:
    return refused(webhooks.create_webhook, {"data": data}, {})


def listed() -> list[Any]:
    """All webhooks, asked for in pages of two; this version hides where one ends."""
    return [list(webhooks.get_webhooks(wanted["workspace"], {"limit": 2}))]


def establish() -> dict[str, Any]:
    project, target = wanted["project"], wanted["target"]
    body = create(resource=project, target=target, filters=wanted["filters"])
    gid = body["data"]["gid"]
    for more in wanted["more_targets"]:
        webhooks.create_webhook({"data": {"resource": project, "target": more}}, {})
    return {
        "created": body["data"],
        "secret": body["X-Hook-Secret"],
        "got": webhooks.get_webhook(gid, {}),
        "pages": listed(),
        "updated": webhooks.update_webhook({"data": {"filters": wanted["new_filters"]}}, gid, {}),
        "errors": {
            "bogus_token": refused(connect("a-token-nobody-has").get_webhook, gid, {}),
            "unknown_gid": refused(webhooks.get_webhook, "9999", {}),
            "missing_resource": refused_create(target=target),
            "duplicate": refused_create(resource=project, target=target),
            "no_handshake": refused_create(resource=project, target=wanted["deaf_target"]),
        },
    }


def remove() -> dict[str, Any]:
    return {
        "answers": [webhooks.delete_webhook(gid) for gid in wanted["gids"]],
        "left": listed(),
        "gone": refused(webhooks.get_webhook, wanted["gids"][0], {}),
    }


json.dump({"establish": establish, "remove": remove}[wanted["phase"]](), sys.stdout)
