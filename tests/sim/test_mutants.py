"""The proof can fail: wrong versions of the engine are caught. `make mutants` hunts them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS, SEEDS_MAX, Mutant, hunt_all

ROOT = Path(__file__).parents[2]

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


def test_the_table_of_mistakes_is_complete() -> None:
    """docs/reliability.md names each, and how many worlds it took."""
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d+) \| [a-z ]+ \|$", text, re.MULTILINE))
    assert rows.keys() == {mutant.name for mutant in MUTANTS}
    assert all(int(seeds) <= SEEDS_MAX for seeds in rows.values())
