"""The official SDKs, unchanged: create, get, list over pages, update, delete, and every way to be refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.clients.sdks import NODE, PYTHON, drive
from tests.serving import PROJECT, TASK, USER, Answer, Receiver, Service, event

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FILTERS = [{"resource_type": "task", "action": "changed", "fields": ["name"]}]
NEW_FILTERS = [{"resource_type": "task", "resource_subtype": "default_task"}, {"action": "deleted"}]
EMPTY_FILTER = {"resource_type": None, "resource_subtype": None, "action": None, "fields": None}
RESOURCE = {"gid": PROJECT, "resource_type": "project", "name": "Bugs"}

# Contract §2.2.
REFUSALS = {
    "bogus_token": (401, "Not Authorized"),
    "unknown_gid": (404, "webhook: Unknown object: 9999"),
    "missing_resource": (400, "You should specify one of resource"),
    "duplicate": (
        403,
        "Duplicated webhook. You already have an existing webhook for the given resource and target. "
        "Delete the old one before creating another.",
    ),
    "no_handshake": (
        400,
        "The remote server which is intended to receive the webhook did not respond with the handshake secret.",
    ),
}


def normal(filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [EMPTY_FILTER | each for each in filters]


def full(gid: str, target: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    """The full record of a healthy webhook (contract §1.1), but for the two times."""
    return {
        "gid": gid,
        "resource_type": "webhook",
        "resource": RESOURCE,
        "target": target,
        "active": True,
        "filters": normal(filters),
        "last_failure_at": None,
        "last_failure_content": "",
        "delivery_retry_count": 0,
        "next_attempt_after": None,
        "failure_deletion_timestamp": None,
        "is_workspace_webhook": False,
    }


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """The record without the times of its creation and last success, which have to be there."""
    times = [record["created_at"], record["last_success_at"]]
    assert all(TIME.fullmatch(time) for time in times)
    assert times[0] <= times[1]
    return {key: value for key, value in record.items() if key not in ("created_at", "last_success_at")}


@pytest.mark.parametrize("sdk", [*PYTHON, *NODE])
def test_an_official_sdk_does_everything_unchanged(sdk: str, service: Service, receiver: Receiver) -> None:
    receiver.on("/deaf", handshake=Answer(200))
    target = receiver.url("/hook") + "?from=a%2Fb"
    more = [receiver.url(f"/more/{number}") for number in range(4)]
    seen = drive(
        sdk,
        "establish",
        service,
        target=target,
        more_targets=more,
        deaf_target=receiver.url("/deaf"),
        filters=FILTERS,
        new_filters=NEW_FILTERS,
    )

    gid = seen["created"]["gid"]
    assert timeless(seen["created"]) == timeless(seen["got"]) == full(gid, target, FILTERS)
    assert timeless(seen["updated"]) == full(gid, target, NEW_FILTERS)
    (handshake,) = receiver.handshakes("/hook")
    assert handshake.query == "from=a%2Fb"
    assert handshake.body == b"{}"
    assert re.fullmatch("[0-9a-f]{64}", handshake.secret or "")
    if not sdk.startswith("node-1"):  # returns nothing but `data`
        assert seen["secret"] == handshake.secret
    if sdk.startswith("python-3"):
        assert seen["updated_fields"] == {
            "gid": gid,
            "target": target,
            "resource": {"gid": PROJECT, "name": "Bugs"},
        }

    listed = [webhook for page in seen["pages"] for webhook in page]
    if sdk in NODE:  # the others hide where a page ends
        assert [len(page) for page in seen["pages"]] == [2, 2, 1]
    assert [webhook["target"] for webhook in listed] == [target, *more]
    assert listed[0] == {
        "gid": gid,
        "resource_type": "webhook",
        "active": True,
        "resource": RESOURCE,
        "target": target,
    }
    check_refusals(seen["errors"], gid)

    # The filters of the update, not those of the create.
    service.publish(event(TASK, "deleted"))
    for path in ("/hook", *(f"/more/{number}" for number in range(4))):
        check_delivery(receiver, path)

    gids = [webhook["gid"] for webhook in listed]
    seen = drive(sdk, "remove", service, gids=gids)
    assert seen["answers"] == [{}] * 5
    assert [webhook for page in seen["left"] for webhook in page] == []
    assert seen["gone"]["status"] == 404
    assert seen["gone"]["errors"][0]["message"] == f"webhook: Unknown object: {gid}"


def check_delivery(receiver: Receiver, path: str) -> None:
    """One delivery arrives there, signed, with the event that was published."""
    receiver.wait_until(lambda: receiver.deliveries(path), message=f"nothing at {path}")
    (delivery,) = receiver.deliveries(path)
    assert delivery.signed_with(receiver.secret(path))
    (delivered,) = delivery.events
    assert delivered["user"] == {"gid": USER, "resource_type": "user"}
    assert delivered["resource"]["gid"] == TASK
    assert delivered["action"] == "deleted"


def check_refusals(refusals: dict[str, Any], gid: str) -> None:
    """What each SDK finds in the error it raises: the status, and all of the body."""
    # Beyond the recorded text: the webhook there is, for clients that would list to find it.
    assert refusals["duplicate"]["errors"][0].pop("gid") == gid
    for name, (status, message) in REFUSALS.items():
        refused = refusals.pop(name)
        assert refused["status"] == status
        (error,) = refused["errors"]
        assert set(error) == {"message", "help", "code"}
        assert error["message"] == message
    assert refusals == {}
