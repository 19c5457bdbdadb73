"""Every test here runs on asyncio's own loop and on uvloop; what it opens is closed and counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Protocol

import pytest
import trustme
import uvloop

from tests.transport.certificates import Authorities
from tests.transport.peers import NameServer, serving_names
from tidings.model import Answer, Delivery, NoAnswer, Reply, Trouble
from tidings.targets import Rules
from tidings.transport import AresLookup, CachingResolver, Sender, SenderSettings

# One loopback address and no other: 127.0.0.2 stands for everything that is forbidden.
RULES = Rules(allowed=(ip_network("127.0.0.1/32"), ip_network("::1/128")))

# Deadlines of deliveries here. Long ones end early; only tests of the deadline itself wait for a short one.
# A short one is long beside the moments in which a shared machine does something else: what is told is how far a
# delivery had come when it ran out.
LONG = 15_000_000
SHORT = 400_000

# How much longer than its deadline a delivery may take on a slow machine before it counts as unbounded.
SLACK_SECONDS = 10.0


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with serving_names() as server:
        yield server


class MakeSender(Protocol):
    def __call__(self, **settings: object) -> Sender: ...


@pytest.fixture
async def resolver(names: NameServer) -> AsyncIterator[CachingResolver]:
    """Asks the test's own name server, and believes nothing for longer than it is told to."""
    resolver = CachingResolver(AresLookup([names.address]), ttl_min=0, negative_ttl=0)
    yield resolver
    await resolver.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def authorities(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities.beside(authority, tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def make_sender(resolver: CachingResolver, bundle: Path) -> AsyncIterator[MakeSender]:
    """Makes senders that reach 127.0.0.1 and ::1 only, trust the test's own authority (much faster to load than
    the system's), and are closed without leaving a connection."""
    defaults = SenderSettings(rules=RULES, ca_bundle=bundle)
    async with AsyncExitStack() as stack:

        def make(**settings: object) -> Sender:
            sender = Sender(replace(defaults, **settings), resolver)  # type: ignore[arg-type] # checked by the dataclass
            stack.push_async_callback(close_and_check, sender)
            return sender

        yield make


async def close_and_check(sender: Sender) -> None:
    await sender.close()
    assert sender.open_connections == 0
    assert sender.idle_connections == 0
    # Aborted transports close their sockets in the loop's next turns.
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
async def sender(make_sender: MakeSender) -> Sender:
    return make_sender()


def delivery(url: str, *, body: bytes = b"{}", timeout: int = LONG) -> Delivery:
    return Delivery(url, (("Content-Type", "application/json"), ("X-Hook-Secret", "s3cret")), body, timeout)


async def post(sender: Sender, url: str, *, body: bytes = b"{}", timeout: int = LONG) -> Reply:
    """Post, and see to it that the deadline was kept."""
    begun = time.perf_counter()
    reply = await sender.post(delivery(url, body=body, timeout=timeout))
    assert time.perf_counter() - begun < timeout / 1_000_000 + SLACK_SECONDS
    return reply


def answer(reply: Reply) -> Answer:
    assert isinstance(reply, Answer), reply
    return reply


def trouble(reply: Reply, expected: Trouble, *words: str, ours: bool = False) -> NoAnswer:
    """The reply is this trouble, whoever's fault, and its text holds these words."""
    assert isinstance(reply, NoAnswer), reply
    assert reply.trouble is expected, reply
    assert reply.ours is ours, reply
    for word in words:
        assert word in reply.text, reply
    assert reply.text.isprintable()
    return reply


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that will be so soon."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)
