"""A file that is ours and is not what it was: damaged, cut short, newer. And what its tables keep out."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.store.building import NOON, OWNER, PROJECT, WORKSPACE, Case, names_of
from tidings.errors import StoreUnavailable, StoreUnfit, TidingsError
from tidings.store import Store
from tidings.store.sqlite import SqliteStore, open_store, schema

PAGE_BYTES: Final = 4_096


def opened(path: Path) -> SqliteStore:
    return open_store(str(path), migrate=True, generation="g", key_id="k")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with a little of everything in it, closed."""
    path = tmp_path / "tidings.db"
    case = await Case.on(opened(path))
    webhook = await case.establish()
    await case.publish(*names_of(50), size=1_000)
    await case.only()
    await case.store.remove_webhook(webhook.gid, now=NOON)
    await case.establish("http://another.example/")
    await case.store.close()
    return path


def spoil(path: Path, *, after: int) -> None:
    """Overwrite everything behind so many pages."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(after * PAGE_BYTES)
        file.write(b"\xa5" * (size - file.tell()))


def cut(path: Path, *, after: int) -> None:
    with path.open("r+b") as file:
        file.truncate(after * PAGE_BYTES)


async def _claim(store: Store) -> None:
    await Case(store, holder=1).claim()


VERBS: Final[tuple[Callable[[Store], Awaitable[object]], ...]] = (
    lambda store: store.get_resource(PROJECT),
    lambda store: Case(store, holder=1).publish("e", resource=PROJECT),
    lambda store: store.list_webhooks(OWNER, workspace=WORKSPACE, resource=None, after=0, limit=10),
    lambda store: store.next_due_at(),
    lambda store: store.oldest_due_at(now=NOON),
    lambda store: Case(store, holder=1).trim_all(now=2 * NOON),
    lambda store: store.take_holder(now=NOON),
    lambda store: store.check(),
    _claim,
)


@pytest.mark.parametrize("damage", [spoil, cut])
@pytest.mark.parametrize("after", [1, 2, 5, 10, 20])
async def test_a_damaged_file_is_unavailable_and_never_a_surprise(
    path: Path, damage: Callable[..., None], after: int
) -> None:
    """At opening or at the first verb that meets the damage; whoever gets by it works, and closing always does."""
    damage(path, after=after)
    refusals: list[TidingsError] = []
    try:
        store = opened(path)
    except (StoreUnavailable, StoreUnfit) as error:
        refusals.append(error)
    else:
        for verb in VERBS:
            try:
                await verb(store)
            except StoreUnavailable as error:
                refusals.append(error)
        await store.close()
    assert refusals, "the damage was not noticed"
    assert all(str(error) for error in refusals)


async def test_a_file_with_a_spoiled_head_is_refused_by_name(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xa5" * 100)
    with pytest.raises(StoreUnavailable, match=r"tidings\.db.*not a database"):
        opened(path)


def test_a_refusal_of_a_newer_file_names_both_versions(path: Path) -> None:
    """So that the operator knows which of the two to change."""
    known = schema.migrations()[-1][0]
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {known + 41}")
    connection.close()
    with pytest.raises(StoreUnfit, match=rf"schema {known + 41}; this version knows {known}\b"):
        opened(path)


def test_a_refusal_of_an_older_file_names_both_versions(tmp_path: Path) -> None:
    known = schema.migrations()[-1][0]
    with pytest.raises(StoreUnfit, match=rf"schema 0, this version needs {known}\b"):
        open_store(str(tmp_path / "new.db"), migrate=False, generation="g", key_id="k")


def test_every_table_of_ours_is_strict(path: Path) -> None:
    connection = sqlite3.connect(path)
    tables = connection.execute(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    connection.close()
    assert len(tables) > 10
    assert [name for name, strict in tables if not strict] == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cursors SET head = 'far'",
        "UPDATE webhooks SET target = NULL",
        "UPDATE events SET accepted_at = 1.5",
        "INSERT INTO webhooks SELECT * FROM webhooks",
        "INSERT INTO event_scopes SELECT * FROM event_scopes",
    ],
)
def test_the_tables_keep_out_what_does_not_belong(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
