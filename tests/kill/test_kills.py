"""A few kills with each run of the tests (`make kill` has hundreds), and the harness's own honesty."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill import __main__ as program
from tests.kill import campaign, mutants, pause
from tests.kill.campaign import Where

SEED = 2025


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rounds leave their files where the test's own are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield


@pytest.mark.timeout(300)
def test_killed_services_lose_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short round of each shape; all of it is printed, and the status says that it went well."""
    monkeypatch.setattr(campaign, "ROUND_KILLS", 5)
    assert program.main(["--kills", str(5 * len(campaign.SHAPES)), "--seed", str(SEED)]) == 0
    printed = capsys.readouterr().out
    rows = {line[:24].strip(): line[24:].split() for line in printed.splitlines() if len(line) > 24}
    # And the process that is made to stand still.
    assert int(rows["all"][0]) == 5 * len(campaign.SHAPES) + 1, printed
    assert int(rows[Where.MIGRATION][0]) == len(campaign.SHAPES), printed
    assert int(rows[Where.LOAD][0]) > 0, printed
    assert rows["events lost"] == rows["deliveries out of order"] == rows["other violations"] == ["0"], (
        printed
    )
    assert int("".join(rows["events acknowledged"])) > 100, printed


def test_without_the_fence_a_late_record_is_reported(tmp_path: Path) -> None:
    """The process that stood still gives away the lease of the one that took over: two deliveries at once."""
    found = pause.run(tmp_path, command=mutants.command("without_the_fence"))
    assert any("had two deliveries at once" in text for text in found.violations), found


def test_a_cursor_that_moves_before_the_post_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in flight when a process was killed, or refused, never comes again."""
    monkeypatch.setattr(campaign, "SILENCE_SECONDS", 3.0)
    result = campaign.run(kills=6, seed=SEED, command=mutants.command("cursor_before_the_post"))
    assert any(found.lost for found in result.findings), result
