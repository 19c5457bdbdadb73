"""`tidings listen` over real sockets: handshakes, verdicts, forwarding, bounds, its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.commands import SECONDS_MAX, TIDINGS, Running, environment, tidings
from tests.serving import Answer, Receiver
from tidings import signing
from tidings.cli.listener import BODY_BYTES_MAX, SECRETS_MAX, Arrival, Kind, Secrets, look

SECRET = "ab" * 32
EVENTS = {
    "events": [
        {
            "user": {"gid": "7", "resource_type": "user"},
            "created_at": "2026-11-24T10:00:00.000Z",
            "action": "changed",
            "resource": {"gid": "12", "resource_type": "task", "resource_subtype": "default_task"},
            "parent": None,
            "change": {"field": "näme", "action": "changed"},
        },
        {
            "user": None,
            "created_at": "2026-11-24T10:00:00.000Z",
            "action": "added",
            "resource": {"gid": "13", "resource_type": "story"},
            "parent": {"gid": "12", "resource_type": "task"},
        },
    ]
}
BODY = json.dumps(EVENTS, ensure_ascii=False).encode()
HEARTBEAT = b'{"events":[]}'


def signed(body: bytes, *, secret: str = SECRET) -> dict[str, str]:
    return dict(
        signing.delivery_headers(
            [secret], body, webhook="99", delivery="d-1", timestamp_seconds=1_700_000_000
        )
    )


def arrival(
    headers: dict[str, str], body: bytes = b"{}", *, path: str = "/a", method: str = "POST"
) -> Arrival:
    return Arrival(method=method, path=path, query="", headers=tuple(headers.items()), body=body)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=SECONDS_MAX) as client:
        yield client


def url_of(running: Running) -> str:
    found = re.search(r"http://\S+", running.said("Listening on"))
    assert found is not None
    return found[0]


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


# -- what a request is -----------------------------------------------------------------------------


def test_a_delivery_is_verified_by_the_secret_of_its_path() -> None:
    secrets = Secrets()
    assert look(arrival(dict(signing.handshake_headers(SECRET))), secrets).kind is Kind.HANDSHAKE
    found = look(arrival(signed(BODY), BODY), secrets)
    assert (found.kind, found.problem, found.webhook, found.delivery) == (Kind.DELIVERY, None, "99", "d-1")
    assert len(found.events) == 2
    assert look(arrival(signed(HEARTBEAT), HEARTBEAT), secrets).kind is Kind.HEARTBEAT


def test_a_delivery_with_another_paths_secret_says_so() -> None:
    secrets = Secrets()
    secrets.remember(SECRET, path="/b")
    secrets.remember("cd" * 32, path="/a")
    found = look(arrival(signed(BODY), BODY), secrets)
    assert (found.problem, found.secret_of) == (None, "/b")


def test_several_webhooks_may_share_a_path() -> None:
    secrets = Secrets()
    for secret in ("cd" * 32, SECRET, "ef" * 32):
        secrets.remember(secret, path="/a")
    assert look(arrival(signed(BODY), BODY), secrets).problem is None


@pytest.mark.parametrize(
    ("headers", "body", "method", "kind", "problem"),
    [
        (signed(BODY), BODY + b" ", "POST", Kind.DELIVERY, "the signature is not of these bytes"),
        (signed(BODY, secret="cd" * 32), BODY, "POST", Kind.DELIVERY, "the signature is not of these bytes"),
        (signed(b"nonsense"), b"nonsense", "POST", Kind.DELIVERY, "the body is not JSON"),
        ({}, BODY, "POST", Kind.OTHER, "not signed"),
        ({}, b"", "GET", Kind.OTHER, "not a POST"),
        ({"X-Hook-Secret": "with space"}, b"{}", "POST", Kind.HANDSHAKE, "malformed"),
        ({"X-Hook-Secret": "x" * 257}, b"{}", "POST", Kind.HANDSHAKE, "malformed"),
        ({"X-Hook-Secret": SECRET, "X-Hook-Signature": "0"}, b"{}", "POST", Kind.HANDSHAKE, "at once"),
    ],
)
def test_what_is_not_genuine(
    headers: dict[str, str], body: bytes, method: str, kind: Kind, problem: str
) -> None:
    secrets = Secrets()
    secrets.remember(SECRET, path="/a")
    found = look(arrival(headers, body, method=method), secrets)
    assert found.kind is kind
    assert found.problem is not None and problem in found.problem
    assert found.events == ()


def test_a_delivery_before_any_handshake_cannot_be_verified() -> None:
    found = look(arrival(signed(BODY), BODY), Secrets())
    assert found.problem is not None and "no handshake arrived" in found.problem


def test_secrets_are_bounded_and_the_oldest_go_first() -> None:
    secrets = Secrets()
    for number in range(SECRETS_MAX + 1):
        secrets.remember(f"{number:064x}", path="/a")
    known = [secret for secret, _ in secrets.candidates("/a")]
    assert len(known) == SECRETS_MAX
    assert known[0] == f"{SECRETS_MAX:064x}"
    assert f"{0:064x}" not in known


# -- the command -----------------------------------------------------------------------------------


def test_it_shakes_hands_verifies_and_prints(tmp_path: Path, client: httpx.Client) -> None:
    with Running("listen", "--port", "0", cwd=tmp_path) as listen:
        hook = url_of(listen) + "/bugs?a=b"
        shaken = client.post(hook, headers=dict(signing.handshake_headers(SECRET)), content=b"{}")
        assert (shaken.status_code, shaken.headers["X-Hook-Secret"]) == (200, SECRET)
        assert client.post(hook, headers=signed(BODY), content=BODY).status_code == 200
        assert client.post(hook, headers=signed(HEARTBEAT), content=HEARTBEAT).status_code == 200
        assert client.post(hook, headers=signed(BODY), content=BODY + b" ").status_code == 200
        assert listen.end() == 0
    text = "\n".join(listen.out)
    assert "POST /bugs?a=b  handshake, secret remembered  → 200" in text
    assert "2 events, signature good  → 200" in text
    assert "changed    task 12 (default_task)  näme changed  by user 7" in text
    assert "added      story 13  in task 12" in text
    assert "heartbeat, signature good" in text
    assert "DELIVERY NOT GENUINE: the signature is not of these bytes" in text
    assert SECRET not in text, "secrets are not shown"


def test_json_is_one_line_per_request(tmp_path: Path, client: httpx.Client) -> None:
    with Running("listen", "--port", "0", "--json", cwd=tmp_path) as listen:
        hook = url_of(listen) + "/hook"
        client.post(hook, headers=dict(signing.handshake_headers(SECRET)), content=b"{}")
        client.post(hook, headers=signed(BODY), content=BODY)
        client.post(hook, content=b"who knows")
        assert listen.end(signal.SIGINT) == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in listen.out]
    assert [(line["kind"], line["genuine"]) for line in lines] == [
        ("handshake", True), ("delivery", True), ("other", False),
    ]  # fmt: skip
    assert lines[1]["events"] == EVENTS["events"]
    assert (lines[1]["webhook"], lines[1]["delivery"], lines[1]["status"]) == ("99", "d-1", 200)


def test_what_others_send_cannot_steer_the_terminal(tmp_path: Path, client: httpx.Client) -> None:
    with Running("listen", "--port", "0", cwd=tmp_path) as listen:
        client.post(url_of(listen) + "/x", content="\x1b[2J\u202e\x07 boo\nnew line".encode())
        assert listen.end() == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", "\n".join(listen.out))
    assert any("boo new line" in line for line in listen.out)


def test_many_at_once(tmp_path: Path, client: httpx.Client) -> None:
    with Running("listen", "--port", "0", "--json", cwd=tmp_path) as listen:
        hook = url_of(listen) + "/hook"
        client.post(hook, headers=dict(signing.handshake_headers(SECRET)), content=b"{}")
        # One connection that sends half a request must not hold the others up.
        with socket.create_connection(address_of(hook)) as slow:
            slow.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
            with ThreadPoolExecutor(16) as pool:
                statuses = pool.map(
                    lambda _: (
                        httpx.post(
                            hook, headers=signed(BODY), content=BODY, trust_env=False, timeout=SECONDS_MAX
                        ).status_code
                    ),
                    range(64),
                )
                assert set(statuses) == {200}
        assert listen.end() == 0
    assert sum(json.loads(line)["genuine"] for line in listen.out) == 65


def test_a_body_over_the_bound_is_refused(tmp_path: Path, client: httpx.Client) -> None:
    with Running("listen", "--port", "0", cwd=tmp_path) as listen:
        refused = client.post(url_of(listen) + "/x", content=b"x" * (BODY_BYTES_MAX + 1))
        assert refused.status_code == 413
        assert client.get(url_of(listen)).status_code == 200
        assert listen.end() == 0


# -- forwarding ------------------------------------------------------------------------------------


def test_forwarding_passes_bytes_and_headers_on_and_answers_back(
    tmp_path: Path, client: httpx.Client
) -> None:
    with (
        Receiver() as behind,
        Running(
            "listen", "--port", "0", "--forward", f"http://127.0.0.1:{behind.port}", cwd=tmp_path
        ) as listen,
    ):
        hook = url_of(listen) + "/kept/path?q=1"
        shaken = client.post(hook, headers=dict(signing.handshake_headers(SECRET)), content=b"{}")
        assert (shaken.status_code, shaken.headers["X-Hook-Secret"]) == (200, SECRET)
        behind.on("/kept/path", delivery=Answer(418, b"teapot", headers=(("X-Own", "yes"),)))
        answered = client.post(hook, headers=signed(BODY), content=BODY)
        assert (answered.status_code, answered.content, answered.headers["X-Own"]) == (418, b"teapot", "yes")
        assert listen.end() == 0
        passed = behind.requests("/kept/path")[-1]
    assert (passed.body, passed.query) == (BODY, "q=1")
    assert passed.signed_with(SECRET)
    assert passed.header("X-Tidings-Delivery") == "d-1"
    assert any("signature good" in line and "418 forwarded in" in line for line in listen.out)


def test_forwarding_to_a_path_takes_everything_there(tmp_path: Path, client: httpx.Client) -> None:
    with (
        Receiver() as behind,
        Running("listen", "--port", "0", "--forward", behind.url("/only/here"), cwd=tmp_path) as listen,
    ):
        client.post(
            url_of(listen) + "/elsewhere", headers=dict(signing.handshake_headers(SECRET)), content=b"{}"
        )
        assert listen.end() == 0
        assert len(behind.requests("/only/here")) == 1


def test_a_receiver_behind_that_does_not_echo_is_named(tmp_path: Path, client: httpx.Client) -> None:
    with (
        Receiver() as behind,
        Running("listen", "--port", "0", "--forward", behind.url("/mute"), cwd=tmp_path) as listen,
    ):
        behind.on("/mute", handshake=Answer(200))
        shaken = client.post(url_of(listen), headers=dict(signing.handshake_headers(SECRET)), content=b"{}")
        assert (shaken.status_code, shaken.headers.get("X-Hook-Secret")) == (200, None)
        listen.said("did NOT answer with the secret", lines=listen.out)
        assert listen.end() == 0


def test_a_receiver_that_is_not_there_is_502(tmp_path: Path, client: httpx.Client) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with Running("listen", "--port", "0", "--forward", nowhere, cwd=tmp_path) as listen:
            assert client.post(url_of(listen), content=b"{}").status_code == 502
            listen.said("forwarding failed", lines=listen.out)
            assert listen.end() == 0


# -- its end, and what it refuses ------------------------------------------------------------------


def test_it_ends_when_nobody_reads_on(tmp_path: Path, client: httpx.Client) -> None:
    with subprocess.Popen(
        [TIDINGS, "listen", "--port", "0"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        process.stdout.close()
        assert client.get(found[0]).status_code == 200
        assert process.wait(SECONDS_MAX) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_well_although_a_connection_is_open(number: signal.Signals, tmp_path: Path) -> None:
    with (
        Running("listen", "--port", "0", cwd=tmp_path) as listen,
        socket.create_connection(address_of(url_of(listen))),
    ):
        assert listen.end(number) == 0


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = tidings("listen", "--port", str(port), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://x:0"])
def test_forwarding_needs_a_url(url: str, tmp_path: Path) -> None:
    ran = tidings("listen", "--port", "0", "--forward", url, cwd=tmp_path)
    assert ran.returncode == 2
    assert "--forward" in ran.stderr
