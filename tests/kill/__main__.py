"""`python -m tests.kill`: kill services, and say what it cost. Ends with status 1 if anything was lost or wrong."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.kill import campaign, mutants, pause
from tests.kill.campaign import Result, Where
from tests.kill.reconcile import Findings, Repeats
from tests.serving import TIDINGS

# Violations that are printed; the rest is counted.
SHOWN_MAX: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many processes to kill (default: 200)")
    parser.add_argument(
        "--seed", type=int, help="repeat the plan of an earlier run (default: another each time)"
    )
    parser.add_argument(
        "--mutant", choices=sorted(mutants.MUTANTS), help="kill a service that is wrong on purpose"
    )
    told = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if told.seed is None else told.seed
    command = (TIDINGS,) if told.mutant is None else mutants.command(told.mutant)
    print(f"Killing {told.kills} services, seed {seed}.", flush=True)
    result = campaign.run(kills=told.kills, seed=seed, command=command, progress=_progress(told.kills))
    paused = Findings()
    if not result.violations:
        with tempfile.TemporaryDirectory(prefix="tidings-pause-") as folder:
            paused = pause.run(Path(folder), command=command)
    print("\n".join(table(result, paused)))
    violations = result.violations + paused.violations
    for text in violations[:SHOWN_MAX]:
        print(f"  {text}")
    if violations:
        print(f"{len(violations)} violations. To play it again: make kill KILLS={told.kills} SEED={seed}")
    return 1 if violations else 0


def _progress(kills: int) -> campaign.Progress:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {kills} ", end="", file=sys.stderr, flush=True)

    return show


def table(result: Result, paused: Findings) -> list[str]:
    """What happened, for people."""
    found = [*result.findings, paused]
    falls = [repeats for each in found for repeats in each.repeats]
    return [
        "",
        f"{'fell while at':24}{'falls':>7}{'in flight':>11}{'of it posted':>14}{'repeated':>10}{'most repeated':>15}",
        *(_row(where, [fall for fall in falls if fall.where == where]) for where in Where),
        _row("all", falls),
        "",
        f"seed                     {result.seed}",
        f"wall time                {result.seconds:.0f} s for {result.kills} kills in {len(result.findings)} rounds",
        f"events acknowledged      {_sum(each.acknowledged for each in found)}",
        f"deliveries taken         {_sum(each.deliveries for each in found)}",
        f"events lost              {_sum(len(each.lost) for each in found)}",
        f"deliveries out of order  {_sum(len(each.disordered) for each in found)}",
        f"other violations         {_sum(len(each.wrong) for each in found)}",
    ]


def _row(name: str, falls: Sequence[Repeats]) -> str:
    """`in flight`: leases when it fell. `posted`: those a receiver had read by then. `repeated`: taken once more."""
    in_flight, posted, repeated = (
        sum(getattr(fall, what) for fall in falls) for what in ("in_flight", "posted", "repeated")
    )
    most = max(falls, key=lambda fall: fall.repeated, default=None)
    of = f"{most.repeated} of {most.in_flight}" if most else "-"
    return f"{name:24}{len(falls):>7}{in_flight:>11}{posted:>14}{repeated:>10}{of:>15}"


def _sum(numbers: Iterable[int]) -> str:
    return f"{sum(numbers):,}".replace(",", " ")


if __name__ == "__main__":
    sys.exit(main())
