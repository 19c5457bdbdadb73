"""Bad input of every kind against the real process over real sockets: the contract's error, and nothing changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema_rs
import pytest

from tests.http.edge import OTHER_PROJECT, OTHER_WORKSPACE, dump
from tests.http.raw import AUTHORIZED, exchange
from tests.http.test_refusals import FORM, HELP
from tests.serving import PROJECT, TASK, WORKSPACE, Receiver, Service, event, wait_until
from tidings.limits import BODY_BYTES_MAX
from tidings.web.openapi import DOCUMENT

COMPONENTS: Any = DOCUMENT["components"]
POST: Final = b"POST /api/1.0/webhooks HTTP/1.1\r\n" + AUTHORIZED
GET: Final = b"GET /api/1.0/webhooks?workspace=1331 HTTP/1.1\r\n" + AUTHORIZED


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One process for all: whatever came before must not matter."""
    directory = tmp_path_factory.mktemp("hostile")
    with Service(directory, environment={"TIDINGS_RATE_LIMIT": "0"}) as made, Receiver() as receiver:
        made.seed()
        made.put_resource(OTHER_WORKSPACE, "workspace", name="Away")
        made.put_resource(OTHER_PROJECT, "project", parents=[OTHER_WORKSPACE])
        gid = made.create_webhook(PROJECT, receiver.url())["gid"]
        made.publish(event(TASK))
        wait_until(lambda: made.ask("GET", f"/webhooks/{gid}/attempts"))
        yield made
        assert '"phrase"' not in made.log()
        assert "Traceback" not in made.log()


def path_of(service: Service) -> Path:
    return Path(service.database.removeprefix("sqlite:///"))


@pytest.fixture
def unchanged(service: Service) -> Iterator[None]:
    """Fails the test if a row changed."""
    before = dump(path_of(service))
    yield
    assert dump(path_of(service)) == before


def refused(response: Any, *statuses: int) -> None:
    """An error as the contract writes it, with one of these statuses."""
    status = response.status_code if isinstance(response, httpx.Response) else response.status
    (error,) = response.json()["errors"]
    assert status in (statuses or (400,)), error
    assert error["help"] == HELP
    assert error["message"]
    assert set(error) == {"message", "help", "code"}


# -- heads -----------------------------------------------------------------------------------------

HEADS: Final = {
    "a header of 64 KiB": GET + b"X: " + b"a" * 65_536 + b"\r\n\r\n",
    "10 000 headers": GET + b"".join(b"X-%d: a\r\n" % number for number in range(10_000)) + b"\r\n",
    "a header that does not end": GET + b"X: " + b"a" * 500_000,
    "a name that does not end": GET + b"a" * 500_000,
    "a path that does not end": b"GET /" + b"a" * 500_000,
    "a path of 20 KiB": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + AUTHORIZED + b"\r\n",
    "a method that does not end": b"A" * 500_000,
    "control characters": GET + b"X: a\x01b\r\n\r\n",
    "a NUL": GET + b"X: a\x00b\r\n\r\n",
    "a space in a name": GET + b"X y: 1\r\n\r\n",
    "a folded header": GET + b"X: a\r\n b\r\n\r\n",
    "a header without a colon": GET + b"nonsense\r\n\r\n",
    "a path of other bytes": b"GET /\xff\xfe HTTP/1.1\r\n" + AUTHORIZED + b"\r\n",
    "a length that is no number": POST + b"Content-Length: ten\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length past 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "another version": b"GET /healthz HTTP/3.7\r\n\r\n",
    "another method": b"BREW /healthz HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT receiver.example:443 HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("request_", HEADS.values(), ids=HEADS.keys())
@pytest.mark.usefixtures("unchanged")
def test_an_absurd_head(service: Service, request_: bytes) -> None:
    """400 in the words of the API, and the connection is closed."""
    answer = exchange(service.port, request_)
    refused(answer)
    assert answer.json()["errors"][0]["code"] == "invalid_request"
    assert answer.closed
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"


@pytest.mark.usefixtures("unchanged")
def test_a_bad_chunk(service: Service) -> None:
    """The request was under way: whether it is answered or not, the connection ends and nothing is done."""
    body = b'{"data":{"gid":"666","resource_type":"workspace"}}'
    head = b"POST /api/1.0/resources HTTP/1.1\r\n" + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = exchange(service.port, head + b"%x\r\n%b\r\nzz\r\n\r\n" % (len(body), body))
    refused(answer)
    assert answer.closed


LENIENT: Final = {
    "bytes beyond ASCII in a header": b"X: \xff\xfe\r\n",
    "a host of other bytes": b"Host: \xff\r\n",
    "an offer of HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "an offer of websockets": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
}


@pytest.mark.parametrize("header", LENIENT.values(), ids=LENIENT.keys())
def test_an_odd_head_that_is_served(service: Service, header: bytes) -> None:
    """Java's own client offers HTTP/2 with every request, POSTs too: their bodies must be read."""
    assert exchange(service.port, GET + header + b"\r\n", closes=False).status == 200
    body = b'{"data":{"resource":"%b"}}' % PROJECT.encode()
    answer = exchange(
        service.port, POST + header + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), closes=False
    )
    assert answer.json()["errors"][0]["message"] == "You should specify one of target"


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [b"/webhooks", b"/events", b"/resources", b"/tokens", b"/resources/7"])
@pytest.mark.usefixtures("unchanged")
def test_a_large_body(service: Service, path: bytes, size: int, chunked: bool) -> None:
    """413, which the client really sees although it was still sending; then the connection is closed."""
    method = b"PUT" if path == b"/resources/7" else b"POST"
    head = b"%b /api/1.0%b HTTP/1.1\r\n%b" % (method, path, AUTHORIZED)
    if chunked:
        body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
    else:
        body = b"Content-Length: %d\r\n\r\n%b" % (size, b" " * size)
    answer = exchange(service.port, head + body)
    refused(answer, 413)
    assert answer.json()["errors"][0]["code"] == "body_too_large"
    assert answer.closed


@pytest.mark.usefixtures("unchanged")
def test_a_large_body_by_an_ordinary_client(service: Service) -> None:
    """httpx sends all of it before it reads."""
    refused(service.api("POST", "/webhooks", content=b"x" * 10_000_000), 413)


def test_the_largest_body_is_taken(service: Service) -> None:
    """One MiB to the byte."""
    body = json.dumps({"data": {"resource": TASK}}).encode()
    response = service.api("POST", "/events", content=body + b" " * (BODY_BYTES_MAX - len(body)))
    refused(response)
    assert response.json()["errors"][0]["message"] == "action: Missing input"


@pytest.mark.parametrize("target", ["/api/1.0/webhooks", "/nothing"])
def test_the_large_body_of_a_refused_request(service: Service, target: str) -> None:
    """Who has no token, or no route, is told so; what was sent is thrown away and the connection goes on."""
    request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (target.encode(), 5_000_000)
    answer = exchange(
        service.port,
        request + b" " * 5_000_000 + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        closes=False,
    )
    refused(answer, 401, 404)


DEEP: Final = 100_000
BODIES: Final = {
    "nothing": b"",
    "not JSON": b"hello",
    "half of it": b'{"data":{"resource":"8675309"',
    "two of it": b'{"data":{}}{"data":{}}',
    "single quotes": b"{'data':{}}",
    "NaN": b'{"data":NaN}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"data":{}}'.encode("utf-16"),
    "bad UTF-8": b'{"data":{"resource":"\xff\xfe"}}',
    "a surrogate in UTF-8": b'{"data":{"resource":"\xed\xa0\x80"}}',
    "a lone surrogate": b'{"data":{"resource":"\\ud800"}}',
    "a NUL": b'{"data":{"resource":"8675309","target":"https://receiver.example/\\u0000"}}',
    "a raw NUL": b'{"data":{"resource":"8675309\x00"}}',
    "deep arrays": b'{"data":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"data":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "deep and open": b"[" * DEEP,
    "a huge integer": b'{"data":{"resource":' + b"9" * 10_000 + b"}}",
    "a huge exponent": b'{"data":{"resource":1e400}}',
    "an array": b"[]",
    "a number": b"5",
    "a string": b'"data"',
    "null": b"null",
    "an unknown key": b'{"data":{"resource":"8675309","target":"https://receiver.example"},"more":1}',
    "data of an array": b'{"data":[{"resource":"8675309"}]}',
    "data of a string": b'{"data":"resource"}',
    "data of a number": b'{"data":1}',
    "options of a string": b'{"data":{},"options":"pretty"}',
    "options with fields of a number": b'{"data":{},"options":{"fields":7}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ["/webhooks", "/events", "/resources", "/tokens"])
@pytest.mark.usefixtures("unchanged")
def test_a_senseless_body(service: Service, path: str, body: bytes) -> None:
    """Malformed, deep, huge, of the wrong kind: 400."""
    refused(service.api("POST", path, content=body))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.usefixtures("unchanged")
def test_a_senseless_body_of_a_put(service: Service, body: bytes) -> None:
    """The same, where an existing thing would be replaced."""
    (webhook,) = service.ask("GET", f"/webhooks?workspace={WORKSPACE}")
    for path in (f"/webhooks/{webhook['gid']}", f"/resources/{PROJECT}"):
        refused(service.api("PUT", path, content=body))


@pytest.mark.parametrize(
    "form",
    [
        b"resource=%ff",
        b"resource=%ed%a0%80",
        b"\xff=1",
        b"resource=8675309&target=https://receiver.example&filters=[{",
        b"resource=8675309&target=https://receiver.example&filters=x",
        b"&".join(b"a%d=1" % number for number in range(200)),
        b"resource=8675309&target=%00",
        b"{}",
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_senseless_form(service: Service, form: bytes) -> None:
    """A form that does not decode, is too wide, or holds no JSON where it should."""
    refused(service.api("POST", "/webhooks", content=form, headers=FORM))


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/xml",
        ";;;",
        "json",
        "application/json-seq",
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_another_content_type(service: Service, content_type: str) -> None:
    """400, whatever the bytes are."""
    body = json.dumps({"data": {"gid": "666", "resource_type": "workspace"}})
    refused(service.api("POST", "/resources", content=body, headers={"Content-Type": content_type}))


# -- wrong values in every field -------------------------------------------------------------------

WRONG: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 1.5, 10**30, [], {}, [[]], [{}], [None], [0], ["\x00"], {"gid": {}}, {"gid": 7}),
    *("", " ", "\x00", "a b", "x" * 5000, "é" * 300, "\ud800", "../..", "9999", ["9999"], [""] * 2000),
)
GOOD: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "WebhookRequest": (
        "POST",
        "/webhooks",
        {"resource": PROJECT, "target": "http://127.0.0.1:9/", "filters": [{"action": "added"}]},
    ),
    "Event": (
        "POST",
        "/events",
        {
            "resource": {"gid": TASK, "resource_type": "task", "resource_subtype": "a", "name": "b"},
            "action": "changed",
            "user": {"gid": "1", "resource_type": "user"},
            "parent": {"gid": PROJECT, "resource_type": "project"},
            "change": {"field": "a", "action": "changed", "new_value": None},
            "created_at": "2026-02-22T02:06:58.158Z",
            "id": "x",
        },
    ),
    "ResourceInBulk": (
        "POST",
        "/resources",
        {
            "gid": "666",
            "resource_type": "task",
            "resource_subtype": "a",
            "name": "b",
            "parents": [PROJECT],
        },
    ),
    "TokenRequest": (
        "POST",
        "/tokens",
        {
            "user": "1",
            "user_name": "a",
            "app": "b",
            "scopes": ["events:read"],
            "workspaces": [WORKSPACE],
            "expires_at": "2026-02-22T02:06:58.158Z",
        },
    ),
}
INNER: Final[dict[str, dict[tuple[Any, ...], tuple[str, ...]]]] = {
    "WebhookRequest": {("filters", 0): ("resource_type", "resource_subtype", "action", "fields")},
    "Event": {
        ("resource",): ("gid", "resource_type", "resource_subtype", "name", "parents"),
        ("parent",): ("gid", "resource_type", "resource_subtype", "name", "parents"),
        ("user",): ("gid", "resource_type"),
        ("change",): ("field", "action", "new_value", "added_value", "removed_value"),
    },
}


def fields_of(name: str) -> Iterator[tuple[Any, ...]]:
    """The path of every field of a request, those of objects within it too."""
    for key in GOOD[name][2]:
        yield (key,)
    for path, keys in INNER.get(name, {}).items():
        for key in keys:
            yield (*path, key)


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy in which the field at this path is another."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = replaced(value[path[0]] if len(path) > 1 else None, path[1:], new)
    return copy


@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param(name, field, id=f"{name}.{'.'.join(map(str, field))}")
        for name in GOOD
        for field in fields_of(name)
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_wrong_values(service: Service, name: str, field: tuple[Any, ...]) -> None:
    """What the description does not allow is refused; what it allows is the business of other tests."""
    described = {"$ref": f"#/components/schemas/{name}", "components": COMPONENTS}
    validator = jsonschema_rs.Draft202012Validator(described, validate_formats=True)
    method, path, good = GOOD[name]
    validator.validate(good)
    sent = 0
    for wrong in WRONG:
        data = replaced(good, field, wrong)
        content = json.dumps({"data": data}).encode()
        if b"\\ud800" not in content and validator.is_valid(data):
            continue
        sent += 1
        response = service.api(method, path, content=content)
        assert response.status_code == 400, (wrong, response.text)
        refused(response)
    assert sent > 3


# -- gids, workspaces, numbers in paths and queries ------------------------------------------------

GIDS: Final = (
    *("9999", "abc", "-1", "0", "%00", "%ff", "%F0%9F%92%A9", "%ed%a0%80", "a" * 5000, "..%2f..", "%20"),
    *("'%20OR%201=1--", "%22", "%5C", "%25", "%zz", "\u00e9", "9" * 400),
)


@pytest.mark.parametrize("gid", GIDS)
@pytest.mark.usefixtures("unchanged")
def test_an_unknown_gid_in_a_path(service: Service, gid: str) -> None:
    """404 for what is not there, 400 for a gid that cannot be given."""
    for method, path in (
        ("GET", f"/webhooks/{gid}"),
        ("PUT", f"/webhooks/{gid}"),
        ("DELETE", f"/webhooks/{gid}"),
        ("GET", f"/webhooks/{gid}/attempts"),
        ("GET", f"/resources/{gid}"),
        ("DELETE", f"/resources/{gid}"),
        ("DELETE", f"/tokens/{gid}"),
    ):
        refused(service.api(method, path, data={"filters": []} if method == "PUT" else None), 404)
    refused(service.api("PUT", f"/resources/{gid}", json={"data": {"resource_type": "task"}}), 400, 404)


@pytest.mark.parametrize("value", [gid for gid in GIDS if gid != "9999"])
@pytest.mark.parametrize("name", ["workspace", "resource", "limit", "offset"])
@pytest.mark.usefixtures("unchanged")
def test_a_senseless_query(service: Service, name: str, value: str) -> None:
    """400, in the field's name."""
    rest = "" if name == "workspace" else f"&workspace={WORKSPACE}"
    response = service.api("GET", f"/webhooks?{name}={value}{rest}")
    refused(response)
    assert response.json()["errors"][0]["message"].startswith(f"{name}: ")


def test_a_foreign_workspace(service: Service) -> None:
    """A token of another workspace gets 403 for everything in this one, and changes nothing."""
    data = {"user": "1", "app": "default", "workspaces": [OTHER_WORKSPACE]}
    token = service.ask("POST", "/tokens", data=data)["token"]
    before = dump(path_of(service))
    hook = {"resource": PROJECT, "target": "https://receiver.example"}
    placed = {"resource_type": "task", "parents": [PROJECT]}
    calls: tuple[tuple[str, str, Any], ...] = (
        ("GET", f"/webhooks?workspace={WORKSPACE}", None),
        ("POST", "/webhooks", hook),
        ("POST", "/events", event(TASK)),
        ("PUT", "/resources/666", placed),
        ("PUT", f"/resources/{PROJECT}", {"resource_type": "project", "parents": [OTHER_WORKSPACE]}),
        ("POST", "/resources", [{"gid": "666", **placed}]),
        ("GET", f"/resources/{TASK}", None),
        ("DELETE", f"/resources/{TASK}", None),
    )
    for method, path, sent in calls:
        refused(service.api(method, path, data=sent, token=token), 403)
    assert dump(path_of(service)) == before
