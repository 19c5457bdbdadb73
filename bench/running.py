"""A service under measurement: started as users start it, loaded through the API, looked at in its database."""

import http.client
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from tests.serving import Service, wait_until

from bench import filling, machine

WORKSPACE: Final = "1331"
# Rounds of events that may be published before they are delivered: enough that the engine never waits for them.
AHEAD: Final = 8
LOOK_SECONDS: Final = 0.05
DRAIN_SECONDS: Final = 120.0


class Caller:
    """Calls the API over one connection; anything but 2xx is an error."""

    def __init__(self, service: Service) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: bytes) -> None:
        self._connection.request(method, f"/api/1.0{path}", body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")

    def close(self) -> None:
        self._connection.close()


class Running:
    """A service, a way to call it, and a look into its database."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.caller = Caller(service)
        self._database = sqlite3.connect(f"file:{folder / 'tidings.db'}?mode=ro", uri=True)

    def close(self) -> None:
        self.caller.close()
        self._database.close()

    def establish(self, targets: Sequence[str]) -> None:
        """A webhook on a project of its own for each target, through the API, handshakes included."""
        numbers = range(len(targets))
        projects = [
            {"gid": filling.project(number), "resource_type": "project", "parents": [WORKSPACE]}
            for number in numbers
        ]
        for first in range(0, len(projects), 1000):
            self.caller.call("POST", "/resources", data(projects[first : first + 1000]))
        for number in numbers:
            wanted = {"resource": filling.project(number), "target": targets[number]}
            self.caller.call("POST", "/webhooks", data(wanted))

    def one(self, statement: str, *parameters: object) -> int:
        """The one number a statement gives; 0 for none."""
        (value,) = self._database.execute(statement, parameters).fetchone()
        return int(value or 0)

    @property
    def recorded(self) -> int:
        """The newest attempt on disk: how many were made, whatever came of them."""
        return self.one("SELECT max(id) FROM attempts")

    def delivered(self, after: int, upto: int) -> int:
        """How many of these attempts were taken by their receivers."""
        return self.one(
            "SELECT count(*) FROM attempts WHERE id > ? AND id <= ? AND result = 'delivered'", after, upto
        )

    @property
    def cursor(self) -> int:
        """How far the slowest webhook has come."""
        return self.one("SELECT min(cursor) FROM cursors")

    @property
    def all_read(self) -> bool:
        """Whether every event of the log was marked, and every healthy webhook has read what concerns it."""
        marked = self.one("SELECT value FROM meta WHERE name = 'marked'")
        # A minimum in the words of the index that finds them: this is looked at often, among a million.
        idle = "failures = 0 AND lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL"
        behind = self.one(f"SELECT min(turn) FROM cursors WHERE head > cursor AND {idle}")
        leased = self.one("SELECT EXISTS (SELECT 1 FROM cursors WHERE lease_until IS NOT NULL)")
        return not behind and not leased and marked == self.one("SELECT max(position) FROM events")

    @property
    def resident_mib(self) -> float:
        return machine.resident_mib(self.service.pid)

    def cpu_percent(self, seconds: float) -> float:
        """The processor time the service takes over so many seconds from now, percent of one core."""
        before, began = machine.cpu_seconds(self.service.pid), time.perf_counter()
        time.sleep(seconds)
        used = machine.cpu_seconds(self.service.pid) - before
        return 100 * used / (time.perf_counter() - began)


@contextmanager
def running(folder: Path, *arguments: str, **settings: str) -> Iterator[Running]:
    """A service on the database in this folder."""
    environment = {"TIDINGS_RATE_LIMIT": "0", **settings}
    with ExitStack() as stack:
        service = stack.enter_context(Service(folder, environment=environment, arguments=arguments))
        made = Running(service, folder)
        stack.callback(made.close)
        yield made


def prepare(folder: Path, *, webhooks: int, origins: Sequence[str], on_one: str | None = None) -> None:
    """Make a database in this folder, filled by SQL, that `running` can be started on."""
    with running(folder, "--no-dispatch") as made:
        made.caller.call("PUT", f"/resources/{WORKSPACE}", data({"resource_type": "workspace"}))
        if on_one is not None:
            made.caller.call(
                "PUT", f"/resources/{on_one}", data({"resource_type": "project", "parents": [WORKSPACE]})
            )
    database = folder / "tidings.db"
    filling.fill(database, workspace=WORKSPACE, count=webhooks, origins=origins, on_one=on_one)


class Stream:
    """Publishes rounds of events from a thread of its own, and stays ahead of the deliveries while it runs.

    `rounds` are the bodies of publishes, taken in turn for ever; each makes `each` deliveries.
    """

    def __init__(self, made: Running, rounds: Sequence[bytes], *, each: int) -> None:
        self._made = made
        self._rounds = itertools.cycle(rounds)
        self._each = each
        self._enough = threading.Event()
        self._first = self._recorded = made.recorded
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        published = 0
        try:
            while not self._enough.is_set():
                if published * self._each < self._recorded - self._first + AHEAD * self._each:
                    self._made.caller.call("POST", "/events", next(self._rounds))
                    published += 1
                else:
                    self._enough.wait(0.01)
        except BaseException as error:
            self._error = error
            raise

    def _look(self) -> int:
        self._recorded = self._made.recorded
        return self._recorded

    def rate(self, seconds: float, *, warm: int | None = None) -> float:
        """Deliveries a second over so many seconds, once the first (a few rounds) were made."""
        before = self._look()
        enough = 3 * self._each if warm is None else warm
        wait_until(lambda: self._error or self._look() - before > enough, timeout=60)
        first, began = self._look(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            time.sleep(LOOK_SECONDS)
            self._look()
        last, took = self._look(), time.perf_counter() - began
        return self._made.delivered(first, last) / took


def steady_rate(made: Running, rounds: Sequence[bytes], *, each: int, seconds: float) -> float:
    """Deliveries a second while events are published; returns once all were delivered."""
    with Stream(made, rounds, each=each) as stream:
        rate = stream.rate(seconds)
    wait_until(lambda: made.all_read, timeout=DRAIN_SECONDS)
    return rate


def one_each(numbers: Sequence[int]) -> bytes:
    """A publish of one event for each of these webhooks."""
    return data([changed(filling.project(number)) for number in numbers])


def data(value: object) -> bytes:
    return json.dumps({"data": value}).encode()


def changed(resource: str, field: str = "name") -> dict[str, object]:
    change = {"field": field, "action": "changed"}
    return {"resource": resource, "action": "changed", "user": "12345", "change": change}
