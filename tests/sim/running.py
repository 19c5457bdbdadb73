"""Running many worlds, on every core, and counting what they saw."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.sim.disk import clean_up
from tests.sim.plan import make_plan
from tests.sim.world import run_world
from tidings.model import Micros

# Seeds that a worker takes at a time.
CHUNK: Final = 20


@dataclass
class Tally:
    """What a number of worlds came to."""

    worlds: int = 0
    simulated: Micros = 0
    # In how many worlds each behaviour was seen.
    seen: Counter[str] = field(default_factory=Counter)
    # Seeds of worlds that broke an invariant, and which.
    broken: dict[int, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.worlds += other.worlds
        self.simulated += other.simulated
        self.seen.update(other.seen)
        self.broken.update(other.broken)


def run_seeds(seeds: Iterable[int]) -> Tally:
    """Run the worlds of some seeds in this process."""
    tally = Tally()
    for seed in seeds:
        result = run_world(make_plan(seed))
        tally.worlds += 1
        tally.simulated += result.simulated
        tally.seen.update(behaviour for behaviour, times in result.seen.items() if times)
        if result.violation is not None:
            tally.broken[seed] = result.violation.invariant
    return tally


def _work(seeds: range) -> Tally:
    tally = run_seeds(seeds)
    # Worlds are full of cycles, and nobody collects while one runs: thousands would take gigabytes.
    gc.collect()
    return tally


def run_everywhere(seeds: range, *, jobs: int | None = None) -> Iterator[Tally]:
    """Run the worlds of some seeds on so many processes (all cores), giving the tally of each chunk as it is done."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs or os.cpu_count() or 1, initializer=_register) as pool:
        yield from pool.imap_unordered(_work, chunks)
        pool.close()
        pool.join()


def _register() -> None:
    # Worker processes end without running atexit functions; finalizers of multiprocessing are run.
    multiprocessing.util.Finalize(None, clean_up, exitpriority=0)
