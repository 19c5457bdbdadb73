"""The benchmark runs, each scenario in small; what it measures is nobody's business here."""

import shutil
from pathlib import Path

import pytest
from bench import machine, poster, receivers, scenarios
from bench.results import Goal, Report, Row, cells
from bench.scenarios.context import TINY, Bench


@pytest.mark.parametrize("name", [*scenarios.SHORT, *scenarios.LONG])
def test_a_scenario_runs(name: str) -> None:
    rows = (scenarios.SHORT | scenarios.LONG)[name](Bench(TINY))
    assert rows
    for row in rows:
        assert row.figures and all(each >= 0 for each in row.figures if row.unit != "MiB/min")
        assert all(map(str.strip, cells(row)[:2]))


def test_there_is_a_yardstick_on_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wrk and nginx, over TLS and to a receiver that hangs up too."""
    monkeypatch.setattr(poster, "TOOL", "the built-in poster")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    certificates = receivers.Certificates.make(tmp_path)
    for tls in (None, certificates):
        for closing in (False, True):
            with receivers.receivers(tmp_path, tls=tls, closing=closing) as taking:
                request = poster.Request.delivery(taking.origins[0])
                assert taking.kind == "the built-in receiver"
                assert poster.posts_per_second(tmp_path, request, seconds=0.3, connections=4) > 0
    assert machine.fsyncs_per_second(tmp_path, seconds=0.1) > 0


def row(*figures: float, against: tuple[float, ...] = (), goal: Goal | None = None) -> Row:
    return Row(name="x", what="x", unit="/s", figures=[*figures], against=[*against], goal=goal)


def test_a_ratio_is_the_median_over_pairs() -> None:
    """Not the quotient of the medians, which would be 2."""
    assert row(1, 4, 30, against=(10, 2, 1)).ratio == 2.0
    assert row(1, 30, 4, against=(10, 1, 8)).ratio == 0.5
    assert row(10, 20, 30, against=(10,)).ratios == [1, 2, 3]
    assert row(1).ratio is None


@pytest.mark.parametrize(
    ("figure", "verdict"), [(0.5, "aim"), (0.49, "at least"), (0.15, "at least"), (0.14, "missed")]
)
def test_a_goal_says_which_of_its_bounds_is_reached(figure: float, verdict: str) -> None:
    assert row(figure, against=(1,), goal=Goal(at_least=0.15, aim=0.5)).verdict == verdict
    below = Goal(at_least=-0.15, aim=-0.5, of="figure", below=True)
    assert row(-figure, goal=below).verdict == verdict


def test_figures_are_kept(tmp_path: Path) -> None:
    report = Report(machine="m", made_at="2026-01-01T00:00:00+00:00", seconds=1, rows=[row(1, against=(2,))])
    report.save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json") == report
