"""SIGKILL in the middle of thousands of events: what was acknowledged arrives, in order."""

import itertools
import threading
from functools import partial

import httpx

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, WAIT_SECONDS, Answer, Receiver, Request, Service, event

# The kill comes once so many have arrived.
EVENTS = 2_000
PER_CALL = 100


class Publisher:
    """Publishes numbered events in calls of a hundred until one fails, and knows which were acknowledged."""

    def __init__(self, service: Service) -> None:
        # A client of its own: the service's is closed with it, which may be while a call is being made.
        self._client = httpx.Client(
            base_url=service.base_url,
            headers={"Authorization": f"Bearer {service.token}"},
            timeout=30,
            trust_env=False,
        )
        self.acknowledged: list[int] = []
        self.uncertain: list[int] = []
        self._thread = threading.Thread(target=self._publish)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _publish(self) -> None:
        with self._client:
            for first in itertools.count(0, PER_CALL):
                numbers = range(first, first + PER_CALL)
                events = [numbered(number) for number in numbers]
                try:
                    self._client.post("/events", json={"data": events}).raise_for_status()
                except httpx.HTTPError:
                    # Not acknowledged: all of it may be in the log, or none.
                    self.uncertain.extend(numbers)
                    return
                self.acknowledged.extend(numbers)


def numbered(number: int) -> dict[str, object]:
    return event(TASK, "changed", change={"field": str(number), "action": "changed"})


def received(receiver: Receiver) -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events()]


def has_received(receiver: Receiver, more_than: int) -> bool:
    return len(firsts(received(receiver))) > more_than


def firsts(numbers: list[int]) -> list[int]:
    """Each number where it first came."""
    return list(dict.fromkeys(numbers))


def test_a_killed_service_loses_nothing(start: Start, receiver: Receiver) -> None:
    """At least once, in order, and of a call that was not acknowledged all or nothing."""
    service = start()
    service.create_webhook(PROJECT, receiver.url())
    publisher = Publisher(service)
    publisher.start()
    receiver.wait_until(lambda: len(receiver.events()) > EVENTS, timeout=60)
    assert not publisher.uncertain, "a call failed before the service was killed"
    service.kill()
    publisher.join()
    assert publisher.uncertain

    service.restart()
    wanted = publisher.acknowledged
    receiver.wait_until(lambda: set(wanted) <= set(received(receiver)), timeout=60)
    came = firsts(received(receiver))
    assert came == sorted(came)
    beyond = set(came) - set(wanted)
    assert not beyond or beyond == set(publisher.uncertain)


def test_every_kill_repeats_at_most_what_was_in_flight(start: Start, receiver: Receiver) -> None:
    """One webhook has one delivery in flight: a kill repeats at most one batch, under the same id."""
    service = start()
    service.create_webhook(PROJECT, receiver.url())
    for turn in range(3):
        service.publish(*(numbered(turn * PER_CALL * 5 + number) for number in range(PER_CALL * 5)))
        receiver.wait_until(partial(has_received, receiver, turn * PER_CALL * 5 + PER_CALL))
        service.kill()
        service.restart()
    everything = 3 * PER_CALL * 5
    receiver.wait_until(lambda: len(firsts(received(receiver))) == everything, timeout=60)
    came = received(receiver)
    assert firsts(came) == list(range(everything))
    assert len(came) - everything <= 3 * PER_CALL
    ids = [delivery.header("X-Tidings-Delivery") for delivery in receiver.taken() if delivery.events]
    assert len(ids) - len(set(ids)) <= 3


def test_a_stopped_service_repeats_nothing(start: Start, receiver: Receiver) -> None:
    """SIGTERM: what is in flight is finished and recorded, so each event comes once."""
    service = start()
    service.create_webhook(PROJECT, receiver.url())
    service.publish(*(numbered(number) for number in range(1000)))
    receiver.wait_until(lambda: len(receiver.events()) >= PER_CALL)
    service.stop()
    service.restart()
    receiver.wait_until(lambda: len(set(received(receiver))) == 1000)
    assert received(receiver) == list(range(1000))


def test_the_leases_of_a_killed_process_are_free_at_once(start: Start, receiver: Receiver) -> None:
    """Two services on one file: the other takes over what the killed one held, long before its lease runs out."""
    long_lease = {"TIDINGS_DELIVERY_TIMEOUT": "60s"}
    first = start(**long_lease)
    first.create_webhook(PROJECT, receiver.url())
    second = start("--no-dispatch")
    held = threading.Event()

    def hold(request: Request) -> Answer:
        if held.is_set():
            return Answer()
        held.set()
        receiver.closing.wait(30)
        return Answer(500)

    receiver.on("/hook", delivery=hold)
    second.publish(numbered(0))
    assert held.wait(WAIT_SECONDS), "the process beside did not see the event"
    first.kill()
    third = start(**long_lease)
    # Less than half of the lease.
    receiver.wait_until(lambda: received(receiver) == [0])
    assert third.alive
