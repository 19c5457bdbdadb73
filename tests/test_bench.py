"""The benchmark runs, each scenario in small; what it measures is nobody's business here."""

import math
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench import chart, docs, machine, poster, receivers, scenarios
from bench.results import Goal, Report, Row, cells
from bench.scenarios.context import TINY, Bench
from msgspec import structs


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


def test_a_part_that_is_measured_anew_takes_the_place_of_the_old() -> None:
    report = Report(rows=[row(1), structs.replace(row(2), name="y")])
    report.add([row(3), structs.replace(row(4), name="z")])
    assert [(each.name, each.figure) for each in report.rows] == [("x", 3), ("y", 2), ("z", 4)]


def test_a_yardstick_that_stood_still_gives_no_figure() -> None:
    assert row(1, against=(0,)).ratio == math.inf


def test_the_document_shows_the_figures_that_are_kept() -> None:
    """`python -m bench.docs` was run since the figures were; the rest of the document is as it was written."""
    report = Report.load(docs.RESULTS)
    text = docs.DOCUMENT.read_text("utf-8")
    assert docs.renewed(text, report) == text
    for path, drawn in docs.pictures(report).items():
        assert path.read_text("utf-8") == drawn
        assert f"(images/{path.name})" in text
    assert report.machine in text
    for each in report.rows:
        assert " | ".join(cells(each)[:2]) in text


def test_the_chart_shows_every_goal_wherever_it_stands() -> None:
    """Also goals that are missed by far, reached by far, and where less is better."""
    more, less = Goal(at_least=1, aim=2, of="figure"), Goal(at_least=1, aim=0.5, of="figure", below=True)
    rows = [row(figure, goal=goal) for goal in (more, less) for figure in (0, 0.001, 1, 1000)]
    drawn = ElementTree.fromstring(chart.draw(Report(machine="m", made_at="2026", rows=[*rows, row(1)])))
    marks = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(marks) == len(rows) + len(chart.LEGEND)
    assert all(chart.LEFT <= float(mark.attrib["cx"]) <= chart.RIGHT for mark in marks)
