"""The proof can fail: wrong versions of the engine are caught. `make mutants` hunts them all."""

from __future__ import annotations

import pytest

from tests.sim.mutants import MUTANTS, Mutant, hunt_all

# One for each promise, among those that take few worlds.
SOME = (
    "a failed delivery moves the cursor",
    "the marker passes over events",
    "leases are not looked at",
    "filters are applied after the cut",
    "the end of a failed batch is forgotten",
    "equal creates do not queue",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_replaces_text_of_the_engine(mutant: Mutant) -> None:
    source = mutant.path.read_text("utf-8")
    changed = mutant.apply(source)
    assert changed != source
    compile(changed, str(mutant.path), "exec")


def test_names_are_told_apart() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert set(SOME) <= set(names)


@pytest.mark.timeout(600)
def test_some_mutants_are_caught() -> None:
    mutants = [mutant for mutant in MUTANTS if mutant.name in SOME]
    survived = [catch.name for catch in hunt_all(mutants, seeds_max=60) if catch.invariant is None]
    assert not survived
