"""`make bench` and `make bench-full`: measure, print the table, keep the figures.

python -m bench [--full] [--only NAME …] [--json FILE]
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine, scenarios
from bench.results import HEADINGS, Report, cells
from bench.scenarios.context import Bench

# Columns: a table that is wrapped cannot be read or pasted.
WIDTH_MIN = 180


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure on this machine.")
    parser.add_argument("--full", action="store_true", help="more scenarios: some twenty minutes")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[*scenarios.SHORT, *scenarios.LONG],
        help="these scenarios",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="keep the figures there; with --only, in the place of those of before",
    )
    given = parser.parse_args()
    chosen = given.only or [*scenarios.SHORT, *(scenarios.LONG if given.full else ())]
    console = Console(width=max(WIDTH_MIN, Console().width))
    report = _begun(given.json if given.only else None)
    failed = False
    for place, name in enumerate(chosen, 1):
        with console.status(f"Measuring {name} ({place} of {len(chosen)}) …"):
            failed |= not _measure(name, report, console)
        if given.json is not None:
            report.save(given.json)
    console.print(report.machine, highlight=False)
    console.print(_table(report))
    sys.exit(failed)


def _begun(kept: Path | None) -> Report:
    """A fresh report; or the one that is kept there, for a part of it to be measured anew."""
    report = Report.load(kept) if kept is not None and kept.exists() else Report()
    report.machine = machine.describe()
    report.made_at = datetime.now(UTC).isoformat(timespec="seconds")
    return report


def _measure(name: str, report: Report, console: Console) -> bool:
    """Add a scenario's rows; one that fails does not take the others with it."""
    began = time.perf_counter()
    try:
        made = (scenarios.SHORT | scenarios.LONG)[name](Bench(rows=report.rows))
    except Exception:
        console.print_exception(max_frames=10)
        return False
    span = time.perf_counter() - began
    report.add(made)
    report.seconds += round(span)
    for row in made:
        console.print(f"{span:4.0f} s  {row.what}: {cells(row)[1]}", highlight=False)
    return True


def _table(report: Report) -> Table:
    table = Table(*HEADINGS)
    for row in report.rows:
        table.add_row(*cells(row))
    return table


if __name__ == "__main__":
    main()
