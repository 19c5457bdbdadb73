"""When a token was last used is noted beside the calls: they neither wait for that nor fail with it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.engine.rig import OWNER, Rig, until
from tidings.limits import MICROSECONDS_PER_SECOND
from tidings.model import Micros
from tidings.service import tokens
from tidings.service.tokens import CreatedToken
from tidings.wire.tokens import TokenRequest

CALLS = 50


@contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Another process writes meanwhile, and nobody else can."""
    with closing(sqlite3.connect(rig.path, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        yield


async def fresh(rig: Rig) -> CreatedToken:
    """A token that was never used."""
    return await rig.tokens.create(TokenRequest(owner=OWNER, scopes=frozenset()))


async def call(rig: Rig, *used: CreatedToken) -> None:
    for each in used:
        assert (await rig.tokens.authenticate(f"Bearer {each.text}")).gid == each.token.gid


async def last_uses(rig: Rig, *used: CreatedToken) -> set[Micros | None]:
    gids = {each.token.gid for each in used}
    return {token.last_used_at for token in await rig.store.list_tokens() if token.gid in gids}


async def test_callers_are_known_while_nothing_can_be_written(rig: Rig) -> None:
    """And however many come meanwhile, their uses wait as one write at most."""
    used = [await fresh(rig) for _ in range(CALLS)]
    with locked(rig):
        await call(rig, *used, *used)
        assert rig.store.waiting <= 1
    await rig.tokens.finish()
    assert await last_uses(rig, *used) == {rig.clock.now}


async def test_a_use_is_noted_once_a_minute(rig: Rig) -> None:
    used = await fresh(rig)
    first = rig.clock.now
    for seconds, noted in ((0, 0), (60, 0), (61, 61)):
        rig.clock.now = first + seconds * MICROSECONDS_PER_SECOND
        await call(rig, used)
        await rig.tokens.finish()
        assert await last_uses(rig, used) == {first + noted * MICROSECONDS_PER_SECOND}


async def test_the_end_waits_for_what_is_to_be_noted(rig: Rig) -> None:
    used = await fresh(rig)
    with locked(rig):
        await call(rig, used)
        finishing = asyncio.create_task(rig.tokens.finish())
        for _ in range(CALLS):
            await asyncio.sleep(0)
        assert not finishing.done()
    await finishing
    assert await last_uses(rig, used) == {rig.clock.now}


async def test_a_store_that_does_not_take_it_is_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "_PAUSE_SECONDS", 0.001)
    used = [await fresh(rig), await fresh(rig)]
    with closing(sqlite3.connect(rig.path, isolation_level=None)) as another:
        another.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON tokens BEGIN SELECT RAISE(FAIL, 'no room'); END"
        )
        with caplog.at_level(logging.WARNING):
            await call(rig, *used)
            await until(lambda: len(caplog.records) >= 3)
        assert "no room" in caplog.text
        another.execute("DROP TRIGGER full")
    async with asyncio.timeout(10):
        while await last_uses(rig, *used) != {rig.clock.now}:
            await asyncio.sleep(0.001)


async def test_what_is_remembered_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' next uses are noted."""
    monkeypatch.setattr(tokens, "_UNNOTED_MAX", 2)
    used = [await fresh(rig) for _ in range(3)]
    with locked(rig):
        await call(rig, *used)
    await rig.tokens.finish()
    assert await last_uses(rig, *used) == {rig.clock.now, None}
    await call(rig, *used)
    await rig.tokens.finish()
    assert await last_uses(rig, *used) == {rig.clock.now}
