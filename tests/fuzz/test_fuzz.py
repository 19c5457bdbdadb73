"""A bounded number of fresh inputs in each run, and every input that was ever found to fail."""

import random

import pytest

from tests.fuzz import responses, targets

# Some two seconds each.
INPUTS = 2_000


@pytest.mark.parametrize("fuzz", [targets.fuzz, responses.fuzz], ids=["targets", "responses"])
def test_fresh_inputs(fuzz: targets.Fuzz) -> None:
    seeds = random.SystemRandom()
    for _ in range(INPUTS):
        seed = seeds.getrandbits(48)
        try:
            fuzz(random.Random(seed))
        except BaseException as error:
            error.add_note(f"again with: python -m tests.fuzz 0 {seed}")
            raise
