"""Which webhooks hear of an event, over a hierarchy as a platform has one."""

from functools import partial

import pytest

from tests.e2e.conftest import Start
from tests.serving import Receiver, Service, event

HIERARCHY: tuple[tuple[str, str, list[str]], ...] = (
    ("1331", "workspace", []),
    ("20", "team", ["1331"]),
    ("30", "portfolio", ["1331"]),
    ("40", "project", ["20", "30"]),
    ("41", "project", ["20"]),
    ("42", "project", ["20"]),
    ("50", "section", ["40"]),
    ("60", "task", ["40", "41", "50"]),
    ("61", "task", ["60"]),
    ("70", "story", ["61"]),
    ("71", "attachment", ["61"]),
)
LARGER = ("1331", "20", "30")
# Each has a webhook, on a path of its own name.
SMALLER = ("40", "41", "42", "50", "60", "61")
OF_PROJECTS = {"resource_type": "project"}


@pytest.fixture
def service(start: Start) -> Service:
    made = start()
    made.ask(
        "POST",
        "/resources",
        data=[{"gid": gid, "resource_type": kind, "parents": parents} for gid, kind, parents in HIERARCHY],
    )
    return made


def subscribe(service: Service, receiver: Receiver, *, larger: dict[str, str] = OF_PROJECTS) -> None:
    for gid in (*LARGER, *SMALLER):
        service.create_webhook(gid, receiver.url(f"/{gid}"), filters=[larger] if gid in LARGER else None)


def actions(receiver: Receiver, gid: str) -> list[str]:
    """What the webhook on this resource was told, in order."""
    return [each["action"] for each in receiver.events(f"/{gid}")]


def has_heard(receiver: Receiver, gid: str, action: str) -> bool:
    return action in actions(receiver, gid)


def wait_for_all(service: Service, receiver: Receiver) -> None:
    """Wait until every webhook has read all there is: a last event on each is behind everything before it."""
    service.publish(*(event(gid, "undeleted") for gid in SMALLER))
    for gid in (*SMALLER, *LARGER):
        receiver.wait_until(partial(has_heard, receiver, gid, "undeleted"))


def told_of_addition(receiver: Receiver) -> dict[str, int]:
    """Who was told that something was added, and how often."""
    counts = {gid: actions(receiver, gid).count("added") for gid in (*LARGER, *SMALLER)}
    return {gid: count for gid, count in counts.items() if count}


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        (
            "70",
            ("61", "60", "50", "40", "41"),
        ),  # a story: its task, the parent task, their section and projects
        ("71", ("61", "60", "50", "40", "41")),  # an attachment, likewise
        ("61", ("61", "60", "50", "40", "41")),  # a subtask: also the projects it is not itself in
        ("60", ("60", "50", "40", "41")),  # a task in a section and in that section's project
        ("50", ("50", "40")),  # a section
        ("42", ("42", "20", "1331")),  # a project rises further, to those whose filters ask for it
        ("40", ("40", "20", "30", "1331")),
    ],
)
def test_an_event_rises_as_far_as_it_should(
    service: Service, receiver: Receiver, resource: str, told: tuple[str, ...]
) -> None:
    """Once to each webhook above, however many ways lead there, and to nobody else."""
    subscribe(service, receiver)
    service.publish(event(resource, "added"))
    wait_for_all(service, receiver)
    assert told_of_addition(receiver) == dict.fromkeys(told, 1)


def test_the_filters_of_larger_webhooks_decide(service: Service, receiver: Receiver) -> None:
    """A project that was added passes by those that asked for changes only."""
    subscribe(service, receiver, larger={"resource_type": "project", "action": "undeleted"})
    service.publish(event("40", "added"))
    wait_for_all(service, receiver)
    assert told_of_addition(receiver) == {"40": 1}


def test_a_moved_resource_rises_to_its_new_parent(service: Service, receiver: Receiver) -> None:
    """From the move on; and the project it was taken from still hears that."""
    subscribe(service, receiver)
    service.publish(event("61", "added"))
    service.put_resource("60", "task", parents=["42"])
    service.publish(event("61", "added"), event("60", "removed", parent="41"))
    wait_for_all(service, receiver)
    assert told_of_addition(receiver) == {"61": 2, "60": 2, "50": 1, "40": 1, "41": 1, "42": 1}
    assert has_heard(receiver, "41", "removed")
    assert not has_heard(receiver, "40", "removed")
