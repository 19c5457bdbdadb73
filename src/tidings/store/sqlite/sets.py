"""Statements that work on many rows at once: one call into SQLite for hundreds of them.

Each call gives up Python's global lock and has to win it back from the busy event loop, so a call per row spends its
time waiting. What goes in is a table of bound values, `VALUES (?, ?), (?, ?), …`: SQLite takes it two to three times as
fast as it takes JSON apart. A statement is prepared for some sizes only, and a smaller set is filled up with rows of
zeros, which meet no row of any table: keys begin at 1.

To bind an integer, a string or a bytearray takes Python some 30 to 80 ns, to bind None, a bool or bytes 300 to 400,
with the global lock held: each is asked for methods it does not have. So rows that are made by the thousand hold none
of those.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

# The sizes: a set is cut into the largest, and what is left takes the smallest it fits in. A row of zeros costs half of
# what another costs, so each size is at most half as much again as the one before. The largest holds the
# largest publish, and times some fifteen columns is below the 32 766 values SQLite binds
# (https://www.sqlite.org/limits.html).
SIZES: Final = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class SetStatement:
    """A statement over a table `r` of bound rows; `{rows}` stands where it is named in a FROM."""

    def __init__(self, template: str, *columns: str) -> None:
        self._columns = columns
        # The statement for a set of each size.
        self.statements = {size: template.replace("{rows}", self._table(size)) for size in SIZES}

    def run(self, connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> int:
        """Run it on these rows; gives how many rows of tables it changed."""
        return sum(connection.execute(*call).rowcount for call in self._calls(rows))

    def _calls(self, rows: Sequence[tuple[object, ...]]) -> Iterator[tuple[str, list[object]]]:
        width = len(self._columns)
        for first in range(0, len(rows), SIZES[-1]):
            part = rows[first : first + SIZES[-1]]
            size = next(size for size in SIZES if size >= len(part))
            values = list(chain.from_iterable(part))
            assert len(values) == width * len(part), "a row has a value for each column"
            yield self.statements[size], values + [0] * (width * (size - len(part)))

    def _table(self, size: int) -> str:
        named = ", ".join(f"column{place} AS {name}" for place, name in enumerate(self._columns, 1))
        row = f"({', '.join('?' * len(self._columns))})"
        return f"(SELECT {named} FROM (VALUES {', '.join([row] * size)})) AS r"
