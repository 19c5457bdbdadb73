"""Fuzz for a while: `python -m tests.fuzz SECONDS [SEED]`. With a seed, only that input again."""

import random
import sys
import time

from tests.fuzz import responses, targets

FUZZERS = {"targets": targets.fuzz, "responses": responses.fuzz}


def main(seconds: float, seed: int | None) -> None:
    """Try fresh inputs until the time is up; the first that fails is told with its seed."""
    if seed is not None:
        for fuzz in FUZZERS.values():
            fuzz(random.Random(seed))
        return
    seeds, tried, until = random.SystemRandom(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        seed = seeds.getrandbits(48)
        for name, fuzz in FUZZERS.items():
            try:
                fuzz(random.Random(seed))
            except BaseException:
                print(f"{name} failed after {tried:,} inputs; again with: python -m tests.fuzz 0 {seed}")
                raise
        tried += 1
    print(f"{tried:,} inputs each for {' and '.join(FUZZERS)}: nothing found")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
