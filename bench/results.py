"""What a run came to: rows of figures, each with what it is held against; kept as JSON."""

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

# How figures of a unit are written.
_FORMS: Final = {
    "/s": "{:,.0f}/s",
    "events/s": "{:,.0f} events/s",
    "ms": "{:.1f} ms",
    "s": "{:.2f} s",
    "MiB": "{:,.0f} MiB",
    "MiB/min": "{:+,.1f} MiB/min",
    "% of a core": "{:.1f} % of a core",
    "events": "{:,.0f}",
    "batches": "{:,.0f}",
    "": "{:.2f}",
}


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is to reach: the least, and what is aimed at; of its figure, or of its ratio to the yardstick."""

    at_least: float
    aim: float
    of: Literal["figure", "ratio"] = "ratio"
    # Less is better.
    below: bool = False

    def verdict(self, reached: float) -> str:
        if self._holds(reached, self.aim):
            return "aim"
        return "at least" if self._holds(reached, self.at_least) else "missed"

    def _holds(self, reached: float, wanted: float) -> bool:
        return reached <= wanted if self.below else reached >= wanted


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured, several times where it can be.

    `against` are the yardstick's figures, one for each of `figures` and measured beside it, or one for all.
    `names` it in the results file and never changes; `what` and `yardstick` are for people.
    """

    name: str
    what: str
    unit: str
    figures: list[float]
    yardstick: str = ""
    against: list[float] = []
    goal: Goal | None = None
    note: str = ""
    # What became of it over time, for the chart.
    series: list[float] = []

    @property
    def figure(self) -> float:
        return statistics.median(self.figures)

    @property
    def ratios(self) -> list[float]:
        if not self.against:
            return []
        others = self.against if len(self.against) > 1 else self.against * len(self.figures)
        pairs = zip(self.figures, others, strict=True)
        return [figure / other if other else math.inf for figure, other in pairs]

    @property
    def ratio(self) -> float | None:
        """The median over the pairs, not the quotient of two medians: what disturbed one half disturbed the other."""
        return statistics.median(self.ratios) if self.against else None

    @property
    def reached(self) -> float | None:
        """What the goal is held against."""
        return self.ratio if self.goal is not None and self.goal.of == "ratio" else self.figure

    @property
    def verdict(self) -> str:
        """Which of the goal's two bounds holds, or that neither does; empty without a goal."""
        if self.goal is None or self.reached is None:
            return ""
        return self.goal.verdict(self.reached)


class Report(msgspec.Struct, kw_only=True):
    """A run: where, when, how long, and what it came to."""

    machine: str = ""
    made_at: str = ""
    seconds: float = 0
    rows: list[Row] = []

    def add(self, rows: Iterable[Row]) -> None:
        """Put rows in, each in the place of the one of its name if there is one."""
        for row in rows:
            place = next((place for place, each in enumerate(self.rows) if each.name == row.name), None)
            if place is None:
                self.rows.append(row)
            else:
                self.rows[place] = row

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> "Report":
        return msgspec.json.decode(path.read_bytes(), type=cls)


# -- in words --------------------------------------------------------------------------------------


HEADINGS: Final = ("what", "measured: median (spread)", "yardstick", "ratio", "goal")


def written(figure: float, unit: str) -> str:
    return _FORMS[unit].format(figure)


def spread(figures: list[float], unit: str) -> str:
    """The median, and the lowest and highest where there are several."""
    middle = written(statistics.median(figures), unit)
    if len(figures) == 1:
        return middle
    return f"{middle} ({bare(min(figures), unit)} – {bare(max(figures), unit)})"


def bare(figure: float, unit: str) -> str:
    return written(figure, unit).removesuffix(unit).rstrip()


def cells(row: Row) -> list[str]:
    """A row as the tables show it: what, measured, yardstick, ratio, goal."""
    yardstick = row.yardstick
    if row.against:
        yardstick += f": {spread(row.against, row.unit)}"
    ratio = ""
    if row.ratio is not None:
        low, high = min(row.ratios), max(row.ratios)
        ratio = f"{row.ratio:.3g}" + (f" ({low:.3g} – {high:.3g})" if len(row.ratios) > 1 else "")
    return [row.what, spread(row.figures, row.unit), yardstick, ratio, _goal(row)]


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    unit = row.unit if row.goal.of == "figure" else ""
    sign = "≤" if row.goal.below else "≥"
    least, aim = (f"{bare(bound, unit)}" for bound in (row.goal.at_least, row.goal.aim))
    mark = {"aim": "✔✔", "at least": "✔", "missed": "✘"}[row.verdict]
    return f"{mark} {sign} {least}, aim {aim}"
