"""A receiver that fails, as its record tells it, at a speed one can watch."""

from typing import Any

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, WORKSPACE, Answer, Receiver, Service, event, wait_until

FAST = {
    "TIDINGS_RETRY_FIRST": "100ms",
    "TIDINGS_RETRY_MAX": "500ms",
    "TIDINGS_HEARTBEAT_EVERY": "1s",
}
# For the one test that waits for the end; the others may be slow, and must not see it.
SHORT_LIVED = FAST | {"TIDINGS_GIVE_UP_AFTER": "5s"}


def record(service: Service, gid: str) -> Any:
    return service.ask("GET", f"/webhooks/{gid}")


def numbered(number: int) -> dict[str, object]:
    return event(TASK, "changed", change={"field": str(number), "action": "changed"})


def test_the_record_tells_a_failure_and_a_recovery(start: Start, receiver: Receiver) -> None:
    """Retry count, next attempt, deletion time, last failure; nothing lost or out of order after recovery."""
    service = start(**FAST)
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    healthy = record(service, gid)
    assert (healthy["delivery_retry_count"], healthy["last_failure_content"]) == (0, "")
    assert healthy["next_attempt_after"] is healthy["failure_deletion_timestamp"] is None

    receiver.on("/hook", delivery=Answer(500, b"Could not complete the request", reason="Server Error"))
    service.publish(*(numbered(number) for number in range(150)))
    wait_until(lambda: record(service, gid)["delivery_retry_count"] >= 2)
    failing = record(service, gid)
    assert failing["active"] is True
    assert failing["last_failure_content"] == "500 Server Error\n\nCould not complete the request"
    assert healthy["last_success_at"] <= failing["last_failure_at"] <= failing["next_attempt_after"]
    assert failing["next_attempt_after"] <= failing["failure_deletion_timestamp"]
    service.publish(*(numbered(number) for number in range(150, 200)))

    receiver.on("/hook", delivery=Answer(200))
    receiver.wait_until(lambda: len([each for each in receiver.events()]) >= 200)
    assert [int(each["change"]["field"]) for each in receiver.events()] == list(range(200))
    wait_until(lambda: record(service, gid)["next_attempt_after"] is None)
    recovered = record(service, gid)
    assert recovered["delivery_retry_count"] == 0
    assert recovered["failure_deletion_timestamp"] is None
    assert recovered["last_failure_content"] == failing["last_failure_content"]
    assert recovered["last_success_at"] > failing["last_failure_at"]

    attempts = [each for each in receiver.deliveries() if each.events]
    # The failed batch came again as the same bytes under the same id, until it was taken.
    first = attempts[0]
    repeats = [
        each for each in attempts if each.header("X-Tidings-Delivery") == first.header("X-Tidings-Delivery")
    ]
    assert len(repeats) >= 3
    assert {each.body for each in repeats} == {first.body}


def test_a_webhook_that_only_fails_is_gone(start: Start, receiver: Receiver) -> None:
    service = start(**SHORT_LIVED)
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    receiver.on("/hook", delivery=Answer(503))
    service.publish(numbered(0))
    wait_until(lambda: service.api("GET", f"/webhooks/{gid}").status_code == 404, timeout=20)
    # Gone for its owner in every way: the same resource and target may be taken again.
    assert service.ask("GET", f"/webhooks?workspace={WORKSPACE}") == []
    receiver.on("/hook", delivery=Answer(200))
    assert service.create_webhook(PROJECT, receiver.url())["gid"] != gid


def test_a_quiet_webhook_hears_from_us(start: Start, receiver: Receiver) -> None:
    """Heartbeats: signed, with an empty list of events; a failed one counts as a failure."""
    service = start(**FAST)
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    receiver.wait_until(lambda: len(receiver.taken()) >= 2)
    assert {each.body for each in receiver.taken()} == {b'{"events":[]}'}
    receiver.on("/hook", delivery=Answer(500))
    wait_until(lambda: record(service, gid)["next_attempt_after"] is not None)


def test_410_ends_a_webhook_at_once(start: Start, receiver: Receiver) -> None:
    service = start()
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    receiver.on("/hook", delivery=Answer(410))
    service.publish(numbered(0))
    wait_until(lambda: service.api("GET", f"/webhooks/{gid}").status_code == 404)
    assert len(receiver.deliveries()) == 1


def test_a_receiver_that_was_away_gets_everything_in_order(start: Start, receiver: Receiver) -> None:
    service = start(**FAST)
    service.create_webhook(PROJECT, receiver.url())
    receiver.hang_up()
    for first in range(0, 500, 100):
        service.publish(*(numbered(number) for number in range(first, first + 100)))
    receiver.listen()
    receiver.wait_until(lambda: len(receiver.events()) == 500)
    assert [int(each["change"]["field"]) for each in receiver.events()] == list(range(500))
