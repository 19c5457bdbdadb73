"""What is measured. Each scenario starts a service of its own and gives one figure a run."""

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.serving import Service, wait_until

from bench.machine import own_receiver
from bench.receiver import read_times

WEBHOOKS = 1_000
WORKSPACE = "1331"
# Calls that may be ahead of the deliveries: enough that the engine never waits for the publisher.
AHEAD = 20


class Loaded:
    """A service with webhooks, one on a project of its own each, and a look into its database."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.http = httpx.Client(
            base_url=service.base_url, headers={"Authorization": f"Bearer {service.token}"}, timeout=60
        )
        self.database = sqlite3.connect(f"file:{folder / 'tidings.db'}?mode=ro", uri=True)

    def call(self, method: str, path: str, content: bytes) -> None:
        answer = self.http.request(
            method, path, content=content, headers={"Content-Type": "application/json"}
        )
        answer.raise_for_status()

    def establish(self, targets: Sequence[str]) -> None:
        """A webhook on a project of its own for each target."""
        self.call("PUT", f"/resources/{WORKSPACE}", data({"resource_type": "workspace"}))
        projects = [
            {"gid": project(number), "resource_type": "project", "parents": [WORKSPACE]}
            for number in range(len(targets))
        ]
        for first in range(0, len(projects), 1000):
            self.call("POST", "/resources", data(projects[first : first + 1000]))
        for number, target in enumerate(targets):
            self.call("POST", "/webhooks", data({"resource": project(number), "target": target}))

    @property
    def recorded(self) -> int:
        """How many deliveries are on disk as made."""
        (count,) = self.database.execute("SELECT max(id) FROM attempts").fetchone()
        return count or 0

    @property
    def cursor(self) -> int:
        """How far the slowest webhook has come."""
        (position,) = self.database.execute("SELECT min(cursor) FROM cursors").fetchone()
        return int(position)


@contextmanager
def loaded(*arguments: str, **settings: str) -> Iterator[Loaded]:
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as name:
        folder = Path(name)
        environment = {"TIDINGS_RATE_LIMIT": "0", **settings}
        with Service(folder, environment=environment, arguments=arguments) as service:
            made = Loaded(service, folder)
            yield made
            made.http.close()
            made.database.close()


def project(number: int) -> str:
    return str(1_000_000 + number)


def data(value: object) -> bytes:
    return json.dumps({"data": value}).encode()


def changed(resource: str, field: str = "name") -> dict[str, object]:
    change = {"field": field, "action": "changed"}
    return {"resource": resource, "action": "changed", "user": "12345", "change": change}


def deliveries(ports: Sequence[int], *, silent: int | None = None, seconds: float = 5.0) -> float:
    """Durable single-event deliveries a second to a thousand webhooks.

    With `silent`, a port that never answers, a tenth of the webhooks go there; the others are counted.
    """
    targets = [f"http://127.0.0.1:{ports[number % len(ports)]}/{number}" for number in range(WEBHOOKS)]
    if silent is not None:
        targets[::10] = [f"http://127.0.0.1:{silent}/{number}" for number in range(0, WEBHOOKS, 10)]
    with loaded(TIDINGS_BATCH_MAX="1") as made:
        made.establish(targets)
        round_of_events = data([changed(project(number)) for number in range(WEBHOOKS)])
        enough = threading.Event()
        healthy = WEBHOOKS if silent is None else WEBHOOKS * 9 // 10

        def publish() -> None:
            rounds = 0
            while not enough.is_set():
                if rounds * healthy - made_so_far() < AHEAD * healthy:
                    made.call("POST", "/events", round_of_events)
                    rounds += 1
                else:
                    enough.wait(0.01)

        latest = [0]

        def made_so_far() -> int:
            return latest[0]

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            figure = _rate(made, latest, seconds=seconds)
        finally:
            enough.set()
            publisher.join()
        return figure


def _rate(made: Loaded, latest: list[int], *, seconds: float) -> float:
    """Deliveries a second, once they run."""

    def look() -> int:
        latest[0] = made.recorded
        return latest[0]

    wait_until(lambda: look() > 5 * WEBHOOKS, timeout=60)
    first, began = look(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        time.sleep(0.05)
        look()
    return (look() - first) / (time.perf_counter() - began)


def catch_up(port: int, *, events: int = 200_000) -> float:
    """Events a second to one webhook that has a backlog, in batches of a hundred."""
    with loaded("--no-dispatch") as made:
        made.establish([f"http://127.0.0.1:{port}/"])
        batch = data([changed(project(0)) for _ in range(1000)])
        for _ in range(events // 1000):
            made.call("POST", "/events", batch)
        made.service.stop()
        made.service.arguments = ()
        made.service.start()
        wait_until(lambda: made.recorded)
        first, began = made.cursor, time.perf_counter()
        wait_until(lambda: made.cursor >= events, timeout=120)
        return (events - first) / (time.perf_counter() - began)


def latency(folder: Path, *, per_second: int = 1_000, seconds: float = 5.0) -> tuple[float, float]:
    """Milliseconds from the start of a publish to the receipt, median and 99th percentile, at a fixed rate."""
    path = folder / "times"
    with loaded() as made:
        with own_receiver("--times", str(path)) as port:
            made.establish([f"http://127.0.0.1:{port}/{number}" for number in range(100)])
            sent = 0
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                batch = [
                    changed(project((sent + number) % 100), str(time.monotonic_ns())) for number in range(10)
                ]
                made.call("POST", "/events", data(batch))
                sent += len(batch)
                time.sleep(max(0.0, sent / per_second - (time.perf_counter() - began)))
            wait_until(lambda: made.recorded and _all_read(made), timeout=30)
        waits = sorted((received - at) / 1e6 for at, received in read_times(path))
    return waits[len(waits) // 2], waits[len(waits) * 99 // 100]


def _all_read(made: Loaded) -> bool:
    (behind,) = made.database.execute("SELECT count(*) FROM cursors WHERE head > cursor").fetchone()
    (marked,) = made.database.execute("SELECT value FROM meta WHERE name = 'marked'").fetchone()
    (end,) = made.database.execute("SELECT max(position) FROM events").fetchone()
    return not behind and marked == end


def cold_start() -> float:
    """Seconds from the start of the process, on a fresh database, to the first 201."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as name:
        service = Service(Path(name))
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
