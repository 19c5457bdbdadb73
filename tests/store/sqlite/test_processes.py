"""Processes beside each other on one file: whose leases are whose, and seeing each other's work."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.sqlite import holding
from tidings.errors import StoreUnavailable
from tidings.limits import HELD_BYTES_MAX
from tidings.model import (
    Action,
    Claim,
    ClaimRequest,
    EventDraft,
    NewWebhook,
    Owner,
    Publication,
    Quotas,
    ResourceDraft,
)
from tidings.store.sqlite import MEMORY, SqliteStore, open_store

NOW = 1_800_000_000_000_000
OWNER = Owner("u", "a")
QUOTAS = Quotas(100, 100)
WORKSPACE = ResourceDraft(gid="1", resource_type="workspace")
PROJECT = ResourceDraft(gid="2", resource_type="project", parents=("1",))


def opened(path: Path) -> SqliteStore:
    return open_store(str(path), migrate=True, generation="g", key_id="k")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = opened(path)
    await store.put_resources([WORKSPACE, PROJECT], workspaces=None, now=NOW)
    yield store
    await store.close()


@pytest.fixture
async def other(store: SqliteStore, path: Path) -> AsyncIterator[SqliteStore]:
    """Another store on the same file, as another process has one."""
    other = opened(path)
    yield other
    await other.close()


async def establish(store: SqliteStore, count: int = 1) -> None:
    for number in range(count):
        reservation = await store.reserve(
            owner=OWNER,
            resource="2",
            target=f"http://receiver.example/{number}",
            key=str(number),
            quotas=QUOTAS,
            now=NOW,
            until=NOW + 60_000_000,
        )
        assert reservation is not None
        new = NewWebhook(
            gid=f"w{number}",
            owner=OWNER,
            resource="2",
            target=f"http://receiver.example/{number}",
            origin="http://receiver.example:80",
            filters=(),
            secrets=(),
            created_at=NOW,
            shaken_at=NOW,
            heartbeat_at=NOW + 3_600_000_000,
        )
        await store.add_webhook(new, reservation=reservation, quotas=QUOTAS)


async def publish(store: SqliteStore, resource: str = "2", *resources: ResourceDraft) -> int:
    draft = EventDraft(
        resource=resource,
        action=Action.ADDED,
        user=b"null",
        parent=None,
        change=None,
        created_at=None,
        external_id=None,
        path="",
    )
    return (await store.publish(Publication(events=(draft,), resources=resources), now=NOW)).last


async def claim(store: SqliteStore, holder: int, *, now: int = NOW) -> tuple[Claim, ...]:
    request = ClaimRequest(
        now=now,
        holder=holder,
        lease=holding.LEASE,
        limit=100,
        unproven_limit=100,
        failing_limit=100,
        failing_first=0,
        quiet_first=0,
        proven_since=0,
        per_origin=100,
        in_flight={},
        batch_max=100,
        room=HELD_BYTES_MAX,
        wait_max=holding.LEASE,
    )
    return (await store.claim(request)).claims


# -- leases ----------------------------------------------------------------------------------------


async def test_a_killed_process_loses_its_leases_at_once(store: SqliteStore, path: Path) -> None:
    """The kernel lets go of its lock, however it ended; the clock has not moved."""
    await establish(store, 3)
    await publish(store)
    command = [sys.executable, "-m", holding.__name__, str(path), str(NOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "3\n"
        holder = await store.take_holder(now=NOW)
        assert await store.release_dead_holders() == 0
        assert await claim(store, holder) == ()
        process.kill()
    assert await store.release_dead_holders() == 1
    claims = await claim(store, holder)
    assert len(claims) == 3
    assert {entry.lease.fence for entry in claims} == {2}
    assert await store.release_dead_holders() == 0


async def test_who_starts_takes_back_what_the_dead_held(store: SqliteStore, path: Path) -> None:
    await establish(store)
    await publish(store)
    gone = opened(path)
    assert len(await claim(gone, await gone.take_holder(now=NOW))) == 1
    await gone.close()
    assert len(await claim(store, await store.take_holder(now=NOW))) == 1


async def test_the_living_keep_theirs(store: SqliteStore, other: SqliteStore) -> None:
    await establish(store)
    await publish(store)
    ours, theirs = await store.take_holder(now=NOW), await other.take_holder(now=NOW)
    assert ours != theirs
    assert len(await claim(store, ours)) == 1
    assert await other.release_dead_holders() == 0
    assert await claim(other, theirs) == ()


async def test_a_holder_that_goes_gives_back_its_own_leases_only(
    store: SqliteStore, other: SqliteStore
) -> None:
    await establish(store, 2)
    await publish(store)
    ours, theirs = await store.take_holder(now=NOW), await other.take_holder(now=NOW)
    assert len(await claim(store, ours)) == 2
    await other.drop_holder(theirs)
    assert await claim(other, await other.take_holder(now=NOW)) == ()
    await store.drop_holder(ours)
    assert len(await claim(other, await other.take_holder(now=NOW))) == 2


async def test_locks_leave_no_files_behind(store: SqliteStore, other: SqliteStore, path: Path) -> None:
    ours = await store.take_holder(now=NOW)
    await other.take_holder(now=NOW)
    assert len(list(path.parent.glob("*-holder-*"))) == 2
    await store.drop_holder(ours)
    await other.close()
    assert await store.release_dead_holders() == 1
    assert list(path.parent.glob("*-holder-*")) == []


async def test_a_holder_whose_commit_failed_can_be_taken_again(store: SqliteStore, path: Path) -> None:
    """The number it was given is given anew; its lock was ours already."""

    def take_and_break(connection: sqlite3.Connection) -> None:
        store._holders.take(connection, now=NOW)
        connection.execute("ROLLBACK")

    with pytest.raises(StoreUnavailable):
        await store._write(take_and_break)
    holder = await store.take_holder(now=NOW)
    assert await store.release_dead_holders() == 0
    other = opened(path)
    assert await other.release_dead_holders() == 0
    await other.close()
    await store.drop_holder(holder)


async def test_a_lock_that_cannot_be_taken_is_told(store: SqliteStore, path: Path) -> None:
    path.with_name(f"{path.name}-holder-1").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await store.take_holder(now=NOW)


async def test_in_memory_nobody_else_holds(tmp_path: Path) -> None:
    store = open_store(MEMORY, migrate=True, generation="g", key_id="k")
    holder = await store.take_holder(now=NOW)
    assert await store.release_dead_holders() == 0
    await store.drop_holder(holder)
    assert await store.changed() is False
    await store.close()


# -- each other's work -----------------------------------------------------------------------------


async def test_what_the_one_writes_the_other_notices(store: SqliteStore, other: SqliteStore) -> None:
    while await other.changed():
        pass
    assert await other.changed() is False
    await publish(store)
    assert await other.changed() is True
    assert await other.changed() is False
    # Looking for work and finding none is not writing: two that wait do not wake each other for ever.
    ours, theirs = await store.take_holder(now=NOW), await other.take_holder(now=NOW)
    await claim(store, ours)
    await claim(other, theirs)
    while await other.changed():
        pass
    assert await claim(store, ours) == ()
    assert await store.release_dead_holders() == 0
    assert await other.changed() is False


async def test_what_the_one_publishes_the_other_delivers(store: SqliteStore, other: SqliteStore) -> None:
    await establish(store)
    position = await publish(store)
    (entry,) = await claim(other, await other.take_holder(now=NOW))
    assert [event.position for event in entry.page] == [position]


async def test_moves_of_the_one_hold_for_the_others_next_publish(
    store: SqliteStore, other: SqliteStore
) -> None:
    """What a store remembers of the hierarchy is only good while nobody has changed it."""
    await establish(store)
    elsewhere = ResourceDraft(gid="3", resource_type="project", parents=("1",))
    task = ResourceDraft(gid="9", resource_type="task", parents=("3",), keep_omitted=True)
    holder = await store.take_holder(now=NOW)
    await publish(store, "9", elsewhere, task)
    await publish(store, "9")
    assert await claim(store, holder) == ()
    moved = ResourceDraft(gid="9", resource_type="task", parents=("2",))
    await other.put_resources([moved], workspaces=None, now=NOW)
    position = await publish(store, "9")
    (entry,) = await claim(store, holder)
    assert [event.position for event in entry.page] == [position]


async def test_both_append_to_one_log(store: SqliteStore, other: SqliteStore) -> None:
    positions = [await publish(each) for _ in range(5) for each in (store, other)]
    assert positions == sorted(set(positions))
