"""A few hundred worlds with each run of the tests; `make sim SEEDS=…` runs any number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.disk import clean_up
from tests.sim.plan import DAY, make_plan
from tests.sim.running import Tally, run_everywhere
from tests.sim.shrink import shrink
from tests.sim.story import tell
from tests.sim.world import run_world

ROOT = Path(__file__).parents[2]
SEEDS = range(300)

# What must have been seen in some of them, or the worlds are too tame to show anything.
BEHAVIOURS = {
    *(
        "delivered",
        "heartbeat",
        "retried",
        "recovered",
        "expired",
        "gone",
        "same_bytes",
        "took_unseen",
        "hindered",
    ),
    *("retry_after", "dropped_turn", "went_on", "removed", "removed_in_flight", "stopped", "resumed"),
    *("filters_replaced", "filters_in_flight", "moved", "resource_deleted", "diamond"),
    *("idempotent_repeat", "repeated_id", "trimmed", "lost_events", "handshake_refused", "unavailable"),
    *("refused duplicate_webhook", "refused quota_per_resource", "refused quota_per_owner"),
    *("refused idempotency_conflict", "refused not_authorized", "refused handshake_failed"),
    *(
        "crash",
        "crash_in_flight",
        "dead_holder",
        "drained",
        "stall",
        "power_cut",
        "lost_flush",
        "lost_record",
        "beside_others",
    ),
    *("stale_fence", "lease_ran_out", "left_unread"),
    *("clock_forward", "clock_back", "disk busy", "disk io_error", "disk full"),
}


@pytest.fixture(scope="module")
def tally() -> Tally:
    whole = Tally()
    for part in run_everywhere(SEEDS):
        whole.add(part)
    return whole


@pytest.mark.timeout(600)
def test_no_world_breaks_an_invariant(tally: Tally) -> None:
    try:
        stories = [tell(shrink(run_world(make_plan(seed)))) for seed in sorted(tally.broken)[:2]]
    finally:
        clean_up()
    assert not tally.broken, "\n\n".join([str(tally.broken), *stories])
    assert tally.worlds == len(SEEDS)
    assert tally.simulated > 100 * DAY


@pytest.mark.timeout(600)
def test_the_worlds_are_not_tame(tally: Tally) -> None:
    missing = BEHAVIOURS - set(tally.seen)
    assert not missing, f"never seen: {sorted(missing)}"


def test_a_seed_replays_a_world_exactly() -> None:
    """In another process, with other hashes and addresses."""
    outputs = []
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", *map(str, range(12))],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(ran.stdout)
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 12
