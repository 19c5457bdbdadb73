"""Writes the figures of `bench/results.json` into docs/performance.md, and draws its charts: `python -m bench.docs`."""

import re
from pathlib import Path
from typing import Final

from bench import chart
from bench.results import HEADINGS, Report, Row, cells

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "results.json"
DOCUMENT: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
# What stands between `<!-- measured: NAME -->` and `<!-- end -->` is written anew.
_MEASURED: Final = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str, report: Report) -> str:
    """The document with this run's figures in it."""
    made = {"run": _run, "goals": _goals, "more": _more}
    return _MEASURED.sub(lambda found: f"{found[1]}\n{made[found[2]](report)}\n\n{found[3]}", text)


def _run(report: Report) -> str:
    day, minutes = report.made_at[:10], max(1, round(report.seconds / 60))
    return f"Measured on {day}, in {minutes} minutes, on {report.machine}."


def _goals(report: Report) -> str:
    return _table([row for row in report.rows if row.goal is not None])


def _more(report: Report) -> str:
    return _table([row for row in report.rows if row.goal is None])


def _table(rows: list[Row]) -> str:
    """The rows, without columns that none of them fills."""
    lines = [list(HEADINGS), *(cells(row) for row in rows)]
    columns = [place for place in range(len(HEADINGS)) if any(line[place] for line in lines[1:])]
    lines.insert(1, ["---"] * len(HEADINGS))
    return "\n".join(f"| {' | '.join(line[place] or '–' for place in columns)} |" for line in lines)


def pictures(report: Report) -> dict[Path, str]:
    """The charts of a run, by the file each belongs in."""
    series = {IMAGES / f"{row.name}.svg": chart.draw_series(row) for row in report.rows if row.series}
    return {IMAGES / "performance.svg": chart.draw(report), **series}


def main() -> None:
    report = Report.load(RESULTS)
    DOCUMENT.write_text(renewed(DOCUMENT.read_text("utf-8"), report), "utf-8")
    for path, drawn in pictures(report).items():
        path.write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
