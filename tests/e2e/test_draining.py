"""SIGTERM: what is in flight is finished and recorded, nothing new begins; and what SIGKILL in the middle costs."""

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import Start
from tests.serving import PROJECT, TASK, WAIT_SECONDS, Answer, Receiver, Request, event, wait_until


def numbered(number: int) -> dict[str, object]:
    return event(TASK, "changed", change={"field": str(number), "action": "changed"})


def received(receiver: Receiver) -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events()]


class Gate:
    """A delivery that waits until the test lets it pass; those after it pass at once."""

    def __init__(self, receiver: Receiver) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        receiver.on("/hook", delivery=self._answer)

    def _answer(self, request: Request) -> Answer:
        self.reached.set()
        assert self.opened.wait(20), "the gate stayed shut"
        return Answer()


def test_sigterm_finishes_and_records_what_is_in_flight(start: Start, receiver: Receiver) -> None:
    """Status 0, one delivery, no duplicate after the restart, the rest in order."""
    service = start()
    gid = service.create_webhook(PROJECT, receiver.url())["gid"]
    gate = Gate(receiver)
    service.publish(*map(numbered, range(250)))
    assert gate.reached.wait(WAIT_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(service.stop)
        wait_until(lambda: not accepts_connections(service.port))
        assert not stopping.done()
        gate.opened.set()
        stopping.result(20)
    assert len(receiver.deliveries()) == 1
    service.start()
    receiver.wait_until(lambda: len(received(receiver)) >= 250)
    assert received(receiver) == list(range(250))
    path = f"/webhooks/{gid}/attempts"
    # The last is recorded a moment after it was taken.
    wait_until(lambda: len(service.ask("GET", path)) == 3)
    attempts = service.ask("GET", path)
    assert [each["events"] for each in attempts] == [50, 100, 100]
    assert {each["result"] for each in attempts} == {"delivered"}


def test_a_kill_during_the_drain_loses_nothing(start: Start, receiver: Receiver) -> None:
    service = start()
    service.create_webhook(PROJECT, receiver.url())
    gate = Gate(receiver)
    service.publish(*map(numbered, range(250)))
    assert gate.reached.wait(WAIT_SECONDS)
    os.kill(service.pid, signal.SIGTERM)
    wait_until(lambda: not accepts_connections(service.port))
    service.kill()
    gate.opened.set()
    service.start()
    receiver.wait_until(lambda: set(received(receiver)) == set(range(250)))
    assert list(dict.fromkeys(received(receiver))) == list(range(250))
    assert len(received(receiver)) <= 350


def test_a_handshake_under_way_is_finished(start: Start, receiver: Receiver) -> None:
    """The receiver has the secret already: its webhook must exist after the restart."""
    service = start()
    reached, opened = threading.Event(), threading.Event()

    def slowly(request: Request) -> Answer:
        reached.set()
        assert opened.wait(WAIT_SECONDS)
        return Answer(200, headers=(("X-Hook-Secret", request.secret or ""),))

    receiver.on("/hook", handshake=slowly)
    with ThreadPoolExecutor(2) as pool:
        creating = pool.submit(service.create_webhook, PROJECT, receiver.url())
        assert reached.wait(WAIT_SECONDS)
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: not accepts_connections(service.port))
        opened.set()
        webhook = creating.result(20)
    wait_until(lambda: not service.alive)
    service.kill()
    service.start()
    service.publish(numbered(1))
    receiver.wait_until(lambda: received(receiver) == [1])
    assert service.ask("GET", f"/webhooks/{webhook['gid']}")["active"] is True


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
