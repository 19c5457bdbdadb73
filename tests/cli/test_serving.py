"""`tidings serve` as a process: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import SECONDS_MAX, TIDINGS, Running, environment, tidings
from tests.serving import PROJECT, TASK, Receiver, Service, event, free_port

DATABASE = ("--database", "sqlite:///tidings.db")


def command_with(text: str, part: str) -> str:
    """The one indented command of the banner that holds `part`, its continued lines included."""
    joined = text.replace("\\\n", "\0")
    blocks = [line.strip().replace("\0", "\\\n") for line in joined.splitlines() if line.startswith("  ")]
    found = [block for block in blocks if part in block]
    assert len(found) == 1, f"{part!r} in {text}"
    return found[0]


def shell(command: str, *, cwd: Path) -> str:
    """Type a command, as it is printed."""
    path = {"PATH": f"{Path(TIDINGS).parent}:{environment()['PATH']}"}
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return ran.stdout


def get(url: str, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """On a connection of its own; httpx by itself would wait for five seconds only."""
    return httpx.get(url, headers=headers, trust_env=False, timeout=SECONDS_MAX)


# -- sandbox mode ----------------------------------------------------------------------------------


def test_what_the_sandbox_says_to_do_next_works_to_the_letter(tmp_path: Path) -> None:
    """All but the receiver's port, which another program of this machine may have."""
    with Running("serve", "--sandbox", "--port", str(free_port()), cwd=tmp_path) as serve:
        serve.said("webhooks list")
        # Not wherever these digits are: a token may hold them.
        banner = re.sub(r"(?<=:|\s)9000\b", str(free_port()), "\n".join(serve.err))
        listening = command_with(banner, "listen --port").split()
        with Running(*listening[1:], cwd=tmp_path) as listen:
            listen.said("Listening on")
            created = json.loads(shell(command_with(banner, "/webhooks "), cwd=tmp_path))
            assert created["data"]["resource"]["name"] == "Bugs"
            assert re.fullmatch("[0-9a-f]{64}", created["X-Hook-Secret"])
            published = json.loads(shell(command_with(banner, "/events"), cwd=tmp_path))
            assert published["data"]["accepted"] == 1
            listen.said("1 event, signature good", lines=listen.out)
            listen.said("name changed", lines=listen.out)
            listed = shell(command_with(banner, "webhooks list"), cwd=tmp_path)
            assert listed.split("\t")[:2] == [created["data"]["gid"], "healthy"]
            assert listen.end() == 0
        assert serve.end() == 0
        assert serve.out == []


def test_a_sandbox_is_the_same_after_a_restart(tmp_path: Path) -> None:
    said = []
    for _ in range(2):
        with Running("serve", "--sandbox", "--port", "0", "--speed", "3600", cwd=tmp_path) as serve:
            said.append(serve.said("Token"))
            assert "3600 times faster" in serve.err[0]
            assert serve.end(signal.SIGINT) == 0
    assert said[0] == said[1]
    assert (tmp_path / "sandbox.db").exists()


def test_the_sandbox_does_not_touch_a_database_in_earnest(tmp_path: Path) -> None:
    assert tidings("migrate", *DATABASE, cwd=tmp_path).returncode == 0
    ran = tidings("serve", "--sandbox", "--port", "0", *DATABASE, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: ") and "sandbox" in ran.stderr and "Traceback" not in ran.stderr


def test_the_sandbox_listens_elsewhere_only_when_told_twice(tmp_path: Path) -> None:
    ran = tidings("serve", "--sandbox", "--host", "0.0.0.0", cwd=tmp_path)
    assert ran.returncode == 2
    assert "add --sandbox-anywhere" in ran.stderr
    assert not list(tmp_path.iterdir())


# -- in earnest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_well(number: signal.Signals, tmp_path: Path) -> None:
    with Running("serve", "--port", "0", cwd=tmp_path) as serve:
        said = json.loads(serve.said('"serving"'))
        assert said["database"] == "sqlite:///tidings.db"
        assert get(f"{said['url']}/healthz").status_code == 200
        assert serve.end(number) == 0
        assert serve.out == []


def test_the_log_is_text_where_that_is_wanted(tmp_path: Path) -> None:
    with Running("serve", "--port", "0", cwd=tmp_path, env={"TIDINGS_LOG": "text"}) as serve:
        assert "url=http://127.0.0.1:" in serve.said("serving")
        assert serve.end() == 0


def test_settings_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('database = "sqlite:///of-the-file.db"\nport = 0\nlog = "text"\n')
    with Running("serve", "--config", "t.toml", cwd=tmp_path) as serve:
        serve.said("database=sqlite:///of-the-file.db")
        assert serve.end() == 0


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = tidings("serve", "--port", str(port), cwd=tmp_path)
    assert ran.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in ran.stderr and "Traceback" not in ran.stderr


def test_postgres_is_not_there_yet(tmp_path: Path) -> None:
    env = {"TIDINGS_DATABASE": "postgresql://me:hush@db/name", "TIDINGS_SECRET_KEY": "ab" * 32}
    for command in (("serve", "--port", "0"), ("migrate",), ("token", "list")):
        ran = tidings(*command, cwd=tmp_path, env=env)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "no PostgreSQL store yet" in ran.stderr
        assert "hush" not in ran.stderr and "Traceback" not in ran.stderr


def test_one_process_answers_while_another_delivers(tmp_path: Path) -> None:
    with Receiver() as receiver, Service(tmp_path, arguments=["--no-dispatch"]) as answering:
        answering.seed()
        answering.create_webhook(PROJECT, receiver.url())
        answering.publish(event(TASK))
        assert receiver.events() == []
        with Service(tmp_path, database=answering.database):
            receiver.wait_until(lambda: receiver.events())


# -- a node that only delivers ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_that_only_delivers_says_so_and_ends_well(number: signal.Signals, tmp_path: Path) -> None:
    with Running("dispatch", *DATABASE, cwd=tmp_path) as dispatch:
        said = json.loads(dispatch.said('"delivering"'))
        assert said["database"] == "sqlite:///tidings.db"
        assert dispatch.end(number) == 0
        assert json.loads(dispatch.err[-1])["message"].startswith("stopping")
        assert dispatch.out == []


def test_a_node_that_only_delivers_delivers_for_one_that_only_answers(tmp_path: Path) -> None:
    """With the API's own settings beside it, as when both read one file; its port is not touched."""
    with Receiver() as receiver, Service(tmp_path, arguments=["--no-dispatch"]) as answering:
        answering.seed()
        answering.create_webhook(PROJECT, receiver.url())
        answering.publish(event(TASK))
        assert receiver.events() == []
        env = {"TIDINGS_PORT": str(answering.port), "TIDINGS_ALLOW_TARGETS": "127.0.0.0/8"}
        with Running("dispatch", "--database", answering.database, cwd=tmp_path, env=env) as dispatch:
            receiver.wait_until(lambda: len(receiver.events()) == 1)
            answering.publish(event(TASK, "deleted"))
            receiver.wait_until(lambda: len(receiver.events()) == 2)
            assert dispatch.end() == 0


def test_a_node_that_only_delivers_says_what_keeps_it_from_that(tmp_path: Path) -> None:
    (tmp_path / "tidings.db").write_text("This is no database. " * 100)
    ran = tidings("dispatch", *DATABASE, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1 and ran.stderr.startswith("Error: ")
    ran = tidings("dispatch", *DATABASE, cwd=tmp_path, env={"TIDINGS_PORT": "x", "TIDINGS_CONCURRENCY": "0"})
    assert ran.returncode == 2
    assert "TIDINGS_PORT" in ran.stderr and "TIDINGS_CONCURRENCY" in ran.stderr


# -- several processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_are_announced_once_and_end_well(number: signal.Signals, tmp_path: Path) -> None:
    with Running("serve", "--workers", "2", "--port", "0", *DATABASE, cwd=tmp_path) as serve:
        said = json.loads(serve.said('"serving"'))
        assert said["workers"] == 2
        for _ in range(10):
            assert get(f"{said['url']}/readyz").status_code == 200
        assert serve.end(number) == 0
    messages = [json.loads(line)["message"] for line in serve.err]
    assert messages.count("worker answers") == 2
    assert messages[2] == "serving" and messages.count("serving") == 1
    assert serve.out == []
    # Of two that close the database at the same moment, neither may be the last to SQLite: its log stays then.
    left = {each.name for each in tmp_path.iterdir()} - {"tidings.db-wal", "tidings.db-shm"}
    assert left == {"tidings.db", "tidings.db-turns", "tidings.db-turns-bell", "tidings.db.key"}


def test_workers_make_the_sandbox_once(tmp_path: Path) -> None:
    with Running(
        "serve", "--sandbox", "--speed", "3600", "--workers", "2", "--port", "0", cwd=tmp_path
    ) as serve:
        token = serve.said("Token").split()[-1]
        url = f"{serve.said('API').split()[-1]}/webhooks?workspace=1331"
        for _ in range(5):
            answer = get(url, headers={"Authorization": f"Bearer {token}"})
            assert answer.json() == {"data": []}
        assert serve.end() == 0
    assert sum("Token " in line for line in serve.err) == 1


def test_workers_that_only_answer(tmp_path: Path) -> None:
    with Receiver() as receiver, Service(tmp_path, arguments=["--no-dispatch", "--workers", "2"]) as service:
        service.seed()
        service.create_webhook(PROJECT, receiver.url())
        service.publish(event(TASK))
        assert receiver.events() == []
        env = {"TIDINGS_ALLOW_TARGETS": "127.0.0.0/8"}
        with Running("dispatch", "--database", service.database, cwd=tmp_path, env=env) as dispatch:
            receiver.wait_until(lambda: receiver.events())
            assert dispatch.end() == 0


def test_workers_do_not_share_a_port_with_another_service(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = tidings("serve", "--workers", "2", "--port", str(port), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"Error: cannot listen on 127.0.0.1:{port}")


def test_workers_of_a_database_that_is_unfit_are_not_started(tmp_path: Path) -> None:
    assert tidings("migrate", *DATABASE, cwd=tmp_path).returncode == 0
    ran = tidings("serve", "--workers", "2", "--sandbox", "--port", "0", *DATABASE, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith("Error: ") and "sandbox" in line


@pytest.mark.parametrize("workers", ["0", "-1", "x", "65"])
def test_numbers_of_workers_that_are_none(workers: str, tmp_path: Path) -> None:
    """Said together with whatever else is wrong."""
    ran = tidings("serve", "--workers", workers, "--port", "x", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--workers is '{workers}': write a " in ran.stderr and "from 1 to 64" in ran.stderr
    assert "--port" in ran.stderr
    assert not list(tmp_path.iterdir())
