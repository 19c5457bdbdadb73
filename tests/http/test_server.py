"""The server's bounds on what a client may send before it has said anything, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tests.http.edge import Edge
from tests.http.raw import AUTHORIZED, SECONDS, Raw, exchange, read_answer, read_answers
from tidings.web import server

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def port(edge: Edge) -> AsyncIterator[int]:
    """Where the application of the edge is served."""
    listener = server.listen("127.0.0.1", 0)
    serving = server.make(edge.service.application)
    running = asyncio.create_task(serving.serve(sockets=[listener]))
    await serving.answering.wait()
    yield listener.getsockname()[1]
    serving.should_exit = True
    await running
    listener.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def ends(connection: socket.socket) -> bool:
    """Whether the other side closes without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begun", [b"", b"G", HEALTH, HEALTH + b"X: "])
async def test_a_head_that_is_late(port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """The connection ends, however far the head had come."""
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.05)

    def wait() -> bool:
        with connect(port) as connection:
            connection.sendall(begun)
            return ends(connection)

    assert await asyncio.to_thread(wait)


async def test_a_head_that_is_late_on_a_used_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each head has its own time."""

    def talk() -> bool:
        with connect(port) as connection:
            connection.sendall(HEALTH + b"\r\n")
            assert read_answer(connection, closes=False).status == 200
            monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.05)
            connection.sendall(HEALTH)
            return ends(connection)

    assert await asyncio.to_thread(talk)


async def test_an_idle_connection_is_not_a_late_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between requests the head's time does not run."""
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.05)
    connection = connect(port)
    with connection:
        for _ in range(2):
            connection.sendall(HEALTH + b"\r\n")
            assert (await asyncio.to_thread(read_answer, connection, closes=False)).status == 200
            await asyncio.sleep(0.1)  # what is waited for is that nothing happens


async def test_more_connections_than_the_service_holds(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with `Retry-After` in the words of the API; room again once one has gone."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)

    def crowd() -> tuple[Raw, Raw]:
        with connect(port) as first:
            first.sendall(HEALTH + b"\r\n")
            assert read_answer(first, closes=False).status == 200
            refused = exchange(port, HEALTH + b"\r\n")
            first.sendall(HEALTH + b"\r\n")
            return refused, read_answer(first, closes=False)

    refused, served = await asyncio.to_thread(crowd)
    assert (refused.status, refused.headers["retry-after"], refused.closed) == (503, "1", True)
    assert refused.json()["errors"][0]["code"] == "overloaded"
    assert served.status == 200


@pytest.mark.parametrize("seconds", [60.0, 0.05])
async def test_the_endless_body_of_a_refused_request(
    port: int, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Who was refused and goes on sending is cut off: after so many bytes, and after so long."""
    monkeypatch.setattr(server, "DISCARDED_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(server, "BODY_SECONDS_MAX", seconds)

    def talk() -> tuple[int, bool]:
        with connect(port) as connection:
            head = b"POST /api/1.0/webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
            connection.sendall(head)
            refused = read_answer(connection, closes=False)
            if seconds < 1:
                return refused.status, ends(connection)
            try:
                for _ in range(1000):
                    connection.sendall(bytes(1 << 16))
            except (BrokenPipeError, ConnectionResetError):
                return refused.status, True
            return refused.status, False

    assert await asyncio.to_thread(talk) == (401, True)


async def test_a_body_that_is_late(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """400, and the connection ends."""
    monkeypatch.setattr("tidings.web.calls.BODY_SECONDS_MAX", 0.05)
    request = b"POST /api/1.0/webhooks HTTP/1.1\r\n" + AUTHORIZED + b"Content-Length: 10\r\n\r\n{"
    answer = await asyncio.to_thread(
        exchange, port, request.replace(b"0/test-token-of-the-owner", b"0/token-of-the-edge")
    )
    assert (answer.status, answer.json()["errors"][0]["code"], answer.closed) == (400, "incomplete", True)


async def test_a_caller_that_hangs_up_within_its_body(port: int, edge: Edge) -> None:
    """Nothing is done, and nothing goes wrong."""
    before = edge.dump()

    def talk() -> None:
        with connect(port) as connection:
            connection.sendall(
                b"POST /api/1.0/resources HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0/token-of-the-edge\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
        assert exchange(port, HEALTH + b"Connection: close\r\n\r\n").status == 200

    await asyncio.to_thread(talk)
    assert edge.dump() == before


async def test_requests_in_one_piece(port: int) -> None:
    """Pipelined requests are answered in order, an offer of another protocol among them."""

    def talk() -> list[int]:
        offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        with connect(port) as connection:
            connection.sendall(
                HEALTH + b"\r\n" + HEALTH + offer + b"\r\n" + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            with connection.makefile("rb") as file:
                return [answer.status for answer in read_answers(file, 3)]

    assert await asyncio.to_thread(talk) == [200, 200, 404]


async def test_a_large_body_before_the_next_head(port: int) -> None:
    """Where a head begins within a piece, what lies before it is not counted as the head's."""

    def talk() -> int:
        with connect(port) as connection:
            head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head + bytes(100_000) + HEALTH[:20])
            assert read_answer(connection, closes=False).status == 404
            connection.sendall(HEALTH[20:] + b"\r\n")
            return read_answer(connection, closes=False).status

    assert await asyncio.to_thread(talk) == 200
