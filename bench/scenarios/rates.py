"""How many deliveries a second: to many webhooks, to one with a backlog, beside receivers that never answer."""

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.serving import wait_until

from bench import machine, poster
from bench.filling import project
from bench.receivers import Receivers, own_receiver, receivers
from bench.results import Goal, Row
from bench.running import WORKSPACE, Stream, changed, data, one_each, prepare, running, steady_rate
from bench.scenarios.context import Bench

# Each of its deliveries carries one event.
SINGLE = {"TIDINGS_BATCH_MAX": "1"}


def deliveries(bench: Bench) -> list[Row]:
    """Durable single-event deliveries a second, by one process and by one for each core, in turns.

    The same bytes are posted by the yardstick before and after each.
    """
    sizes = bench.sizes
    workers = max(2, os.cpu_count() or 1)
    ways: dict[str, tuple[str, tuple[str, ...]]] = {
        "deliveries": ("one process", ()),
        "deliveries_workers": (f"serve --workers {workers}", ("--workers", str(workers))),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    posts: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        folder = stack.enter_context(bench.folder())
        taking = stack.enter_context(receivers(folder))
        services = {}
        for name, (_, arguments) in ways.items():
            (folder / name).mkdir()
            services[name] = made = stack.enter_context(running(folder / name, *arguments, **SINGLE))
            made.caller.call("PUT", f"/resources/{WORKSPACE}", data({"resource_type": "workspace"}))
            made.establish([taking.target(number) for number in range(sizes.webhooks)])
        rounds = [one_each(range(sizes.webhooks))]
        request = poster.Request.delivery(taking.origins[0])

        def yardstick() -> float:
            return poster.posts_per_second(folder, request, seconds=sizes.yardstick_seconds)

        before = yardstick()
        for _ in range(sizes.runs):
            for name, made in services.items():
                rates[name].append(steady_rate(made, rounds, each=sizes.webhooks, seconds=sizes.seconds))
                after = yardstick()
                posts[name].append((before + after) / 2)
                before = after
    return [
        Row(
            name=name,
            what=f"durable single-event deliveries, {sizes.webhooks:,} webhooks, {how}",
            unit="/s",
            figures=rates[name],
            yardstick=f"{poster.TOOL} posting the same to {taking.kind}",
            against=posts[name],
            goal=Goal(at_least=0.15, aim=0.5),
        )
        for name, (how, _) in ways.items()
    ]


def catch_up(bench: Bench) -> list[Row]:
    """Events a second to one webhook that has a backlog, in batches of a hundred."""
    rates, flushes = [], []
    with bench.folder() as folder, receivers(folder, ports=1) as taking:
        for run in range(bench.sizes.runs):
            home = folder / str(run)
            home.mkdir()
            flushes.append(machine.fsyncs_per_second(home))
            rates.append(_catch_up(bench, home, taking))
    ways = [row for row in map(bench.row, ("deliveries", "deliveries_workers")) if row is not None]
    disk = statistics.median(flushes)
    goal = None
    if ways:
        single = max(row.figure for row in ways)
        least, aim = (min(factor * single, 0.8 * 100 * disk) for factor in (8, 30))
        goal = Goal(at_least=least, aim=aim, of="figure")
    return [
        Row(
            name="catch_up",
            what=f"catch-up of one webhook, {bench.sizes.backlog:,} events behind, in batches of 100",
            unit="events/s",
            figures=rates,
            yardstick="100 × this disk's flushes",
            against=[100 * each for each in flushes],
            goal=goal,
            note="The goal is the smaller of 8 (aim: 30) × the single-event deliveries, by as many processes as"
            " deliver most, and 0.8 × the yardstick.",
        )
    ]


def _catch_up(bench: Bench, home: Path, taking: Receivers) -> float:
    events = bench.sizes.backlog
    prepare(home, webhooks=1, origins=taking.origins)
    with running(home, "--no-dispatch") as made:
        batch = data([changed(project(0)) for _ in range(1000)])
        for _ in range(events // 1000):
            made.caller.call("POST", "/events", batch)
    with running(home) as made:
        wait_until(lambda: made.recorded)
        first, began = made.cursor, time.perf_counter()
        wait_until(lambda: made.cursor >= events, timeout=120)
        return (events - first) / (time.perf_counter() - began)


def silent(bench: Bench) -> list[Row]:
    """Deliveries a second to nine tenths of the webhooks while the last tenth's receivers never answer."""
    beside, alone = [], []
    with bench.folder() as folder, receivers(folder) as taking, own_receiver("--silent") as hole:
        origins = [taking.origins[number % len(taking.origins)] for number in range(9)]
        origins.append(f"http://127.0.0.1:{hole}")
        for run in range(bench.sizes.runs):
            alone.append(_beside(bench, folder / f"{run}-alone", origins, silent=False))
            beside.append(_beside(bench, folder / f"{run}-beside", origins, silent=True))
    return [
        Row(
            name="silent",
            what="deliveries to the others while a tenth of the targets never answer",
            unit="/s",
            figures=beside,
            yardstick="the same, with no events for that tenth",
            against=alone,
            goal=Goal(at_least=0.9, aim=0.98),
        )
    ]


def _beside(bench: Bench, home: Path, origins: Sequence[str], *, silent: bool) -> float:
    """Every tenth webhook's receiver never answers; whether it has anything to deliver is what is compared."""
    home.mkdir()
    prepare(home, webhooks=bench.sizes.webhooks, origins=origins)
    healthy = [number for number in range(bench.sizes.webhooks) if number % 10 != 9]
    numbers = range(bench.sizes.webhooks) if silent else healthy
    with running(home, **SINGLE) as made:
        with Stream(made, [one_each(numbers)], each=len(healthy)) as stream:
            rate = stream.rate(bench.sizes.seconds)
        # Deliveries that are never answered would hold up an orderly end.
        made.service.kill()
    return rate
