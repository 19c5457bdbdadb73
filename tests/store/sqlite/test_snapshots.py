"""Readers beside the writer: each sees one moment of the database, and none makes the other wait."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.descriptors import none_left
from tests.store.building import HIERARCHY, NOON, Case, names_of
from tidings.store.sqlite import SqliteStore, open_store
from tidings.store.sqlite.readers import READERS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = open_store(str(tmp_path / "tidings.db"), migrate=True, generation="g", key_id="k")
    yield store
    await store.close()


def count(connection: sqlite3.Connection) -> tuple[int, int]:
    """Events and their scopes (a task's: itself and its project), each with a statement of its own."""
    (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    (scopes,) = connection.execute("SELECT count(*) FROM event_scopes").fetchone()
    return int(events), int(scopes)


async def test_a_reader_sees_one_moment_while_others_write(store: SqliteStore) -> None:
    """What is committed under an open read is not in it, is not held up by it, and is in the next."""
    case = await Case.on(store)
    await case.publish("before")
    looked, written = threading.Event(), threading.Event()

    def read(connection: sqlite3.Connection) -> tuple[tuple[int, int], tuple[int, int]]:
        first = count(connection)
        looked.set()
        assert written.wait(30)
        return first, count(connection)

    reading = asyncio.create_task(store._read(read))
    assert await asyncio.to_thread(looked.wait, 30)
    await case.publish(*names_of(10))
    written.set()
    assert await reading == ((1, 2), (1, 2))
    assert await store._read(count) == (11, 22)


async def test_no_reader_sees_half_of_a_publication(store: SqliteStore) -> None:
    """Events come with all their scopes, however the reads fall between the commits."""
    case = await Case.on(store)

    async def publish_all() -> None:
        for _ in range(40):
            await case.publish(*names_of(20))

    publishing = asyncio.create_task(publish_all())
    seen: set[tuple[int, int]] = set()
    while not publishing.done():
        seen.add(await store._read(count))
    await publishing
    seen.add(await store._read(count))
    assert {events % 20 for events, _ in seen} == {0}
    assert {scopes - 2 * events for events, scopes in seen} == {0}
    assert (800, 1_600) in seen


async def test_what_was_acknowledged_the_next_read_sees(store: SqliteStore) -> None:
    """A caller who reads right after a write finds it, whichever reader answers."""
    case = Case(store, holder=0)
    await store.put_resources(HIERARCHY, workspaces=None, now=NOON)
    for number in range(20):
        webhook = await case.establish(f"http://receiver.example/{number}")
        found = await asyncio.gather(*(store.get_webhook(webhook.gid) for _ in range(4)))
        assert found == [webhook] * 4


async def test_it_is_read_by_all_readers_where_no_file_can_be_opened_any_more(store: SqliteStore) -> None:
    """Other parts of the process may use up the descriptors: what was opened in time goes on."""
    together = threading.Barrier(READERS)

    def read(connection: sqlite3.Connection) -> tuple[int, int]:
        together.wait(30)
        return count(connection)

    with none_left():
        assert await asyncio.gather(*[store._read(read) for _ in range(READERS)]) == [(0, 0)] * READERS
