"""The store stops taking records: they wait, claiming pauses, nothing is sent twice; then all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.engine.rig import FAILED, OK, Between, Rig, names, running, until
from tidings.dispatcher import recorder
from tidings.errors import StoreUnavailable


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look after a failing store every few milliseconds instead of every second."""
    monkeypatch.setattr(recorder, "STORE_PAUSE_SECONDS", 0.005)
    yield


async def test_records_wait_and_nothing_is_claimed_meanwhile(rig: Rig) -> None:
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    webhooks = [await rig.establish(f"http://host{number}.example/") for number in range(5)]
    async with running(dispatcher):
        between.failing = StoreUnavailable("the disk is full")
        await rig.publish(*names(150))
        dispatcher.wake()
        await until(lambda: between.failed_records >= 20)
        assert len(rig.target.posts) == 5
        claims = between.claims
        await rig.publish("more")
        dispatcher.wake()
        failed = between.failed_records
        await until(lambda: between.failed_records >= failed + 20)
        assert between.claims == claims
        assert dispatcher.in_flight == 5
        assert len(rig.target.posts) == 5
        between.failing = None
        await until(lambda: len(rig.target.names()) == 5 * 151)
    for webhook in webhooks:
        assert rig.target.names(webhook) == [*names(150), "more"]
        assert [entry.attempt.events for entry in await rig.attempts(webhook)] == [1, 50, 100]


async def test_a_drain_waits_for_the_records(rig: Rig) -> None:
    """What the network has seen is written before the process ends."""
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    webhook = await rig.establish()
    async with running(dispatcher) as task:
        between.failing = StoreUnavailable("the disk is full")
        await rig.publish("a")
        dispatcher.wake()
        await until(lambda: between.failed_records)
        dispatcher.drain()
        failed = between.failed_records
        await until(lambda: between.failed_records >= failed + 10)
        assert not task.done()
        between.failing = None
        await until(task.done)
    assert (await rig.attempts(webhook))[0].attempt.result == "delivered"
    again = rig.make_dispatcher()
    assert await again.run_once() == 0


async def test_a_store_that_cannot_be_claimed_from_is_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost by it; the dispatcher lives on."""
    between = Between(rig.store)
    monkeypatch.setattr("tidings.dispatcher.STORE_PAUSE_SECONDS", 0.005)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    webhook = await rig.establish()
    async with running(dispatcher):
        between.refusing_claims = StoreUnavailable("the database is locked")
        await rig.publish("a")
        dispatcher.wake()
        claims = between.claims
        await until(lambda: between.claims >= claims + 5)
        assert rig.target.posts == []
        between.refusing_claims = None
        await until(lambda: rig.target.names(webhook) == ["a"])


async def test_a_drain_lets_what_is_in_flight_finish(rig: Rig) -> None:
    """No new delivery starts; the one under way is recorded; its lease is given back."""
    webhook = await rig.establish()
    rig.target.gate = asyncio.Event()
    async with running(rig.dispatcher) as task:
        await rig.publish(*names(150))
        rig.dispatcher.wake()
        await until(lambda: rig.target.posts)
        rig.dispatcher.drain()
        rig.dispatcher.wake()
        assert not task.done()
        rig.target.gate.set()
        await until(task.done)
    assert len(rig.target.posts) == 1
    assert [entry.attempt.events for entry in await rig.attempts(webhook)] == [100]
    rig.dispatcher = rig.make_dispatcher()
    await rig.settle_all()
    assert rig.target.names() == names(150)


async def test_what_is_claimed_as_the_drain_begins_is_not_started(rig: Rig) -> None:
    """It goes back at once, and is delivered by whoever comes next."""
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    between.on_claimed = lambda count: dispatcher.drain()
    await rig.establish()
    await rig.publish("a")
    async with running(dispatcher) as task:
        await until(task.done)
    assert rig.target.posts == []
    rig.dispatcher = rig.make_dispatcher()
    assert await rig.run_once() == 1
    assert rig.target.names() == ["a"]


async def test_a_failed_attempt_is_recorded_by_a_drain(rig: Rig) -> None:
    webhook = await rig.establish()
    rig.target.gate = asyncio.Event()
    rig.target.answer = FAILED
    async with running(rig.dispatcher):
        await rig.publish("a")
        rig.dispatcher.wake()
        await until(lambda: rig.target.posts)
        rig.dispatcher.drain()
        rig.target.gate.set()
    assert (await rig.current(webhook)).health.failures == 1
    rig.target.answer = OK
    rig.dispatcher = rig.make_dispatcher()
    assert await rig.run_once() == 0
