"""What a million registered webhooks cost: in deliveries to a few and to all of them, in memory, at rest."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench.receivers import receivers
from bench.results import Goal, Row
from bench.running import Running, one_each, prepare, running, steady_rate
from bench.scenarios.context import Bench
from bench.scenarios.rates import SINGLE

# Rounds over webhooks chosen from all, before they come again; and what scatters them: a prime, so that none comes
# twice in a round.
ROUNDS = 200
SCATTER = 611_953


def many(bench: Bench) -> list[Row]:
    """The service on a database with very many webhooks, beside another with few."""
    sizes = bench.sizes
    with ExitStack() as stack:
        folder = stack.enter_context(bench.folder())
        taking = stack.enter_context(receivers(folder))
        homes = [folder / "few", folder / "many"]
        for home, count in zip(homes, (sizes.webhooks, sizes.many), strict=True):
            home.mkdir()
            prepare(home, webhooks=count, origins=taking.origins)
        few = stack.enter_context(running(homes[0], **SINGLE))
        began = time.perf_counter()
        big = stack.enter_context(running(homes[1], **SINGLE))
        ready = time.perf_counter() - began
        idle = [made.cpu_percent(sizes.idle_seconds) for made in (few, big)]
        rates = [
            _compare(bench, few, big, rounds)
            for rounds in (
                [one_each(range(sizes.webhooks))],
                [_scattered(turn, sizes.webhooks, of=sizes.many) for turn in range(ROUNDS)],
            )
        ]
        resident = [made.resident_mib for made in (few, big)]
    return [
        *_rate_rows(bench, *rates),
        _memory_row(bench, resident),
        *_idle_rows(bench, idle),
        _start_row(bench, ready),
    ]


def _scattered(turn: int, count: int, *, of: int) -> bytes:
    """A publish of one event for each of so many webhooks, chosen from all."""
    return one_each([(turn * count + place) * SCATTER % of for place in range(count)])


def _compare(
    bench: Bench, few: Running, big: Running, rounds: Sequence[bytes]
) -> tuple[list[float], list[float]]:
    """The rates of the two services, measured in turns."""
    sizes = bench.sizes
    same = [one_each(range(sizes.webhooks))]
    pairs = [
        (
            steady_rate(big, rounds, each=sizes.webhooks, seconds=sizes.seconds),
            steady_rate(few, same, each=sizes.webhooks, seconds=sizes.seconds),
        )
        for _ in range(sizes.runs)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _rate_rows(
    bench: Bench, same: tuple[list[float], list[float]], each: tuple[list[float], list[float]]
) -> list[Row]:
    crowd, few = f"{bench.sizes.many:,} registered webhooks", f"{bench.sizes.webhooks:,}"
    what = {
        "many_same": f"deliveries with {crowd}, to the same {few}",
        "many_all": f"deliveries with {crowd}, to all in turn",
    }
    return [
        Row(
            name=name,
            what=what[name],
            unit="/s",
            figures=big,
            yardstick=f"with {few} registered",
            against=small,
            goal=Goal(at_least=0.8, aim=0.95),
        )
        for name, (big, small) in (("many_same", same), ("many_all", each))
    ]


def _memory_row(bench: Bench, resident: list[float]) -> Row:
    return Row(
        name="many_memory",
        what=f"memory (VmRSS) with {bench.sizes.many:,} registered webhooks, after delivering to all in turn",
        unit="MiB",
        figures=[resident[1]],
        yardstick=f"with {bench.sizes.webhooks:,}",
        against=[resident[0]],
        goal=Goal(at_least=500, aim=200, of="figure", below=True),
    )


def _idle_rows(bench: Bench, idle: list[float]) -> list[Row]:
    sizes = bench.sizes
    return [
        Row(
            name=name,
            what=f"processor when idle with {count:,} registered webhooks, their heartbeats included",
            unit="% of a core",
            figures=[used],
        )
        for name, count, used in zip(
            ("few_idle", "many_idle"), (sizes.webhooks, sizes.many), idle, strict=True
        )
    ]


def _start_row(bench: Bench, ready: float) -> Row:
    what = f"start to ready with {bench.sizes.many:,} registered webhooks"
    return Row(name="many_start", what=what, unit="s", figures=[ready])
