"""The commands that speak to a service or open its database, as a shell runs them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest

from tests.cli.commands import TIDINGS, tidings
from tests.serving import PROJECT, TASK, TOKEN, WORKSPACE, Receiver, Service, event, wait_until
from tidings.cli import main


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the module; each test uses targets of its own."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        service.seed()
        yield service


@pytest.fixture
def client(service: Service) -> dict[str, str]:
    return {"TIDINGS_URL": service.root_url, "TIDINGS_TOKEN": TOKEN}


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def every_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(every_command(main))


# -- all of them -----------------------------------------------------------------------------------


def test_the_commands_are_the_promised_ones() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        "serve", "dispatch", "migrate", "backup", "restore", "listen",
        "token create", "token list", "token revoke",
        "webhooks list", "webhooks show", "webhooks create", "webhooks delete", "webhooks attempts",
        "events publish",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_helps_with_an_example(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    text = command.get_help(
        click.Context(command, info_name=path[-1], parent=click.Context(main, info_name="tidings"))
    )
    assert "Example" in text
    assert f"tidings {' '.join(path)}" in text
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))


def test_version(tmp_path: Path) -> None:
    ran = tidings("--version", cwd=tmp_path)
    assert (ran.returncode, ran.stdout.split()[0], ran.stderr) == (0, "tidings", "")


def test_help_needs_none_of_the_server(tmp_path: Path) -> None:
    """What makes `--help` quick is what it does not import."""
    code = (
        "import sys, tidings.cli; "
        "print([name for name in ('tidings.runtime', 'tidings.config', 'httpx', 'uvicorn', 'rich', 'asyncio')"
        " if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("serve", "--nonsense"),
        ("webhooks", "list"),
        ("webhooks", "show", ".."),
        ("webhooks", "create", "1", "http://x", "--filter", "action"),
        ("webhooks", "create", "1", "http://x", "--filter", "{"),
        ("webhooks", "create", "1", "http://x", "--filter", "action=a,action=b"),
        ("webhooks", "attempts", "1", "--limit", "0"),
        ("events", "publish", "/no/such/file"),
        ("events", "publish", "--idempotency-key", "ü"),
        ("events", "publish", "--token", "-"),
        ("token", "create"),
        ("token", "create", "--user", "1", "--scope", "nonsense"),
        ("token", "create", "--user", "a b"),
        ("token", "list", "--database", "mysql://x"),
        ("migrate", "--config", "/no/such/file"),
        ("serve", "--port", "eighty"),
        ("listen", "--port", "70000"),
    ],
)
def test_used_wrongly_is_status_2_and_says_how_on_stderr(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ran = tidings(*arguments, cwd=tmp_path, env={"TIDINGS_TOKEN": "0/some-token"})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Error" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    env = {"TIDINGS_PROT": "1", "TIDINGS_RETRY_FIRST": "soon", "TIDINGS_SECRET_KEY": "hush-hush"}
    for command in (("serve", "--speed", "2"), ("migrate",), ("token", "list")):
        ran = tidings(*command, cwd=tmp_path, env=env)
        assert ran.returncode == 2
        for part in (
            "TIDINGS_PROT is no setting; did you mean TIDINGS_PORT?",
            "TIDINGS_RETRY_FIRST is 'soon'",
        ):
            assert part in ran.stderr
        assert "hush" not in ran.stderr


# -- tokens ----------------------------------------------------------------------------------------


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = tidings(
        "token", "create", "--user", "7", "--user-name", "Ann", "--workspace", "1331", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("tdg_") and made.stdout.count("\n") == 1
    assert made.stderr == ""

    told = json.loads(
        tidings(
            "token", "create", "--user", "8", "--scope", "admin", "--app", "x", "--json", cwd=tmp_path
        ).stdout
    )
    assert (told["user"]["gid"], told["app"], told["scopes"]) == ("8", "x", ["admin"])
    assert told["token"].startswith("tdg_")

    listed = rows(tidings("token", "list", cwd=tmp_path).stdout)
    assert [row[1:7] for row in listed] == [
        ["active", made.stdout[:8] + "…", "7 Ann", "default", "1331", "all but admin"],
        ["active", told["token"][:8] + "…", "8", "x", "all", "admin"],
    ]
    assert tidings("token", "revoke", listed[0][0], cwd=tmp_path).returncode == 0
    assert [row[1] for row in rows(tidings("token", "list", cwd=tmp_path).stdout)] == ["revoked", "active"]
    assert json.loads(tidings("token", "list", "--json", cwd=tmp_path).stdout)[0]["revoked_at"]


def test_an_unknown_token_cannot_be_revoked(tmp_path: Path) -> None:
    ran = tidings("token", "revoke", "404", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "Error: token: Unknown object: 404\n"


def test_a_token_made_beside_a_running_service_works_at_once(service: Service, tmp_path: Path) -> None:
    made = tidings("token", "create", "--user", "7", "--database", service.database, cwd=tmp_path)
    env = {"TIDINGS_URL": service.root_url, "TIDINGS_TOKEN": made.stdout.strip()}
    listed = tidings("webhooks", "list", "--workspace", WORKSPACE, cwd=tmp_path, env=env)
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    assert listed.stderr == "There are none that this token may see.\n"


def test_migrate_makes_the_database_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        ran = tidings("migrate", "--database", "sqlite:///new.db", cwd=tmp_path)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "sqlite:///new.db is up to date.\n")
    assert (tmp_path / "new.db").exists()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tidings.db").write_text("no database at all, but long enough to be looked at " * 50)
    ran = tidings("token", "list", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ") and "Traceback" not in ran.stderr


# -- webhooks --------------------------------------------------------------------------------------


def test_a_webhook_from_its_creation_to_its_end(
    service: Service, client: dict[str, str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> str:
        ran = tidings("webhooks", *arguments, cwd=tmp_path, env=client)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    with Receiver() as receiver:
        chosen = "resource_type=task,action=changed,fields=name+due_on"
        created = dict(rows(run("create", PROJECT, receiver.url("/one"), "--filter", chosen)))
        gid = created["gid"]
        assert created["X-Hook-Secret"] == receiver.secret("/one")
        assert (created["state"], created["filters"]) == ("healthy", chosen)

        other = '{"resource_type": "story"}'
        second = json.loads(run("create", PROJECT, receiver.url("/two"), "--json", "--filter", other))
        assert second["X-Hook-Secret"] == receiver.secret("/two")

        listed = {row[0]: row for row in rows(run("list", "--workspace", WORKSPACE, "--resource", PROJECT))}
        assert listed[gid][1:] == ["healthy", f"project {PROJECT} Bugs", receiver.url("/one")]
        assert second["gid"] in listed
        records = json.loads(run("list", "--workspace", WORKSPACE, "--json"))
        assert {gid, second["gid"]} <= {record["gid"] for record in records}
        assert json.loads(run("show", gid, "--json"))["filters"][0]["fields"] == ["name", "due_on"]
        assert "X-Hook-Secret" not in dict(rows(run("show", gid)))

        service.publish(event(TASK, "changed"))
        receiver.wait_until(lambda: receiver.events("/one"))
        wait_until(lambda: run("attempts", gid), message="the attempt is recorded after the delivery")
        attempts = rows(run("attempts", gid))
        assert attempts[0][1:3] == ["delivered", "200"]
        assert json.loads(run("attempts", gid, "--json", "--limit", "1"))[0]["events"] == 1

        for each in (gid, second["gid"]):
            assert run("delete", each) == ""
    gone = tidings("webhooks", "show", gid, cwd=tmp_path, env=client)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith(f"Error: webhook: Unknown object: {gid} (")


def test_a_target_that_does_not_shake_hands(service: Service, client: dict[str, str], tmp_path: Path) -> None:
    ran = tidings("webhooks", "create", PROJECT, "http://127.0.0.1:1/x", cwd=tmp_path, env=client)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Traceback" not in ran.stderr


# -- how to reach the service ----------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["", "/", "/api/1.0", "/api/1.0/"])
def test_the_url_may_have_the_base_path(tail: str, service: Service, tmp_path: Path) -> None:
    arguments = ("--url", service.root_url + tail, "--workspace", WORKSPACE)
    ran = tidings("webhooks", "list", *arguments, cwd=tmp_path, env={"TIDINGS_TOKEN": TOKEN})
    assert ran.returncode == 0, ran.stderr


def test_the_token_can_come_through_standard_input(service: Service, tmp_path: Path) -> None:
    arguments = ("--url", service.root_url, "--workspace", WORKSPACE, "--token", "-")
    assert tidings("webhooks", "list", *arguments, cwd=tmp_path, stdin=TOKEN + "\n").returncode == 0
    assert tidings("webhooks", "list", *arguments, cwd=tmp_path, stdin="").returncode == 2


def test_a_wrong_token_is_said_without_being_shown(service: Service, tmp_path: Path) -> None:
    env = {"TIDINGS_URL": service.root_url, "TIDINGS_TOKEN": "0/wrong-token-here"}
    ran = tidings("webhooks", "list", "--workspace", WORKSPACE, cwd=tmp_path, env=env)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: Not Authorized (not_authorized)\nIs the token right")
    assert "wrong-token" not in ran.stderr


def test_no_service_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        env = {"TIDINGS_URL": url, "TIDINGS_TOKEN": TOKEN}
        listed = tidings("webhooks", "list", "--workspace", "1", cwd=tmp_path, env=env)
        published = tidings("events", "publish", cwd=tmp_path, env=env, stdin="{}")
    for ran in (listed, published):
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith(f"Error: {url}: no answer: ")
        assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_urls_that_are_none(url: str, tmp_path: Path) -> None:
    ran = tidings(
        "webhooks", "list", "--workspace", "1", "--url", url, cwd=tmp_path, env={"TIDINGS_TOKEN": TOKEN}
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


# -- publishing ------------------------------------------------------------------------------------

EVENT = event(TASK, "changed")


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (json.dumps(EVENT), 1),
        (json.dumps([EVENT, EVENT]), 2),
        (json.dumps({"data": EVENT}), 1),
        (json.dumps({"data": [EVENT, EVENT]}), 2),
        (f"{json.dumps(EVENT)}\n\n{json.dumps(EVENT)}\n", 2),
        ("\ufeff" + json.dumps(EVENT, indent=3), 1),
    ],
)
def test_events_come_in_every_usual_shape(
    text: str, accepted: int, client: dict[str, str], tmp_path: Path
) -> None:
    ran = tidings("events", "publish", "--json", cwd=tmp_path, env=client, stdin=text)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["accepted"] == accepted
    assert ran.stderr == ""


def test_a_file_of_many_events_goes_in_calls_of_a_thousand(client: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps({**EVENT, "id": f"many-{number}"}) + "\n" for number in range(2_500)))
    arguments = ("events", "publish", str(file), "--idempotency-key", "many")
    first = dict(rows(tidings(*arguments, cwd=tmp_path, env=client).stdout))
    again = dict(rows(tidings(*arguments, cwd=tmp_path, env=client).stdout))
    assert first["accepted"] == "2500"
    assert again == first, "the same key published nothing anew"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "no events"),
        ("{", "not JSON"),
        ("[NaN]", "not JSON: NaN"),
        ('{"a":1}\n{"b":', "line 2 is not JSON"),
        ('{"a":"\\ud800"}', "event 1 holds half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"resource":"404404","action":"added"}', "Unknown object"),
        ('"text"', "expected an object"),
    ],
)
def test_what_cannot_be_published(text: str, said: str, client: dict[str, str], tmp_path: Path) -> None:
    ran = tidings("events", "publish", cwd=tmp_path, env=client, stdin=text)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


class Overloaded(HTTPServer):
    """A service that answers as told, one status after the other; it keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Overloaded)
        self.statuses = list(statuses)
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Overloaded:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Overloaded(BaseHTTPRequestHandler):
    server: Overloaded

    def do_POST(self) -> None:
        self.server.keys.append(self.headers["Idempotency-Key"])
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        status = self.server.statuses.pop(0)
        answer: dict[str, Any] = {"errors": [{"message": "not now", "code": "overloaded"}]}
        if status == 201:
            answer = {"data": {"accepted": len(sent), "last": "9"}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""


def test_an_overloaded_service_is_asked_again_under_the_same_key(tmp_path: Path) -> None:
    with Overloaded(429, 503, 201) as server:
        env = {"TIDINGS_URL": server.url, "TIDINGS_TOKEN": TOKEN}
        ran = tidings("events", "publish", cwd=tmp_path, env=env, stdin=json.dumps(EVENT))
    assert (ran.returncode, dict(rows(ran.stdout))) == (0, {"accepted": "1", "last": "9"})
    assert len(set(server.keys)) == 1 and server.keys[0]


def test_what_was_accepted_before_a_failure_is_said(tmp_path: Path) -> None:
    with Overloaded(201, 400) as server:
        env = {"TIDINGS_URL": server.url, "TIDINGS_TOKEN": TOKEN}
        text = json.dumps([EVENT] * 1_001)
        arguments = ("events", "publish", "--idempotency-key", "k")
        ran = tidings(*arguments, cwd=tmp_path, env=env, stdin=text)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "1000 events were accepted for certain" in ran.stderr
    assert "--idempotency-key k" in ran.stderr
    assert server.keys == ["k-1", "k-2"]


def test_the_module_is_the_command(tmp_path: Path) -> None:
    asked = [[TIDINGS, "--help"], [sys.executable, "-m", "tidings", "--help"]]
    texts = [
        subprocess.run(each, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        for each in asked
    ]
    assert texts[0] == texts[1]
