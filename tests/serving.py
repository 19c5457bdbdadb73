"""A real service in its own process, and a real receiver in a thread, for tests that go over sockets.

with Service(tmp_path) as service, Receiver() as receiver:
    service.seed()
    webhook = service.create_webhook(PROJECT, receiver.url("/hook"))
    service.publish(event(TASK))
    receiver.wait_until(lambda: receiver.events("/hook"))
"""

from __future__ import annotations

import hashlib
import hmac
import json as jsonlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import httpx

TIDINGS: Final = str(Path(sys.executable).with_name("tidings"))
TOKEN: Final = "0/test-token-of-the-owner"
# What `Service.seed` makes: the hierarchy of the sandbox, small.
WORKSPACE: Final = "1331"
PROJECT: Final = "8675309"
SECTION: Final = "8675310"
TASK: Final = "1200000000000001"
USER: Final = "1199000000000001"

# Machines that run tests are slow at times; each wait below ends early when its condition holds.
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
WAIT_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.01


def wait_until(predicate: Callable[[], object], *, timeout: float = WAIT_SECONDS, message: str = "") -> None:
    """Return once `predicate()` is true; fail after `timeout` seconds, with `message`."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not within {timeout} s")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A port nobody listens on, below the range that outgoing connections are given theirs from."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def event(resource: str | Mapping[str, Any], action: str = "added", **more: Any) -> dict[str, Any]:
    """An event to publish; `changed` gets a change of the field `name` unless `change` is given."""
    made: dict[str, Any] = {"resource": resource, "action": action, "user": USER, **more}
    if action == "changed":
        made.setdefault("change", {"field": "name", "action": "changed"})
    return made


class Service:
    """`tidings serve` as a process: real arguments, a clean environment, a database of its own.

    `environment` adds settings (`TIDINGS_…`); `arguments` adds flags; `command` is another `tidings` than the
    installed one. The port stays the same over restarts.
    Leaving the context stops it with SIGTERM, which must end with status 0.
    """

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        database: str | None = None,
        token: str = TOKEN,
        command: Sequence[str] = (TIDINGS,),
    ) -> None:
        self.token = token
        self._command = tuple(command)
        self.port = free_port()
        self.root_url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.root_url}/api/1.0"
        self.database = database or f"sqlite:///{directory / 'tidings.db'}"
        self.log_path = directory / f"service-{self.port}.log"
        self.arguments = tuple(arguments)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "TIDINGS_BOOTSTRAP_TOKEN": token,
            "TIDINGS_ALLOW_TARGETS": "127.0.0.0/8,::1/128",
            **(environment or {}),
        }
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None

    # -- the process -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and self._process is not None:
            sys.stderr.write(f"-- log of the service --\n{self.log()[-20_000:]}\n")
            self.kill()
        elif self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def started(self) -> bool:
        """Whether it was started and not yet ended by us; it may have ended by itself."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """What the process ended with; None while it runs."""
        return self._running().poll()

    def start(self, *, ready: bool = True) -> None:
        """Start the process; unless told otherwise, wait until it says that it is ready."""
        assert self._process is None, "already started"
        command = [*self._command, "serve", "--database", self.database, "--port", str(self.port)]
        command += self.arguments
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._client = httpx.Client(timeout=30, trust_env=False)
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise

    def wait_ready(self) -> None:
        def ready() -> bool:
            if not self.alive:
                raise AssertionError(f"the service ended while starting:\n{self.log()}")
            try:
                return self._http().get(f"{self.root_url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, timeout=READY_SECONDS, message="the service did not become ready")

    def stop(self) -> None:
        """End it as an operator would: SIGTERM, and status 0 once everything is drained."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end {STOP_SECONDS} s after SIGTERM:\n{self.log()}") from None
        self._forget()
        assert status == 0, f"ended with status {status}:\n{self.log()}"

    def kill(self) -> None:
        """End it as a power cut would."""
        process = self._running()
        process.kill()
        process.wait()
        self._forget()

    def restart(self) -> None:
        if self._process is not None:
            self.stop()
        self.start()

    def log(self) -> str:
        """Everything the process wrote, over restarts."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _http(self) -> httpx.Client:
        assert self._client is not None, "not started"
        return self._client

    def _forget(self) -> None:
        self._process = None
        self._http().close()
        self._client = None

    # -- calls -------------------------------------------------------------------------------------

    def api(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One call, whatever it answers. `data` goes out as `{"data": …}`; `more` is httpx's own."""
        if data is not None:
            more["json"] = {"data": data}
        authorization = {"Authorization": f"Bearer {self.token if token is None else token}"}
        url = path if path.startswith("http") else self.base_url + path
        return self._http().request(method, url, headers={**authorization, **(headers or {})}, **more)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """One call that must succeed; its `data`."""
        response = self.api(method, path, **more)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["data"]

    def put_resource(
        self,
        gid: str,
        resource_type: str,
        *,
        parents: Sequence[str] = (),
        name: str | None = None,
        resource_subtype: str | None = None,
    ) -> None:
        described: dict[str, Any] = {"resource_type": resource_type, "parents": list(parents)}
        if name is not None:
            described["name"] = name
        if resource_subtype is not None:
            described["resource_subtype"] = resource_subtype
        self.ask("PUT", f"/resources/{gid}", data=described)

    def seed(self) -> None:
        """A workspace with a project, a section and a task in both."""
        self.put_resource(WORKSPACE, "workspace", name="Home")
        self.put_resource(PROJECT, "project", parents=[WORKSPACE], name="Bugs")
        self.put_resource(SECTION, "section", parents=[PROJECT], name="New")
        task_of = [PROJECT, SECTION]
        self.put_resource(TASK, "task", parents=task_of, name="Mend it", resource_subtype="default_task")

    def publish(self, *events: Mapping[str, Any], key: str | None = None) -> Any:
        """Publish in one call; `{"accepted": N, "last": "<position>"}`."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.ask("POST", "/events", data=list(events), headers=headers)

    def create_webhook(
        self, resource: str, target: str, *, filters: Sequence[Mapping[str, Any]] | None = None, **more: Any
    ) -> Any:
        """Establish a webhook; its record."""
        wanted: dict[str, Any] = {"resource": resource, "target": target}
        if filters is not None:
            wanted["filters"] = list(filters)
        return self.ask("POST", "/webhooks", data=wanted, **more)


# -- receiving -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `at` is `time.monotonic()`; header names are as they were sent."""

    at: float
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value under this name in any case; None if there is none."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def secret(self) -> str | None:
        """The secret, if this is a handshake."""
        return self.header("X-Hook-Secret")

    @property
    def events(self) -> list[dict[str, Any]]:
        events = jsonlib.loads(self.body)["events"]
        assert isinstance(events, list)
        return events

    def signed_with(self, secret: str) -> bool:
        """Whether both recorded headers hold the signature of these bytes; computed independently of Tidings."""
        expected = hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return self.header("X-Hook-Signature") == self.header("X-Asana-Request-Signature") == expected


@dataclass(frozen=True)
class Answer:
    """What a receiver answers, after so many seconds."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    delay: float = 0.0


Behaviour = Answer | Callable[[Request], Answer]


def echo(request: Request) -> Answer:
    """The right answer to a handshake."""
    return Answer(200, headers=(("X-Hook-Secret", request.secret or ""),))


@dataclass
class _Path:
    handshake: Behaviour = echo
    delivery: Behaviour = field(default_factory=Answer)
    secret: str | None = None
    requests: list[Request] = field(default_factory=list)
    # The deliveries that were taken: their answer of 2xx is decided, and on its way.
    taken: list[Request] = field(default_factory=list)


class Receiver:
    """A threaded HTTP server that shakes hands, verifies and records; how it answers is set per path.

    An exception in a behaviour, or a delivery whose signature is wrong, fails the test on leaving the context.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._paths: dict[str, _Path] = {}
        self._server: _Server | None = None
        self.port = 0
        self.closing = threading.Event()
        self.errors: list[BaseException] = []
        self.in_flight: dict[str, int] = {}
        # How often a delivery arrived while another to the same path was not yet answered.
        self.overlaps = 0

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.closing.set()
        self.hang_up()
        if kind is None and self.errors:
            raise self.errors[0]

    def listen(self) -> None:
        """Begin to accept connections; again on the same port after `hang_up`."""
        self._server = _Server(self, self.port)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def hang_up(self) -> None:
        """Drop every connection and refuse new ones, as a receiver that went down does."""
        if self._server is not None:
            self._server.shutdown()
            self._server.drop_connections()
            self._server.server_close()
            self._server = None

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, path: str, *, handshake: Behaviour | None = None, delivery: Behaviour | None = None) -> None:
        """Set how requests to this path are answered from now on. Unset: echo the secret; 200, empty."""
        with self._lock:
            record = self._path(path)
            record.handshake = handshake or record.handshake
            record.delivery = delivery or record.delivery

    def requests(self, path: str = "/hook") -> list[Request]:
        """Everything that arrived on this path, in order."""
        with self._lock:
            return list(self._path(path).requests)

    def handshakes(self, path: str = "/hook") -> list[Request]:
        return [request for request in self.requests(path) if request.secret is not None]

    def deliveries(self, path: str = "/hook") -> list[Request]:
        """Every attempt, heartbeats included, whatever it was answered."""
        return [request for request in self.requests(path) if request.secret is None]

    def taken(self, path: str = "/hook") -> list[Request]:
        """The deliveries that were taken with 2xx, in the order of their answers."""
        with self._lock:
            return list(self._path(path).taken)

    def events(self, path: str = "/hook") -> list[dict[str, Any]]:
        """The events of the deliveries that were answered with 2xx, in order."""
        return [event for delivery in self.taken(path) for event in delivery.events]

    def secret(self, path: str = "/hook") -> str:
        """The secret of the last handshake."""
        with self._lock:
            secret = self._path(path).secret
        assert secret is not None, "no handshake yet"
        return secret

    def wait_until(
        self, predicate: Callable[[], object], timeout: float = WAIT_SECONDS, message: str = ""
    ) -> None:
        """Return once `predicate()` is true, looked at on every answer; fail after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(message or f"nothing such arrived within {timeout} s")
            with self._lock:
                self._lock.wait(0.1)

    def _path(self, path: str) -> _Path:
        return self._paths.setdefault(path, _Path())

    def arrived(self, request: Request) -> Answer:
        """Record a request and decide its answer."""
        with self._lock:
            record = self._path(request.path)
            record.requests.append(request)
            self._lock.notify_all()
            if request.secret is not None:
                record.secret = request.secret
                behaviour = record.handshake
            else:
                behaviour = record.delivery
                busy = self.in_flight.get(request.path, 0)
                self.in_flight[request.path] = busy + 1
                self.overlaps += busy > 0
                self._verify(record, request)
        return behaviour(request) if callable(behaviour) else behaviour

    def _verify(self, record: _Path, request: Request) -> None:
        known = {handshake.secret for handshake in record.requests if handshake.secret is not None}
        if not any(request.signed_with(secret) for secret in known):
            self.errors.append(AssertionError(f"a delivery to {request.path} is not signed as it should be"))

    def leaving(self, request: Request, answer: Answer | None) -> None:
        """Record that a request is about to be answered, or (None) that its behaviour failed."""
        with self._lock:
            if request.secret is None:
                self.in_flight[request.path] -= 1
                if answer is not None and 200 <= answer.status < 300:
                    self._path(request.path).taken.append(request)
            self._lock.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, receiver: Receiver, port: int) -> None:
        self.receiver = receiver
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the other side was quicker

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # A sender that was killed, or gave up on a slow answer, is what many tests are about.
        if error is not None and not isinstance(error, ConnectionError):
            self.receiver.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path, _, query = self.path.partition("?")
        headers = tuple(self.headers.items())
        request = Request(time.monotonic(), self.command, path, query, headers, body)
        answer: Answer | None = None
        try:
            answer = receiver.arrived(request)
            if answer.delay:
                receiver.closing.wait(answer.delay)
        finally:
            # Before the answer is out: the next delivery may follow on its heels.
            receiver.leaving(request, answer)
        self.send_response(answer.status, answer.reason)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST
    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read the records."""
