"""The sandbox at speed: a day of failure watched in seconds."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from tests.serving import Answer, Receiver, Service, event, wait_until

# 24 hours in 5 seconds, a heartbeat each 1.5 to 1.7.
SPEED = 17_280


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Service]:
    """A service that is told nothing but to be a sandbox; its token is the one it prints."""
    service = Service(
        tmp_path,
        arguments=("--sandbox", "--speed", str(SPEED)),
        database=f"sqlite:///{tmp_path / 'sandbox.db'}",
    )
    del service.environment["TIDINGS_BOOTSTRAP_TOKEN"]
    del service.environment["TIDINGS_ALLOW_TARGETS"]
    with service:
        found: list[str] = []

        def printed() -> bool:
            found.extend(re.findall(r"Token\s+(tdg_\S+)", service.log()))
            return bool(found)

        wait_until(printed)
        service.token = found[0]
        yield service


def test_what_it_is_seeded_with(sandbox: Service) -> None:
    """The hierarchy of the reference's examples, in which an event rises to its project."""
    described = [
        sandbox.ask("GET", f"/resources/{gid}") for gid in ("1331", "8675309", "2001", "1001", "12345")
    ]
    assert [each["resource_type"] for each in described] == [
        "workspace",
        "project",
        "section",
        "task",
        "user",
    ]
    assert described[1]["name"] == "Bugs"


def test_a_day_of_failure_in_seconds(sandbox: Service, receiver: Receiver) -> None:
    """Some thirty attempts, fewer on a slow machine, further and further apart; then the webhook is deleted."""
    gid = sandbox.create_webhook("8675309", receiver.url())["gid"]
    receiver.on("/hook", delivery=Answer(500))
    sandbox.publish(event("1001", "changed"))
    wait_until(
        lambda: sandbox.api("GET", f"/webhooks/{gid}").status_code == 404,
        timeout=30,
        message="not deleted after its day",
    )
    came = [request.at for request in receiver.deliveries()]
    assert len(came) >= 10
    assert came[-1] - came[0] >= 24 * 3600 / SPEED * 0.99
    waits = [later - earlier for earlier, later in pairwise(came)]
    assert median(waits[:5]) < median(waits[-5:])


def test_heartbeats_at_speed(sandbox: Service, receiver: Receiver) -> None:
    sandbox.create_webhook("8675309", receiver.url())
    receiver.wait_until(lambda: len(receiver.taken()) >= 2)
    assert {each.body for each in receiver.taken()} == {b'{"events":[]}'}
