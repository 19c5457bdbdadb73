"""Cutting a failing world down to what it takes to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.sim.plan import MISFORTUNES, Deed, Plan
from tests.sim.world import Result, run_world

# Worlds run in search of a smaller one.
RUNS_MAX: Final = 150


def shrink(result: Result) -> Result:
    """The smallest world found that breaks the same invariant: without kinds of misfortune, deeds, processes."""
    search = _Search(result)
    for kind in MISFORTUNES:
        search.try_without(lambda _, deed, kind=kind: deed.kind == kind)  # type: ignore[misc]
    size = len(search.best.plan.deeds) // 2
    while size:
        start = 0
        while start < len(search.best.plan.deeds):
            cut = range(start, start + size)
            if not search.try_without(lambda index, _, cut=cut: index in cut):  # type: ignore[misc]
                start += size
        size //= 2
    search.try_plan(replace(search.best.plan, processes=1))
    search.try_plan(replace(search.best.plan, skews=(0,)))
    return search.best


class _Search:
    def __init__(self, result: Result) -> None:
        assert result.violation is not None, "nothing to shrink"
        self.best = result
        self._invariant = result.violation.invariant
        self._runs = 0

    def try_without(self, unwanted: Callable[[int, Deed], bool]) -> bool:
        return self.try_plan(self.best.plan.without(unwanted))

    def try_plan(self, plan: Plan) -> bool:
        """Whether this smaller plan fails alike; then it is the best so far."""
        if self._runs >= RUNS_MAX or plan == self.best.plan:
            return False
        self._runs += 1
        result = run_world(plan)
        if result.violation is None or result.violation.invariant != self._invariant:
            return False
        self.best = result
        return True
