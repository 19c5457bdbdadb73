"""Where events are visible from: `event_scopes`, and how it is read.

What lies behind a cursor is a range of one scope's positions. Kept by scope alone, the log's end would be as many
places as there are busy scopes: a publish of a thousand events wrote a thousand pages once the log had grown, each for
a few bytes. So positions are kept by stretch of the log first, and by scope within it: whatever is appended now goes to
the few pages of the present stretch, and a range is read stretch by stretch.
"""

from typing import Final

# A stretch is 2^14 positions. A smaller one has fewer pages for appends to scatter over; a larger one means fewer steps
# for a cursor that is far behind (a million events are 61 of them, some 50 ns each).
STRETCH_BITS: Final = 14

# Where a webhook's unread events begin, as SQL: nothing that is visible to it lies between the two.
UNREAD_AFTER: Final = "max(c.cursor, c.unread_after)"


def stretch_of(position: str) -> str:
    """The stretch that a position is in, both as SQL."""
    return f"({position} >> {STRETCH_BITS})"


def visible(*, scope: str, after: str, upto: str) -> str:
    """A SELECT of the `position`s visible from a scope, after one position and up to another; all given as SQL.

    They come in rising order, without a sort that would have to see all before the first: stretches are walked one
    after the other, and each is read by the primary key. Tests hold SQLite's plan to it.
    """
    return f"""
        WITH RECURSIVE stretches (number) AS (
            SELECT {stretch_of(after)}
            UNION ALL
            SELECT number + 1 FROM stretches WHERE number < {stretch_of(upto)}
        )
        SELECT s.position FROM stretches CROSS JOIN event_scopes s
            ON s.stretch = stretches.number AND s.scope = {scope} AND s.position > {after} AND s.position <= {upto}
    """
