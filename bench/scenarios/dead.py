"""What receivers that are dead cost the others: in deliveries, in memory, and whether their retries come in waves."""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.serving import free_port, wait_until

from bench.filling import fill, project
from bench.receivers import Receivers, own_receiver, receivers
from bench.results import Goal, Row
from bench.running import (
    WORKSPACE,
    Running,
    Stream,
    changed,
    data,
    one_each,
    prepare,
    running,
)
from bench.scenarios.context import Bench
from bench.scenarios.rates import SINGLE

AS_BEFORE = Goal(at_least=0.9, aim=0.98)
# Retries at a pace at which a run sees each webhook several times, and below what the service can do: else its speed
# would decide when they come.
SPEEDY = {"TIDINGS_RETRY_FIRST": "1s", "TIDINGS_RETRY_MAX": "16s"}
# Seconds; retries are counted by these.
SLICE = 1.0


def refused(bench: Bench) -> list[Row]:
    """Beside very many webhooks whose targets refuse the connection."""
    port = free_port()
    return _beside(bench, "refuse the connection", "dead_refused", port)


def unanswered(bench: Bench) -> list[Row]:
    """Beside very many webhooks whose targets take a delivery and never answer."""
    with own_receiver("--silent", "--host", "0.0.0.0") as port:
        return _beside(bench, "never answer", "dead_silent", port)


def everywhere(count: int, port: int) -> list[str]:
    """So many origins on this port, each an address of this machine."""
    return [f"http://127.{1 + i // 65_536}.{i // 256 % 256}.{i % 256}:{port}" for i in range(count)]


def _beside(bench: Bench, how: str, name: str, port: int) -> list[Row]:
    """Two services with the same webhooks, in turns: one with events for the dead, one without.

    Not one service before and after: its database grows in between, and the machine may change its pace.
    """
    sizes = bench.sizes
    with ExitStack() as stack:
        folder = stack.enter_context(bench.folder())
        taking = stack.enter_context(receivers(folder))
        spared, beset = (
            stack.enter_context(_with_dead(bench, folder / which, taking, port))
            for which in ("spared", "beset")
        )
        for made in (spared, beset):
            _rate(bench, made)
        resident = beset.resident_mib
        _publish_to_dead(bench, beset)
        pairs, samples = _watched(bench, spared, beset)
        for made in (spared, beset):
            made.service.kill()
    where = f"while {sizes.dead:,} targets {how}"
    return [
        Row(
            name=name,
            what=f"deliveries to {sizes.webhooks:,} healthy webhooks {where}",
            unit="/s",
            figures=[rate for _, rate in pairs],
            yardstick="a second service whose dead have no events, in turns",
            against=[rate for rate, _ in pairs],
            goal=AS_BEFORE,
            note=f"One figure for each {sizes.seconds:g} s, from the first attempt to a dead target on.",
        ),
        Row(
            name=f"{name}_memory",
            what=f"memory (VmRSS) {where}, highest",
            unit="MiB",
            figures=[max(size for _, size in samples)],
            yardstick="before",
            against=[resident],
        ),
        Row(
            name=f"{name}_growth",
            what=f"memory's growth {where}, second half of {samples[-1][0]:.0f} s",
            unit="MiB/min",
            figures=[60 * _slope(samples[len(samples) // 2 :])],
        ),
    ]


@contextmanager
def _with_dead(bench: Bench, home: Path, taking: Receivers, port: int) -> Iterator[Running]:
    sizes = bench.sizes
    home.mkdir()
    prepare(home, webhooks=sizes.webhooks, origins=taking.origins)
    fill(
        home / "tidings.db",
        workspace=WORKSPACE,
        count=sizes.dead,
        origins=everywhere(sizes.dead, port),
        first=sizes.webhooks,
    )
    with running(home, **SINGLE) as made:
        yield made


def _publish_to_dead(bench: Bench, made: Running) -> None:
    """An event for each dead webhook."""
    numbers = range(bench.sizes.webhooks, bench.sizes.webhooks + bench.sizes.dead)
    for first in range(0, len(numbers), 1000):
        made.caller.call("POST", "/events", one_each(numbers[first : first + 1000]))


def _rate(bench: Bench, made: Running) -> float:
    """Deliveries a second to the healthy; the few that are left at the end are made while others are measured."""
    sizes = bench.sizes
    with Stream(made, [one_each(range(sizes.webhooks))], each=sizes.webhooks) as stream:
        return stream.rate(sizes.seconds)


def _watched(
    bench: Bench, spared: Running, beset: Running
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Rates of both, in turns; and the memory of the one that has events for the dead, at the end of each turn."""
    sizes = bench.sizes
    pairs: list[tuple[float, float]] = []
    samples: list[tuple[float, float]] = []
    began = time.perf_counter()
    while time.perf_counter() - began < sizes.dead_seconds or len(samples) < 4:
        under = _rate(bench, beset)
        pairs.append((_rate(bench, spared), under))
        samples.append((time.perf_counter() - began, beset.resident_mib))
    return pairs, samples


def _slope(samples: list[tuple[float, float]]) -> float:
    """MiB a second, by least squares."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression([at for at, _ in samples], [size for _, size in samples]).slope


# -- retries ---------------------------------------------------------------------------------------


def retries(bench: Bench) -> list[Row]:
    """How evenly the retries of webhooks that all failed at one moment come, at a fast pace."""
    sizes = bench.sizes
    with bench.folder() as folder:
        prepare(folder, webhooks=sizes.dead, origins=everywhere(sizes.dead, free_port()))
        with running(folder, **SPEEDY) as made:
            numbers = range(sizes.dead)
            for first in range(0, sizes.dead, 1000):
                made.caller.call("POST", "/events", one_each(numbers[first : first + 1000]))
            time.sleep(sizes.dead_seconds)
            counts = _per_slice(made)
            made.service.kill()
    late = counts[len(counts) * 2 // 3 :]
    mean = statistics.mean(late)
    return [
        Row(
            name="retries_spread",
            what=f"retries of {sizes.dead:,} webhooks that failed at once: spread over seconds (σ / mean)",
            unit="",
            figures=[statistics.pstdev(late) / mean],
            yardstick="by pure chance",
            against=[mean**-0.5],
            series=[float(count) for count in counts],
            note="Over the last third of the run; by then each had failed several times.",
        )
    ]


def _per_slice(made: Running) -> list[int]:
    """Attempts by the second they began in, the first and the last, which are not whole, left out."""
    began = made.one("SELECT min(started_at) FROM attempts")
    ended = made.one("SELECT max(started_at) FROM attempts")
    width = int(SLICE * 1_000_000)
    return [
        made.one("SELECT count(*) FROM attempts WHERE started_at >= ? AND started_at < ?", at, at + width)
        for at in range(began + width, ended - width, width)
    ]


# -- a backlog -------------------------------------------------------------------------------------


def backlog(bench: Bench) -> list[Row]:
    """Memory before and after very many events that a dead webhook does not read."""
    with bench.folder() as folder, receivers(folder, ports=1) as taking:
        prepare(folder, webhooks=2, origins=[*taking.origins, f"http://127.0.0.1:{free_port()}"])
        with running(folder) as made:
            batch = data([changed(project(number % 2)) for number in range(1000)])
            # As much again as fills the caches of the database.
            publish_and_read(made, batch, times=max(1, bench.sizes.backlog // 2000))
            before = made.resident_mib
            publish_and_read(made, batch, times=max(1, bench.sizes.backlog // 500))
            after = made.resident_mib
            behind = made.one("SELECT max(head - cursor) FROM cursors") // 2
    return [
        Row(
            name="backlog_memory",
            what=f"memory (VmRSS) with {behind:,} events unread by a dead webhook",
            unit="MiB",
            figures=[after],
            yardstick="at a quarter of them",
            against=[before],
        )
    ]


def publish_and_read(made: Running, batch: bytes, *, times: int) -> None:
    """Publish so many batches and wait until every healthy webhook has read them."""
    for _ in range(times):
        made.caller.call("POST", "/events", batch)
    wait_until(lambda: made.all_read, timeout=120)
