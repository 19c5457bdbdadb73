"""Equal creates: they queue, and what they wait for costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.engine.rig import PROJECT, TARGET, Between, Rig, until
from tidings.delivery import Policy
from tidings.errors import BadRequest, DuplicateWebhook, EqualCreate
from tidings.limits import LEASE_SLACK
from tidings.model import Answer, Delivery, Reply
from tidings.service import webhooks
from tidings.service.webhooks import Established, WebhookDesk
from tidings.store import Reservation
from tidings.wire.webhooks import CreateRequest

REQUEST = CreateRequest(resource=PROJECT, target=TARGET, filters=())


class Handshakes:
    """Answers each handshake as the next of `answers`, once the gate is open."""

    def __init__(self, *statuses: int) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self._statuses = list(statuses)

    async def post(self, delivery: Delivery) -> Reply:
        self.begun += 1
        await self.gate.wait()
        secret = dict(delivery.headers)["X-Hook-Secret"]
        return Answer(self._statuses.pop(0), "", (("x-hook-secret", secret),), b"")


class Asked(Between):
    """Counts how often the right to shake hands is asked for."""

    reserves = 0

    async def reserve(self, **named: Any) -> Reservation | None:
        self.reserves += 1
        return await self.inner.reserve(**named)


def desk_of(rig: Rig, asked: Asked, handshakes: Handshakes) -> WebhookDesk:
    desk = rig.make_desk()
    desk._store, desk._post = asked.as_store(), handshakes.post
    return desk


async def test_who_queues_within_a_process_asks_the_store_for_nothing(rig: Rig) -> None:
    """When it is its turn it shakes hands if the one before has failed, and is refused if it has not."""
    asked, handshakes = Asked(rig.store), Handshakes(500, 200)
    desk = desk_of(rig, asked, handshakes)
    creates = [asyncio.create_task(desk.establish(rig.caller, REQUEST)) for _ in range(10)]
    await until(lambda: handshakes.begun)
    for number in range(20):
        await rig.publish(str(number))
    assert (asked.reserves, handshakes.begun) == (1, 1)
    handshakes.gate.set()
    came_to = Counter(map(type, await asyncio.gather(*creates, return_exceptions=True)))
    assert came_to == {BadRequest: 1, Established: 1, DuplicateWebhook: 8}
    assert (asked.reserves, handshakes.begun) == (10, 2)


async def test_another_process_waits_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again and again."""
    monkeypatch.setattr(webhooks, "_QUEUE_SECONDS", 0.001)
    asked, handshakes = Asked(rig.store), Handshakes(200)
    first = asyncio.create_task(desk_of(rig, asked, handshakes).establish(rig.caller, REQUEST))
    await until(lambda: handshakes.begun)
    second = asyncio.create_task(desk_of(rig, asked, handshakes).establish(rig.caller, REQUEST))
    await until(lambda: asked.reserves >= 3)
    handshakes.gate.set()
    await first
    with pytest.raises(DuplicateWebhook):
        await second
    assert handshakes.begun == 1


async def test_hands_are_shaken_only_while_nobody_else_may(rig: Rig) -> None:
    """A process that stood still would tell its secret after another has told one, and established the webhook."""

    class Late(Asked):
        after = LEASE_SLACK + 1

        async def reserve(self, **named: Any) -> Reservation | None:
            reservation = await super().reserve(**named)
            rig.clock.turn(self.after)
            return reservation

    asked, handshakes = Late(rig.store), Handshakes(200)
    desk = desk_of(rig, asked, handshakes)
    with pytest.raises(EqualCreate):
        await desk.establish(rig.caller, REQUEST)
    assert handshakes.begun == 0
    # The right was given back.
    asked.after = LEASE_SLACK
    handshakes.gate.set()
    await desk.establish(rig.caller, REQUEST)


@pytest.mark.parametrize("other_process", [False, True], ids=["one process", "two processes"])
async def test_nobody_queues_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, other_process: bool
) -> None:
    monkeypatch.setattr(webhooks, "LEASE_SLACK", 0)
    monkeypatch.setattr(webhooks, "_QUEUE_SECONDS", 0.001)
    rig.policy = Policy(delivery_timeout=5_000)
    asked, handshakes = Asked(rig.store), Handshakes(200)
    desk = desk_of(rig, asked, handshakes)
    first = asyncio.create_task(desk.establish(rig.caller, REQUEST))
    await until(lambda: handshakes.begun)
    second = desk_of(rig, asked, handshakes) if other_process else desk
    with pytest.raises(EqualCreate):
        await second.establish(rig.caller, REQUEST)
    handshakes.gate.set()
    await first
