"""The disk fails to flush what was told of before it was flushed: the process ends, and the next goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx

from tests.faults import unflushed
from tests.kill.mutants import ROOT
from tests.serving import PROJECT, TASK, Receiver, Service, event, wait_until


def test_a_process_whose_disk_did_not_flush_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    service = Service(tmp_path, environment={"PYTHONPATH": str(ROOT)}, command=unflushed.command(broken))
    with Receiver() as receiver:
        service.start()
        service.seed()
        service.create_webhook(PROJECT, receiver.url())
        broken.touch()
        with contextlib.suppress(httpx.HTTPError):  # the end may be quicker than the answer
            service.publish(event(TASK))
        wait_until(lambda: service.status is not None)
        assert service.status == 1
        assert "tidings-writer died: OSError(5, 'Input/output error'); the process ends" in service.log()
        service.kill()
        service.start()
        service.publish(event(TASK, "deleted"))
        receiver.wait_until(lambda: receiver.events()[-1]["action"] == "deleted")
        # The record was written, and the log was read whole: nothing is sent twice.
        assert [each["action"] for each in receiver.events()] == ["added", "deleted"]
        service.stop()
