"""`python -m tests.sim`: run seeded worlds, or tell the story of one.

python -m tests.sim --seeds 10000         seeds 0 to 9999
python -m tests.sim --seed 4711           one world, its story if it fails, and its digest
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.disk import clean_up
from tests.sim.plan import DAY, make_plan
from tests.sim.running import Tally, run_everywhere
from tests.sim.shrink import shrink
from tests.sim.story import tell
from tests.sim.world import run_world

# Failing worlds whose stories are told.
STORIES_MAX = 3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated worlds, checked.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds (1000)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, nargs="+", help="only these worlds, each with its story")
    parser.add_argument("--jobs", type=int, help="worker processes (all cores)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.seed is not None:
            return max(map(_one, chosen.seed))
        return _many(range(chosen.start, chosen.start + chosen.seeds), chosen.jobs)
    finally:
        clean_up()


def _one(seed: int) -> int:
    result = run_world(make_plan(seed))
    verdict = "all invariants hold" if result.violation is None else f"{result.violation.invariant} is broken"
    print(f"seed {seed}: {verdict} (digest {result.digest})")
    if result.violation is None:
        return 0
    print(tell(shrink(result)))
    return 1


def _many(seeds: range, jobs: int | None) -> int:
    began, tally = time.monotonic(), Tally()
    for part in run_everywhere(seeds, jobs=jobs):
        tally.add(part)
        if sys.stderr.isatty():
            print(f"\r{tally.worlds} worlds, {len(tally.broken)} broken", end="", file=sys.stderr)
    took = time.monotonic() - began
    print(
        f"\n{tally.worlds} worlds (seeds {seeds.start} to {seeds.stop - 1}) in {took:.0f} s: "
        f"{tally.simulated / DAY / 365.25:.2f} simulated years, {len(tally.broken)} violations"
    )
    print("seen in how many worlds:")
    for behaviour, worlds in sorted(tally.seen.items(), key=lambda item: -item[1]):
        print(f"  {worlds:7}  {behaviour}")
    for seed in sorted(tally.broken)[:STORIES_MAX]:
        print("\n" + tell(shrink(run_world(make_plan(seed)))))
    if len(tally.broken) > STORIES_MAX:
        others = sorted(tally.broken)[STORIES_MAX : STORIES_MAX + 20]
        print("\nand " + ", ".join(f"{seed} ({tally.broken[seed]})" for seed in others) + " …")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
