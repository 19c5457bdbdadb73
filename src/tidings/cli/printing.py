"""What commands print: data on stdout, everything else on stderr.

A terminal gets tables and colours; a pipe gets tab-separated lines, which `cut` and `awk` understand.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import IO, TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Below this nobody wants to know that something is being waited for.
PROGRESS_AFTER_SECONDS: Final = 0.6
# From here on people want to know how much of it is done.
PARTS_AFTER_SECONDS: Final = 1.0
# The controls that can move the cursor, ring or hide text when a terminal reads them: C0 but tab and line feed,
# DEL, C1, and what reverses the direction of a line.
_CONTROLS: Final = {
    **{code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)},
    **dict.fromkeys((0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}
_ONE_LINE: Final = {**_CONTROLS, 0x09: " ", 0x0A: " "}


def harmless(text: str) -> str:
    """The text with nothing in it that a terminal would obey: others wrote it."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """The text as one harmless line."""
    return text.translate(_ONE_LINE)


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    click.echo(text, err=True)


def console(*, err: bool = False) -> Console:
    """The terminal as rich sees it; imported late, since most runs do not need it."""
    from rich.console import Console

    return Console(stderr=err, highlight=False, soft_wrap=False, emoji=False, markup=False)


def on_terminal(stream: IO[str]) -> bool:
    """Whether a person reads this stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_json(value: object) -> None:
    """One JSON document: readable on a terminal, one line elsewhere."""
    if on_terminal(sys.stdout):
        click.echo(json.dumps(value, ensure_ascii=True, indent=2))
    else:
        click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under headings on a terminal; elsewhere only the rows, their columns between tabs."""
    if not on_terminal(sys.stdout):
        for row in rows:
            click.echo("\t".join(one_line(cell) for cell in row))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        # What comes first names the row, and is copied.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_styled(harmless(cell)) for cell in row))
    console().print(table)


def print_record(record: Mapping[str, str]) -> None:
    """One thing, a line for each of its fields."""
    if not on_terminal(sys.stdout):
        for name, value in record.items():
            click.echo(f"{name}\t{one_line(value)}")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name, _styled(harmless(value)))
    console().print(table)


# Words of a state, coloured wherever they begin a cell.
_COLOURS: Final = {
    "healthy": "green",
    "delivered": "green",
    "active": "green",
    "failing": "red",
    "stopped": "yellow",
    "revoked": "yellow",
    "expired": "yellow",
}


def _styled(cell: str) -> Text:
    from rich.text import Text

    return Text(cell, style=_COLOURS.get(cell.split(",", 1)[0], ""))


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show what is being waited for, once it takes long enough to be noticed, on a terminal only."""
    if not on_terminal(sys.stderr):
        yield
        return
    status = console(err=True).status(text)
    timer = Timer(PROGRESS_AFTER_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def progressing(text: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told how much is done, and of how much; shown once it takes long, on a terminal only."""
    if not on_terminal(sys.stderr):
        yield lambda done, of: None
        return
    from rich.progress import Progress

    began = time.monotonic()
    with Progress(console=console(err=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(text, visible=False)

        def tell(done: int, of: int) -> None:
            visible = time.monotonic() - began > PARTS_AFTER_SECONDS
            bar.update(task, completed=done, total=of, visible=visible, refresh=visible)

        yield tell
