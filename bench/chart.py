"""Two pictures of a run: how far each goal is reached, and when the retries of dead webhooks came.

SVG, drawn by hand, on a ground of its own, so that light and dark pages can both hold it.
"""

import math
import statistics
from collections.abc import Iterator
from html import escape

from bench.results import Report, Row, bare, written

WIDTH = 880
LEFT = 340
RIGHT = 668
ROW = 42
TOP = 100
LEGEND_Y = 61
# What fits beside the scale on one line.
LABEL_CHARS = 45
SERIES_LEFT, SERIES_TOP, SERIES_HEIGHT = 90, 84, 150
# The scale: how many times the least is reached, as powers of two on both sides of it.
OCTAVES_BELOW = 2
OCTAVES_ABOVE = 5

INK, FAINT, TRACK = "#0f172a", "#475569", "#e2e8f0"
COLOURS = {"aim": "#15803d", "at least": "#1d4ed8", "missed": "#b91c1c"}
LEGEND = {"aim": "aim reached", "at least": "least reached", "missed": "missed"}


def draw(report: Report) -> str:
    """The chart of a run's goals."""
    rows = [row for row in report.rows if row.goal is not None and row.goal.at_least > 0]
    height = TOP + ROW * len(rows) + 44
    title = "How far each goal is reached"
    subtitle = "1 × is the least that is asked; further right is better"
    parts = [*_frame(height, title, subtitle), *_scale(height), *_legend(), *_rows(rows)]
    return "\n".join([*parts, "</svg>", ""])


def draw_series(row: Row) -> str:
    """What became of a row second by second, as bars."""
    mean = statistics.mean(row.series)
    top = max(row.series)
    bottom = SERIES_TOP + SERIES_HEIGHT
    width = (WIDTH - 60 - SERIES_LEFT) / len(row.series)
    parts = [*_frame(bottom + 50, "When retries come", row.what)]
    for place, value in enumerate(row.series):
        size = value / top * SERIES_HEIGHT
        parts.append(
            f'  <rect x="{SERIES_LEFT + place * width:.1f}" y="{bottom - size:.1f}" width="{width * 0.8:.1f}" '
            f'height="{size:.1f}" rx="1.5" fill="{COLOURS["at least"]}"/>'
        )
    level = bottom - mean / top * SERIES_HEIGHT
    parts.append(_line((SERIES_LEFT, level), (WIDTH - 60, level), INK, width=1.5))
    parts.append(_text(SERIES_LEFT - 8, level + 4, f"{mean:,.0f}/s", anchor="end", weight=600))
    parts.append(_line((SERIES_LEFT, bottom), (WIDTH - 60, bottom), FAINT, width=1))
    for second in range(0, len(row.series) + 1, 10):
        x = SERIES_LEFT + second * width
        parts.append(_text(x, bottom + 20, f"{second} s", anchor="middle", fill=FAINT, size=12))
    return "\n".join([*parts, "</svg>", ""])


def _frame(height: int, title: str, subtitle: str) -> Iterator[str]:
    family = "system-ui, -apple-system, 'Segoe UI', sans-serif"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="{family}" font-size="13">'
    )
    yield f"  <title>{escape(title)}: {escape(subtitle)}</title>"
    yield f'  <rect width="{WIDTH}" height="{height}" rx="12" fill="#ffffff"/>'
    yield _text(30, 38, title, size=17, weight=600)
    yield _text(30, LEGEND_Y, subtitle, fill=FAINT, size=12)


def _scale(height: int) -> Iterator[str]:
    bottom = height - 36
    for octave in range(-OCTAVES_BELOW, OCTAVES_ABOVE + 1):
        x = _x(2.0**octave)
        colour, width = (FAINT, 1.5) if octave == 0 else (TRACK, 1)
        yield _line((x, TOP - 14), (x, bottom), colour, width=width)
        label = f"{2**octave} ×" if octave >= 0 else f"1/{2**-octave} ×"
        yield _text(x, bottom + 18, label, anchor="middle", fill=FAINT, size=12)


def _legend() -> Iterator[str]:
    x = LEFT + 24
    for verdict, label in LEGEND.items():
        yield f'  <circle cx="{x + 6}" cy="{LEGEND_Y - 4}" r="6" fill="{COLOURS[verdict]}"/>'
        yield _text(x + 18, LEGEND_Y, label, fill=FAINT, size=12)
        x += 36 + 6 * len(label)
    yield _diamond(x + 6, LEGEND_Y - 4)
    yield _text(x + 20, LEGEND_Y, "aim", fill=FAINT, size=12)


def _rows(rows: list[Row]) -> Iterator[str]:
    for place, row in enumerate(rows):
        yield from _row(row, TOP + ROW * place + 16)


def _row(row: Row, y: int) -> Iterator[str]:
    goal, reached = row.goal, row.reached
    assert goal is not None and reached is not None
    share = _share(row, reached)
    colour = COLOURS[row.verdict]
    yield from _label(row.what, y)
    yield _line((LEFT, y), (_x(share), y), colour, width=8, opacity=0.25)
    low, high = (_x(_share(row, each)) for each in _ends(row))
    yield _line((low, y), (high, y), colour, width=2)
    aim = _x(_share(row, goal.aim))
    yield _diamond(aim, y)
    yield f'  <circle cx="{_x(share):.1f}" cy="{y}" r="6" fill="{colour}"/>'
    yield _text(RIGHT + 24, y - 2, _figure(row), weight=600)
    yield _text(RIGHT + 24, y + 13, _wanted(row), fill=FAINT, size=11)


def _label(what: str, y: int) -> Iterator[str]:
    """On two lines where it is long, broken near the middle, rather behind a comma."""
    if len(what) <= LABEL_CHARS:
        yield _text(30, y + 5, what)
        return
    middle = len(what) // 2

    def awkward(at: int) -> tuple[bool, int]:
        too_long = max(at, len(what) - at) > LABEL_CHARS
        return too_long, abs(at - middle) - (12 if what[at - 1] == "," else 0)

    best = min((at for at, sign in enumerate(what) if sign == " "), key=awkward)
    yield _text(30, y - 3, what[:best])
    yield _text(30, y + 13, what[best + 1 :])


def _share(row: Row, reached: float) -> float:
    """How many times the least is reached; where less is better, turned round."""
    assert row.goal is not None
    if reached <= 0:
        return math.inf if row.goal.below else 0.0
    share = reached / row.goal.at_least
    return 1 / share if row.goal.below else share


def _ends(row: Row) -> tuple[float, float]:
    assert row.goal is not None
    figures = row.ratios if row.goal.of == "ratio" else row.figures
    return min(figures), max(figures)


def _figure(row: Row) -> str:
    assert row.goal is not None and row.reached is not None
    if row.goal.of == "figure":
        return written(row.figure, row.unit)
    return f"{row.reached:.2f} ×" if row.reached >= 0.1 else f"{row.reached:.2g} ×"


def _wanted(row: Row) -> str:
    assert row.goal is not None
    sign = "at most" if row.goal.below else "at least"
    if row.goal.of == "ratio":
        return f"{sign} {row.goal.at_least:g} ×, aim {row.goal.aim:g} ×"
    least, aim = (bare(bound, row.unit) for bound in (row.goal.at_least, row.goal.aim))
    return f"{sign} {least}, aim {aim}"


def _x(share: float) -> float:
    """Where a share stands; what is off the scale stands at its end."""
    octave = -OCTAVES_BELOW if share <= 0 else math.log2(share) if share < math.inf else OCTAVES_ABOVE
    octave = min(max(octave, -OCTAVES_BELOW), OCTAVES_ABOVE)
    return LEFT + (octave + OCTAVES_BELOW) * (RIGHT - LEFT) / (OCTAVES_BELOW + OCTAVES_ABOVE)


def _diamond(x: float, y: float) -> str:
    return f'  <path d="M{x:.1f} {y - 7}l7 7-7 7-7-7z" fill="#ffffff" stroke="{FAINT}" stroke-width="1.5"/>'


def _line(
    begin: tuple[float, float], end: tuple[float, float], colour: str, *, width: float, opacity: float = 1
) -> str:
    return (
        f'  <line x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    fill: str = INK,
    size: int = 13,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    return (
        f'  <text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
