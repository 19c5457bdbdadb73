"""What is looked at from time to time: rows past keeping, processes that are gone, tokens that expired."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.engine.rig import FAILED, HOUR, MINUTE, OK, OWNER, SECOND, Between, Rig, names, until
from tidings.dispatcher import Clocks
from tidings.errors import StoreUnavailable
from tidings.model import Keeping, Micros, Scope, Sweep
from tidings.sealing import Sealer
from tidings.store import Store
from tidings.store.sqlite import open_store
from tidings.upkeep import Upkeep
from tidings.wire.tokens import TokenRequest

DAY = 24 * HOUR
YEAR = 365 * DAY
KEEPING = Keeping(retention=20 * MINUTE, ceiling=40 * MINUTE, restore_within=10 * MINUTE)
# What happens counts as of the note of the uptime after it.
NOTED = MINUTE


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


async def live(rig: Rig, *upkeeps: Upkeep, span: Micros, step: Micros = MINUTE) -> None:
    """Let the service be up for so long."""
    end = rig.clock.elapsed + span
    while rig.clock.elapsed < end:
        rig.clock.turn(min(step, end - rig.clock.elapsed))
        for upkeep in upkeeps:
            await upkeep.look()
            await upkeep.trim()


async def test_what_is_past_keeping_is_deleted(rig: Rig) -> None:
    """Events with their scopes, and attempts; not a look earlier, and no position is used twice."""
    await rig.establish()
    upkeep = upkeep_of(rig)
    published = await rig.publish(*names(1_000))
    await rig.settle_all()
    await live(rig, upkeep, span=KEEPING.retention + NOTED)
    assert count(rig, "events") == 1_000
    await live(rig, upkeep, span=MINUTE)
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
    await live(rig, upkeep, span=KEEPING.ceiling + NOTED)
    assert count(rig, "events") == 1
    assert (await rig.current(webhook)).lost_at is None
    await live(rig, upkeep, span=MINUTE)
    assert count(rig, "events") == 0
    assert (await rig.current(webhook)).lost_at == rig.clock.now


async def test_what_nobody_has_looked_at_is_not_trimmed_unseen(rig: Rig) -> None:
    """No process has delivered for longer than events are kept: those for a webhook stay, up to the ceiling."""
    webhook = await rig.establish()
    await rig.publish(*names(2_500))
    upkeep = upkeep_of(rig)
    await live(rig, upkeep, span=KEEPING.ceiling + NOTED)
    assert count(rig, "events") == 2_500
    await live(rig, upkeep, span=MINUTE)
    assert count(rig, "events") == 0
    assert (await rig.current(webhook)).lost_at == rig.clock.now


async def test_ended_webhooks_are_purged_once_they_cannot_be_restored(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.desk.remove(rig.caller, webhook.gid)
    upkeep = upkeep_of(rig)
    await live(rig, upkeep, span=KEEPING.restore_within + NOTED)
    assert count(rig, "webhooks") == count(rig, "cursors") == 1
    await live(rig, upkeep, span=MINUTE)
    assert count(rig, "webhooks") == count(rig, "cursors") == 0


@pytest.mark.parametrize(
    ("retention", "every"), [(20 * MINUTE, MINUTE), (10 * MINUTE, MINUTE), (20 * SECOND, 2 * SECOND)]
)
async def test_trimming_keeps_the_pace_of_what_is_kept(rig: Rig, retention: Micros, every: Micros) -> None:
    """Each minute, or each tenth of a shorter keeping."""
    await rig.publish("a")
    upkeep = upkeep_of(rig, keeping=replace(KEEPING, retention=retention))
    await live(rig, upkeep, span=retention + 2 * every - 1, step=every)
    assert count(rig, "events") == 1
    await live(rig, upkeep, span=1)
    assert count(rig, "events") == 0


class HeldUp:
    """A store that lets the first note of the uptime wait, and takes an event meanwhile."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.held_up = False

    def as_store(self) -> Store:
        return cast(Store, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rig.store, name)

    async def note_uptime(self, passed: Callable[[], Micros], *, since: Micros, now: Micros) -> Micros:
        if not self.held_up:
            self.held_up = True
            self._rig.clock.turn(30 * SECOND)
            await self._rig.publish("a")
        return await self._rig.store.note_uptime(passed, since=since, now=now)


# -- what is no age --------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [HOUR, 30 * DAY, 10 * YEAR, -30 * DAY, -10 * YEAR])
async def test_a_clock_that_is_wrong_for_a_while_takes_no_events(rig: Rig, by: Micros) -> None:
    """Neither what was accepted before, nor what was accepted meanwhile."""
    await rig.establish()
    rig.target.answer = FAILED
    await rig.publish("before")
    await rig.settle_all()
    upkeep = upkeep_of(rig)
    await live(rig, upkeep, span=5 * MINUTE)
    rig.clock.jump(by)
    await rig.publish("meanwhile")
    await live(rig, upkeep, span=5 * MINUTE)
    rig.clock.jump(-by)
    await live(rig, upkeep, span=5 * MINUTE)
    rig.target.answer = OK
    await rig.live_through(HOUR)
    assert rig.target.names()[-2:] == ["before", "meanwhile"]


async def test_what_was_accepted_while_a_clock_ran_ahead_is_deleted_like_the_rest(rig: Rig) -> None:
    """And holds nothing up that comes after it."""
    await rig.establish()
    upkeep = upkeep_of(rig)
    rig.clock.jump(10 * YEAR)
    await rig.publish("ahead")
    await rig.settle_all()
    rig.clock.jump(-10 * YEAR)
    await rig.publish("after")
    await rig.settle_all()
    await live(rig, upkeep, span=KEEPING.retention + NOTED + MINUTE)
    assert count(rig, "events") == count(rig, "attempts") == 0


@pytest.mark.parametrize("away", ["off", "standing still"])
async def test_time_in_which_nobody_served_takes_no_events(rig: Rig, away: str) -> None:
    """Nor does it once the service is up again: an old backup that is restored is just as old."""
    await rig.establish()
    rig.target.answer = FAILED
    await rig.publish("a")
    await rig.settle_all()
    upkeep = upkeep_of(rig)
    await live(rig, upkeep, span=5 * MINUTE)
    rig.clock.turn(60 * DAY)
    if away == "off":
        upkeep = upkeep_of(rig)
    await live(rig, upkeep, span=5 * MINUTE)
    rig.target.answer = OK
    await rig.live_through(HOUR)
    assert rig.target.names()[-1] == "a"


async def test_what_is_accepted_while_the_uptime_waits_to_be_noted_is_no_older_for_it(rig: Rig) -> None:
    between = HeldUp(rig)
    upkeep = upkeep_of(rig, store=between.as_store())
    await live(rig, upkeep, span=MINUTE)
    assert between.held_up
    await live(rig, upkeep, span=KEEPING.retention)
    assert count(rig, "events") == 1
    await live(rig, upkeep, span=MINUTE)
    assert count(rig, "events") == 0


async def test_every_life_of_the_service_counts(rig: Rig) -> None:
    """One that is started anew again and again deletes what is past keeping all the same."""
    await rig.publish("a")
    for _ in range(3):
        await live(rig, upkeep_of(rig), span=KEEPING.retention // 2)
    assert count(rig, "events") == 0


async def test_processes_beside_each_other_count_once(rig: Rig) -> None:
    await rig.publish("a")
    upkeeps = [upkeep_of(rig) for _ in range(3)]
    await live(rig, *upkeeps, span=KEEPING.retention + NOTED)
    assert count(rig, "events") == 1
    await live(rig, *upkeeps, span=MINUTE)
    assert count(rig, "events") == 0


async def test_processes_that_look_in_turn_make_nothing_older(rig: Rig) -> None:
    """What one of them notes between two looks of another is no older for it."""
    keeping = replace(KEEPING, retention=20 * MINUTE + 45 * SECOND)
    first = upkeep_of(rig, keeping=keeping)
    rig.clock.turn(30 * SECOND)
    second = upkeep_of(rig, keeping=keeping)
    await live(rig, first, span=30 * SECOND)
    rig.clock.turn(30 * SECOND)
    await rig.publish("a")
    for _ in range(20):
        await second.look()
        await live(rig, first, span=30 * SECOND)
        rig.clock.turn(30 * SECOND)
    await second.look()
    await live(rig, first, span=30 * SECOND)
    assert count(rig, "events") == 1
    await live(rig, first, span=3 * MINUTE)
    assert count(rig, "events") == 0


# -- a store that refuses, or takes long -----------------------------------------------------------


class Refusing:
    """A store that refuses one call of a method."""

    def __init__(self, inner: Store, method: str) -> None:
        self._inner = inner
        self._method: str | None = method

    def as_store(self) -> Store:
        return cast(Store, self)

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._method = None
            raise StoreUnavailable("database is locked")
        return getattr(self._inner, name)


async def test_trimming_that_was_refused_is_done_at_the_next_look(rig: Rig) -> None:
    await rig.publish("a")
    upkeep = upkeep_of(rig, store=Refusing(rig.store, "trim").as_store())
    upkeep_before = upkeep_of(rig)
    await live(rig, upkeep_before, span=KEEPING.retention)
    rig.clock.turn(2 * MINUTE)
    await upkeep_before.look()
    with pytest.raises(StoreUnavailable):
        await upkeep.trim()
    assert count(rig, "events") == 1
    await upkeep.trim()
    assert count(rig, "events") == 0


async def test_a_clock_that_was_turned_while_the_store_refused_is_still_noticed(rig: Rig) -> None:
    webhook = await rig.establish()
    upkeep = upkeep_of(rig, store=Refusing(rig.store, "spread_heartbeats").as_store())
    rig.clock.jump(-365 * DAY)
    with pytest.raises(StoreUnavailable):
        await upkeep.look()
    await upkeep.look()
    due = (await rig.current(webhook)).health.heartbeat_at
    assert rig.clock.now <= due <= rig.clock.now + rig.policy.heartbeat_every


class Slow:
    """A store in which surveys take for ever."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.surveying = asyncio.Event()
        self.looks = 0

    def as_store(self) -> Store:
        return cast(Store, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def survey(self, *, now: Micros, keeping: Keeping) -> Sweep:
        self.surveying.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def review_access(self, *, now: Micros) -> None:
        self.looks += self.surveying.is_set()


async def test_trimming_holds_nothing_else_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.upkeep.LOOK_SECONDS", 0.001)
    slow = Slow(rig.store)
    upkeep = upkeep_of(rig, store=slow.as_store())
    rig.clock.turn(MINUTE)
    running = asyncio.create_task(upkeep.run())
    await until(lambda: slow.looks > 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# -- access and processes --------------------------------------------------------------------------


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
