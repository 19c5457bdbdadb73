"""What is visible from a scope, read stretch by stretch: complete, rising, and no further than asked."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.store.sqlite import MEMORY, schema
from tidings.store.sqlite.stretches import STRETCH_BITS, stretch_of, visible

SIZE = 1 << STRETCH_BITS
SCOPE, OTHER = 7, 8
VISIBLE = visible(scope=":scope", after=":after", upto=":upto")

# At the edges of stretches, and anywhere in the first few; whole stretches may hold nothing.
positions = st.one_of(
    st.integers(1, 6 * SIZE),
    st.builds(lambda stretch, near: stretch * SIZE + near, st.integers(1, 6), st.integers(-2, 2)),
)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    connection = schema.connect(MEMORY)
    schema.migrate(connection, generation="g", sandbox=False)
    yield connection
    connection.close()


@settings(deadline=None)
@given(
    ours=st.sets(positions, max_size=30),
    theirs=st.sets(positions, max_size=30),
    after=st.one_of(st.just(0), positions),
    upto=positions,
    most=st.integers(1, 40),
)
def test_a_range_is_read_in_order_over_any_number_of_stretches(
    connection: sqlite3.Connection, ours: set[int], theirs: set[int], after: int, upto: int, most: int
) -> None:
    connection.execute("DELETE FROM event_scopes")
    connection.executemany(
        f"INSERT INTO event_scopes VALUES ({stretch_of('?3')}, ?2, ?3)",
        [(None, scope, position) for scope, held in ((SCOPE, ours), (OTHER, theirs)) for position in held],
    )
    found = connection.execute(
        f"{VISIBLE} LIMIT :most", {"scope": SCOPE, "after": after, "upto": upto, "most": most}
    ).fetchall()
    expected = sorted(position for position in ours if after < position <= upto)
    assert [position for (position,) in found] == expected[:most]


def test_stretches_are_walked_one_after_the_other_and_nothing_is_sorted(
    connection: sqlite3.Connection,
) -> None:
    """The order of rows rests on it, and that the first is had without the rest."""
    plan = connection.execute(f"EXPLAIN QUERY PLAN {VISIBLE}", {"scope": 1, "after": 1, "upto": 1})
    steps = [row[3] for row in plan]
    assert steps[-2:] == [
        "SCAN stretches",
        "SEARCH s USING PRIMARY KEY (stretch=? AND scope=? AND position>? AND position<?)",
    ]
    assert not [step for step in steps if "B-TREE" in step]
