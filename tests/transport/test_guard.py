"""The guard where it counts: at a handshake, at a delivery and at a retry, no forbidden address is ever connected to.

The whole service but its process: the API, a SQLite file, the dispatcher, the sender, c-ares. Names are answered by a
name server of the test's own. 127.0.0.1 is allowed and 127.0.0.2 is not; at the same port of both a socket listens,
and what it accepts is counted: that of 127.0.0.2 never accepts anything, whatever a test does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.http.edge import Edge
from tests.serving import PROJECT, TASK, event
from tests.transport.conftest import RULES, MakeSender
from tests.transport.peers import SERVFAIL, Name, NameServer, Peer, Wire, listening
from tidings.model import Delivery, Reply
from tidings.transport import resolver

GOOD = "127.0.0.1"
BAD = "127.0.0.2"
NAME = "hook.test"


@dataclass
class Place:
    """The service, its name server, and the two sockets."""

    edge: Edge
    names: NameServer
    good: Peer
    bad: Peer

    @property
    def url(self) -> str:
        return self.good.url(host=NAME)

    async def fails_to_establish(self) -> str:
        """Ask for a webhook in vain; the error's message."""
        response = await self.edge.api("POST", "/webhooks", data={"resource": PROJECT, "target": self.url})
        assert response.status_code in (400, 403), response.text
        assert await self.edge.ask("GET", "/webhooks?workspace=1331") == []
        return str(response.json()["errors"][0]["message"])

    async def publish(self) -> None:
        await self.edge.ask("POST", "/events", data=[event(TASK, "changed")])

    async def record(self) -> Any:
        (webhook,) = await self.edge.ask("GET", "/webhooks?workspace=1331")
        return await self.edge.ask("GET", f"/webhooks/{webhook['gid']}")

    async def failure(self) -> str:
        """What the record says of the last failure."""
        return str((await self.record())["last_failure_content"])

    async def wait_for_the_retry(self) -> None:
        self.edge.clock.turn(seconds=3600)


async def shakes_hands(wire: Wire) -> None:
    """A receiver that closes after each answer, so that every delivery resolves its name anew."""
    head, _, _ = (await wire.request()).partition(b"\r\n\r\n")
    secret = next((line for line in head.split(b"\r\n") if line.startswith(b"X-Hook-Secret:")), b"X-None: 1")
    await wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n%b\r\n\r\n" % secret)


@pytest.fixture
async def place(make_sender: MakeSender, names: NameServer, tmp_path: Path) -> AsyncIterator[Place]:
    sender = make_sender()

    async def post(delivery: Delivery) -> Reply:
        return await sender.post(delivery)

    async with (
        listening(shakes_hands, host=GOOD) as good,
        listening(shakes_hands, host=BAD, port=good.port) as bad,
        Edge(tmp_path / "tidings.db", allow_targets=RULES.allowed) as edge,
    ):
        edge.target = post
        yield Place(edge, names, good, bad)
        assert bad.connections == 0, "a forbidden address was connected to"


@dataclass(frozen=True)
class Answers:
    """What the name server says of the name, and what is said of that."""

    name: Callable[[], Name]
    words: str


def says(*addresses: str, words: str = "The target's address is not allowed") -> Answers:
    return Answers(lambda: Name([addresses]), words)


ANSWERS = {
    "forbidden": says(BAD),
    "mixed, good first": says(GOOD, BAD),
    "mixed, bad first": says(BAD, GOOD),
    "mixed families": says(GOOD, "::ffff:127.0.0.2"),
    "mapped": says("::ffff:127.0.0.2"),
    "compatible": says("::127.0.0.2"),
    "NAT64": says("64:ff9b::7f00:2"),
    "6to4": says("2002:7f00:2::1"),
    "metadata": says("169.254.169.254"),
    "private": says("10.0.0.1"),
    "this network": says("0.0.0.0"),
    "no such name": Answers(lambda: Name((), rcode=3), "there is no such name"),
    "no address": Answers(lambda: Name([[]]), "the name has no address"),
    "server failure": Answers(lambda: Name((), rcode=SERVFAIL), "could not be resolved"),
    "slow": Answers(lambda: Name([[BAD]], when=asyncio.Event()), "the name servers did not answer"),
}
answers = pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)


@contextmanager
def giving_up(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> Iterator[None]:
    """Where no answer will come, do not wait for long."""
    with monkeypatch.context() as patched:
        if answers is ANSWERS["slow"]:
            patched.setattr(resolver, "LOOKUP_SECONDS_MAX", 0.3)
        yield


@answers
async def test_at_the_handshake(place: Place, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    place.names.zone[NAME] = answers.name()
    with giving_up(monkeypatch, answers):
        assert answers.words in await place.fails_to_establish()
    assert place.good.connections == 0


@answers
async def test_at_a_delivery_and_at_its_retry(
    place: Place, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.names.say(NAME, [GOOD])
    await place.edge.create(target=place.url)
    await place.publish()
    place.names.zone[NAME] = answers.name()
    with giving_up(monkeypatch, answers):
        for retries in range(2):
            await place.edge.deliver()
            assert answers.words in await place.failure()
            assert (await place.record())["delivery_retry_count"] == retries
            await place.wait_for_the_retry()
    assert place.good.connections == 1, "the handshake's alone"
    # Nothing was lost: when the name is good again, so is the webhook.
    place.names.say(NAME, [GOOD])
    await place.edge.deliver()
    assert place.good.connections == 2
    assert (await place.record())["next_attempt_after"] is None


async def test_a_name_that_answers_otherwise_each_time(place: Place) -> None:
    """Rebinding: the address that was judged is the one that is dialled, whatever the name says a moment later."""
    place.names.say(NAME, *([GOOD], [BAD]) * 50)
    await place.edge.create(target=place.url)
    for _ in range(10):
        await place.publish()
        await place.edge.deliver()
        asked = place.names.asked[NAME, 1]
        assert place.good.connections == (asked + 1) // 2, (
            "one for each good answer, and for none of the others"
        )
        await place.wait_for_the_retry()
    assert asked > 10


async def test_the_sockets_would_see_a_connection(make_sender: MakeSender, place: Place) -> None:
    """The counterpart: had the guard let it through, the socket at the forbidden address would have counted it."""
    _, writer = await asyncio.open_connection(BAD, place.bad.port)
    writer.close()
    await writer.wait_closed()
    while not place.bad.wires:
        await asyncio.sleep(0.002)
    place.bad.wires.clear()
