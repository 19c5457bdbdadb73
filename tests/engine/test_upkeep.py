"""What is looked at from time to time: rows past keeping, processes that are gone, tokens that expired."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from tests.engine.rig import FAILED, HOUR, MINUTE, OWNER, SECOND, Between, Rig, names
from tidings.dispatcher import Clocks
from tidings.errors import StoreUnavailable
from tidings.model import Keeping, Micros, Scope
from tidings.sealing import Sealer
from tidings.store import Store
from tidings.store.sqlite import open_store
from tidings.upkeep import Upkeep
from tidings.wire.tokens import TokenRequest

DAY = 24 * HOUR
KEEPING = Keeping(retention=14 * DAY, ceiling=28 * DAY, restore_within=7 * DAY)


def upkeep_of(rig: Rig, *, keeping: Keeping = KEEPING, store: Store | None = None) -> Upkeep:
    clocks = Clocks(now=lambda: rig.clock.now, elapsed=lambda: rig.clock.elapsed, jitter=lambda: rig.jitter)
    return Upkeep(
        store or rig.store, policy=rig.policy, keeping=keeping, clocks=clocks, wake=rig.dispatcher.wake
    )


def count(rig: Rig, table: str) -> int:
    connection = sqlite3.connect(rig.path)
    try:
        (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    finally:
        connection.close()
    return int(found)


async def test_what_is_past_keeping_is_deleted(rig: Rig) -> None:
    """Events with their scopes, and attempts; not a microsecond earlier, and no position is used twice."""
    await rig.establish()
    upkeep = upkeep_of(rig)
    published = await rig.publish(*names(1_000))
    await rig.settle_all()
    rig.clock.turn(14 * DAY)
    await upkeep.look()
    assert count(rig, "events") == 1_000
    rig.clock.turn(MINUTE)
    await upkeep.look()
    assert {table: count(rig, table) for table in ("events", "event_scopes", "attempts")} == {
        "events": 0,
        "event_scopes": 0,
        "attempts": 0,
    }
    assert (await rig.publish("next")).last == published.last + 1


async def test_a_webhook_that_has_yet_to_read_holds_events_back(rig: Rig) -> None:
    """Up to the ceiling; past it they go, and its record in the store says so."""
    webhook = await rig.establish()
    await rig.publish("a")
    rig.target.answer = FAILED
    await rig.settle_all()
    upkeep = upkeep_of(rig)
    rig.clock.turn(20 * DAY)
    await upkeep.look()
    assert count(rig, "events") == 1
    assert (await rig.current(webhook)).lost_at is None
    rig.clock.turn(9 * DAY)
    await upkeep.look()
    assert count(rig, "events") == 0
    assert (await rig.current(webhook)).lost_at == rig.clock.now


async def test_what_nobody_has_looked_at_is_not_trimmed_unseen(rig: Rig) -> None:
    """No process has delivered for longer than events are kept: those for a webhook stay, up to the ceiling."""
    webhook = await rig.establish()
    await rig.publish(*names(2_500))
    upkeep = upkeep_of(rig)
    rig.clock.turn(15 * DAY)
    await upkeep.look()
    assert count(rig, "events") == 2_500
    rig.clock.turn(14 * DAY)
    await upkeep.look()
    assert count(rig, "events") == 0
    assert (await rig.current(webhook)).lost_at == rig.clock.now


async def test_ended_webhooks_are_purged_once_they_cannot_be_restored(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.desk.remove(rig.caller, webhook.gid)
    upkeep = upkeep_of(rig)
    rig.clock.turn(7 * DAY)
    await upkeep.look()
    assert count(rig, "webhooks") == count(rig, "cursors") == 1
    rig.clock.turn(MINUTE)
    await upkeep.look()
    assert count(rig, "webhooks") == count(rig, "cursors") == 0


@pytest.mark.parametrize(
    ("retention", "every"), [(14 * DAY, MINUTE), (10 * MINUTE, MINUTE), (20 * SECOND, 2 * SECOND)]
)
async def test_trimming_keeps_the_pace_of_what_is_kept(rig: Rig, retention: Micros, every: Micros) -> None:
    """Each minute, or each tenth of a shorter keeping."""
    await rig.publish("a")
    upkeep = upkeep_of(rig, keeping=replace(KEEPING, retention=retention))
    rig.clock.now += retention + 1
    rig.clock.elapsed += every - 1
    await upkeep.look()
    assert count(rig, "events") == 1
    rig.clock.turn(1)
    await upkeep.look()
    assert count(rig, "events") == 0


async def test_webhooks_stop_when_the_last_token_expires(rig: Rig) -> None:
    webhook = await rig.establish()
    (token,) = await rig.tokens.list_all()
    await rig.tokens.create(
        TokenRequest(owner=OWNER, scopes=frozenset(Scope), expires_at=rig.clock.now + HOUR)
    )
    await rig.tokens.revoke(token.gid)
    upkeep = upkeep_of(rig)
    rig.clock.turn(HOUR - 1)
    await upkeep.look()
    assert (await rig.record(webhook))["active"] is True
    rig.clock.turn(1)
    await upkeep.look()
    assert (await rig.record(webhook))["inactive_reason"] == "access_lost"


async def test_a_clock_that_ran_ahead_stops_nobody_for_good(rig: Rig) -> None:
    """Tokens that had expired by it live again, and those that expire afterwards are still noticed."""
    webhook = await rig.establish()
    (token,) = await rig.tokens.list_all()
    await rig.tokens.create(
        TokenRequest(owner=OWNER, scopes=frozenset(Scope), expires_at=rig.clock.now + HOUR)
    )
    await rig.tokens.revoke(token.gid)
    upkeep = upkeep_of(rig)
    rig.clock.now += DAY
    await upkeep.look()
    assert (await rig.current(webhook)).stopped is not None
    rig.clock.now -= DAY
    await upkeep.look()
    assert (await rig.current(webhook)).stopped is None
    rig.clock.turn(HOUR)
    await upkeep.look()
    assert (await rig.current(webhook)).stopped is not None


async def test_the_leases_of_a_process_that_is_gone_are_free(rig: Rig) -> None:
    """Another store on the same file stands for another process; closing it lets go of its lock as its end would."""
    await rig.establish()
    await rig.publish("a")
    other_store = open_store(str(rig.path), migrate=False, generation="g", key_id=Sealer(bytes(32)).key_id)
    between = Between(other_store)
    other = rig.make_dispatcher(store=between.as_store())
    between.failing = StoreUnavailable("cut off")
    with pytest.raises(StoreUnavailable):
        await other.run_once()
    assert await rig.run_once() == 0
    upkeep = upkeep_of(rig)
    await upkeep.look()
    assert await rig.run_once() == 0
    await other_store.close()
    await upkeep.look()
    assert await rig.run_once() == 1
    assert rig.target.names() == ["a", "a"]
    assert len({post.id for post in rig.target.posts}) == 1
