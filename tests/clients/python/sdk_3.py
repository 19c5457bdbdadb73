"""Drives PyPI asana 3.x as its manual shows; prints what it saw as JSON."""

import importlib
import json
import sys
from typing import Any

# Installed by install.py in a folder of its own, out of the type checker's sight.
asana: Any = importlib.import_module("asana")
error: Any = importlib.import_module("asana.error")

wanted: dict[str, Any] = json.loads(sys.argv[1])


def connect(token: str) -> Any:
    client = asana.Client.access_token(token)
    client.options["base_url"] = wanted["base_url"]
    return client.webhooks


webhooks = connect(wanted["token"])


def refused(call: Any, *arguments: Any) -> dict[str, Any]:
    """The status and the errors that a call must end with."""
    try:
        call(*arguments)
    except error.AsanaError as caught:
        return {"status": caught.status, "errors": caught.response.json()["errors"]}
    raise AssertionError("the call was not refused")


def refused_create(**data: Any) -> dict[str, Any]:
    return refused(webhooks.create_webhook, data)


def listed() -> list[Any]:
    """All webhooks, asked for in pages of two; this version hides where one ends."""
    return [list(webhooks.get_webhooks({"workspace": wanted["workspace"]}, page_size=2))]


def establish() -> dict[str, Any]:
    project, target = wanted["project"], wanted["target"]
    new = {"resource": project, "target": target, "filters": wanted["filters"]}
    body = webhooks.create_webhook(new, full_payload=True)
    gid = body["data"]["gid"]
    for more in wanted["more_targets"]:
        # The older name of the same call.
        webhooks.create({"resource": project, "target": more})
    return {
        "created": body["data"],
        "secret": body["X-Hook-Secret"],
        "got": webhooks.get_webhook(gid),
        "pages": listed(),
        "updated": webhooks.update_webhook(gid, {"filters": wanted["new_filters"]}),
        # This version asks for fields in the body's `options`.
        "updated_fields": webhooks.update_webhook(
            gid, {"filters": wanted["new_filters"]}, fields=["target", "resource.name"]
        ),
        "errors": {
            "bogus_token": refused(connect("a-token-nobody-has").get_webhook, gid),
            "unknown_gid": refused(webhooks.get_webhook, "9999"),
            "missing_resource": refused_create(target=target),
            "duplicate": refused_create(resource=project, target=target),
            "no_handshake": refused_create(resource=project, target=wanted["deaf_target"]),
        },
    }


def remove() -> dict[str, Any]:
    return {
        "answers": [webhooks.delete_webhook(gid) for gid in wanted["gids"]],
        "left": listed(),
        "gone": refused(webhooks.get_webhook, wanted["gids"][0]),
    }


json.dump({"establish": establish, "remove": remove}[wanted["phase"]](), sys.stdout)
