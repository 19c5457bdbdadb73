"""The client against a real HTTP server that answers by script: what is sent, what is made of the answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Answer, Request, free_port
from tidings import __version__
from tidings.client import ApiError, ApiErrorItem, AsyncSession, AsyncWebhooksApi, Session, WebhooksApi
from tidings.client import calls as client_calls
from tidings.client.calls import wanted_wait

TOKEN = "0/secret-token"
RECORD = {"gid": "12", "resource_type": "webhook", "active": True, "target": "https://example.com/é"}
KINDS = ("sync", "async")


def ok(body: Any, status: int = 200, *headers: tuple[str, str]) -> Answer:
    return Answer(status, json.dumps(body).encode(), (("Content-Type", "application/json"), *headers))


class Stub:
    """A server that answers its requests, in order, by this script; the last answer is repeated."""

    def __init__(self, *script: Answer) -> None:
        self.requests: list[Request] = []
        self.script = list(script)

    def __enter__(self) -> Stub:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def respond(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = tuple(self.headers.items())
                stub.requests.append(Request(time.monotonic(), self.command, path, query, headers, body))
                answer = stub.script.pop(0) if len(stub.script) > 1 else stub.script[0]
                if answer.status == 0:  # hang up
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                try:
                    self.wfile.write(answer.body)
                except ConnectionError:
                    self.close_connection = True  # the client had enough

            do_GET = do_POST = do_PUT = do_DELETE = respond

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/1.0"
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def call(kind: str, url: str, method: str, *args: Any, waits: list[float] | None = None, **named: Any) -> Any:
    """One call by either client; a list is read to its end."""
    waited = waits if waits is not None else []
    if kind == "sync":
        with Session(TOKEN, base_url=url, sleep=waited.append) as session:
            result = getattr(WebhooksApi(session=session), method)(*args, **named)
            return list(result) if isinstance(result, Iterator) else result

    async def later() -> Any:
        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        async with AsyncSession(TOKEN, base_url=url, sleep=sleep) as session:
            api = AsyncWebhooksApi(session=session)
            result = getattr(api, method)(*args, **named)
            return [each async for each in result] if hasattr(result, "__aiter__") else await result

    return asyncio.run(later())


FILTERS = [{"resource_type": "task", "action": "changed", "fields": ["name"]}]
CREATE = {"data": {"resource": "8675309", "target": "https://example.com/é?a=b", "filters": FILTERS}}
UPDATE = {"data": {"filters": FILTERS}}
FIELDS = {"opt_fields": ["target", "resource.name"], "opt_pretty": True}
FIELDS_QUERY = "opt_fields=target%2Cresource.name&opt_pretty=true"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "args", "sent", "body"),
    [
        ("create_webhook", (CREATE,), "POST /api/1.0/webhooks", CREATE),
        ("create_webhook", (CREATE, FIELDS), f"POST /api/1.0/webhooks?{FIELDS_QUERY}", CREATE),
        ("delete_webhook", ("12",), "DELETE /api/1.0/webhooks/12", None),
        ("get_webhook", ("12",), "GET /api/1.0/webhooks/12", None),
        ("get_webhook", ("a/b?é",), "GET /api/1.0/webhooks/a%2Fb%3F%C3%A9", None),
        ("get_webhook", ("12", {"opt_fields": "a,b"}), "GET /api/1.0/webhooks/12?opt_fields=a%2Cb", None),
        ("update_webhook", (UPDATE, "12"), "PUT /api/1.0/webhooks/12", UPDATE),
        ("update_webhook", (UPDATE, "12", FIELDS), f"PUT /api/1.0/webhooks/12?{FIELDS_QUERY}", UPDATE),
    ],
)
def test_what_each_call_sends_and_returns(
    kind: str, method: str, args: tuple[Any, ...], sent: str, body: Any
) -> None:
    with Stub(ok({"data": RECORD, "X-Hook-Secret": "s"})) as stub:
        assert call(kind, stub.url, method, *args) == RECORD
    (request,) = stub.requests
    assert f"{request.method} {request.path}" + (f"?{request.query}" if request.query else "") == sent
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("user-agent") == f"Tidings-client/{__version__}"
    if body is None:
        assert request.body == b""
    else:
        assert request.header("content-type") == "application/json; charset=UTF-8"
        assert json.loads(request.body) == body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "args"),
    [("create_webhook", (CREATE,)), ("get_webhook", ("12",)), ("update_webhook", (UPDATE, "12"))],
)
def test_the_whole_body_where_asked_for(kind: str, method: str, args: tuple[Any, ...]) -> None:
    body = {"data": RECORD, "X-Hook-Secret": "s"}
    with Stub(ok(body)) as stub:
        assert call(kind, stub.url, method, *args, full_payload=True) == body


def page(*gids: str, offset: str | None = None) -> Answer:
    following = offset and {"offset": offset, "path": "/webhooks?…", "uri": "http://…"}
    return ok({"data": [{"gid": gid} for gid in gids], "next_page": following})


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_goes_over_all_pages(kind: str) -> None:
    with Stub(page("1", "2", offset="o/1"), page(offset="o2"), page("3")) as stub:
        listed = call(kind, stub.url, "get_webhooks", "1331", {"resource": "7", "limit": 2})
    assert listed == [{"gid": "1"}, {"gid": "2"}, {"gid": "3"}]
    first = "workspace=1331&limit=2&resource=7"
    assert [request.query for request in stub.requests] == [
        first,
        f"{first}&offset=o%2F1",
        f"{first}&offset=o2",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_starts_at_an_offset_and_asks_for_large_pages(kind: str) -> None:
    with Stub(page("1")) as stub:
        assert call(kind, stub.url, "get_webhooks", "1331", {"offset": "x"}) == [{"gid": "1"}]
    assert stub.requests[0].query == "workspace=1331&limit=100&offset=x"


@pytest.mark.parametrize("kind", KINDS)
def test_one_page_with_its_whole_body(kind: str) -> None:
    with Stub(page("1", offset="on")) as stub:
        body = call(kind, stub.url, "get_webhooks", "1331", full_payload=True)
    assert body["next_page"]["offset"] == "on"
    assert len(stub.requests) == 1


def test_a_page_is_asked_for_when_it_is_needed() -> None:
    with (
        Stub(page("1", "2", offset="on"), page("3")) as stub,
        WebhooksApi(TOKEN, base_url=stub.url) as api,
    ):
        listed = api.get_webhooks("1331")
        assert stub.requests == []
        assert [next(listed)["gid"], next(listed)["gid"], len(stub.requests)] == ["1", "2", 1]
        assert [next(listed)["gid"], len(stub.requests)] == ["3", 2]


async def test_an_async_page_is_asked_for_when_it_is_needed() -> None:
    with Stub(page("1", offset="on"), page("2")) as stub:
        async with AsyncWebhooksApi(TOKEN, base_url=stub.url) as api:
            listed = api.get_webhooks("1331").__aiter__()
            assert stub.requests == []
            assert [(await anext(listed))["gid"], len(stub.requests)] == ["1", 1]
            assert [(await anext(listed))["gid"], len(stub.requests)] == ["2", 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", ["same", 7])
def test_a_list_that_does_not_go_on_ends_in_an_error(kind: str, offset: Any) -> None:
    with Stub(page("1", offset=offset)) as stub, pytest.raises(ApiError, match="leads nowhere"):
        call(kind, stub.url, "get_webhooks", "1331")
    assert len(stub.requests) <= 2


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_body_is_told_in_full(kind: str) -> None:
    errors = [
        {"message": "webhook: Unknown object: 9", "help": "read", "code": "unknown"},
        {"message": "b", "phrase": "6 sad squid", "gid": "12"},
    ]
    with Stub(ok({"errors": errors}, 404)) as stub, pytest.raises(ApiError) as caught:
        call(kind, stub.url, "get_webhook", "9")
    error = caught.value
    assert (error.status, error.message) == (404, "webhook: Unknown object: 9; b")
    assert (error.help, error.code) == ("read", "unknown")
    assert error.errors[1] == ApiErrorItem("b", phrase="6 sad squid", gid="12")
    assert json.loads(error.body) == {"errors": errors}
    assert str(error) == "404: webhook: Unknown object: 9; b"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b"<html>"),
        Answer(404, b""),
        ok([], 400),
        ok({"errors": "x"}, 400),
        ok({"errors": [1]}, 400),
        ok({"errors": [{"message": 7}]}, 400),
        Answer(400, b'{"errors":[{"message":"\xff"}]}'),
        Answer(400, b"[" * 100_000),
        Answer(302, b"", (("Location", "http://127.0.0.1:1/"),)),
        Answer(200, b""),
        Answer(200, b"not json"),
        Answer(200, b"[]"),
        Answer(200, b"{}"),
        Answer(200, b'{"data":[]}'),
        Answer(204, b""),
        Answer(200, b"x" * (client_calls.RESPONSE_BYTES_MAX + 1)),
        Answer(0),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:12]!r}",
)
def test_every_strange_answer_ends_in_the_one_error(kind: str, answer: Answer) -> None:
    with Stub(answer) as stub, pytest.raises(ApiError) as caught:
        call(kind, stub.url, "create_webhook", CREATE)
    assert caught.value.message
    assert TOKEN not in str(caught.value)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_without_a_list_is_an_error(kind: str) -> None:
    with Stub(ok({"data": RECORD})) as stub, pytest.raises(ApiError, match="other data"):
        call(kind, stub.url, "get_webhooks", "1331")


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_is_the_same_error_without_a_status(kind: str) -> None:
    with pytest.raises(ApiError, match="no answer") as caught:
        call(kind, f"http://127.0.0.1:{free_port()}", "get_webhook", "1")
    assert caught.value.status is None


def test_a_silent_service_is_given_up_on() -> None:
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    with silent, WebhooksApi(TOKEN, base_url=f"http://127.0.0.1:{silent.server_port}", timeout=0.05) as api:
        with pytest.raises(ApiError) as caught:
            api.get_webhook("1")
        assert caught.value.status is None


# -- trying again ----------------------------------------------------------------------------------

BUSY = ok({"errors": [{"message": "busy"}]}, 503)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("method", "args"),
    [("get_webhook", ("12",)), ("update_webhook", (UPDATE, "12")), ("delete_webhook", ("12",))],
)
def test_what_may_be_repeated_is(kind: str, status: int, method: str, args: tuple[Any, ...]) -> None:
    waits: list[float] = []
    with Stub(ok({}, status), ok({}, status, ("Retry-After", "7")), ok({"data": RECORD})) as stub:
        assert call(kind, stub.url, method, *args, waits=waits) == RECORD
    assert waits == [0.5, 7.0]
    assert len({(request.method, request.path, request.body) for request in stub.requests}) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "method", "args", "requests"),
    [
        (BUSY, "get_webhook", ("12",), 1 + client_calls.RETRIES_MAX),
        (BUSY, "create_webhook", (CREATE,), 1),
        (ok({}, 429, ("Retry-After", "61")), "get_webhook", ("12",), 1),
        (ok({}, 403), "get_webhook", ("12",), 1),
        (ok({}, 501), "get_webhook", ("12",), 1),
    ],
)
def test_what_is_not_repeated(
    kind: str, answer: Answer, method: str, args: tuple[Any, ...], requests: int
) -> None:
    waits: list[float] = []
    with Stub(answer) as stub, pytest.raises(ApiError) as caught:
        call(kind, stub.url, method, *args, waits=waits)
    assert len(stub.requests) == requests
    assert waits == [0.5, 1.0, 2.0, 4.0][: requests - 1]
    assert caught.value.retry_after == (61.0 if answer.status == 429 else None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 12 "}, 12.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:00 GMT", "date": "Mon, 23 Nov 2026 10:00:30 GMT"}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:00 -0000", "date": "Mon, 23 Nov 2026 10:00:30 GMT"}, None),
    ],
)
def test_what_retry_after_asks_for(headers: dict[str, str], expected: float | None) -> None:
    assert wanted_wait(client_calls.Answer(429, headers, b"")) == expected


# -- making one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [WebhooksApi, AsyncWebhooksApi])
@pytest.mark.parametrize(
    ("token", "base_url"),
    [
        ("", "http://127.0.0.1"),
        ("a b", "http://127.0.0.1"),
        ("a\r\nX: y", "http://127.0.0.1"),
        ("é", "http://127.0.0.1"),
        ("t", ""),
        ("t", "127.0.0.1:8080"),
        ("t", "ftp://127.0.0.1"),
        ("t", "http://"),
        ("t", "http://127.0.0.1/?a=b"),
    ],
)
def test_a_client_that_could_not_work_is_not_made(
    make: Callable[..., object], token: str, base_url: str
) -> None:
    with pytest.raises(ValueError, match=r"token|base URL"):
        make(token, base_url=base_url)


@pytest.mark.parametrize("gid", ["", ".", ".."])
def test_what_is_no_gid_is_not_sent(gid: str) -> None:
    with WebhooksApi(TOKEN, base_url="http://127.0.0.1:1") as api, pytest.raises(ValueError, match="gid"):
        api.delete_webhook(gid)


def test_any_other_call_goes_through_a_session() -> None:
    with (
        Stub(ok({"data": {"accepted": 1, "last": "5"}}, 201)) as stub,
        Session(TOKEN, base_url=stub.url + "/") as session,
    ):
        body = session.request(
            "post", "/events", params={"a": 1, "b": None}, json={"data": []}, headers={"Idempotency-Key": "k"}
        )
    assert body["data"]["accepted"] == 1
    (request,) = stub.requests
    assert (request.method, request.path, request.query) == ("POST", "/api/1.0/events", "a=1")
    assert request.header("idempotency-key") == "k"


async def test_a_shared_session_outlives_its_apis() -> None:
    """What is made over a session leaves it open; sync and async alike."""
    with Stub(ok({"data": RECORD})) as stub:
        with Session(TOKEN, base_url=stub.url) as session:
            with WebhooksApi(session=session) as api:
                api.get_webhook("12")
            assert session.request("GET", "/webhooks/12") == {"data": RECORD}
        async with AsyncSession(TOKEN, base_url=stub.url) as later:
            async with AsyncWebhooksApi(session=later) as webhooks:
                await webhooks.get_webhook("12")
            assert await later.request("GET", "/webhooks/12") == {"data": RECORD}
    assert len(stub.requests) == 4


def test_a_path_begins_with_a_slash() -> None:
    with Session(TOKEN) as session, pytest.raises(ValueError, match="slash"):
        session.request("GET", "webhooks")


WITHOUT_PACKAGES = """
import sys
sys.path.insert(0, sys.argv[1])
import tidings.client, tidings.receiver
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"tidings"}
assert not {name for name in foreign if not name.startswith("__")}, foreign
for make in (tidings.client.WebhooksApi, tidings.client.AsyncWebhooksApi):
    try:
        make("token")
    except ImportError as error:
        assert "pip install httpx" in str(error)
    else:
        raise AssertionError("httpx was found")
"""


def test_the_kits_need_the_standard_library_alone() -> None:
    """In an interpreter without site-packages, where nothing else can be imported."""
    source = Path(__file__).parents[2] / "src"
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", WITHOUT_PACKAGES, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
