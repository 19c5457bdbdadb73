"""Heads are raised to the last new event of each scope, whichever way it is found."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.limits import MARK_MAX
from tidings.store.sqlite import MEMORY, marking, schema
from tidings.store.sqlite.rows import read_meta, write_meta
from tidings.store.sqlite.stretches import STRETCH_BITS, stretch_of

SIZE = 1 << STRETCH_BITS
MANY = marking._SCOPES_MAX + 1

# At the edges of stretches, and anywhere in the first few.
positions = st.one_of(
    st.integers(1, 4 * SIZE),
    st.builds(lambda stretch, near: stretch * SIZE + near, st.integers(1, 4), st.integers(-3, 3)),
)


def logs(scopes: int) -> st.SearchStrategy[Mapping[int, set[int]]]:
    """Where events are visible from, by their positions."""
    return st.dictionaries(
        positions, st.sets(st.integers(1, scopes), min_size=1, max_size=scopes), max_size=30
    )


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    connection = schema.connect(MEMORY)
    schema.migrate(connection, generation="g", sandbox=False)
    # A webhook for each scope, and one more that nothing is visible from.
    for scope in range(1, MANY + 2):
        connection.execute(
            "INSERT INTO cursors (webhook, scope, origin, cursor, head, heartbeat_at, turn)"
            " VALUES (?1, ?1, 1, 0, 0, 0, 0)",
            (scope,),
        )
    yield connection
    connection.close()


def fill(connection: sqlite3.Connection, log: Mapping[int, set[int]], *, marked: int) -> None:
    for table in ("events", "event_scopes"):
        connection.execute(f"DELETE FROM {table}")
    connection.executemany(
        "INSERT INTO events"
        " (position, workspace, resource, resource_type, action, created_at, accepted_at, scopes, wire)"
        " VALUES (?, '1', '1', 'task', 'added', 0, 0, ?, x'')",
        [(position, json.dumps(sorted(scopes))) for position, scopes in log.items()],
    )
    connection.executemany(
        f"INSERT INTO event_scopes VALUES ({stretch_of('?2')}, ?1, ?2)",
        [(scope, position) for position, scopes in log.items() for scope in scopes],
    )
    connection.execute("UPDATE cursors SET head = 0, unread_after = 0")
    write_meta(connection, "marked", marked)


def heads(connection: sqlite3.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT scope, head FROM cursors"))


def last(log: Mapping[int, set[int]], *, after: int, upto: int) -> dict[int, int]:
    """The last position in this range that is visible from each scope; 0 where none is."""
    found = dict.fromkeys(range(1, MANY + 2), 0)
    for position in sorted(log):
        if after < position <= upto:
            found |= dict.fromkeys(log[position], position)
    return found


def unread(connection: sqlite3.Connection, log: Mapping[int, set[int]], *, after: int) -> bool:
    """Whether of each scope everything new lies behind where it is said to be unread from, and that is new too."""
    rows = connection.execute("SELECT scope, head, unread_after FROM cursors WHERE head > 0")
    return all(
        after <= begins < min(position for position in log if position > after and scope in log[position])
        for scope, _, begins in rows
    )


@settings(deadline=None)
@given(
    log=st.one_of(logs(2), logs(MANY)),
    marked=st.one_of(st.just(0), positions),
    most=st.integers(1, 40),
    much=st.integers(1, 2 * SIZE),
)
def test_heads_are_raised_to_the_last_event_of_their_scopes(
    connection: sqlite3.Connection, log: Mapping[int, set[int]], marked: int, most: int, much: int
) -> None:
    """Step by step, never further than the marker has come, and in the end all of them."""
    fill(connection, log, marked=marked)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(marking, "MARK_MAX", most)
        patched.setattr(marking, "_MUCH", much)
        more, before = True, marked
        while more:
            more = marking.mark(connection)
            now: Any = read_meta(connection, "marked")
            assert now > before or not more
            assert heads(connection) == last(log, after=marked, upto=now)
            assert unread(connection, log, after=marked)
            before = now
    assert before == max([marked, *log])


@pytest.mark.parametrize(("scopes", "steps"), [(1, 2), (MANY - 1, 2), (MANY, 3)], ids=["one", "few", "many"])
def test_a_stretch_of_few_scopes_is_marked_at_once(
    connection: sqlite3.Connection, scopes: int, steps: int
) -> None:
    """One of many scopes by so many events at a time; then what lies behind its end."""
    first = SIZE - 2 * MARK_MAX
    log = {position: {1 + position % scopes} for position in range(first, SIZE + marking._MUCH)}
    fill(connection, log, marked=first - 1)
    taken = 1
    while marking.mark(connection):
        taken += 1
    assert taken == steps
    assert heads(connection) == last(log, after=0, upto=max(log))
