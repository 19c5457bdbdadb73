"""The plans of the statements whose cost must not grow with what is stored.

A plan is SQLite's own words. Each statement is to use the intended index, and none may read a whole table that grows
with webhooks or events.
"""

import re
import sqlite3
from collections.abc import Iterator

import pytest

from tidings.model import Owner
from tidings.store.sqlite import (
    MEMORY,
    access,
    claiming,
    establishing,
    log,
    marking,
    places,
    reading,
    recording,
    schema,
    trimming,
    waiting,
)

# Aliases of tables that grow; a scan of one says no word of an index behind it, or names no more than this.
GROWING = {
    "cursors": {"cursors", "c"},
    "webhooks": {"webhooks", "w"},
    "events": {"events", "e"},
    "event_scopes": {"event_scopes", "s"},
    "attempts": {"attempts", "a"},
    "resources": {"resources", "r", "p"},
    "parents": {"parents"},
    "tokens": {"tokens", "t"},
}


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    connection = schema.connect(MEMORY)
    schema.migrate(connection, generation="g", sandbox=False)
    yield connection
    connection.close()


def plan_of(connection: sqlite3.Connection, statement: str) -> list[str]:
    names = set(re.findall(r"(?<![\w'\[]):(\w+)", statement))
    parameters = dict.fromkeys(names, 1) if names else [1] * statement.count("?")
    return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)]


def full_scans(plan: list[str]) -> list[str]:
    """Steps that read a growing table from end to end, in whatever order."""
    aliases = set().union(*GROWING.values())
    scans = [re.fullmatch(r"SCAN (\w+)( USING .*)?", step) for step in plan]
    return [scan.group(0) for scan in scans if scan is not None and scan.group(1) in aliases]


HOT = [
    (
        "mark",
        marking.MARK,
        [
            "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            "SEARCH cursors USING INDEX cursors_by_scope (scope=?)",
        ],
    ),
    (
        "free expired",
        claiming.FREE_EXPIRED,
        [
            "SEARCH cursors USING COVERING INDEX cursors_leased (lease_until<?)",
            "SEARCH cursors USING COVERING INDEX cursors_leased (lease_until>?)",
        ],
    ),
    (
        "failing",
        claiming.FAILING,
        [
            "SEARCH cursors USING INDEX cursors_failing (next_attempt_at<?)",
            "SEARCH cursors USING INDEX cursors_failing (next_attempt_at>?)",
        ],
    ),
    ("quiet", claiming.QUIET, ["SEARCH cursors USING INDEX cursors_quiet (heartbeat_at<?)"]),
    ("lease", claiming.LEASE, ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("free unread", claiming.FREE_UNREAD, ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("unmarked", marking.UNMARKED, ["SEARCH events"]),
    ("a step of new events", marking.STEP, ["SEARCH e USING INTEGER PRIMARY KEY (rowid>?)"]),
    ("scopes of a stretch", marking.SCOPES, ["SEARCH s USING PRIMARY KEY (stretch=? AND scope>?)"]),
    (
        "mark scopes",
        marking.MARK_SCOPES,
        [
            "SEARCH s USING PRIMARY KEY (stretch=? AND scope=? AND position>? AND position<?)",
            "SEARCH cursors USING INDEX cursors_by_scope (scope=?)",
        ],
    ),
    (
        "claimed",
        reading.CLAIMED,
        [
            "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH w USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH s USING PRIMARY KEY (stretch=? AND scope=? AND position>? AND position<?)",
            "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        ],
    ),
    *(
        (
            name,
            statement,
            [
                "SEARCH s USING PRIMARY KEY (stretch=? AND scope=? AND position>? AND position<?)",
                "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
            ],
        )
        for name, statement in (
            ("page", reading.PAGE),
            ("large page", reading.LARGE_PAGE),
            ("page for filters", reading.JUDGED_PAGE),
            ("large page for filters", reading.LARGE_JUDGED_PAGE),
        )
    ),
    ("attempt", recording.ATTEMPT.statements[8], ["SEARCH c USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("failure", recording.FAILURE.statements[8], ["SEARCH webhooks USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("went on", recording.WENT_ON.statements[8], ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("went well", recording.WENT_WELL.statements[8], ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("record", recording.RECORD.statements[8], ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    ("onward", recording.ONWARD, ["SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)"]),
    (
        "next due",
        waiting.NEXT_DUE,
        [
            "SEARCH cursors USING INDEX cursors_failing",
            "SEARCH cursors USING INDEX cursors_quiet",
            "SEARCH cursors USING COVERING INDEX cursors_leased (lease_until>?)",
        ],
    ),
    (
        "spread",
        waiting.SPREAD,
        [
            "SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH cursors USING INDEX cursors_quiet (heartbeat_at<?)",
            "SEARCH cursors USING INDEX cursors_quiet (heartbeat_at>?)",
        ],
    ),
    ("scopes of an append", log._SCOPES, ["SEARCH e USING INTEGER PRIMARY KEY (rowid>?)"]),
    (
        "trim scopes",
        trimming.TRIM_SCOPES,
        ["SEARCH event_scopes USING PRIMARY KEY (stretch=? AND scope=? AND position=?)"],
    ),
    (
        "closure",
        places._CLOSURE,
        [
            "SEARCH resources USING COVERING INDEX sqlite_autoindex_resources_1 (gid=?)",
            "SEARCH parents USING PRIMARY KEY (child=?)",
        ],
    ),
    ("attempts", establishing._ATTEMPTS, ["SEARCH attempts USING INTEGER PRIMARY KEY (rowid=?)"]),
    (
        "review of an owner",
        access.REVIEW,
        [
            "SEARCH cursors USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH t USING INDEX tokens_by_owner (user=? AND app=?)",
        ],
    ),
]


@pytest.mark.parametrize(("statement", "steps"), [pytest.param(*case, id=name) for name, *case in HOT])
def test_the_intended_index_is_used_and_no_table_read_whole(
    connection: sqlite3.Connection, statement: str, steps: list[str]
) -> None:
    plan = plan_of(connection, statement)
    assert [step for step in steps if step not in plan] == []
    assert full_scans(plan) == []


_READY_BY = "SEARCH cursors USING INDEX cursors_ready ({})"


@pytest.mark.parametrize(
    ("statement", "step"),
    [
        pytest.param(claiming.UNPROVEN, _READY_BY.format("delivered_lately=?"), id="not lately"),
        pytest.param(claiming.UNPROVEN, _READY_BY.format("delivered_lately=? AND turn<?"), id="long ago"),
        pytest.param(claiming.PROVEN, _READY_BY.format("delivered_lately=? AND turn>?"), id="proven"),
        pytest.param(
            waiting.OLDEST_READY, _READY_BY.format("delivered_lately=? AND turn>?"), id="oldest ready"
        ),
        pytest.param(waiting.OLDEST_READY, _READY_BY.format("delivered_lately=?"), id="oldest not lately"),
    ],
)
def test_the_ready_are_read_in_their_order_from_the_index_of_them_alone(
    connection: sqlite3.Connection, statement: str, step: str
) -> None:
    """From an index that holds no others, and without sorting: it stops at the limit."""
    plan = plan_of(connection, statement)
    assert step in plan
    assert not [step for step in plan if "ORDER BY" in step]


@pytest.mark.parametrize("index", ["cursors_ready", "cursors_failing", "cursors_quiet", "cursors_leased"])
def test_the_indexes_that_find_work_hold_only_that(connection: sqlite3.Connection, index: str) -> None:
    (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
    assert " WHERE " in " ".join(sql.split())


def test_a_list_of_webhooks_reads_the_owners_alone(connection: sqlite3.Connection) -> None:
    plans: list[list[str]] = []
    connection.set_trace_callback(lambda sql: plans.append([sql]))
    try:
        owner = Owner("u", "a")
        establishing.list_of(connection, owner, workspace="1", resource=None, after=0, limit=10)
    finally:
        connection.set_trace_callback(None)
    ((statement,),) = plans
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement)]
    assert any("webhooks_by_owner (user=? AND app=? AND workspace=? AND id>?)" in step for step in plan), plan
    assert full_scans(plan) == []
    assert not [step for step in plan if "ORDER BY" in step]
