"""Deliveries as receivers verify them: with our own kit, and by parsing and serialising again."""

import json
import time

import pytest

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Answer, Receiver, Request, event
from tidings import receiver as kit

# The delivery of contract §6, recorded at the real service.
GOLDEN_SECRET = "cfecd97ea57de2b55a0a1a343c16fe3e"
GOLDEN_SIGNATURE = "11c89fb59db2a2cfe5eef26a3d7dc77d3ad0bbdd7f23700d7aff2fe6ff8e2581"
GOLDEN_BODY = (
    b'{"events":[{"user":{"gid":"1198829643564474","resource_type":"user"},"created_at":"2021-10-29T02:44:21.987Z",'
    b'"action":"changed","parent":null,"change":{"field":"completed","action":"changed"},"resource":{"gid":'
    b'"1199170056173519","resource_type":"task","resource_subtype":"default_task"}},{"user":{"gid":"1198829643564474",'
    b'"resource_type":"user"},"created_at":"2021-10-29T02:44:21.987Z","action":"changed","resource":{"gid":'
    b'"1199170056173519","resource_type":"task","resource_subtype":"default_task"},"parent":null,"change":{"field":'
    b'"completed_at","action":"changed"}}]}'
)


def test_the_recorded_delivery_said_again(start: Start, receiver: Receiver) -> None:
    """The recorded bytes verify; published here, the same events arrive, verify, and say the same."""
    golden = kit.receive({"X-Hook-Signature": GOLDEN_SIGNATURE}, GOLDEN_BODY, secret=GOLDEN_SECRET)
    assert isinstance(golden, kit.Delivery)

    service = start()
    service.put_resource("1199170056173519", "task", parents=[PROJECT], resource_subtype="default_task")
    created = service.api("POST", "/webhooks", data={"resource": PROJECT, "target": receiver.url()}).json()
    secret = created["X-Hook-Secret"]
    assert secret == receiver.secret()
    service.publish(
        *(
            {**each, "resource": each["resource"]["gid"], "user": each["user"]["gid"]}
            for each in golden.events
        )
    )
    receiver.wait_until(lambda: receiver.taken())
    request = receiver.taken()[0]
    delivery = kit.receive(request.headers, request.body, secret=secret, now=time.time())
    assert isinstance(delivery, kit.Delivery)
    assert delivery.events == golden.events
    assert delivery.webhook == created["data"]["gid"]
    assert delivery.delivery_id == request.header("webhook-id")
    with pytest.raises(kit.VerificationError):
        kit.receive(request.headers, request.body + b" ", secret=secret)


def test_a_receiver_that_serialises_again_accepts_it(start: Start, receiver: Receiver) -> None:
    """As the official Node receiver does: parse, write compactly without escapes, hash that."""
    service = start()
    secret = service.api("POST", "/webhooks", data={"resource": PROJECT, "target": receiver.url()}).json()[
        "X-Hook-Secret"
    ]

    def verify(request: Request) -> Answer:
        again = json.dumps(json.loads(request.body), ensure_ascii=False, separators=(",", ":")).encode()
        kit.receive(request.headers, again, secret=secret)
        return Answer()

    receiver.on("/hook", delivery=verify)
    odd = 'é / \\ "quoted" \u2028 \U0001f600 \x7f </script>'
    change = {"field": odd, "action": "changed", "new_value": {"gid": "1", "resource_type": "x", "name": odd}}
    service.publish(event(TASK, "changed", change=change))
    receiver.wait_until(lambda: receiver.events())
    assert receiver.events()[0]["change"]["field"] == odd
