"""The stores the suite runs on. A store that passes it is one; nothing in the suite knows which it is.

Another store joins by an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.store.building import Case
from tidings.store import Store
from tidings.store.sqlite import MEMORY, open_store


@dataclass(frozen=True)
class Kind:
    """How to open a database of this kind, anew for each test folder. `lasting`: it outlives the one who opened it."""

    name: str
    lasting: bool
    open: Callable[[Path], Awaitable[Store]]


@dataclass
class Database:
    """One database, which may be opened again, or twice at once if it lasts."""

    kind: Kind
    folder: Path
    _opened: list[Store] = field(default_factory=list)

    async def open(self) -> Store:
        store = await self.kind.open(self.folder)
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


async def _sqlite_file(folder: Path) -> Store:
    return open_store(str(folder / "tidings.db"), migrate=True, generation="g", key_id="k")


async def _sqlite_memory(folder: Path) -> Store:
    return open_store(MEMORY, migrate=True, generation="g", key_id="k")


KINDS: Final = (
    Kind("sqlite-file", lasting=True, open=_sqlite_file),
    Kind("sqlite-memory", lasting=False, open=_sqlite_memory),
)


async def _database(kind: Kind, folder: Path) -> AsyncIterator[Database]:
    database = Database(kind, folder)
    yield database
    await database.close()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of each kind."""
    async for database in _database(request.param, tmp_path):
        yield database


@pytest.fixture(params=[kind for kind in KINDS if kind.lasting], ids=lambda kind: kind.name)
async def lasting_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of each kind that outlives its store: it can be closed and opened again, or opened twice."""
    async for database in _database(request.param, tmp_path):
        yield database


@pytest.fixture
async def store(database: Database) -> Store:
    """An empty store of each kind."""
    return await database.open()


@pytest.fixture
async def case(store: Store) -> Case:
    """A store of each kind with the hierarchy of `building.py` in it, and a holder."""
    return await Case.on(store)
