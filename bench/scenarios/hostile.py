"""What receivers that attack cost their neighbours: in time from publish to receipt, in deliveries, in memory."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.serving import wait_until

from bench.filling import project
from bench.hostile import BUNDLE, attacker
from bench.receiver import read_times
from bench.receivers import own_receiver
from bench.results import Row
from bench.running import DRAIN_SECONDS, Running, Stream, changed, data, prepare, running
from bench.scenarios.context import Bench
from bench.scenarios.rates import SINGLE

# One webhook of so many goes to the attacker.
ONE_OF = 10
PER_CALL = 10
# Attacks go on all the time: who fails is posted to again at once, who is silent is given up soon.
PERSISTENT = {
    "TIDINGS_RETRY_FIRST": "100ms",
    "TIDINGS_RETRY_MAX": "500ms",
    "TIDINGS_DELIVERY_TIMEOUT": "2s",
    **SINGLE,
}


@dataclass
class Span:
    """A stretch of the run, by the clock that all processes share."""

    began: int = 0
    ended: int = 0

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


@contextmanager
def timed(span: Span) -> Iterator[None]:
    span.began = time.monotonic_ns()
    yield
    span.ended = time.monotonic_ns()


class Half:
    """What the neighbours see: publishes on schedule for a while, then as many as are taken."""

    def __init__(self) -> None:
        self.scheduled = Span()
        self.flooded = Span()
        self.resident_mib = 0.0

    def run(self, bench: Bench, made: Running, numbers: Sequence[int], healthy: int) -> None:
        sizes = bench.sizes
        with timed(self.scheduled):
            _publish_at(made, numbers, sizes.latency_rate * len(numbers) // healthy, sizes.hostile_seconds)
        body = data([changed(project(number), field="0") for number in numbers])
        with Stream(made, [body], each=healthy) as stream:
            stream.rate(0, warm=0)
            with timed(self.flooded):
                stream.rate(sizes.hostile_seconds, warm=0)
        self.resident_mib = made.resident_mib

    def figures(self, times: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
        """Milliseconds from publish to receipt, median and 99th percentile; deliveries a second."""
        waits = sorted(
            (came - due) / 1e6 for due, came in times if self.scheduled.began <= due < self.scheduled.ended
        )
        came = sum(self.flooded.began <= came < self.flooded.ended for _, came in times)
        return waits[len(waits) // 2], waits[len(waits) * 99 // 100], came / self.flooded.seconds


def neighbours(bench: Bench) -> list[Row]:
    """For each personality: the healthy nine tenths before the last tenth has events, and from then on."""
    return [row for name in bench.sizes.personalities for row in _beside(bench, name)]


def _beside(bench: Bench, name: str) -> list[Row]:
    before, beside = Half(), Half()
    with bench.folder() as folder:
        path = folder / "times"
        with attacker(name, folder) as hostile, own_receiver("--times", str(path)) as port:
            origins = [*[f"http://127.0.0.1:{port}"] * (ONE_OF - 1), hostile]
            _run(bench, folder, origins, halves=(before, beside))
        times = read_times(path)
    old, new = before.figures(times), beside.figures(times)
    key = "hostile_" + re.sub(r"\W", "_", name.lower())
    where = f"beside a tenth of the targets: {name}"
    labels = (("p50", "publish → receipt, median", "ms"), ("p99", "publish → receipt, p99", "ms"))
    rows = [
        Row(
            name=f"{key}_{label}",
            what=f"{what}, {where}",
            unit=unit,
            figures=[now],
            yardstick="before",
            against=[then],
        )
        for (label, what, unit), now, then in zip(
            (*labels, ("rate", "deliveries to the others", "/s")), new, old, strict=True
        )
    ]
    memory = Row(
        name=f"{key}_memory",
        what=f"memory (VmRSS), {where}",
        unit="MiB",
        figures=[beside.resident_mib],
        yardstick="before",
        against=[before.resident_mib],
    )
    return [*rows, memory]


def _run(bench: Bench, folder: Path, origins: Sequence[str], *, halves: tuple[Half, Half]) -> None:
    sizes = bench.sizes
    prepare(folder, webhooks=sizes.hostile_webhooks, origins=origins)
    everybody = range(sizes.hostile_webhooks)
    healthy = [number for number in everybody if number % ONE_OF != ONE_OF - 1]
    with running(folder, **PERSISTENT, TIDINGS_CA_BUNDLE=str(folder / BUNDLE)) as made:
        before, beside = halves
        before.run(bench, made, healthy, len(healthy))
        # What was published ahead must not be waited for in the other half.
        wait_until(lambda: made.all_read, timeout=DRAIN_SECONDS)
        beside.run(bench, made, everybody, len(healthy))
        # Deliveries that are never answered would hold up an orderly end.
        made.service.kill()


def _publish_at(made: Running, numbers: Sequence[int], rate: int, seconds: float) -> None:
    """Publish to these webhooks in turn, on schedule; each event says when it was due."""
    began = time.monotonic_ns()
    for call in range(int(rate * seconds) // PER_CALL):
        due = began + call * PER_CALL * 1_000_000_000 // rate
        chosen = [numbers[(call * PER_CALL + place) % len(numbers)] for place in range(PER_CALL)]
        body = data([changed(project(number), field=str(due)) for number in chosen])
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        made.caller.call("POST", "/events", body)
