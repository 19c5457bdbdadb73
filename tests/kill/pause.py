"""A process that stands still past its lease while another takes over, and then records late.

Staged, since chance would seldom make it: the first process posts and is stopped before it sees the answer; its lease
runs out; a second one repeats the batch and is in the middle of the next when the first goes on. Its record must
change nothing: least of all give away the lease of the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.kill import disk, processes
from tests.kill.campaign import SETTINGS, Where, wait_for_arrivals
from tests.kill.load import Hook, Load
from tests.kill.reconcile import Arrival, Call, Fall, Fate, Findings, Round, reconcile
from tests.serving import TIDINGS, WORKSPACE, Service, event, wait_until

# A lease is 5 seconds longer than a delivery may take: that long the test has to wait.
DELIVERY_TIMEOUT: Final = "4s"
# So long the late record gets to do harm, seconds: some times the longest wait for a retry, less than a delivery may
# take. Meanwhile others are delivered by the process that is late, which therefore looks for work.
HARM_SECONDS: Final = 1.5


def run(folder: Path, *, command: Sequence[str] = (TIDINGS,)) -> Findings:
    """Play it; gives what was found, which is nothing if the service is right."""
    settings = {**SETTINGS, "TIDINGS_DELIVERY_TIMEOUT": DELIVERY_TIMEOUT}
    database = folder / "tidings.db"
    first, second = (
        Service(folder, environment=settings, database=f"sqlite:///{database}", command=command)
        for _ in range(2)
    )
    hook, beside = Hook("/hook", "project"), Hook("/beside", "other")
    with Load([hook, beside], seed=0) as load, _stopping(second), first:
        _establish(first, load, [hook, beside])
        hook.gate = asyncio.Event()
        calls = [_publish(first, "project", "before")]
        wait_until(lambda: hook.open)
        with processes.stopped([first.pid]):
            fall = Fall(
                Where.PAUSE,
                load.tick(),
                {each.hook: each.cursor for each in disk.leases(database, alive=True)},
            )
            load.open_gate(hook)
            second.start()
            wait_until(lambda: len(_taken(load, hook)) == 2, timeout=60)
            hook.gate = asyncio.Event()
            calls.append(_publish(second, "project", "after"))
            wait_until(lambda: hook.open)
        first.wait_ready()
        began = time.monotonic()
        markers = 0
        while time.monotonic() - began < HARM_SECONDS and not load.receivers.overlaps:
            calls.append(_publish(first, "other", f"marker {markers}"))
            markers += 1
            wait_until(lambda: len(_taken(load, beside)) >= markers)  # noqa: B023  -- waited for in this turn
        load.open_gate(hook)
        wait_for_arrivals(load, 2 + markers)
    receivers = load.receivers
    assert not receivers.errors, receivers.errors[0]
    return reconcile(
        Round(
            hooks={each.path: each.project for each in (hook, beside)},
            log=disk.log(database),
            calls=calls,
            arrivals=receivers.arrivals,
            falls=[fall],
            overlaps=receivers.overlaps,
        )
    )


@contextlib.contextmanager
def _stopping(service: Service) -> Iterator[None]:
    """Stop it at the end, if it was started meanwhile."""
    try:
        yield
    except BaseException:
        if service.alive:
            service.kill()
        raise
    service.stop()


def _establish(service: Service, load: Load, hooks: Sequence[Hook]) -> None:
    service.put_resource(WORKSPACE, "workspace")
    for hook in hooks:
        service.put_resource(hook.project, "project", parents=[WORKSPACE])
        service.create_webhook(hook.project, load.url(hook))


def _publish(service: Service, project: str, name: str) -> Call:
    answer = service.publish(event(project, "changed", change={"field": name, "action": "changed"}))
    return Call(project, (name,), None, Fate.ACKNOWLEDGED, int(answer["last"]))


def _taken(load: Load, hook: Hook) -> list[Arrival]:
    return [each for each in list(load.receivers.arrivals) if each.hook == hook.path and each.taken]
