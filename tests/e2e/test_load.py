"""Establishing and changing a webhook while about a thousand events a second are published on its resource."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, Receiver, Service, event

PER_CALL = 20
# One call each 20 ms: a thousand events a second.
PACE_SECONDS = 0.02


class Stream:
    """Publishes numbered events at a pace, alternately about the fields `a` and `b`, and knows their positions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._enough = threading.Event()
        # The number of each event by its position in the log.
        self.positions: dict[int, int] = {}
        self.published = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._enough.is_set():
            began = time.monotonic()
            numbers = range(self.published, self.published + PER_CALL)
            answer = self._service.publish(*(numbered(number) for number in numbers))
            last = int(answer["last"])
            self.positions.update(zip(range(last - PER_CALL + 1, last + 1), numbers, strict=True))
            self.published += PER_CALL
            self._enough.wait(max(0.0, PACE_SECONDS - (time.monotonic() - began)))

    def wait_for(self, receiver: Receiver, more: int) -> None:
        """Return once so many more events were published."""
        wanted = self.published + more
        receiver.wait_until(lambda: self.published >= wanted)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._enough.set()
            self._thread.join(30)


def field_of(number: int) -> str:
    return "a" if number % 2 == 0 else "b"


def numbered(number: int) -> dict[str, object]:
    value = {"gid": str(number), "resource_type": "custom_value"}
    return event(TASK, "changed", change={"field": field_of(number), "action": "changed", "new_value": value})


def numbers(receiver: Receiver, path: str = "/hook") -> list[int]:
    return [int(each["change"]["new_value"]["gid"]) for each in receiver.events(path)]


def has_come(receiver: Receiver, path: str, number: int) -> bool:
    return numbers(receiver, path)[-1:] == [number]


def has_passed(receiver: Receiver, number: int) -> bool:
    return any(each >= number for each in numbers(receiver)[-1:])


def test_a_new_webhook_gets_exactly_what_was_committed_after_it(start: Start, receiver: Receiver) -> None:
    """None from before, and from its first event on every one, in order."""
    service = start()
    stream = Stream(service)
    paths = [f"/{number}" for number in range(5)]
    before = {}
    with stream.running():
        for path in paths:
            stream.wait_for(receiver, 100)
            before[path] = stream.published
            service.create_webhook(PROJECT, receiver.url(path))
            # What is published from here on was committed after the webhook.
            before[path + "/after"] = stream.published + PER_CALL
        stream.wait_for(receiver, 200)
    for path in paths:
        receiver.wait_until(partial(has_come, receiver, path, stream.published - 1))
        came = numbers(receiver, path)
        assert came == list(range(came[0], stream.published))
        assert before[path] <= came[0] <= before[path + "/after"]


def test_replaced_filters_miss_nothing_that_was_not_yet_read(start: Start, receiver: Receiver) -> None:
    """From the answer of the update on, the new filters decide; nothing they accept is missing after it."""
    service = start()
    stream = Stream(service)
    webhook = service.create_webhook(PROJECT, receiver.url(), filters=[wanting("a")])
    # Each phase: its field, and the numbers that the webhook had to hear of while that lasted.
    phases: list[tuple[str, range]] = []
    begin = 0
    with stream.running():
        for old, field in pairwise(("a", "b", "a", "b", "a")):
            stream.wait_for(receiver, 200)
            end = stream.published
            phases.append((old, range(begin, end)))
            # What is not yet read when the filters are replaced is for the new ones to decide.
            receiver.wait_until(partial(has_passed, receiver, end - 2))
            answer = service.ask("PUT", f"/webhooks/{webhook['gid']}", data={"filters": [wanting(field)]})
            assert answer["filters"][0]["fields"] == [field]
            # What is published from here on cannot have been read under the old filters.
            begin = stream.published + PER_CALL
        stream.wait_for(receiver, 200)
    phases.append((field, range(begin, stream.published)))
    last = stream.published - 1 - (stream.published - 1) % 2
    receiver.wait_until(lambda: numbers(receiver)[-1:] == [last])
    came = numbers(receiver)
    assert came == sorted(set(came))
    for field, during in phases:
        wanted = {number for number in during if field_of(number) == field}
        assert wanted, "the phase was too short to show anything"
        assert wanted <= set(came)


def wanting(field: str) -> dict[str, object]:
    return {"resource_type": "task", "action": "changed", "fields": [field]}
