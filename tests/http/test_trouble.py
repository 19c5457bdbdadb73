"""What the edge says when something is wrong with the service itself, or with the way a request arrives."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing

import httpx
import pytest

from tests.http.edge import ROOT, TARGET, Edge, Opener, gather, shake
from tests.http.test_calls import LIST, unread
from tests.http.test_refusals import HELP
from tests.serving import PROJECT, TASK, event
from tidings.model import Delivery, Reply
from tidings.service.publishing import WAITING_MAX
from tidings.service.webhooks import HANDSHAKES_MAX, OWNER_HANDSHAKES_MAX
from tidings.store.sqlite.writer import GROUP_MAX
from tidings.web import calls as web_calls


async def test_a_mistake_of_ours_carries_a_phrase_that_finds_its_log_line(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """500 tells nothing of what happened; the log line tells all of it (contract §2.1)."""

    async def raise_(delivery: Delivery) -> Reply:
        raise RuntimeError("a secret detail")

    edge.target = raise_
    before = edge.dump()
    with caplog.at_level(logging.ERROR):
        response = await edge.api("POST", "/webhooks", data={"resource": PROJECT, "target": TARGET})
    assert response.status_code == 500
    (error,) = response.json()["errors"]
    phrase = error.pop("phrase")
    assert error == {"message": "Server Error", "help": HELP, "code": "server_error"}
    (record,) = caplog.records
    assert phrase in record.getMessage()
    assert record.exc_info is not None
    assert "a secret detail" in caplog.text
    assert "a secret detail" not in response.text
    assert edge.dump() == before
    edge.target = shake
    assert (await edge.create())["active"] is True, "the failed create holds nothing"


async def test_a_store_that_refuses_accepts_nothing(edge: Edge) -> None:
    """503 with `Retry-After`; once the database takes rows again, so does the service."""
    with closing(sqlite3.connect(edge.path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(FAIL, 'no room'); END"
        )
    before = edge.dump()
    described = {"gid": "7", "resource_type": "task", "parents": [PROJECT]}
    response = await edge.api(
        "POST", "/events", data=[event(described), event(TASK)], headers={"Idempotency-Key": "one"}
    )
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json() == {
        "errors": [
            {
                "message": "The service cannot reach its database. Nothing was accepted; please try again.",
                "help": HELP,
                "code": "store_unavailable",
            }
        ]
    }
    assert edge.dump() == before
    with closing(sqlite3.connect(edge.path)) as connection, connection:
        connection.execute("DROP TRIGGER full")
    connection.close()
    accepted = await edge.ask(
        "POST", "/events", data=[event(described), event(TASK)], headers={"Idempotency-Key": "one"}
    )
    assert accepted == {"accepted": 2, "last": "2"}


async def test_a_store_that_is_gone(edge: Edge) -> None:
    """Every call is 503; alive, but not ready."""
    await edge.store.close()
    for method, path in (("GET", LIST), ("POST", "/events"), ("GET", "/tokens"), ("DELETE", "/webhooks/1")):
        response = await edge.api(method, path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert (await edge.api("GET", f"{ROOT}/healthz")).status_code == 200
    response = await edge.api("GET", f"{ROOT}/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "troubles": ["the database cannot be reached"]}


async def test_a_service_that_cannot_keep_up(edge: Edge) -> None:
    """Publishers beyond what may wait are sent away at once, with nothing accepted; the others are served."""
    await edge.ask("GET", "/webhooks?workspace=1331")
    another = sqlite3.connect(edge.path, isolation_level=None)
    another.execute("BEGIN IMMEDIATE")
    # Some are in the writer's hands already, and do not wait any more.
    count = GROUP_MAX + WAITING_MAX + 10
    calls = [asyncio.create_task(edge.api("POST", "/events", data=event(TASK))) for _ in range(count)]
    try:
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        first = done.pop().result()
    finally:
        another.execute("COMMIT")
        another.close()
    assert (first.status_code, first.headers["Retry-After"]) == (429, "1")
    assert first.json()["errors"][0]["code"] == "overloaded"
    statuses = Counter([(await call).status_code for call in calls])
    assert set(statuses) == {201, 429}
    assert len(edge.dump()["events"]) == statuses[201]


async def test_more_handshakes_than_may_be_under_way(edge: Edge) -> None:
    """One too many is sent away; the others go on."""
    go_on = asyncio.Event()

    async def answer(delivery: Delivery) -> Reply:
        await go_on.wait()
        return await shake(delivery)

    edge.target = answer
    tokens = [
        await edge.new_token(app=str(number)) for number in range(HANDSHAKES_MAX // OWNER_HANDSHAKES_MAX + 1)
    ]
    calls = [
        asyncio.create_task(
            edge.api(
                "POST",
                "/webhooks",
                data={"resource": PROJECT, "target": f"{TARGET}/{number}"},
                token=tokens[number // OWNER_HANDSHAKES_MAX],
            )
        )
        for number in range(HANDSHAKES_MAX + 1)
    ]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    (refused,) = done
    response = refused.result()
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    go_on.set()
    assert Counter([(await call).status_code for call in calls]) == {201: HANDSHAKES_MAX, 429: 1}


async def test_more_handshakes_than_one_owner_may_have_under_way(edge: Edge) -> None:
    """Those that queue behind an equal one count; other owners are not concerned."""
    go_on = asyncio.Event()

    async def answer(delivery: Delivery) -> Reply:
        await go_on.wait()
        return await shake(delivery)

    edge.target = answer
    another = await edge.new_token()
    body = {"resource": PROJECT, "target": TARGET}
    calls = [
        asyncio.create_task(edge.api("POST", "/webhooks", data=body)) for _ in range(OWNER_HANDSHAKES_MAX + 1)
    ]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    (refused,) = done
    assert (refused.result().status_code, refused.result().headers["Retry-After"]) == (429, "1")
    edge.target = shake
    assert (await edge.api("POST", "/webhooks", data=body, token=another)).status_code == 201
    go_on.set()
    statuses = Counter([(await call).status_code for call in calls])
    assert statuses == {201: 1, 403: OWNER_HANDSHAKES_MAX - 1, 429: 1}


async def test_health(edge: Edge) -> None:
    """No token needed."""
    for path in ("/healthz", "/readyz"):
        response = await edge.api("GET", ROOT + path, token=None)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_readiness_is_looked_at_once_for_all_who_ask(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again a second later: callers without a token cannot have the database written as often as they like."""
    checks = 0
    check = edge.store.check

    async def counted() -> None:
        nonlocal checks
        checks += 1
        await check()

    monkeypatch.setattr(edge.store, "check", counted)
    for seconds, looked in ((0, 1), (0.999, 1), (0.001, 2)):
        edge.clock.turn(seconds=seconds)
        answers = await gather(*(edge.api("GET", f"{ROOT}/readyz", token=None) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert checks == looked
    await edge.store.close()
    edge.clock.turn(seconds=1)
    assert (await edge.api("GET", f"{ROOT}/readyz", token=None)).status_code == 503


async def test_not_ready(opened: Opener) -> None:
    """A dispatcher that stands still, due work that waits: 503, and what it is."""
    edge = await opened(batch_max=1)
    await edge.create()
    await edge.ask("POST", "/events", data=[event(TASK), event(TASK)])
    await edge.service.dispatcher.run_once()
    edge.clock.turn(seconds=120)
    response = await edge.api("GET", f"{ROOT}/readyz", token=None)
    assert response.json()["troubles"] == ["the dispatcher has stood still for 120 s"]
    edge.clock.turn(seconds=1)
    response = await edge.api("GET", f"{ROOT}/readyz", token=None)
    assert response.status_code == 503
    assert response.json()["troubles"] == [
        "the dispatcher has stood still for 121 s",
        "due events have waited for 121 s",
    ]


async def test_idempotency(edge: Edge) -> None:
    """The same key with the same bytes answers the same and appends nothing, for a day and for this token."""
    headers = {"Idempotency-Key": "one"}
    body = {"data": [event(TASK), event(TASK)]}
    first = await edge.ask("POST", "/events", json=body, headers=headers)
    before = edge.dump()
    edge.clock.turn(seconds=24 * 3600 - 1)
    assert await edge.ask("POST", "/events", json=body, headers=headers) == first
    assert edge.dump() == before
    another = await edge.new_token()
    again = await edge.ask("POST", "/events", json=body, headers=headers, token=another)
    assert again == {"accepted": 2, "last": "4"}
    edge.clock.turn(seconds=1)
    assert await edge.ask("POST", "/events", json=body, headers=headers) == {"accepted": 2, "last": "6"}


@pytest.mark.parametrize("key", ["", "x" * 256, "\xff\x80", "a\tb"])
async def test_a_senseless_idempotency_key(edge: Edge, key: str) -> None:
    """1 to 255 printable characters."""
    before = edge.dump()
    response = await edge.api(
        "POST",
        "/events",
        data=event(TASK),
        headers={"Idempotency-Key": key.encode("latin-1")},  # type: ignore[dict-item]
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"] == (
        "Idempotency-Key: must have 1 to 255 printable characters"
    )
    assert edge.dump() == before


# -- bodies that do not come -----------------------------------------------------------------------


async def test_a_body_that_does_not_arrive_in_time(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """400, and the connection is not used again."""
    monkeypatch.setattr(web_calls, "BODY_SECONDS_MAX", 0.01)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    response = await edge.api("POST", "/webhooks", content=slowly())
    assert response.status_code == 400
    assert response.headers["Connection"] == "close"
    assert response.json()["errors"][0]["code"] == "incomplete"


async def test_who_asks_first_is_told_before_sending(edge: Edge) -> None:
    """`Expect: 100-continue`, as curl does with every larger body."""
    response = await edge.api(
        "POST",
        "/webhooks",
        content=unread(),
        headers={"Expect": "100-continue", "Content-Length": str(2 << 20)},
    )
    assert response.status_code == 413
    assert response.headers["Connection"] == "close"


# -- other origins (contract §12.29) ---------------------------------------------------------------

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-asana-client-lib",
}


def cors(response: httpx.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("access-control-")}


async def test_no_other_origin_by_default(edge: Edge) -> None:
    """Nothing is said to other origins."""
    assert not cors(await edge.api("GET", LIST, headers={"Origin": ORIGIN}))
    preflight = await edge.api("OPTIONS", "/webhooks", headers=PREFLIGHT, token=None)
    assert (preflight.status_code, cors(preflight)) == (404, set())


async def test_an_allowed_origin(opened: Opener) -> None:
    """The browser build of the official SDK may call, errors included; another origin may not."""
    edge = await opened(cors_origins=(ORIGIN,))
    preflight = await edge.api("OPTIONS", "/webhooks", headers=PREFLIGHT, token=None)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "x-asana-client-lib" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for token in ("bogus", None):
        refused = await edge.api("GET", LIST, headers={"Origin": ORIGIN}, token=token)
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    other = await edge.api("GET", LIST, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
