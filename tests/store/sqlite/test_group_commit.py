"""The group commit on a real file: what fails fails alone, and what was not committed is not acknowledged."""

import asyncio
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from tidings.errors import BadRequest, StoreUnavailable
from tidings.model import Action, EventDraft, Publication, Published, ResourceDraft
from tidings.store.sqlite import MEMORY, SqliteStore, open_store, schema, wal, writer
from tidings.store.sqlite.writer import GroupCommit, Rank, Writer

NOW = 1_800_000_000_000_000


def draft(resource: str, *, action: Action = Action.ADDED) -> EventDraft:
    return EventDraft(
        resource=resource,
        action=action,
        user=b"null",
        parent=None,
        change=None,
        created_at=None,
        external_id=None,
        path="",
    )


def described(gid: str, *, name: str | None = None) -> ResourceDraft:
    return ResourceDraft(gid=gid, resource_type="task", name=name, parents=("1",), keep_omitted=True)


async def publish(store: SqliteStore, resource: str, *resources: ResourceDraft) -> Published:
    return await store.publish(Publication(events=(draft(resource),), resources=resources), now=NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidings.db"


@pytest.fixture
async def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    """A store on a file with one workspace; it waits for locks a moment only."""
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_MS", 50)
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    await store.put_resources([ResourceDraft(gid="1", resource_type="workspace")], workspaces=None, now=NOW)
    yield store
    await store.close()


class Held:
    """Keeps the writer busy, so that what is asked for meanwhile makes one group: none joins a group of claims."""

    def __init__(self, store: SqliteStore, rank: Rank = Rank.CLAIM) -> None:
        self._store = store
        self._rank = rank
        self._go = threading.Event()

    async def __aenter__(self) -> None:
        started = threading.Event()

        def wait(_: sqlite3.Connection) -> None:
            started.set()
            assert self._go.wait(30)

        self._task = asyncio.create_task(self._store._write(wait, self._rank))
        await asyncio.to_thread(started.wait, 30)

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._task


async def in_one_group(store: SqliteStore, *work: Callable[[], "asyncio.Future[object]"]) -> list[object]:
    """Ask for all of it while the writer is busy; gives results and errors in the order asked."""
    async with Held(store):
        tasks = [asyncio.ensure_future(start()) for start in work]
        while store.waiting < len(work):
            await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


def groups_of(store: SqliteStore) -> GroupCommit:
    return cast(Writer, store._writer)._groups


def unit(
    store: SqliteStore, run: Callable[[sqlite3.Connection], object], rank: Rank = Rank.WRITE
) -> Callable[[], "asyncio.Future[object]"]:
    return lambda: asyncio.ensure_future(store._write(run, rank))


def note(name: str) -> Callable[[sqlite3.Connection], object]:
    """A unit that leaves its name in `meta`."""
    return lambda connection: (
        connection.execute("INSERT INTO meta (name, value) VALUES (?, 1)", (name,)).rowcount
    )


def noted(path: Path) -> set[str]:
    """What another connection sees of those."""
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM meta") if name.startswith("note")}
    finally:
        connection.close()


def fail(error: Exception) -> Callable[[sqlite3.Connection], object]:
    """A unit that writes and then fails."""

    def run(connection: sqlite3.Connection) -> object:
        connection.execute("INSERT INTO meta (name, value) VALUES ('note of the failed', 1)")
        raise error

    return run


def refused_by_sqlite(connection: sqlite3.Connection) -> object:
    connection.execute("INSERT INTO meta (name, value) VALUES ('note of the refused', 1)")
    return connection.execute("INSERT INTO meta (name, value) VALUES (NULL, 1)")


# -- a unit fails ----------------------------------------------------------------------------------


async def test_a_unit_that_fails_fails_alone(store: SqliteStore, path: Path) -> None:
    """Whatever it raised is told to its caller, and nothing of it is written."""
    refusal, mistake = BadRequest("no", code="no"), RuntimeError("a mistake of ours")
    results = await in_one_group(
        store,
        unit(store, note("note 1")),
        unit(store, fail(refusal)),
        unit(store, fail(mistake)),
        unit(store, refused_by_sqlite),
        unit(store, note("note 2")),
    )
    assert results[:3] == [1, refusal, mistake]
    assert isinstance(results[3], StoreUnavailable)
    assert results[4] == 1
    assert noted(path) == {"note 1", "note 2"}


async def test_a_publish_that_is_refused_leaves_the_others_of_its_group(store: SqliteStore) -> None:
    """What it had written on the way (here a resource) is gone with it, and not remembered either."""
    results = await in_one_group(
        store,
        lambda: asyncio.ensure_future(publish(store, "1")),
        lambda: asyncio.ensure_future(publish(store, "404", described("10"))),
        lambda: asyncio.ensure_future(publish(store, "1")),
    )
    first, refused, second = results
    assert isinstance(refused, BadRequest)
    assert isinstance(first, Published)
    assert isinstance(second, Published)
    assert first.last < second.last
    assert await store.get_resource("10") is None
    with pytest.raises(BadRequest, match="Unknown object: 10"):
        await publish(store, "10")
    await publish(store, "10", described("10"))
    await publish(store, "10")


async def test_records_go_before_writes_and_claims_last(store: SqliteStore) -> None:
    """Records hold what the network has seen and free leases: a claim of the same group finds them free."""
    order: list[str] = []

    def noting(name: str) -> Callable[[sqlite3.Connection], object]:
        return lambda _: order.append(name)

    await in_one_group(
        store,
        unit(store, noting("claim"), Rank.CLAIM),
        unit(store, noting("write 1")),
        unit(store, noting("record 1"), Rank.RECORD),
        unit(store, noting("write 2")),
        unit(store, noting("record 2"), Rank.RECORD),
    )
    assert order == ["record 1", "record 2", "write 1", "write 2", "claim"]


async def test_who_waits_is_told_in_that_order(store: SqliteStore) -> None:
    """Whoever asked first: the slot of a record must be free before a claim of the same webhook takes one."""
    told: list[str] = []

    def telling(name: str, rank: Rank) -> Callable[[], "asyncio.Future[object]"]:
        async def tell() -> object:
            result = await store._write(note(f"note {name}"), rank)
            told.append(name)
            return result

        return lambda: asyncio.ensure_future(tell())

    await in_one_group(
        store, telling("claim", Rank.CLAIM), telling("write", Rank.WRITE), telling("record", Rank.RECORD)
    )
    assert told == ["record", "write", "claim"]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
async def test_what_is_flushed_when(
    store: SqliteStore, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the commit, right after it, or with what comes later; nobody is to build on what others may lose."""
    modes: list[int] = []
    flush, flushed = wal.fdatasync, 0

    def fdatasync(file: int) -> None:
        nonlocal flushed
        flushed += 1
        flush(file)

    monkeypatch.setattr(wal, "fdatasync", fdatasync)
    if beside:
        groups_of(store)._turns._others_until = math.inf

    def mode(connection: sqlite3.Connection) -> None:
        (flushing,) = connection.execute("PRAGMA synchronous").fetchone()
        modes.append(flushing)

    full, normal = 2, 1
    steady = full if beside else normal
    for rank in (Rank.CLAIM, Rank.STEADY, Rank.RECORD, Rank.WRITE, Rank.CLAIM):
        await store._write(mode, rank)
    assert modes == [normal, steady, full, full, normal]
    assert flushed == (0 if beside else 1)
    for other, expected in (
        (Rank.RECORD, full),
        (Rank.WRITE, full),
        (Rank.CLAIM, steady),
    ):
        modes.clear()
        await in_one_group(store, unit(store, mode, Rank.STEADY), unit(store, mode, other))
        assert modes == [expected] * 2
    await store.check()
    assert flushed == (0 if beside else 2)


async def test_what_went_steadily_is_told_before_it_is_flushed_and_nothing_begins_before_that(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushing, go = threading.Event(), threading.Event()

    def fdatasync(file: int) -> None:
        flushing.set()
        assert go.wait(30)

    monkeypatch.setattr(wal, "fdatasync", fdatasync)
    assert await store._write(note("note record"), Rank.STEADY) == 1
    assert await asyncio.to_thread(flushing.wait, 30)
    write = asyncio.create_task(store._write(note("note write")))
    while not store.waiting:
        await asyncio.sleep(0)
    assert noted(path) == {"note record"}
    go.set()
    assert await write == 1


@pytest.mark.parametrize("promised", [Rank.WRITE, Rank.RECORD])
async def test_what_is_promised_waits_for_what_is_flushed_after_it_is_told(
    store: SqliteStore, promised: Rank
) -> None:
    """It would be told as soon as that is. Whatever is behind it waits too, for the next group."""
    order: list[str] = []

    def noting(name: str) -> Callable[[sqlite3.Connection], object]:
        def run(connection: sqlite3.Connection) -> None:
            (full,) = connection.execute("PRAGMA synchronous").fetchone()
            order.append(f"{name} {full}")

        return run

    async with Held(store, Rank.STEADY):
        asked = [
            asyncio.create_task(store._write(noting(name), rank))
            for name, rank in (
                ("claim", Rank.CLAIM),
                ("early", Rank.STEADY),
                ("promised", promised),
                ("late", Rank.CLAIM),
            )
        ]
        while store.waiting < len(asked):
            await asyncio.sleep(0)
    await asyncio.gather(*asked)
    assert order == ["early 1", "claim 1", "promised 2", "late 2"]


async def test_what_waits_for_the_next_group_is_written_before_the_store_is_closed(
    store: SqliteStore, path: Path
) -> None:
    async with Held(store, Rank.STEADY):
        asked = asyncio.create_task(store._write(note("note write")))
        while not store.waiting:
            await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
    await closing
    assert await asked == 1
    assert noted(path) == {"note write"}


async def test_a_commit_that_could_not_be_flushed_ends_the_writer(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite takes it back; what was to be flushed with it is lost, and so would be what is written behind that."""

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(connection, name)

        def execute(self, sql: str) -> object:
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return connection.execute(sql)

    died: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        threading,
        "excepthook",
        lambda failure: loop.call_soon_threadsafe(died.set_result, failure.exc_value),
    )
    await store.check()
    groups = groups_of(store)
    connection = groups.connection
    groups.connection = cast(sqlite3.Connection, Failing())
    asked = asyncio.create_task(store.check())
    assert isinstance(await asyncio.wait_for(died, 30), sqlite3.OperationalError)
    assert not asked.done()
    asked.cancel()
    writing = cast(Writer, store._writer)
    await asyncio.to_thread(writing._thread.join)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.check()
    connection.close()


async def test_a_log_that_cannot_be_opened_is_flushed_within_commits(store: SqliteStore) -> None:
    """As where no descriptors are left."""
    modes: list[int] = []

    def mode(connection: sqlite3.Connection) -> None:
        modes.extend(connection.execute("PRAGMA synchronous").fetchone())

    log = groups_of(store)._wal
    assert log is not None
    path = log._path
    log.close()
    log._path = path.with_name("nowhere")
    await store._write(mode, Rank.STEADY)
    log._path = path
    await store._write(mode, Rank.STEADY)
    assert modes == [2, 1]


async def test_a_database_behind_a_symbolic_link_is_flushed_where_it_is(tmp_path: Path) -> None:
    """And what processes share lies beside it: who opens it by the other name sees who writes."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real / "tidings.db")
    store = open_store(str(link), migrate=True, generation="g", key_id="k")
    assert await store._write(note("note record"), Rank.STEADY) == 1
    await store.check()
    assert {each.name for each in tmp_path.iterdir()} == {"real", "link"}
    assert (real / "tidings.db-turns").exists()
    await store.close()


async def test_what_comes_while_a_group_runs_is_committed_with_it(store: SqliteStore, path: Path) -> None:
    """In the order of ranks; and what fails of it fails alone."""
    order: list[str] = []

    def late(name: str) -> Callable[[sqlite3.Connection], object]:
        def run(connection: sqlite3.Connection) -> object:
            order.append(name)
            assert noted(path) == set()
            return note(name)(connection)

        return run

    mistake = RuntimeError("a mistake of ours")
    async with Held(store, Rank.WRITE):
        asked = [
            asyncio.create_task(store._write(run, rank))
            for run, rank in (
                (late("note claim"), Rank.CLAIM),
                (fail(mistake), Rank.WRITE),
                (late("note record"), Rank.RECORD),
            )
        ]
        while store.waiting < len(asked):
            await asyncio.sleep(0)
    assert await asyncio.gather(*asked, return_exceptions=True) == [1, mistake, 1]
    assert order == ["note record", "note claim"]
    assert noted(path) == set(order)


async def test_what_is_prepared_ahead_is_prepared_without_a_transaction(store: SqliteStore) -> None:
    """For a unit that begins its group; and if it cannot be, the unit runs without."""
    connection = groups_of(store).connection
    open_then: list[bool] = []

    def prepare() -> None:
        open_then.append(connection.in_transaction)
        raise RuntimeError("a mistake of ours")

    assert await store._writer.run(note("note 1"), ahead=prepare) == 1
    assert open_then == [False]


async def test_the_first_of_a_group_fails_alone_too(store: SqliteStore, path: Path) -> None:
    results = await in_one_group(
        store, unit(store, refused_by_sqlite, Rank.RECORD), unit(store, note("note 1"), Rank.RECORD)
    )
    assert isinstance(results[0], StoreUnavailable)
    assert results[1] == 1
    assert noted(path) == {"note 1"}


# -- the commit fails ------------------------------------------------------------------------------


def fill(connection: sqlite3.Connection) -> object:
    """More than fits: SQLite says that the database or disk is full."""
    return connection.execute("INSERT INTO meta (name, value) VALUES ('note big', zeroblob(64 << 20))")


async def limit_pages(store: SqliteStore, *, spare: int | None) -> None:
    """Let the file grow by so many pages only, as a full disk would; None: as much as it likes."""

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {1 << 30 if spare is None else pages + spare}")

    await store._write(limit)


async def test_a_full_disk_acknowledges_nothing_and_then_all_goes_on(store: SqliteStore, path: Path) -> None:
    await limit_pages(store, spare=4)
    with pytest.raises(StoreUnavailable, match="full"):
        await store._write(fill)
    # Each of many small ones fails or is written, and says which.
    many = [unit(store, note(f"note {number} " + "x" * 500)) for number in range(200)]
    results = await in_one_group(store, *many)
    acknowledged = {number for number, result in enumerate(results) if result == 1}
    assert len(acknowledged) < 200
    assert all(isinstance(result, StoreUnavailable) for result in results if result != 1)
    assert {int(name.split()[1]) for name in noted(path)} == acknowledged
    with pytest.raises(StoreUnavailable, match="full"):
        for number in range(500):
            await store._write(note(f"note {200 + number} " + "x" * 900))
    await limit_pages(store, spare=None)
    assert await store._write(note("note at last")) == 1
    await publish(store, "1")
    assert "note at last" in noted(path)


async def test_a_publish_on_a_full_disk_appends_nothing(store: SqliteStore) -> None:
    before = await publish(store, "1")
    await limit_pages(store, spare=0)
    resources = tuple(described(f"r{number}", name="x" * 1_000) for number in range(300))
    big = Publication(events=tuple(draft(entry.gid) for entry in resources), resources=resources)
    with pytest.raises(StoreUnavailable):
        await store.publish(big, now=NOW)
    assert await store.get_resource("r0") is None
    await limit_pages(store, spare=None)
    after = await store.publish(big, now=NOW)
    assert (after.accepted, after.last) == (300, before.last + 300)


async def test_a_file_locked_by_another_is_unavailable_and_then_works_again(
    store: SqliteStore, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writes = [store._write(note(f"note {rank}"), rank) for rank in Rank]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * len(Rank)
    with pytest.raises(StoreUnavailable, match="locked"):
        await publish(store, "1")
    with pytest.raises(StoreUnavailable):
        await store.check()
    # Who only reads goes on.
    assert (await store.get_resource("1")) is not None
    other.execute("ROLLBACK")
    other.close()
    await store.check()
    await publish(store, "1")
    assert noted(path) == set()


async def test_what_was_remembered_of_an_undone_group_is_forgotten(store: SqliteStore, path: Path) -> None:
    """A resource that a failed commit created is unknown again, to the store's memory of the hierarchy too."""

    def break_commit(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")

    results = await in_one_group(
        store,
        lambda: asyncio.ensure_future(publish(store, "10", described("10"))),
        lambda: asyncio.ensure_future(publish(store, "10")),
        unit(store, break_commit),
    )
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await store.get_resource("10") is None
    with pytest.raises(BadRequest, match="Unknown object: 10"):
        await publish(store, "10")
    assert (await publish(store, "1")).last == 1


async def test_a_connection_that_broke_is_opened_anew(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable):
        await store._write(lambda connection: connection.close())
    await store.check()
    assert (await publish(store, "1")).accepted == 1
    (mode,) = await store._write(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    assert mode == 2


async def test_a_reader_that_broke_is_opened_anew(store: SqliteStore) -> None:
    def close(connection: sqlite3.Connection) -> None:
        connection.close()
        connection.execute("SELECT 1")

    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            await store._read(close)
    assert await store.get_resource("1") is not None


async def test_readers_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store._read(note("note 1"))


# -- bounds and the end ----------------------------------------------------------------------------


async def test_what_may_wait_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING_MAX", 3)
    async with Held(store):
        tasks = [asyncio.create_task(store.check()) for _ in range(3)]
        while store.waiting < 3:
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await store.check()
    await asyncio.gather(*tasks)
    await store.check()


async def test_who_hangs_up_does_not_undo_what_was_asked(store: SqliteStore, path: Path) -> None:
    async with Held(store):
        task = asyncio.create_task(store._write(note("note 1")))
        while not store.waiting:
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.check()
    assert noted(path) == {"note 1"}


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_closing_finishes_what_waits_and_refuses_the_rest(tmp_path: Path, where: str) -> None:
    path = MEMORY if where == "memory" else str(tmp_path / "tidings.db")
    store = open_store(path, migrate=True, generation="g", key_id="k")
    async with Held(store):
        tasks = [asyncio.create_task(store._write(note(f"note {number}"))) for number in range(300)]
        while store.waiting < 300:
            await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [1] * 300
    await closing
    await store.close()
    for refused in (store.check(), store.get_webhook("1"), store.next_due_at()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await refused
    if where == "file":
        assert len(noted(Path(path))) == 300
        with pytest.raises(StoreUnavailable):
            await store.changed()
