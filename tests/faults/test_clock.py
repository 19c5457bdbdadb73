"""The time of day is turned under a running service: nothing is lost, repeated, out of order, or given up for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.faults.turned import TurnableClock
from tests.kill.mutants import ROOT
from tests.serving import PROJECT, TASK, WORKSPACE, Answer, Receiver, Service, event, wait_until

TURNS: Final = [timedelta(hours=-1), timedelta(days=3), timedelta(days=-400), timedelta(seconds=20)]


@pytest.fixture
def clock(tmp_path: Path) -> TurnableClock:
    return TurnableClock(tmp_path / "offset")


@pytest.fixture
def service(tmp_path: Path, clock: TurnableClock) -> Iterator[Service]:
    settings = {"TIDINGS_RETRY_FIRST": "50ms", "TIDINGS_RETRY_MAX": "200ms", "PYTHONPATH": str(ROOT)}
    with Service(tmp_path, environment=settings, command=clock.command()) as made:
        made.seed()
        yield made


def numbers(receiver: Receiver, hook: str) -> list[int]:
    return [int(each["change"]["field"]) for each in receiver.events(hook)]


def test_a_turned_clock_changes_nothing_for_receivers(
    service: Service, clock: TurnableClock, receiver: Receiver
) -> None:
    """One is well, one is failing at each turn, which are back and forth by far more than a webhook's whole life."""
    for hook in ("/well", "/failing"):
        service.create_webhook(PROJECT, receiver.url(hook))
    published = 0
    for turn in TURNS:
        receiver.on("/failing", delivery=Answer(500))
        failed = len(receiver.deliveries("/failing"))
        for _ in range(20):
            service.publish(event(TASK, "changed", change={"field": str(published), "action": "changed"}))
            published += 1
        wait_until(lambda: len(receiver.deliveries("/failing")) >= failed + 2)  # noqa: B023  -- in this turn
        clock.turn(turn)
        failed = len(receiver.deliveries("/failing"))
        wait_until(lambda: len(receiver.deliveries("/failing")) >= failed + 2)  # noqa: B023
        receiver.on("/failing", delivery=Answer())
        receiver.wait_until(lambda: len(numbers(receiver, "/failing")) >= published)  # noqa: B023
    assert numbers(receiver, "/well") == numbers(receiver, "/failing") == list(range(published))
    assert receiver.overlaps == 0
    assert len(service.ask("GET", f"/webhooks?workspace={WORKSPACE}")) == 2
