"""`make bench`: print the figures, each beside its yardstick, with the machine and the spread."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine, scenarios

RUNS = 3
# Columns: a table that is wrapped cannot be read or pasted.
WIDTH_MIN = 150
# Receivers listen on so many ports: as many origins, as a platform's customers have.
PORTS = 8


def several(measure: Callable[[], float]) -> list[float]:
    return [measure() for _ in range(RUNS)]


def shown(values: list[float], form: str = "{:,.0f}") -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{form.format(middle)}  ({form.format(low)} – {form.format(high)})"


def main() -> None:
    console = Console(width=max(WIDTH_MIN, Console().width))
    table = Table("what", "measured: median (spread)", "yardstick", "ratio")
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as name:
        folder = Path(name)
        with (
            console.status("Measuring; this takes some two minutes …"),
            machine.receivers(folder, PORTS) as (
                kind,
                ports,
            ),
        ):
            tool, posts = machine.posts_per_second(folder, ports[0])
            flushes = machine.fsyncs_per_second(folder)
            rates = several(lambda: scenarios.deliveries(ports))
            rate = statistics.median(rates)
            table.add_row(
                f"durable single-event deliveries/s, {scenarios.WEBHOOKS:,} webhooks",
                shown(rates),
                f"{tool} to {kind}: {posts:,.0f} posts/s",
                f"{rate / posts:.3f}",
            )
            caught_up = several(lambda: scenarios.catch_up(ports[0]))
            table.add_row(
                "events/s to one webhook with a backlog, in batches of 100",
                shown(caught_up),
                f"the deliveries/s above; this disk: {flushes:,.0f} flushes/s",
                f"{statistics.median(caught_up) / rate:.1f} ×",
            )
            waits = [scenarios.latency(folder) for _ in range(RUNS)]
            for label, place in (("median", 0), ("p99", 1)):
                table.add_row(
                    f"publish → receipt at 1,000 events/s, {label}",
                    shown([wait[place] for wait in waits], "{:.1f} ms"),
                    "–",
                    "–",
                )
            with machine.own_receiver("--silent") as silent:
                beside = several(lambda: scenarios.deliveries(ports, silent=silent))
            table.add_row(
                "deliveries/s to the others while a tenth of the targets never answer",
                shown(beside),
                "the same without them",
                f"{statistics.median(beside) / rate:.2f}",
            )
            starts = several(scenarios.cold_start)
            table.add_row("cold start to the first 201", shown(starts, "{:.2f} s"), "–", "–")
    console.print(machine.describe(), highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
