"""What a store remembers of the hierarchy is what the database holds, whatever became of the transactions on the way.

A task stands in a project; a webhook watches each of two projects. Where an event of the task is seen tells what the
store thinks its scopes are.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.store.building import HIERARCHY, NOON, OTHER_PROJECT, PROJECT, TASK, Case, change, delivered
from tidings.errors import BadRequest, StoreUnavailable
from tidings.model import Publication, Published, ResourceDraft
from tidings.store.sqlite import SqliteStore, open_store
from tidings.store.sqlite.writer import Rank


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    yield store
    await store.close()


class Watched:
    """The two webhooks, and which of them see the next event of a resource."""

    def __init__(self, case: Case, names: dict[str, str]) -> None:
        self.case = case
        self.names = names

    async def seen_from(self, resource: str = TASK) -> set[str]:
        await self.case.publish("probe", resource=resource)
        claims = (await self.case.claim()).claims
        await self.case.record(*(delivered(claim, now=NOON) for claim in claims))
        return {self.names[claim.gid] for claim in claims}


@pytest.fixture
async def watched(store: SqliteStore) -> Watched:
    case = await Case.on(store)
    names = {}
    for project in (PROJECT, OTHER_PROJECT):
        webhook = await case.establish(f"http://receiver.example/{project}", resource=project)
        names[webhook.gid] = project
    watched = Watched(case, names)
    # Asked before, so that it is remembered.
    assert await watched.seen_from() == {PROJECT}
    return watched


def moved(*parents: str, gid: str = TASK) -> ResourceDraft:
    return ResourceDraft(gid=gid, resource_type="task", parents=parents)


async def publish_with(store: SqliteStore, *resources: ResourceDraft, event_on: str = TASK) -> Published:
    return await store.publish(
        Publication(events=(change("e", resource=event_on),), resources=resources), now=NOON
    )


async def together(store: SqliteStore, *writes: Coroutine[Any, Any, object]) -> list[object]:
    """Ask for writes in one group; gives the results."""
    held, go = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        held.set()
        assert go.wait(30)

    holding = asyncio.create_task(store._write(hold, Rank.CLAIM))
    assert await asyncio.to_thread(held.wait, 30)
    tasks = [asyncio.create_task(write) for write in writes]
    while store.waiting < len(tasks):
        await asyncio.sleep(0)
    go.set()
    await holding
    return await asyncio.gather(*tasks, return_exceptions=True)


async def undo_together(store: SqliteStore, *writes: Coroutine[Any, Any, object]) -> list[object]:
    """The same, with a unit that ends the transaction, as a full disk does."""
    breaking = store._write(lambda connection: connection.execute("ROLLBACK"))
    return await together(store, *writes, breaking)


async def test_a_move_counts_for_what_was_rendered_before_it(store: SqliteStore, watched: Watched) -> None:
    """Events of one group are rendered before any of it is run."""
    move = store.put_resources([moved(OTHER_PROJECT)], workspaces=None, now=NOON)
    await together(store, move, watched.case.publish("after the move"))
    ((seen,),) = [(await watched.case.claim()).claims]
    assert {seen.gid} == {gid for gid, name in watched.names.items() if name == OTHER_PROJECT}


async def test_another_stores_move_counts_for_what_was_rendered_before_it(
    store: SqliteStore, watched: Watched, path: Path
) -> None:
    other = open_store(str(path), migrate=False, generation="g", key_id="k")
    await other.put_resources([moved(OTHER_PROJECT)], workspaces=None, now=NOON)
    await other.close()
    assert await watched.seen_from() == {OTHER_PROJECT}


async def test_a_move_that_was_published_holds(store: SqliteStore, watched: Watched) -> None:
    await publish_with(store, moved(OTHER_PROJECT))
    await watched.case.record(*(delivered(claim, now=NOON) for claim in (await watched.case.claim()).claims))
    assert await watched.seen_from() == {OTHER_PROJECT}


async def test_a_move_in_a_publication_that_was_refused_did_not_happen(
    store: SqliteStore, watched: Watched
) -> None:
    for _ in range(2):
        with pytest.raises(BadRequest):
            await publish_with(store, moved(OTHER_PROJECT), event_on="404")
        assert await watched.seen_from() == {PROJECT}


async def test_a_move_in_a_group_that_was_undone_did_not_happen(store: SqliteStore, watched: Watched) -> None:
    """Though the move was well, and the next publication of the group already went by it."""
    results = await undo_together(store, publish_with(store, moved(OTHER_PROJECT)), publish_with(store))
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await watched.seen_from() == {PROJECT}


async def test_what_an_undone_group_remembered_is_not_taken_for_another_stores_change(
    store: SqliteStore, watched: Watched, path: Path
) -> None:
    """The counter of the hierarchy's changes reaches the number that the undone move had given it."""
    await undo_together(store, publish_with(store, moved(OTHER_PROJECT)), publish_with(store))
    other = open_store(str(path), migrate=False, generation="g", key_id="k")
    renamed = ResourceDraft(gid=OTHER_PROJECT, resource_type="project", name="Renamed", keep_omitted=True)
    await other.put_resources([renamed], workspaces=None, now=NOON)
    await other.close()
    assert await watched.seen_from() == {PROJECT}


async def test_a_resource_that_was_not_kept_lends_its_row_to_the_next(
    store: SqliteStore, watched: Watched
) -> None:
    """A row id that a refused publication used is used again; nobody may be taken for the other."""
    with pytest.raises(BadRequest):
        await publish_with(store, moved(PROJECT, gid="ghost"), event_on="404")
    await publish_with(store, moved(OTHER_PROJECT, gid="next"), event_on="next")
    await publish_with(store, moved(PROJECT, gid="ghost"), event_on="ghost")
    await watched.case.record(*(delivered(claim, now=NOON) for claim in (await watched.case.claim()).claims))
    assert await watched.seen_from("next") == {OTHER_PROJECT}
    assert await watched.seen_from("ghost") == {PROJECT}


async def test_a_resource_deleted_in_vain_is_still_there(store: SqliteStore, watched: Watched) -> None:
    def delete_and_fail(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE resources SET deleted_at = 1 WHERE gid = ?", (TASK,))
        store._places.forget(connection)
        raise BadRequest("no", code="no")

    with pytest.raises(BadRequest):
        await store._write(delete_and_fail)
    assert await watched.seen_from() == {PROJECT}


async def test_another_stores_change_is_seen_after_one_of_ours_that_failed(
    store: SqliteStore, watched: Watched, path: Path
) -> None:
    """The counter of the hierarchy's changes is as before after one that was undone, and moves with theirs."""
    with pytest.raises(BadRequest):
        await publish_with(store, moved(PROJECT, OTHER_PROJECT), event_on="404")
    other = open_store(str(path), migrate=False, generation="g", key_id="k")
    await other.put_resources([*HIERARCHY[:3], moved(OTHER_PROJECT)], workspaces=None, now=NOON)
    await other.close()
    assert await watched.seen_from() == {OTHER_PROJECT}
