"""Two processes on one SQLite file: one answers calls, the other delivers."""

from functools import partial

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Receiver, Service, event


def numbered(number: int) -> dict[str, object]:
    return event(TASK, "changed", change={"field": str(number), "action": "changed"})


def received(receiver: Receiver) -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events()]


def has_received(receiver: Receiver, count: int) -> bool:
    return len(received(receiver)) >= count


def test_events_published_through_the_one_are_delivered_by_the_other(
    start: Start, receiver: Receiver
) -> None:
    """Each once, in order, and soon, whichever process took it; also to a webhook the other established."""
    dispatching = start()
    answering = start("--no-dispatch")
    answering.create_webhook(PROJECT, receiver.url())
    for number in range(10):
        answering.publish(numbered(number))
        # Seen by tailing: nobody wakes it.
        receiver.wait_until(partial(has_received, receiver, number + 1))
    both: tuple[Service, Service] = (dispatching, answering)
    for number in range(10, 210):
        both[number % 2].publish(numbered(number))
    receiver.wait_until(partial(has_received, receiver, 210))
    assert received(receiver) == list(range(210))
    assert receiver.overlaps == 0


def test_two_that_deliver_share_the_work(start: Start, receiver: Receiver) -> None:
    """Never two deliveries at once to one webhook, nothing twice, nothing out of order."""
    both = (start(), start())
    paths = [f"/{number}" for number in range(10)]
    for path in paths:
        both[0].create_webhook(PROJECT, receiver.url(path))
    for first in range(0, 600, 20):
        both[first // 20 % 2].publish(*map(numbered, range(first, first + 20)))
    for path in paths:
        receiver.wait_until(partial(has_all, receiver, path, 600))
        assert [int(each["change"]["field"]) for each in receiver.events(path)] == list(range(600))
    assert receiver.overlaps == 0


def has_all(receiver: Receiver, path: str, count: int) -> bool:
    return len(receiver.events(path)) >= count


def test_filters_and_deletes_of_the_one_hold_for_the_other(start: Start, receiver: Receiver) -> None:
    start()
    answering = start("--no-dispatch")
    gid = answering.create_webhook(PROJECT, receiver.url())["gid"]
    other = answering.create_webhook(PROJECT, receiver.url("/other"))["gid"]
    answering.ask("PUT", f"/webhooks/{gid}", data={"filters": [{"action": "deleted"}]})
    answering.publish(numbered(1), event(TASK, "deleted"))
    receiver.wait_until(lambda: receiver.events())
    assert [each["action"] for each in receiver.events()] == ["deleted"]
    receiver.wait_until(lambda: len(receiver.events("/other")) == 2)
    answering.ask("DELETE", f"/webhooks/{other}")
    answering.publish(event(TASK, "deleted"))
    receiver.wait_until(lambda: len(receiver.events()) == 2)
    assert len(receiver.events("/other")) == 2
