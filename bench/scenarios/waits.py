"""How long things take: from publish to receipt at a fixed rate, from start to the first answer."""

import time
from pathlib import Path

import httpx
from tests.serving import Service, wait_until

from bench.filling import project
from bench.receiver import read_times
from bench.receivers import own_receiver
from bench.results import Goal, Row
from bench.running import Running, changed, data, prepare, running
from bench.scenarios.context import Bench

# Publishes a second by the one publisher there is, each with as many events as the rate asks for: more would measure
# how fast it can call. And the webhooks the events are spread over.
CALLS_PER_SECOND = 100
SPREAD_OVER = 100


def latency(bench: Bench) -> list[Row]:
    """From publish to receipt at the rate the goal names."""
    rate = bench.sizes.latency_rate
    runs = [_latency(bench, rate) for _ in range(bench.sizes.runs)]
    where = f"publish → receipt at {rate:,} events/s"
    return [
        Row(name="latency_p50", what=f"{where}, median", unit="ms", figures=[run[0] for run in runs]),
        Row(
            name="latency_p99",
            what=f"{where}, p99",
            unit="ms",
            figures=[run[1] for run in runs],
            goal=Goal(at_least=20, aim=10, of="figure", below=True),
        ),
    ]


def latencies(bench: Bench) -> list[Row]:
    """The same at several rates."""
    rows = []
    for rate in bench.sizes.latency_rates:
        runs = [_latency(bench, rate) for _ in range(bench.sizes.runs)]
        for place, label in enumerate(("p50", "p99", "max")):
            rows.append(
                Row(
                    name=f"latency_{rate}_{label}",
                    what=f"publish → receipt at {rate:,} events/s, {label}",
                    unit="ms",
                    figures=[run[place] for run in runs],
                )
            )
    return rows


def _latency(bench: Bench, rate: int) -> tuple[float, float, float]:
    """Milliseconds to receipt: median, 99th percentile, longest.

    They count from when a publish was due, not from when it was sent: a service that holds up the publisher would
    else be asked to measure only what went well (coordinated omission).
    """
    with bench.folder() as folder:
        path = folder / "times"
        with own_receiver("--times", str(path)) as port:
            prepare(folder, webhooks=SPREAD_OVER, origins=[f"http://127.0.0.1:{port}"])
            with running(folder) as made:
                _publish_at(made, rate, seconds=bench.sizes.latency_seconds)
                wait_until(lambda: made.all_read, timeout=60)
        waits = sorted((came - due) / 1e6 for due, came in read_times(path))
    return waits[len(waits) // 2], waits[len(waits) * 99 // 100], waits[-1]


def _publish_at(made: Running, rate: int, *, seconds: float) -> None:
    """Publish on schedule; each event says when it was due."""
    per_call = max(1, rate // CALLS_PER_SECOND)
    began = time.monotonic_ns()
    for call in range(int(rate * seconds) // per_call):
        due = began + call * per_call * 1_000_000_000 // rate
        first = call * per_call
        batch = [changed(project((first + place) % SPREAD_OVER), field=str(due)) for place in range(per_call)]
        body = data(batch)
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        made.caller.call("POST", "/events", body)


def cold_start(bench: Bench) -> list[Row]:
    """Seconds from the start of the process, on a fresh database, to the first 201."""
    starts = []
    for _ in range(bench.sizes.runs):
        with bench.folder() as folder:
            starts.append(_first_201(folder))
    return [
        Row(
            name="cold_start",
            what="cold start to the first 201, fresh database",
            unit="s",
            figures=starts,
            goal=Goal(at_least=1, aim=0.4, of="figure", below=True),
        )
    ]


def _first_201(folder: Path) -> float:
    service = Service(folder)
    began = time.perf_counter()
    service.start(ready=False)
    try:
        with httpx.Client(headers={"Authorization": f"Bearer {service.token}"}) as http:
            wait_until(lambda: _made_a_token(http, service.base_url), timeout=20)
        return time.perf_counter() - began
    finally:
        service.stop()


def _made_a_token(http: httpx.Client, base_url: str) -> bool:
    try:
        return http.post(f"{base_url}/tokens", json={"data": {"user": "1"}}).status_code == 201
    except httpx.TransportError:
        return False
