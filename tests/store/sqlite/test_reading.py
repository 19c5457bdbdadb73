"""What was leased is read once that is committed: others may have written in between, and reading may fail."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.store.building import NOON, SECOND, Case, delivered, fields
from tidings.errors import StoreUnavailable
from tidings.model import Claimed, Filter
from tidings.store.sqlite import MEMORY, SqliteStore, claiming, establishing, open_store, reading, schema


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "tidings.db")


@pytest.fixture
async def store(path: str) -> AsyncIterator[SqliteStore]:
    store = open_store(path, migrate=True, generation="g", key_id="k")
    yield store
    await store.close()


@pytest.fixture
async def case(store: SqliteStore) -> Case:
    return await Case.on(store)


@pytest.fixture
def meanwhile(
    store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[sqlite3.Connection], object]], None]:
    """Has another process write this between the commit of the next claims and the reading."""
    read = store._read_leased

    def arrange(write: Callable[[sqlite3.Connection], object]) -> None:
        def write_and_read(connection: sqlite3.Connection, leased: claiming.Leased) -> Claimed:
            other = schema.connect(path)
            other.execute("BEGIN IMMEDIATE")
            write(other)
            other.execute("COMMIT")
            other.close()
            return read(connection, leased)

        monkeypatch.setattr(store, "_read_leased", write_and_read)

    return arrange


Meanwhile = Callable[[Callable[[sqlite3.Connection], object]], None]


async def test_filters_that_are_replaced_meanwhile_decide(case: Case, meanwhile: Meanwhile) -> None:
    webhook = await case.establish()
    await case.publish("a", "b")
    before = await case.only()
    await case.record(delivered(before, now=NOON, cursor=before.page[0].position))
    new = (Filter(resource_type="task", fields=("b",)),)
    meanwhile(lambda other: establishing.replace_filters(other, webhook.gid, new))
    claim = await case.only()
    assert (claim.filters, claim.epoch, fields(claim)) == (new, before.epoch + 1, ["b"])
    assert await case.record(delivered(claim, now=NOON)) == 1


async def test_what_another_has_leased_meanwhile_is_left_to_it(case: Case, meanwhile: Meanwhile) -> None:
    """As after a pause in which the lease ran out."""
    ours = await case.establish("http://one.example/")
    await case.establish("http://another.example/")
    await case.publish("a")
    meanwhile(
        lambda other: other.execute(
            "UPDATE cursors SET fence = fence + 1, holder = 77"
            " WHERE webhook = (SELECT id FROM webhooks WHERE gid <> ?)",
            (ours.gid,),
        )
    )
    assert await case.gids() == [ours.gid]


async def test_what_was_taken_for_run_out_meanwhile_is_left_out(case: Case, meanwhile: Meanwhile) -> None:
    """As by a process whose clock was turned: another may claim it at any moment."""
    webhook = await case.establish()
    await case.publish("a")
    meanwhile(lambda other: other.execute("UPDATE cursors SET lease_until = NULL, holder = NULL"))
    assert await case.gids() == []
    meanwhile(lambda other: other.execute("SELECT 1"))
    assert await case.gids() == [webhook.gid]


async def test_what_was_purged_meanwhile_is_left_out(case: Case, meanwhile: Meanwhile) -> None:
    await case.establish()
    await case.publish("a")
    meanwhile(lambda other: other.execute("DELETE FROM cursors"))
    assert await case.gids() == []


async def test_events_that_come_meanwhile_come_with_the_next_claim(case: Case, meanwhile: Meanwhile) -> None:
    await case.establish()
    await case.publish("a")

    def append(other: sqlite3.Connection) -> None:
        other.execute(
            "INSERT INTO events SELECT position + 1, workspace, resource, resource_type, resource_subtype, action, 'b',"
            " external_id, created_at, accepted_at, scopes, wire FROM events"
        )
        other.execute("INSERT INTO event_scopes SELECT stretch, scope, position + 1 FROM event_scopes")

    meanwhile(append)
    claim = await case.only()
    assert (fields(claim), claim.head, claim.more) == (["a"], claim.page[-1].position, False)


@pytest.mark.parametrize("where", ["file", "memory"])
@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), RuntimeError("a mistake of ours")]
)
async def test_what_could_not_be_read_is_leased_again_at_once(
    path: str, where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the lease has run out: nobody delivers under it."""
    store = open_store(path if where == "file" else MEMORY, migrate=True, generation="g", key_id="k")
    case = await Case.on(store)
    await case.establish("http://one.example/")
    await case.publish("a")
    before = await case.only()
    await case.establish("http://another.example/")
    await case.publish("b")

    def fail(*_: object) -> Claimed:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(reading, "read", fail)
        for _ in range(2):
            with pytest.raises((StoreUnavailable, RuntimeError)):
                await case.claim(held=(before.lease.webhook,))
    claim = await case.only(held=(before.lease.webhook,))
    assert (claim.lease.fence, fields(claim)) == (3, ["b"])
    # What is held has not been given back, nor is what was read.
    assert await case.gids(held=(before.lease.webhook, claim.lease.webhook), now=NOON + SECOND) == []
    assert await case.record(delivered(before, now=NOON), delivered(claim, now=NOON)) == 2
    await store.close()


async def test_who_writes_does_not_wait_for_those_who_read(
    store: SqliteStore, case: Case, meanwhile: Meanwhile
) -> None:
    """Another process can take the write lock, and sees the lease, before ours has read."""
    seen: list[bool] = []

    def look(other: sqlite3.Connection) -> None:
        (leased,) = other.execute("SELECT count(*) FROM cursors WHERE lease_until IS NOT NULL").fetchone()
        seen.append(leased == 1)

    await case.establish()
    await case.publish("a")
    meanwhile(look)
    assert fields(await case.only()) == ["a"]
    assert seen == [True]
