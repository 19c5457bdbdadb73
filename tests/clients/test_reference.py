"""The reference's own calls: its curl, its JavaScript manual with every `opt_fields` value, and our client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import count
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from tests.clients.sdks import drive, node_receiver, run_node
from tests.serving import PROJECT, TASK, WORKSPACE, Receiver, Service, event
from tidings.client import CreateWebhookBody, Options, UpdateWebhookBody, WebhooksApi
from tidings.receiver import Delivery, Handshake, receive
from tidings.signing import standard_secret

# What the reference names for each call (contract §0a); the last three are for the list alone, and mean nothing.
FIELDS: Final = (
    "active",
    "created_at",
    "delivery_retry_count",
    "failure_deletion_timestamp",
    "filters",
    "filters.action",
    "filters.fields",
    "filters.resource_subtype",
    "last_failure_at",
    "last_failure_content",
    "last_success_at",
    "next_attempt_after",
    "resource",
    "resource.name",
    "target",
    "offset",
    "path",
    "uri",
)
EVERY_FIELD: Final = ",".join(FIELDS)
FILTERS: Final = [
    {"resource_type": "task", "action": "changed", "fields": ["name", "notes"]},
    {"resource_type": "story", "resource_subtype": "comment_added"},
]
FULL_FILTERS: Final = [
    {"resource_type": "task", "resource_subtype": None, "action": "changed", "fields": ["name", "notes"]},
    {"resource_type": "story", "resource_subtype": "comment_added", "action": None, "fields": None},
]
RESOURCE: Final = {"gid": PROJECT, "resource_type": "project", "name": "Bugs"}


def expected(asked: str, target: str) -> dict[str, Any]:
    """What a webhook looks like with these fields, its gid and its times apart."""
    whole: dict[str, Any] = {
        "active": True,
        "delivery_retry_count": 0,
        "failure_deletion_timestamp": None,
        "filters": FULL_FILTERS,
        "last_failure_at": None,
        "last_failure_content": "",
        "next_attempt_after": None,
        "resource": RESOURCE,
        "target": target,
    }
    match asked.split("."):
        case ["filters", key]:
            return {"filters": [{key: each[key]} for each in whole["filters"]]}
        case ["resource", "name"]:
            return {"resource": {"gid": PROJECT, "name": "Bugs"}}
        case [name] if name in whole:
            return {name: whole[name]}
        case [_]:
            return whole if asked == EVERY_FIELD else {}
    return whole


TIMES: Final = ("created_at", "last_success_at")


def check_fields(asked: str, record: dict[str, Any], target: str) -> None:
    """Exactly the named fields and the gid (contract §3)."""
    assert record["gid"].isdigit()
    named = set(asked.split(",")) & set(TIMES)
    assert set(record) & set(TIMES) == named
    rest = {key: value for key, value in record.items() if key not in ("gid", *TIMES)}
    assert rest == expected(asked, target)


def by_sdk(service: Service, target: str) -> dict[str, Any]:
    """The five calls of the manual through npm asana 3.0.16, for each field and for all of them."""
    seen = drive(
        "node-3.0.16",
        "fields",
        service,
        target=target,
        filters=FILTERS,
        opt_fields=[*FIELDS, EVERY_FIELD],
    )
    assert isinstance(seen, dict)
    return seen


def by_client(service: Service, target: str) -> dict[str, Any]:
    """The same through `tidings.client`."""
    new: CreateWebhookBody = {"data": {"resource": PROJECT, "target": target, "filters": FILTERS}}  # type: ignore[typeddict-item]  # plain data of a test
    filters: UpdateWebhookBody = {"data": {"filters": FILTERS}}  # type: ignore[typeddict-item]  # as above
    seen: dict[str, Any] = {}
    with WebhooksApi(service.token, base_url=service.base_url) as webhooks:
        for asked in (*FIELDS, EVERY_FIELD):
            opts: Options = {"opt_fields": asked.split(",")}
            created = webhooks.create_webhook(new, opts)
            gid = created["gid"]
            seen[asked] = {
                "create": created,
                "get": webhooks.get_webhook(gid, opts),
                "list": list(webhooks.get_webhooks(WORKSPACE, {"limit": 50, "opt_fields": asked})),
                "update": webhooks.update_webhook(filters, gid, opts),
                "delete": webhooks.delete_webhook(gid),
            }
    return seen


@pytest.mark.parametrize("calls", [by_sdk, by_client])
def test_the_five_calls_with_every_field_the_reference_names(
    calls: Callable[[Service, str], dict[str, Any]], service: Service, receiver: Receiver
) -> None:
    target = receiver.url("/receive-webhook/7654")
    seen = calls(service, target)
    assert set(seen) == {*FIELDS, EVERY_FIELD}
    for asked, answers in seen.items():
        (listed,) = answers["list"]
        for record in (answers["create"], answers["get"], listed, answers["update"]):
            check_fields(asked, record, target)
        assert answers["delete"] == {}


def by_curl(service: Service, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """`curl … -d "resource=…" -d "target=…"`, as the reference prints it."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    fields = [part for name, value in form.items() for part in ("-d", f"{name}={value}")]
    done = subprocess.run(
        [
            *(curl, "--noproxy", "*", "-sS", "-w", "\n%{http_code}"),
            *("-H", f"Authorization: Bearer {service.token}"),
            *("-X", "POST", f"{service.base_url}/webhooks", *fields),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def by_form(service: Service, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The same form, encoded as the standard says."""
    response = service.api(
        "POST",
        "/webhooks",
        content=urlencode(form),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    return response.status_code, response.json()


@pytest.mark.parametrize("send", [by_curl, by_form])
def test_the_form_of_the_references_curl(
    send: Callable[[Service, dict[str, str]], tuple[int, dict[str, Any]]],
    service: Service,
    receiver: Receiver,
) -> None:
    target = receiver.url("/receive-webhook/7654")
    status, body = send(service, {"resource": PROJECT, "target": target})
    assert status == 201
    assert set(body) == {"data", "X-Hook-Secret"}
    assert body["data"]["target"] == target
    assert body["data"]["resource"] == RESOURCE
    assert body["data"]["filters"] == []
    assert body["data"]["active"] is True
    (handshake,) = receiver.handshakes("/receive-webhook/7654")
    assert body["X-Hook-Secret"] == handshake.secret


def test_our_client_shows_the_secret_and_pages_through_lists(service: Service, receiver: Receiver) -> None:
    with WebhooksApi(service.token, base_url=service.base_url) as webhooks:
        number = count()

        def create() -> str:
            target = receiver.url(f"/{next(number)}")
            created = webhooks.create_webhook(
                {"data": {"resource": PROJECT, "target": target}}, full_payload=True
            )
            assert created["X-Hook-Secret"] == receiver.secret(f"/{created['data']['target'][-1]}")
            return created["data"]["gid"]

        gids = [create() for _ in range(5)]
        listed = webhooks.get_webhooks(WORKSPACE, {"limit": 2, "resource": PROJECT})
        assert [webhook["gid"] for webhook in listed] == gids
        page = webhooks.get_webhooks(WORKSPACE, {"limit": 2}, full_payload=True)
        following = page.get("next_page")
        assert following is not None
        rest = webhooks.get_webhooks(WORKSPACE, {"limit": 2, "offset": following["offset"]})
        assert [webhook["gid"] for webhook in rest] == gids[2:]


# -- receivers -------------------------------------------------------------------------------------

TEXTS: Final = 'é / \\ "quoted" \U0001f514 \u2028 <b>&amp;</b> \x7f ñ'
TRICKY: Final = [
    event(TASK, "changed", change={"field": TEXTS, "action": "changed"}),
    event(
        TASK,
        "changed",
        change={
            "field": "custom_fields",
            "action": "changed",
            "new_value": {
                "gid": "55",
                "resource_type": "custom_field",
                "text_value": TEXTS,
                "rest": ["\n\t\b\x01\x0b\x1f", 2**53 - 1, True, None, {}],
            },
        },
    ),
]


def test_a_receiver_that_serialises_again_before_it_hashes_accepts(service: Service) -> None:
    """Asana's own Node receiver hashes what JSON.stringify makes of the parsed body (contract §0.9)."""
    with node_receiver() as (url, said):
        service.create_webhook(PROJECT, url)
        assert next(said)["status"] == 200
        service.publish(*TRICKY)
        seen: list[Any] = []
        while len(seen) < len(TRICKY):
            told = next(said)
            assert told["status"] == 200
            seen += told["events"]
        assert [each["change"]["field"] for each in seen] == [TEXTS, "custom_fields"]
        assert seen[1]["change"]["new_value"]["text_value"] == TEXTS


def test_our_receiver_kit_takes_what_arrives(service: Service, receiver: Receiver) -> None:
    service.create_webhook(PROJECT, receiver.url())
    service.publish(*TRICKY)
    receiver.wait_until(lambda: len(receiver.events()) == len(TRICKY))
    (shaken,) = receiver.handshakes()
    handshake = receive(shaken.headers, shaken.body, secret=None)
    assert isinstance(handshake, Handshake)
    events: list[Any] = []
    for request in receiver.deliveries():
        delivery = receive(request.headers, request.body, secret=handshake.secret)
        assert isinstance(delivery, Delivery)
        assert delivery.delivery_id == request.header("X-Tidings-Delivery")
        assert delivery.webhook
        events += delivery.events
    assert [each["change"]["field"] for each in events] == [TEXTS, "custom_fields"]


def test_the_library_of_standard_webhooks_takes_what_arrives(service: Service, receiver: Receiver) -> None:
    """With the secret in its form; so that such a receiver also refuses replays (contract §12.30)."""
    service.create_webhook(PROJECT, receiver.url())
    service.publish(*TRICKY)
    receiver.wait_until(lambda: receiver.taken())
    delivery = receiver.taken()[0]
    told = {
        "secret": standard_secret(receiver.secret()),
        "headers": {name.lower(): value for name, value in delivery.headers},
        "body": delivery.body.decode(),
    }
    assert run_node("standard.js", told) == {"events": delivery.events}
