"""Who may see and do what: owners, scopes, workspaces; and that a refusal changes nothing."""

from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, WORKSPACE, Receiver, Service, event


def token_of(service: Service, user: str = "77", **more: Any) -> str:
    made = service.ask("POST", "/tokens", data={"user": user, **more})
    text = made["token"]
    assert isinstance(text, str)
    return text


def test_another_owners_webhook_is_invisible(start: Start, receiver: Receiver) -> None:
    """Not found, not listed, not changed, not deleted; and its owner notices nothing of it."""
    service = start()
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    before = service.ask("GET", f"/webhooks/{gid}")
    stranger = token_of(service)
    answers = [
        service.api("GET", f"/webhooks/{gid}", token=stranger),
        service.api("PUT", f"/webhooks/{gid}", token=stranger, data={"filters": []}),
        service.api("DELETE", f"/webhooks/{gid}", token=stranger),
        service.api("GET", f"/webhooks/{gid}/attempts", token=stranger),
    ]
    assert [each.status_code for each in answers] == [404] * 4
    unknown = service.api("GET", "/webhooks/9999", token=stranger).json()["errors"][0]["message"]
    assert answers[0].json()["errors"][0]["message"] == unknown.replace("9999", gid)
    assert service.ask("GET", f"/webhooks?workspace={WORKSPACE}", token=stranger) == []
    assert service.ask("GET", f"/webhooks/{gid}") == before
    service.publish(event(TASK))
    receiver.wait_until(lambda: receiver.events())


@pytest.mark.parametrize(
    "limits",
    [{"scopes": ["webhooks:read", "events:read"]}, {"workspaces": ["2000"]}],
    ids=["without the scope", "without the workspace"],
)
def test_a_token_that_may_not_changes_nothing(
    start: Start, receiver: Receiver, limits: dict[str, list[str]]
) -> None:
    """403 to every call that would change something; no handshake, no event, no webhook."""
    service = start()
    service.put_resource("2000", "workspace")
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    # The same owner as the webhook's, so that only the limit speaks against it.
    owner = service.ask("GET", "/tokens")[0]
    token = token_of(service, user=owner["user"]["gid"], app=owner["app"], **limits)
    refused = [
        service.api(
            "POST", "/webhooks", token=token, data={"resource": PROJECT, "target": receiver.url("/b")}
        ),
        service.api("PUT", f"/webhooks/{gid}", token=token, data={"filters": [{"action": "deleted"}]}),
        service.api("DELETE", f"/webhooks/{gid}", token=token),
        service.api("POST", "/events", token=token, data=event(TASK)),
        service.api("PUT", f"/resources/{TASK}", token=token, data={"resource_type": "task", "parents": []}),
        service.api("DELETE", f"/resources/{TASK}", token=token),
    ]
    assert [each.status_code for each in refused] == [403] * 6
    assert receiver.requests("/b") == []
    assert service.ask("GET", f"/webhooks/{gid}")["filters"] == []
    service.publish(event(TASK, "undeleted"))
    receiver.wait_until(lambda: receiver.events())
    assert [each["action"] for each in receiver.events()] == ["undeleted"]
