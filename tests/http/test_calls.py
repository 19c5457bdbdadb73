"""The five calls as the contract records them: records, lists, pages, `opt_fields`, headers, who may do what."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest

from tests.http.edge import (
    API,
    HOST,
    OTHER_PROJECT,
    OTHER_WORKSPACE,
    ROOT,
    TARGET,
    TOKEN,
    Edge,
    Opener,
    answering,
    shake,
)
from tests.http.test_refusals import FORM, HELP, SCOPES
from tests.serving import PROJECT, TASK, USER, WORKSPACE, event
from tidings.model import Delivery, Reply

# The clock's first reading, and 0.4 s later.
CREATED_AT: Final = "2026-02-22T02:06:58.158Z"
SHAKEN_AT: Final = "2026-02-22T02:06:58.558Z"
LIST: Final = f"/webhooks?workspace={WORKSPACE}"
NOT_AUTHORIZED: Final = {"errors": [{"message": "Not Authorized", "help": HELP, "code": "not_authorized"}]}

# -- create (contract §1.1) ------------------------------------------------------------------------


async def create_slowly(edge: Edge, **more: Any) -> httpx.Response:
    """Create a webhook whose handshake takes 0.4 s."""

    async def answer(delivery: Delivery) -> Reply:
        edge.clock.turn(seconds=0.4)
        return await shake(delivery)

    edge.target = answer
    return await edge.api("POST", more.pop("path", "/webhooks"), **more)


async def test_the_201(edge: Edge) -> None:
    """The full record, exactly; the secret beside `data`; where it is."""
    filters = [{"resource_type": "project", "action": "added"}]
    data = {"resource": WORKSPACE, "target": TARGET, "filters": filters}
    response = await create_slowly(edge, data=data)
    assert response.status_code == 201
    answer = response.json()
    (handshake,) = edge.posted
    gid = answer["data"]["gid"]
    assert answer == {
        "data": {
            "gid": gid,
            "resource_type": "webhook",
            "active": True,
            "resource": {"gid": WORKSPACE, "resource_type": "workspace", "name": "Home"},
            "target": TARGET,
            "is_workspace_webhook": True,
            "created_at": CREATED_AT,
            "last_success_at": SHAKEN_AT,
            "last_failure_at": None,
            "last_failure_content": "",
            "delivery_retry_count": 0,
            "next_attempt_after": None,
            "failure_deletion_timestamp": None,
            "filters": [
                {"resource_type": "project", "resource_subtype": None, "action": "added", "fields": None}
            ],
        },
        "X-Hook-Secret": dict(handshake.headers)["X-Hook-Secret"],
    }
    assert list(answer["data"])[:2] == ["gid", "resource_type"]
    assert len(answer["X-Hook-Secret"]) == 64
    assert gid.isdigit()
    assert response.headers["Location"] == f"/api/1.0/webhooks/{gid}"


async def test_a_webhook_without_filters(edge: Edge) -> None:
    """No filters are an empty array, and a project's webhook is no workspace's."""
    record = await edge.create()
    assert record["filters"] == []
    assert record["is_workspace_webhook"] is False


async def test_the_handshake(edge: Edge) -> None:
    """One POST of `{}` with the secret and no signature, to the target as it was given (contract §12.1)."""
    target = "https://receiver.example/hook?key=a%20b&x"
    await edge.create(target=target)
    (handshake,) = edge.posted
    headers = {name.lower(): value for name, value in handshake.headers}
    assert handshake.url == target
    assert handshake.body == b"{}"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("Tidings/")
    assert not any("signature" in name for name in headers)
    assert handshake.timeout == 10_000_000


@pytest.mark.parametrize("status", [200, 204])
async def test_both_recorded_statuses_shake_hands(edge: Edge, status: int) -> None:
    """200 and 204, nothing else."""
    edge.target = answering(status, echo=True)
    assert (await edge.create())["active"] is True


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/webhooks?opt_fields=target,resource.name", {}),
        ("/webhooks", {"options": {"fields": ["target", "resource.name"]}}),
        ("/webhooks", {"options": {"fields": "target,resource.name"}}),
        ("/webhooks?opt_fields=active", {"options": {"fields": ["target", "this.resource.name"]}}),
    ],
    ids=["query", "options", "options as text", "options before the query"],
)
async def test_a_create_with_fields_still_tells_the_secret(
    edge: Edge, path: str, more: dict[str, Any]
) -> None:
    """`opt_fields` shape `data`; the secret stands beside it."""
    response = await edge.api("POST", path, json={"data": {"resource": PROJECT, "target": TARGET}, **more})
    answer = response.json()
    assert set(answer) == {"data", "X-Hook-Secret"}
    assert answer["data"] == {
        "gid": answer["data"]["gid"],
        "resource": {"gid": PROJECT, "name": "Bugs"},
        "target": TARGET,
    }


async def test_a_create_by_form(edge: Edge) -> None:
    """The reference's own curl; options and filters in the form too."""
    response = await edge.api(
        "POST",
        "/webhooks",
        data=None,
        content=f"resource={PROJECT}&target=https%3A%2F%2Freceiver.example%2Fhook&opt_fields=target%2Cfilters"
        "&opt_pretty&filters=%5B%7B%22action%22%3A%22added%22%7D%5D",
        headers=FORM,
    )
    assert response.status_code == 201
    assert response.json()["data"] == {
        "gid": response.json()["data"]["gid"],
        "target": TARGET,
        "filters": [{"resource_type": None, "resource_subtype": None, "action": "added", "fields": None}],
    }
    assert "\n" in response.text


@pytest.mark.parametrize("target", ["https://receiver.example", "HTTPS://Receiver.example:443/a/../b?é=%7e"])
async def test_the_target_is_echoed_byte_for_byte(edge: Edge, target: str) -> None:
    """Clients find their webhook by comparing (contract §3)."""
    assert (await edge.create(target=target))["target"] == target
    assert [webhook["target"] for webhook in await edge.ask("GET", LIST)] == [target]


async def test_what_is_unknown_in_data_is_ignored(edge: Edge) -> None:
    """Official samples put `opt_pretty` there; unknown field names are ignored too (contract §3, §12.28)."""
    data = {"resource": PROJECT, "target": TARGET, "opt_pretty": True, "nonsense": {"a": 1}}
    response = await edge.api("POST", "/webhooks?opt_fields=followers,assignee,offset,path,uri", data=data)
    assert response.status_code == 201
    assert set(response.json()["data"]) == {"gid"}


async def test_no_content_type_is_json(edge: Edge) -> None:
    """Contract §12.28."""
    body = f'{{"data":{{"resource":"{PROJECT}","target":"{TARGET}"}}}}'
    response = await edge.api("POST", "/webhooks", content=body.encode())
    assert "content-type" not in response.request.headers
    assert response.status_code == 201


async def test_two_equal_creates_shake_hands_once(edge: Edge) -> None:
    """The second waits for the first and gets 403: no receiver sees a second secret."""
    shaking = asyncio.Event()
    go_on = asyncio.Event()

    async def answer(delivery: Delivery) -> Reply:
        shaking.set()
        await go_on.wait()
        return await shake(delivery)

    edge.target = answer
    body = {"data": {"resource": PROJECT, "target": TARGET}}
    first = asyncio.create_task(edge.api("POST", "/webhooks", json=body))
    await shaking.wait()
    second = asyncio.create_task(edge.api("POST", "/webhooks", json=body))
    # Another target is not held up.
    edge.target = shake
    await edge.create(target=f"{TARGET}/other")
    go_on.set()
    assert (await first).status_code == 201
    refused = await second
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["gid"] == (await first).json()["data"]["gid"]
    assert [delivery.url for delivery in edge.posted].count(TARGET) == 1


async def test_after_a_failed_handshake_the_same_may_be_tried_again(edge: Edge) -> None:
    """A refused create leaves nothing behind, not even its reservation."""
    edge.target = answering(500)
    body = {"resource": PROJECT, "target": TARGET}
    assert (await edge.api("POST", "/webhooks", data=body)).status_code == 400
    edge.target = shake
    assert (await edge.api("POST", "/webhooks", data=body)).status_code == 201


async def test_the_same_by_another_owner_is_no_duplicate(edge: Edge) -> None:
    """Duplicate means the same user, app, resource and target bytes."""
    await edge.create()
    await edge.create(token=await edge.new_token(user="1", app="another"))
    await edge.create(token=await edge.new_token(user="2", app="default"))
    await edge.create(TASK)
    await edge.create(target=f"{TARGET}/")


async def test_quotas(opened: Opener) -> None:
    """A resource's counts every owner, an owner's every resource; what has ended counts no more."""
    edge = await opened(quota_per_resource=2, quota_per_owner=3)
    first = await edge.create()
    another = await edge.new_token()
    await edge.create(token=another)
    full = {"resource": PROJECT, "target": f"{TARGET}/2"}
    for token in (TOKEN, another):
        response = await edge.api("POST", "/webhooks", data=full, token=token)
        assert response.json()["errors"][0]["code"] == "quota_per_resource"
    await edge.create(TASK)
    await edge.create(OTHER_PROJECT)
    response = await edge.api("POST", "/webhooks", data={"resource": TASK, "target": f"{TARGET}/2"})
    assert response.json()["errors"][0]["code"] == "quota_per_owner"
    assert len(edge.posted) == 4, "a quota is judged before the handshake"
    await edge.ask("DELETE", f"/webhooks/{first['gid']}")
    await edge.ask("POST", "/webhooks", data=full)


async def test_a_create_finishes_although_its_caller_hangs_up(edge: Edge) -> None:
    """The receiver may have kept the secret already."""
    shaking = asyncio.Event()
    go_on = asyncio.Event()

    async def answer(delivery: Delivery) -> Reply:
        shaking.set()
        await go_on.wait()
        return await shake(delivery)

    edge.target = answer
    call = asyncio.create_task(edge.api("POST", "/webhooks", data={"resource": PROJECT, "target": TARGET}))
    await shaking.wait()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    go_on.set()
    async with asyncio.timeout(10):
        while not (found := await edge.ask("GET", LIST)):
            await asyncio.sleep(0)
    assert found[0]["target"] == TARGET


# -- reading, changing, ending ---------------------------------------------------------------------


async def test_get_gives_the_full_record(edge: Edge) -> None:
    """What the 201 gave, without the secret."""
    made = await edge.create()
    response = await edge.api("GET", f"/webhooks/{made['gid']}")
    assert response.status_code == 200
    assert response.json() == {"data": made}


async def test_put_replaces_the_filters_whole(edge: Edge) -> None:
    """Normalised to four keys; an empty array takes them all away."""
    made = await edge.create(filters=[{"action": "deleted"}, {"resource_type": "story"}])
    path = f"/webhooks/{made['gid']}"
    changed = await edge.ask(
        "PUT", path, data={"filters": [{"action": "changed", "fields": ["name", "notes"]}]}
    )
    assert changed == {
        **made,
        "filters": [
            {
                "resource_type": None,
                "resource_subtype": None,
                "action": "changed",
                "fields": ["name", "notes"],
            }
        ],
    }
    assert await edge.ask("GET", path) == changed
    assert (await edge.ask("PUT", path, data={"filters": []}))["filters"] == []


async def test_put_without_filters_is_refused(edge: Edge) -> None:
    """Silence is not an empty array."""
    made = await edge.create(filters=[{"action": "deleted"}])
    response = await edge.api("PUT", f"/webhooks/{made['gid']}", data={"target": "https://b.example"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"] == "You should specify one of filters"
    assert await edge.ask("GET", f"/webhooks/{made['gid']}") == made


@pytest.mark.parametrize(
    "request_", [{}, {"content": b"{}"}, {"content": b"resource=1", "headers": FORM}, {"content": b"\xff{"}]
)
async def test_delete_answers_an_empty_object(edge: Edge, request_: dict[str, Any]) -> None:
    """Whatever body came along; after it the webhook is unknown, and the same may be created again."""
    made = await edge.create()
    response = await edge.api("DELETE", f"/webhooks/{made['gid']}", **request_)
    assert (response.status_code, response.json()) == (200, {"data": {}})
    assert (await edge.api("GET", f"/webhooks/{made['gid']}")).status_code == 404
    assert (await edge.api("DELETE", f"/webhooks/{made['gid']}")).status_code == 404
    assert await edge.ask("GET", LIST) == []
    await edge.create()


async def test_a_failing_webhook_tells_so(edge: Edge) -> None:
    """Every field of the record that a failure moves, and every field it keeps (contract §6, §12.17, §12.18)."""
    made = await edge.create()
    edge.target = answering(500, body=b"Could not complete the request")
    edge.clock.turn(seconds=60)
    await edge.ask("POST", "/events", data=event(TASK))
    await edge.deliver()
    failed = await edge.ask("GET", f"/webhooks/{made['gid']}")
    assert failed == {
        **made,
        "last_failure_at": "2026-02-22T02:07:58.158Z",
        "last_failure_content": "500\n\nCould not complete the request",
        "delivery_retry_count": 0,
        "next_attempt_after": "2026-02-22T02:08:05.658Z",
        "failure_deletion_timestamp": "2026-02-23T02:07:58.158Z",
    }
    edge.clock.turn(seconds=10)
    await edge.deliver()
    assert (await edge.ask("GET", f"/webhooks/{made['gid']}"))["delivery_retry_count"] == 1
    edge.target = shake
    edge.clock.turn(seconds=60)
    await edge.deliver()
    healthy = await edge.ask("GET", f"/webhooks/{made['gid']}")
    assert healthy["last_failure_content"] == "500\n\nCould not complete the request"
    assert healthy["last_failure_at"] == "2026-02-22T02:08:08.158Z"
    assert healthy["last_success_at"] == "2026-02-22T02:09:08.158Z"
    for name in ("next_attempt_after", "failure_deletion_timestamp", "delivery_retry_count", "active"):
        assert healthy[name] == made[name]


async def test_a_webhook_whose_owner_lost_access_tells_so(edge: Edge) -> None:
    """`active` is false and the reason is given, until another token of the owner covers the workspace."""
    token = await edge.ask("POST", "/tokens", data={"user": USER, "app": "a", "workspaces": [WORKSPACE]})
    made = await edge.create(token=token["token"])
    await edge.ask("DELETE", f"/tokens/{token['gid']}")
    path = f"/webhooks/{made['gid']}"
    assert await edge.ask("GET", path) == {**made, "active": False, "inactive_reason": "access_lost"}
    await edge.new_token(app="a", workspaces=[OTHER_WORKSPACE])
    assert (await edge.ask("GET", path))["active"] is False
    await edge.new_token(app="a", workspaces=[WORKSPACE])
    assert await edge.ask("GET", path) == made


async def test_attempts_are_listed_newest_first_in_pages(edge: Edge) -> None:
    """What was tried, with an offset that leads on."""
    made = await edge.create()
    path = f"/webhooks/{made['gid']}/attempts"
    edge.target = answering(503, body=b"later")
    for _ in range(3):
        await edge.ask("POST", "/events", data=event(TASK))
        await edge.deliver()
        edge.clock.turn(seconds=3600)
    whole = (await edge.api("GET", path)).json()
    assert set(whole) == {"data", "next_page"}
    assert whole["next_page"] is None
    assert [entry["gid"] for entry in whole["data"]] == ["3", "2", "1"]
    assert whole["data"][2] == {
        "gid": "1",
        "resource_type": "attempt",
        "delivery": whole["data"][2]["delivery"],
        "created_at": CREATED_AT,
        "duration_ms": 0,
        "events": 1,
        "heartbeat": False,
        "status": 503,
        "result": "refused",
        "response": "later",
    }
    first = (await edge.api("GET", f"{path}?limit=2&opt_fields=status")).json()
    assert first == {
        "data": [{"gid": "3", "status": 503}, {"gid": "2", "status": 503}],
        "next_page": {
            "offset": "2",
            "path": f"{path}?limit=2&opt_fields=status&offset=2",
            "uri": f"http://{HOST}{API}{path}?limit=2&opt_fields=status&offset=2",
        },
    }
    last = (await edge.api("GET", first["next_page"]["uri"])).json()
    assert last == {"data": [{"gid": "1", "status": 503}], "next_page": None}
    full = (await edge.api("GET", f"{path}?limit=3")).json()
    assert full["next_page"] is None, "a full last page is the last"


# -- lists (contract §3) ---------------------------------------------------------------------------


async def test_a_list_is_compact_and_whole_by_default(edge: Edge) -> None:
    """No pages unless asked for, in the order of creation; this owner's in this workspace."""
    made = await edge.create_many(120)
    await edge.create(OTHER_PROJECT)
    response = await edge.api("GET", LIST)
    answer = response.json()
    assert set(answer) == {"data"}
    assert [entry["gid"] for entry in answer["data"]] == made
    assert answer["data"][0] == {
        "gid": made[0],
        "resource_type": "webhook",
        "active": True,
        "resource": {"gid": PROJECT, "resource_type": "project", "name": "Bugs"},
        "target": f"{TARGET}/0",
    }


async def test_a_list_of_one_resource(edge: Edge) -> None:
    """`resource` means that resource, not what lies below it."""
    await edge.create()
    on_task = await edge.create(TASK)
    found = await edge.ask("GET", f"{LIST}&resource={TASK}")
    assert [entry["gid"] for entry in found] == [on_task["gid"]]


async def follow(edge: Edge, path: str, *, by: str = "uri") -> list[list[str]]:
    """The gids of every page, followed by the uri (as n8n does), the path or the offset (as the SDKs do)."""
    pages = []
    following = path
    while True:
        answer = (await edge.api("GET", following)).json()
        pages.append([entry["gid"] for entry in answer["data"]])
        following_page = answer["next_page"]
        if following_page is None:
            return pages
        assert set(following_page) == {"offset", "path", "uri"}
        following = f"{path}&offset={following_page['offset']}" if by == "offset" else following_page[by]


@pytest.mark.parametrize("by", ["uri", "path", "offset"])
async def test_pages(edge: Edge, by: str) -> None:
    """With a limit `next_page` is an object, and null on the last page, also when that one is full."""
    made = await edge.create_many(4)
    assert await follow(edge, f"{LIST}&limit=2", by=by) == [made[:2], made[2:]]
    assert await follow(edge, f"{LIST}&limit=3", by=by) == [made[:3], made[3:]]
    assert await follow(edge, f"{LIST}&limit=100&opt_fields=target", by=by) == [made]


async def test_the_next_page_is_told_in_three_ways(edge: Edge) -> None:
    """The path is relative to the API's base, the uri absolute with our host (contract §3)."""
    await edge.create_many(2)
    following = (await edge.api("GET", f"{LIST}&limit=1&opt_fields=target%2Cactive")).json()["next_page"]
    query = f"workspace={WORKSPACE}&limit=1&opt_fields=target%2Cactive&offset={following['offset']}"
    assert following["path"] == f"/webhooks?{query}"
    assert following["uri"] == f"http://{HOST}/api/1.0/webhooks?{query}"


async def test_the_public_url_is_the_base_of_the_uri(opened: Opener) -> None:
    """Behind a proxy the request does not know the service's address."""
    edge = await opened(public_url="https://hooks.example/base")
    await edge.create_many(2)
    following = (await edge.api("GET", f"{LIST}&limit=1")).json()["next_page"]
    assert following["uri"] == f"https://hooks.example/base/api/1.0{following['path']}"


@pytest.mark.parametrize("host", ["[::1", "evil example", "evil.example/x?", "", "a:99999999", "a@b", "]["])
async def test_a_senseless_host_is_not_told_on(edge: Edge, host: str) -> None:
    """Then the uri carries the address the request came in on."""
    await edge.create_many(2)
    response = await edge.api("GET", f"{LIST}&limit=1", headers={"Host": host})
    assert response.json()["next_page"]["uri"].startswith(f"http://{HOST}/api/1.0/webhooks?")


async def test_an_offset_belongs_to_its_query(edge: Edge) -> None:
    """Another workspace, another resource, another owner: not issued for it."""
    await edge.create_many(2)
    await edge.create(OTHER_PROJECT)
    offset = (await edge.api("GET", f"{LIST}&limit=1")).json()["next_page"]["offset"]
    assert (await edge.api("GET", f"{LIST}&limit=1&offset={offset}")).status_code == 200
    another = await edge.new_token()
    for path, token in (
        (f"/webhooks?workspace={OTHER_WORKSPACE}&limit=1&offset={offset}", TOKEN),
        (f"{LIST}&resource={PROJECT}&limit=1&offset={offset}", TOKEN),
        (f"{LIST}&limit=1&offset={offset}", another),
        (f"{LIST}&limit=1&offset={offset[:-2]}AA", TOKEN),
    ):
        response = await edge.api("GET", path, token=token)
        assert response.status_code == 400, path
        assert response.json()["errors"][0]["message"] == "offset: Your pagination token is invalid."


async def test_pages_are_stable_under_creates_and_deletes(edge: Edge) -> None:
    """What was there all along is listed once (contract §12.12)."""
    made = await edge.create_many(6)
    first = (await edge.api("GET", f"{LIST}&limit=2")).json()
    await edge.ask("DELETE", f"/webhooks/{made[0]}")
    await edge.ask("DELETE", f"/webhooks/{made[3]}")
    late = (await edge.create())["gid"]
    second = (await edge.api("GET", first["next_page"]["uri"])).json()
    third = (await edge.api("GET", second["next_page"]["uri"])).json()
    assert [[entry["gid"] for entry in page["data"]] for page in (second, third)] == [
        [made[2], made[4]],
        [made[5], late],
    ]


# -- opt_fields and opt_pretty ---------------------------------------------------------------------

FIELDS: Final[tuple[tuple[str, set[str]], ...]] = (
    ("", set()),
    ("gid", set()),
    ("target", {"target"}),
    ("this.target, active ", {"target", "active"}),
    ("nonsense,offset,path,uri", set()),
    ("(target|active)", {"target", "active"}),
    ("resource", {"resource"}),
    ("filters", {"filters"}),
    ("filters.action,filters.fields,filters.resource_subtype", {"filters"}),
    ("last_failure_content,delivery_retry_count", {"last_failure_content", "delivery_retry_count"}),
)


@pytest.mark.parametrize(("fields", "expected"), FIELDS)
async def test_exactly_the_named_fields_and_the_gid(edge: Edge, fields: str, expected: set[str]) -> None:
    """On every call that answers with a record."""
    made = await edge.create(filters=[{"action": "added"}])
    path, query = f"/webhooks/{made['gid']}", {"opt_fields": fields}
    answers = [
        await edge.ask("GET", path, params=query),
        (await edge.ask("GET", "/webhooks", params={"workspace": WORKSPACE, **query}))[0],
        await edge.ask("PUT", path, data={"filters": [{"action": "added"}]}, params=query),
        await edge.ask(
            "PUT", path, json={"data": {"filters": [{"action": "added"}]}, "options": {"fields": [fields]}}
        ),
    ]
    # A list is told in one text, so a comma within an entry of an array is part of a name.
    for answer in answers if "," not in fields else answers[:3]:
        assert set(answer) == expected | {"gid"}
        assert answer["gid"] == made["gid"]


@pytest.mark.parametrize(
    ("fields", "resource"),
    [
        ("resource", {"gid": PROJECT, "resource_type": "project", "name": "Bugs"}),
        ("resource.name", {"gid": PROJECT, "name": "Bugs"}),
        ("this.resource.(name|resource_type)", {"gid": PROJECT, "resource_type": "project", "name": "Bugs"}),
        ("resource.gid", {"gid": PROJECT}),
        ("resource.nonsense", {"gid": PROJECT}),
    ],
)
async def test_fields_of_an_object(edge: Edge, fields: str, resource: dict[str, str]) -> None:
    """An object alone is its compact form; with a path, what the path names and the gid."""
    made = await edge.create()
    answer = await edge.ask("GET", f"/webhooks/{made['gid']}", params={"opt_fields": fields})
    assert answer["resource"] == resource


async def test_fields_of_filters(edge: Edge) -> None:
    """Filters have no gid, and get none."""
    made = await edge.create(filters=[{"action": "changed", "fields": ["name"]}, {"action": "added"}])
    answer = await edge.ask(
        "GET", f"/webhooks/{made['gid']}", params={"opt_fields": "filters.action,filters.fields"}
    )
    assert answer["filters"] == [
        {"action": "changed", "fields": ["name"]},
        {"action": "added", "fields": None},
    ]


@pytest.mark.parametrize(
    ("query", "pretty"),
    [
        ("opt_pretty", True),
        ("opt_pretty=true", True),
        ("opt_pretty=TRUE", True),
        ("opt_pretty=1", True),
        ("opt_pretty=false", False),
        ("opt_pretty=0", False),
        ("", False),
    ],
)
async def test_pretty(edge: Edge, query: str, pretty: bool) -> None:
    """Two spaces and line ends where asked for; the same content."""
    made = await edge.create()
    response = await edge.api("GET", f"/webhooks/{made['gid']}?{query}")
    assert response.json() == {"data": made}
    assert ('\n  "data"' in response.text) is pretty


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/webhooks?opt_fields=" + ",".join(f"f{number}" for number in range(201)), {}),
        ("/webhooks?opt_fields=a.b.c.d.e.f.g.h.i", {}),
        ("/webhooks", {"options": {"fields": ["(" + "|".join(f"f{number}" for number in range(201)) + ")"]}}),
        ("/webhooks", {"options": {"fields": [".".join("abcdefghi")]}}),
    ],
    ids=["many", "deep", "a wide group", "deep in the body"],
)
async def test_too_many_fields_are_refused_before_anything_is_done(
    edge: Edge, path: str, more: dict[str, Any]
) -> None:
    """No webhook is made whose answer cannot be given."""
    before = edge.dump()
    response = await edge.api("POST", path, json={"data": {"resource": PROJECT, "target": TARGET}, **more})
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"].startswith("opt_fields: at most ")
    assert edge.posted == []
    assert edge.dump() == before


# -- routes, authentication, headers (contract §2.1, §12.27) ---------------------------------------


async def unread() -> AsyncIterator[bytes]:
    """A body that must not be asked for."""
    pytest.fail("the body was read")
    yield b""  # type: ignore[unreachable]  # what makes this a generator


ROUTES: Final = (
    ("POST", "/webhooks"),
    ("GET", "/webhooks"),
    ("GET", "/webhooks/1"),
    ("PUT", "/webhooks/1"),
    ("DELETE", "/webhooks/1"),
    ("GET", "/webhooks/1/attempts"),
    ("POST", "/events"),
    ("POST", "/resources"),
    ("PUT", "/resources/1"),
    ("GET", "/resources/1"),
    ("DELETE", "/resources/1"),
    ("POST", "/tokens"),
    ("GET", "/tokens"),
    ("DELETE", "/tokens/1"),
)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/webhooks/"),
        ("GET", "/webhooks/1/2"),
        ("GET", f"{ROOT}/"),
        ("GET", f"{ROOT}/webhooks"),
        ("GET", f"{ROOT}/api/1.1/webhooks"),
        ("PATCH", "/webhooks"),
        ("PATCH", "/webhooks/1"),
        ("DELETE", "/webhooks"),
        ("PUT", "/webhooks"),
        ("POST", "/webhooks/1"),
        ("OPTIONS", "/webhooks"),
        ("TRACE", "/webhooks"),
        ("BREW", "/webhooks"),
        ("POST", f"{ROOT}/healthz"),
    ],
)
@pytest.mark.parametrize("token", [None, "bogus", TOKEN])
async def test_routing_comes_first(edge: Edge, method: str, path: str, token: str | None) -> None:
    """An unknown path or method is 404 for everybody, never 405."""
    response = await edge.api(method, path, token=token, content=b"not json")
    assert response.status_code == 404
    assert response.json() == {
        "errors": [{"message": "No matching route for request", "help": HELP, "code": "no_route"}]
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer bogus",
        "Basic MDox",
        TOKEN,
        "Bearer " + "x" * 300,
        "Bearer \xff",
    ],
)
async def test_no_token_and_a_bogus_one_are_alike(
    edge: Edge, method: str, path: str, authorization: str | None
) -> None:
    """401 with the one body, before a body is read."""
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    content = unread() if method in ("POST", "PUT") else None
    response = await edge.client.request(method, API + path, headers=headers, content=content)
    assert (response.status_code, response.json()) == (401, NOT_AUTHORIZED)


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER   {} "])
async def test_the_scheme_in_any_case(edge: Edge, spelling: str) -> None:
    """RFC 9110 §11.1."""
    response = await edge.api("GET", LIST, headers={"Authorization": spelling.format(TOKEN)}, token=None)
    assert response.status_code == 200


async def test_a_token_expires_and_is_revoked(edge: Edge) -> None:
    """From that moment it is as unknown as any other."""
    at = "2026-02-22T03:06:58.158Z"
    expiring = await edge.new_token(expires_at=at)
    revoked = await edge.ask("POST", "/tokens", data={"user": USER, "app": "gone"})
    assert (await edge.api("GET", LIST, token=revoked["token"])).status_code == 200
    await edge.ask("DELETE", f"/tokens/{revoked['gid']}")
    assert (await edge.api("GET", LIST, token=revoked["token"])).json() == NOT_AUTHORIZED
    edge.clock.turn(seconds=3600 - 0.001)
    assert (await edge.api("GET", LIST, token=expiring)).status_code == 200
    edge.clock.turn(seconds=0.001)
    assert (await edge.api("GET", LIST, token=expiring)).json() == NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", LIST, 200),
        ("GET", "/webhooks", 400),
        ("GET", "/webhooks/1", 404),
        ("GET", "/nothing", 404),
        ("GET", f"{ROOT}/healthz", 200),
        ("GET", f"{ROOT}/openapi.json", 200),
    ],
)
async def test_headers_of_every_answer(edge: Edge, method: str, path: str, status: int) -> None:
    """As recorded, errors included."""
    response = await edge.api(method, path)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Asana-Api-Version"] == "1.1"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Location" not in response.headers


# -- the rate limit (contract §8) ------------------------------------------------------------------


async def test_1500_calls_a_minute(edge: Edge) -> None:
    """Then 429 with `Retry-After`, for this token alone, until time has passed."""
    path = "/webhooks/9999"
    another = await edge.new_token()
    for _ in range(1500):
        assert (await edge.api("GET", path)).status_code == 404
    response = await edge.api("GET", path)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    assert response.json()["errors"][0]["code"] == "rate_limited"
    assert (await edge.api("GET", path, token=another)).status_code == 404
    edge.clock.turn(seconds=1)
    assert [(await edge.api("GET", path)).status_code for _ in range(26)] == [404] * 25 + [429]


async def test_only_asanas_own_calls_are_metered(opened: Opener) -> None:
    """Publishing and operating go on when the limit is used up; a call without a token counts for nobody."""
    edge = await opened(rate_limit=2)
    for method, path in ROUTES[:5]:
        assert (await edge.api(method, path, token="bogus")).status_code == 401
    assert (await edge.api("GET", LIST)).status_code == 200
    assert (await edge.api("POST", "/webhooks", content=b"{")).status_code == 400
    for method, path in ROUTES[:5]:
        assert (await edge.api(method, path)).status_code == 429
    for method, path in ROUTES[5:]:
        assert (await edge.api(method, path)).status_code != 429
    await edge.ask("POST", "/events", data=event(TASK))


async def test_no_rate_limit(opened: Opener) -> None:
    """0 turns it off."""
    edge = await opened(rate_limit=0)
    for _ in range(20):
        await edge.ask("GET", LIST)


# -- who may do what -------------------------------------------------------------------------------


async def test_another_owners_webhook_is_unknown(edge: Edge) -> None:
    """To read, change or end; another app of the same user is another owner too."""
    made = await edge.create()
    before = edge.dump()
    other_user = await edge.new_token(user="4711", app="default", scopes=SCOPES[:-1])
    other_app = await edge.new_token(user="1", app="another", scopes=SCOPES[:-1])
    unknown = {"message": f"webhook: Unknown object: {made['gid']}", "help": HELP, "code": "unknown_object"}
    for token in (other_user, other_app):
        for method, path, data in (
            ("GET", "", None),
            ("PUT", "", {"filters": []}),
            ("DELETE", "", None),
            ("GET", "/attempts", None),
        ):
            response = await edge.api(method, f"/webhooks/{made['gid']}{path}", data=data, token=token)
            assert (response.status_code, response.json()["errors"]) == (404, [unknown])
        assert await edge.ask("GET", LIST, token=token) == []
    assert edge.dump()["webhooks"] == before["webhooks"]


async def test_admin_may_read_anothers(edge: Edge) -> None:
    """Read, not change; not even `admin` sees a workspace its token does not name."""
    made = await edge.create()
    admin = await edge.new_token(scopes=SCOPES)
    path = f"/webhooks/{made['gid']}"
    assert await edge.ask("GET", path, token=admin) == made
    assert await edge.ask("GET", f"{path}/attempts", token=admin) == []
    for method, data in (("PUT", {"filters": []}), ("DELETE", None)):
        assert (await edge.api(method, path, data=data, token=admin)).status_code == 404
    elsewhere = await edge.new_token(scopes=SCOPES, workspaces=[OTHER_WORKSPACE])
    response = await edge.api("GET", path, token=elsewhere)
    assert response.status_code == 403
    assert response.json()["errors"][0]["message"] == "You do not have access to this project."


async def test_a_token_without_the_workspace_does_nothing_there(edge: Edge) -> None:
    """Not even to a webhook its owner made with another token."""
    made = await edge.ask("POST", "/webhooks", data={"resource": PROJECT, "target": TARGET})
    narrow = await edge.new_token(user="1", app="default", workspaces=[OTHER_WORKSPACE])
    before = edge.dump()
    for method, path, data in (
        ("GET", f"/webhooks/{made['gid']}", None),
        ("PUT", f"/webhooks/{made['gid']}", {"filters": []}),
        ("DELETE", f"/webhooks/{made['gid']}", None),
        ("GET", f"/webhooks/{made['gid']}/attempts", None),
        ("GET", f"/resources/{PROJECT}", None),
        ("DELETE", f"/resources/{PROJECT}", None),
        ("PUT", f"/resources/{PROJECT}", {"resource_type": "project", "parents": [OTHER_WORKSPACE]}),
        ("POST", "/resources", [{"gid": "7", "resource_type": "task", "parents": [PROJECT]}]),
        ("POST", "/resources", [{"gid": "8", "resource_type": "workspace"}]),
        ("POST", "/events", event(PROJECT)),
    ):
        response = await edge.api(method, path, data=data, token=narrow)
        assert response.status_code == 403, (method, path, response.text)
        assert response.json()["errors"][0]["code"] == "no_access"
    assert edge.dump() == before


async def test_an_admin_of_some_workspaces_gives_no_more_than_it_has(edge: Edge) -> None:
    """It makes, sees and revokes tokens within its own workspaces."""
    narrow = await edge.new_token(scopes=SCOPES, workspaces=[OTHER_WORKSPACE])
    before = edge.dump()
    for workspaces in (None, [WORKSPACE], [WORKSPACE, OTHER_WORKSPACE]):
        data = {"user": USER, "workspaces": workspaces}
        assert (await edge.api("POST", "/tokens", data=data, token=narrow)).status_code == 403
    owners = next(token for token in await edge.ask("GET", "/tokens") if token["workspaces"] is None)
    assert (await edge.api("DELETE", f"/tokens/{owners['gid']}", token=narrow)).status_code == 404
    assert edge.dump() == before
    made = await edge.ask(
        "POST", "/tokens", data={"user": USER, "workspaces": [OTHER_WORKSPACE]}, token=narrow
    )
    seen = await edge.ask("GET", "/tokens", token=narrow)
    assert {token["gid"] for token in seen} == {
        token["gid"] for token in await edge.ask("GET", "/tokens") if token["workspaces"] is not None
    }
    await edge.ask("DELETE", f"/tokens/{made['gid']}", token=narrow)


async def test_a_token_is_told_once(edge: Edge) -> None:
    """The record of a token shows how it begins, never all of it; without scopes it has all but `admin`."""
    made = await edge.ask("POST", "/tokens", data={"user": USER, "user_name": "Greg", "app": "a"})
    text = made.pop("token")
    assert made == {
        "gid": made["gid"],
        "resource_type": "token",
        "prefix": text[:8],
        "user": {"gid": USER, "resource_type": "user", "name": "Greg"},
        "app": "a",
        "scopes": sorted(SCOPES[:-1]),
        "workspaces": None,
        "created_at": CREATED_AT,
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
    }
    listed = await edge.api("GET", "/tokens")
    assert made in listed.json()["data"]
    assert text not in listed.text
