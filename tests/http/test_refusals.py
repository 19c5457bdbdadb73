"""Every refusal of the contract that has a status: the request that provokes it and the exact answer.

The first table lists the rows of contract §2.2, the second those of §12 and of the interface. Each refusal leaves the
database as it was.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.http.edge import (
    OTHER_PROJECT,
    OTHER_WORKSPACE,
    TARGET,
    TEAM,
    TOKEN,
    Edge,
    Opener,
    Target,
    answering,
    shake,
    silent,
)
from tests.serving import PROJECT, TASK, USER, WORKSPACE, event
from tidings.model import Trouble

HELP: Final = (
    "For more information on API status codes and how to handle them, read the docs on errors: "
    "https://developers.asana.com/docs/errors"
)
REMOTE: Final = "The remote server which is intended to receive the webhook"
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
ADDED: Final = {"resource_type": "project", "action": "added"}


@dataclass(frozen=True)
class Row:
    """One refusal. `before` puts the service into the state it needs; what it returns is the token to use."""

    name: str
    method: str
    path: str
    status: int
    message: str
    code: str
    request: dict[str, Any] = field(default_factory=dict)
    target: Target = shake
    settings: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Edge], Awaitable[str | None]] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def create(**data: Any) -> dict[str, Any]:
    """The body of a create that would succeed, but for what is given; None leaves a key out."""
    full = {"resource": PROJECT, "target": TARGET, **data}
    return {"data": {key: value for key, value in full.items() if value is not None}}


async def one_exists(edge: Edge) -> None:
    await edge.create()


async def two_exist(edge: Edge) -> None:
    await edge.create_many(2)


async def only_other_workspace(edge: Edge) -> str:
    return await edge.new_token(workspaces=[OTHER_WORKSPACE])


def lacking(scope: str) -> Callable[[Edge], Awaitable[str]]:
    """A token with every scope but this one."""

    async def token(edge: Edge) -> str:
        return await edge.new_token(scopes=[name for name in SCOPES if name != scope])

    return token


SCOPES: Final = (
    "webhooks:read",
    "webhooks:write",
    "webhooks:delete",
    "events:read",
    "events:write",
    "resources:read",
    "resources:write",
    "admin",
)


async def used_up(edge: Edge) -> str:
    token = await edge.new_token(app="eager")
    for _ in range(3):
        await edge.ask("GET", f"/webhooks?workspace={WORKSPACE}", token=token)
    return token


async def key_was_used(edge: Edge) -> None:
    await edge.ask("POST", "/events", data=event(TASK), headers={"Idempotency-Key": "one"})


RECORDED: Final = (
    Row(
        "handshake without the secret",
        "POST",
        "/webhooks",
        400,
        f"{REMOTE} did not respond with the handshake secret.",
        "handshake_failed",
        {"json": create()},
        target=answering(200),
    ),
    Row(
        "handshake with another secret",
        "POST",
        "/webhooks",
        400,
        f"{REMOTE} did not respond with the handshake secret.",
        "handshake_failed",
        {"json": create()},
        target=answering(204, headers={"x-hook-secret": "0" * 64}),
    ),
    Row(
        "handshake with another status",
        "POST",
        "/webhooks",
        400,
        f"{REMOTE} responded with an incorrect status code: 401",
        "handshake_failed",
        {"json": create()},
        target=answering(401, echo=True),
    ),
    Row(
        "target unreachable",
        "POST",
        "/webhooks",
        400,
        f"{REMOTE} did not answer: connection refused",
        "handshake_failed",
        {"json": create()},
        target=silent(Trouble.CONNECT, "connection refused"),
    ),
    Row(
        "localhost",
        "POST",
        "/webhooks",
        403,
        "target: The host localhost is not allowed: loopback",
        "forbidden_target",
        {"json": create(target="http://localhost/hook")},
    ),
    Row(
        "resource missing",
        "POST",
        "/webhooks",
        400,
        "You should specify one of resource",
        "missing_input",
        {"json": create(resource=None)},
    ),
    Row(
        "target missing",
        "POST",
        "/webhooks",
        400,
        "You should specify one of target",
        "missing_input",
        {"json": create(target=None)},
    ),
    Row(
        "workspace missing in a list",
        "GET",
        "/webhooks",
        400,
        "workspace: Missing input",
        "missing_input",
    ),
    Row(
        "gid not digits",
        "POST",
        "/webhooks",
        400,
        "resource: Not a recognized ID: abc",
        "unrecognized_id",
        {"json": create(resource="abc")},
    ),
    Row(
        "gid that cannot be one",
        "POST",
        "/webhooks",
        400,
        "resource: Not a recognized ID: a b",
        "unrecognized_id",
        {"json": create(resource="a b")},
    ),
    Row(
        "gid not digits in a query",
        "GET",
        "/webhooks?workspace=we",
        400,
        "workspace: Not a recognized ID: we",
        "unrecognized_id",
    ),
    Row(
        "gid of the wrong type",
        "POST",
        "/webhooks",
        400,
        "resource: Not a valid GID type: number",
        "invalid_gid_type",
        {"json": create(resource=8675309)},
    ),
    Row(
        "unknown gid in the body",
        "POST",
        "/webhooks",
        400,
        "resource: Unknown object: 9999",
        "unknown_object",
        {"json": create(resource="9999")},
    ),
    *(
        Row(
            f"unknown gid in the path of {method}",
            method,
            "/webhooks/9999",
            404,
            "webhook: Unknown object: 9999",
            "unknown_object",
            {"json": {"data": {"filters": []}}} if method == "PUT" else {},
        )
        for method in ("GET", "PUT", "DELETE")
    ),
    Row(
        "object of a workspace the caller may not see",
        "POST",
        "/webhooks",
        403,
        "You do not have access to this project.",
        "no_access",
        {"json": create()},
        before=only_other_workspace,
    ),
    Row(
        "body not JSON",
        "POST",
        "/webhooks",
        400,
        "Could not parse request data, invalid JSON",
        "invalid_json",
        {"content": b'{"data":'},
    ),
    Row(
        "key beside data and options",
        "POST",
        "/webhooks",
        400,
        "Unrecognized request field resource . The only allowed keys at the top level are: data, options.",
        "unrecognized_field",
        {"json": {"resource": PROJECT, "target": TARGET}},
    ),
    Row(
        "data missing",
        "POST",
        "/webhooks",
        400,
        "You should specify one of resource",
        "missing_input",
        {"json": {}},
    ),
    Row(
        "offset not issued by the service",
        "GET",
        f"/webhooks?workspace={WORKSPACE}&limit=1&offset=eyJ0eXAiOiJKV1QifQ",
        400,
        "offset: Your pagination token is invalid.",
        "invalid_offset",
    ),
    *(
        Row(
            f"limit {limit!r}",
            "GET",
            f"/webhooks?workspace={WORKSPACE}&limit={limit}",
            400,
            f"limit: {text}",
            "invalid_value",
        )
        for limit, text in (
            ("0", "Must be between 1 and 100, not 0"),
            ("101", "Must be between 1 and 100, not 101"),
            ("-1", "Must be between 1 and 100, not -1"),
            ("1" * 40, f"Must be between 1 and 100, not {'1' * 40}"),
            ("ten", "Not a number: ten"),
            ("", "Not a number: "),
        )
    ),
    *(
        Row(
            f"{kind} without filters",
            "POST",
            "/webhooks",
            400,
            f"filters: Webhooks on larger-scoped resources (here a {kind}) must specify filters",
            "filters_required",
            {"json": create(resource=gid)},
        )
        for kind, gid in (("workspace", WORKSPACE), ("team", TEAM))
    ),
    Row(
        "filters of many bytes",
        "POST",
        "/webhooks",
        400,
        "filters: at most 16384 bytes in all, not 20175",
        "filters_too_large",
        {"json": create(filters=[{"action": "changed", "fields": ["x" * 200] * 99}])},
    ),
    Row(
        "workspace with a task filter",
        "POST",
        "/webhooks",
        400,
        "filters: [1]: resource_type: events of type task do not reach larger-scoped resources (here a workspace)",
        "invalid_filter",
        {"json": create(resource=WORKSPACE, filters=[ADDED, {"resource_type": "task"}])},
    ),
    Row(
        "workspace with fields",
        "POST",
        "/webhooks",
        400,
        "filters: [0]: fields: filters on larger-scoped resources (here a workspace) may not name fields",
        "invalid_filter",
        {
            "json": create(
                resource=WORKSPACE,
                filters=[{"resource_type": "project", "action": "changed", "fields": ["name"]}],
            )
        },
    ),
    Row(
        "bad action",
        "POST",
        "/webhooks",
        400,
        "filters: [0]: action: must be one of added, changed, deleted, removed, undeleted, not exploded",
        "invalid_filter",
        {"json": create(filters=[{"action": "exploded"}])},
    ),
    Row(
        "fields with another action",
        "POST",
        "/webhooks",
        400,
        'filters: [0]: fields: only a filter with the action "changed" may name fields',
        "invalid_filter",
        {"json": create(filters=[{"action": "added", "fields": ["name"]}])},
    ),
    Row(
        "resource_type that cannot be one",
        "POST",
        "/webhooks",
        400,
        "filters: [0]: resource_type: not a type name: no such type!",
        "invalid_value",
        {"json": create(filters=[{"resource_type": "no such type!"}])},
    ),
    Row(
        "quota per resource",
        "POST",
        "/webhooks",
        403,
        "This resource has reached its quota of 2 webhooks.",
        "quota_per_resource",
        {"json": create()},
        settings={"quota_per_resource": 2},
        before=two_exist,
    ),
    Row(
        "quota per owner",
        "POST",
        "/webhooks",
        403,
        "This user and app have reached their quota of 2 webhooks.",
        "quota_per_owner",
        {"json": create(resource=TASK)},
        settings={"quota_per_owner": 2},
        before=two_exist,
    ),
    Row(
        "rate limit",
        "GET",
        f"/webhooks?workspace={WORKSPACE}",
        429,
        "You've made too many requests and hit a rate limit. Please retry after the given amount of time.",
        "rate_limited",
        settings={"rate_limit": 3},
        before=used_up,
        headers={"Retry-After": "20"},
    ),
    Row(
        "no such path",
        "GET",
        "/hooks",
        404,
        "No matching route for request",
        "no_route",
    ),
    Row(
        "no such method",
        "PATCH",
        "/webhooks",
        404,
        "No matching route for request",
        "no_route",
    ),
)

OURS: Final = (
    *(
        Row(
            f"12.1 handshake answered {status}",
            "POST",
            "/webhooks",
            400,
            f"{REMOTE} responded with an incorrect status code: {status}",
            "handshake_failed",
            {"json": create()},
            target=answering(status, echo=True),
        )
        for status in (201, 202, 301, 302, 307, 404, 410, 500)
    ),
    *(
        Row(
            f"12.4 {trouble.value}",
            "POST",
            "/webhooks",
            400,
            f"{REMOTE} did not answer: {text}",
            "handshake_failed",
            {"json": create()},
            target=silent(trouble, text),
        )
        for trouble, text in (
            (Trouble.DNS, "receiver.example has no address"),
            (Trouble.TLS, "the certificate has expired"),
            (Trouble.TIMEOUT, "no answer within 10 s"),
            (Trouble.PROTOCOL, "not HTTP"),
            (Trouble.CLOSED, "the connection ended early"),
        )
    ),
    *(
        Row(
            f"12.5 {host}",
            "POST",
            "/webhooks",
            403,
            f"target: The address {host.strip('[]')} is not allowed: {reason}",
            "forbidden_target",
            {"json": create(target=f"http://{host}/hook")},
        )
        for host, reason in (
            ("10.0.0.1", "private"),
            ("127.0.0.1", "loopback"),
            ("169.254.169.254", "cloud metadata"),
            ("169.254.1.1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("[::1]", "loopback"),
            ("[fc00::1]", "unique local"),
        )
    ),
    Row(
        "12.5 after DNS",
        "POST",
        "/webhooks",
        403,
        "target: receiver.example is 10.0.0.1, which is not allowed: private",
        "forbidden_target",
        {"json": create()},
        target=silent(Trouble.REFUSED_ADDRESS, "receiver.example is 10.0.0.1, which is not allowed: private"),
    ),
    Row(
        "12.6 http where https is required",
        "POST",
        "/webhooks",
        403,
        "target: Must begin with https://: this service does not post to http targets",
        "forbidden_target",
        {"json": create(target="http://receiver.example/hook")},
        settings={"require_https": True},
    ),
    Row(
        "12.8 data null",
        "POST",
        "/webhooks",
        400,
        "You should specify one of resource",
        "missing_input",
        {"json": {"data": None}},
    ),
    Row(
        "12.9 portfolio-like filter without a type",
        "POST",
        "/webhooks",
        400,
        "filters: [0]: resource_type: a filter on a larger-scoped resource (here a workspace) "
        "must name a resource_type",
        "invalid_filter",
        {"json": create(resource=WORKSPACE, filters=[{"action": "added"}])},
    ),
    *(
        Row(
            f"12.25 {method} {path} without {scope}",
            method,
            path,
            403,
            f"This token lacks the scope {scope}.",
            "missing_scope",
            request,
            before=lacking(scope),
        )
        for scope, method, path, request in (
            ("webhooks:write", "POST", "/webhooks", {"json": create()}),
            ("webhooks:read", "GET", f"/webhooks?workspace={WORKSPACE}", {}),
            ("webhooks:read", "GET", "/webhooks/9999", {}),
            ("webhooks:write", "PUT", "/webhooks/9999", {"json": {"data": {"filters": []}}}),
            ("webhooks:delete", "DELETE", "/webhooks/9999", {}),
            ("webhooks:read", "GET", "/webhooks/9999/attempts", {}),
            ("events:write", "POST", "/events", {"json": {"data": event(TASK)}}),
            (
                "resources:write",
                "POST",
                "/events",
                {"json": {"data": event({"gid": "7", "resource_type": "task", "parents": [PROJECT]})}},
            ),
            ("resources:write", "PUT", "/resources/7", {"json": {"data": {"resource_type": "task"}}}),
            (
                "resources:write",
                "POST",
                "/resources",
                {"json": {"data": {"gid": "7", "resource_type": "task", "parents": [PROJECT]}}},
            ),
            ("resources:read", "GET", f"/resources/{TASK}", {}),
            ("resources:write", "DELETE", f"/resources/{TASK}", {}),
            ("admin", "POST", "/tokens", {"json": {"data": {"user": USER}}}),
            ("admin", "GET", "/tokens", {}),
            ("admin", "DELETE", "/tokens/9999", {}),
        )
    ),
    Row(
        "12.28 another content type",
        "POST",
        "/webhooks",
        400,
        "Unsupported Content-Type: text/plain. Send application/json or application/x-www-form-urlencoded.",
        "unsupported_content_type",
        {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    ),
    *(
        Row(
            f"12.28 target {target}",
            "POST",
            "/webhooks",
            400,
            f"target: {text}",
            "invalid_target",
            {"json": create(target=target)},
        )
        for target, text in (
            ("https://user:pass@receiver.example/", "Must not contain a user name or password"),
            ("http://127.1/", "An IPv4 address must be four decimal numbers without leading zeros"),
            ("http://0177.0.0.1/", "An IPv4 address must be four decimal numbers without leading zeros"),
            ("http://0x7f000001/", "An IPv4 address must be four decimal numbers without leading zeros"),
            ("http://１２７.０.０.１/", "An IPv4 address must be four decimal numbers without leading zeros"),
            ("http://[fe80::1%25eth0]/", "An IPv6 address must not have a zone id"),
            ("ftp://receiver.example/", "Must be an absolute URL that begins with http:// or https://"),
            ("receiver.example", "Must be an absolute URL that begins with http:// or https://"),
        )
    ),
    # The interface's own: lists, tokens, resources, idempotency.
    Row(
        "list of an unknown workspace",
        "GET",
        "/webhooks?workspace=9999",
        400,
        "workspace: Unknown object: 9999",
        "unknown_object",
    ),
    Row(
        "list of what is no workspace",
        "GET",
        f"/webhooks?workspace={PROJECT}",
        400,
        f"workspace: Not a workspace: {PROJECT}",
        "not_a_workspace",
    ),
    Row(
        "list of an unknown resource",
        "GET",
        f"/webhooks?workspace={WORKSPACE}&resource=9999",
        400,
        "resource: Unknown object: 9999",
        "unknown_object",
    ),
    Row(
        "list of a foreign workspace",
        "GET",
        f"/webhooks?workspace={WORKSPACE}",
        403,
        "You do not have access to this workspace.",
        "no_access",
        before=only_other_workspace,
    ),
    Row(
        "list of a foreign resource",
        "GET",
        f"/webhooks?workspace={OTHER_WORKSPACE}&resource={TASK}",
        403,
        "You do not have access to this task.",
        "no_access",
        before=only_other_workspace,
    ),
    Row(
        "event on a foreign resource",
        "POST",
        "/events",
        403,
        "You do not have access to this task.",
        "no_access",
        {"json": {"data": [event(OTHER_PROJECT), event(TASK)]}},
        before=only_other_workspace,
    ),
    Row(
        "resource into a foreign workspace",
        "PUT",
        "/resources/7",
        403,
        "You do not have access to this task.",
        "no_access",
        {"json": {"data": {"resource_type": "task", "parents": [PROJECT]}}},
        before=only_other_workspace,
    ),
    Row(
        "unknown resource",
        "GET",
        "/resources/9999",
        404,
        "resource: Unknown object: 9999",
        "unknown_object",
    ),
    Row(
        "unknown token",
        "DELETE",
        "/tokens/9999",
        404,
        "token: Unknown object: 9999",
        "unknown_object",
    ),
    Row(
        "idempotency key with other bytes",
        "POST",
        "/events",
        409,
        "Idempotency-Key: this key was used with another request body within 24 hours",
        "idempotency_conflict",
        {"json": {"data": event(TASK, "deleted")}, "headers": {"Idempotency-Key": "one"}},
        before=key_was_used,
    ),
    Row(
        "body over a mebibyte",
        "POST",
        "/events",
        413,
        "The body is over 1048576 bytes (announced: 1048577).",
        "body_too_large",
        {"content": b" " * 1_048_577},
    ),
)


@pytest.mark.parametrize("row", (*RECORDED, *OURS), ids=str)
async def test_a_refusal(row: Row, opened: Opener) -> None:
    """The exact status, message and code, and nothing changed."""
    edge = await opened(**row.settings)
    token = await row.before(edge) if row.before else None
    before = edge.dump()
    edge.target = row.target
    request = {"headers": {}, **row.request}
    response = await edge.api(row.method, row.path, token=token or TOKEN, **request)
    assert response.json() == {"errors": [{"message": row.message, "help": HELP, "code": row.code}]}
    assert response.status_code == row.status
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    for name, value in row.headers.items():
        assert response.headers[name] == value
    assert edge.dump() == before


async def test_a_duplicate_names_the_webhook_that_stands(edge: Edge) -> None:
    """403 with the word that clients match on, and the gid beside it."""
    standing = await edge.create()
    before = edge.dump()
    response = await edge.api("POST", "/webhooks", json=create())
    assert response.status_code == 403
    assert response.json() == {
        "errors": [
            {
                "message": "Duplicated webhook. You already have an existing webhook for the given resource and "
                "target. Delete the old one before creating another.",
                "help": HELP,
                "code": "duplicate_webhook",
                "gid": standing["gid"],
            }
        ]
    }
    assert len(edge.posted) == 1, "the receiver must not see a second secret"
    assert edge.dump() == before


async def test_an_unpaged_list_has_a_ceiling(opened: Opener) -> None:
    """A thousand webhooks come in one list; one more is 400, and pages still work."""
    edge = await opened(rate_limit=0, quota_per_resource=2000)
    await edge.create_many(1000)
    whole = await edge.ask("GET", f"/webhooks?workspace={WORKSPACE}")
    assert len(whole) == 1000
    await edge.create(target=f"{TARGET}/last")
    response = await edge.api("GET", f"/webhooks?workspace={WORKSPACE}")
    assert response.status_code == 400
    assert response.json()["errors"][0] == {
        "message": "The result is too large. You should use pagination (may require specifying a workspace)!",
        "help": HELP,
        "code": "result_too_large",
    }
    assert len(await edge.ask("GET", f"/webhooks?workspace={WORKSPACE}&limit=100")) == 100


async def test_an_offset_expires(edge: Edge) -> None:
    """Thirty minutes after it was issued, with the recorded words; a microsecond before, it works."""
    await edge.create_many(2)
    first = (await edge.api("GET", f"/webhooks?workspace={WORKSPACE}&limit=1")).json()
    following = first["next_page"]["uri"]
    edge.clock.turn(seconds=30 * 60 - 0.000001)
    assert (await edge.api("GET", following)).status_code == 200
    edge.clock.turn(seconds=0.000001)
    response = await edge.api("GET", following)
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"] == "offset: Your pagination token has expired."
    assert response.json()["errors"][0]["code"] == "expired_offset"
