"""The database of the settings, and the key its secrets are sealed with."""

import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tidings.config import Settings, SqliteFile
from tidings.errors import SettingsError, StoreUnavailable, StoreUnfit
from tidings.model import Micros
from tidings.runtime.machine import DICE, new_gid, new_token, now
from tidings.sealing import KEY_BYTES, Sealer
from tidings.service.tokens import TokenDesk
from tidings.store import Store
from tidings.store.sqlite import SqliteStore, backup
from tidings.store.sqlite import open_store as open_sqlite
from tidings.store.sqlite.files import appearing


def load_key(settings: Settings) -> bytes:
    """The sealing key: the setting, or the file beside the database, made with the database.

    Raises:
        StoreUnfit: the file does not hold a key, or others may read it, or a database has lost its own.
        StoreUnavailable: the file cannot be written.
    """
    if settings.secret_key is not None:
        return settings.secret_key
    database = _database_path(settings)
    path = _key_path(settings)
    # Looked at in this order: whoever makes both makes the key first.
    made = database.exists() and database.stat().st_size > 0
    if not path.exists():
        if made:
            raise StoreUnfit(
                f"{database} is there, and the key its secrets are sealed with is not: "
                f"put it back at {path}, or set TIDINGS_SECRET_KEY"
            )
        _make_key(path)
    return _read_key(path)


def _key_path(settings: Settings) -> Path:
    database = _database_path(settings)
    return database.with_name(database.name + ".key")


def _make_key(path: Path) -> None:
    """Make a key that is on disk, whole, before anything is sealed with it; the first to make one makes it for all."""
    try:
        with contextlib.suppress(FileExistsError), appearing(path) as partial:
            partial.write_text(secrets.token_bytes(KEY_BYTES).hex() + "\n", "ascii")
    except OSError as error:
        raise StoreUnavailable(f"the key file {path} cannot be made: {error.strerror}") from error


def _read_key(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise StoreUnfit(f"the key file {path} may be read by others; run: chmod 600 {path}")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise StoreUnfit(f"the key file {path} cannot be read: {error}") from error
    if len(key) != KEY_BYTES:
        raise StoreUnfit(f"the key file {path} must hold {2 * KEY_BYTES} hex characters")
    return key


def _database_path(settings: Settings) -> Path:
    if not isinstance(settings.database, SqliteFile):
        raise SettingsError(
            [
                f"TIDINGS_DATABASE {settings.database}: this version has no PostgreSQL store yet; "
                "name a sqlite:/// file"
            ]
        )
    return settings.database.path


def open_with(settings: Settings, sealer: Sealer, *, migrate: bool, serve: bool = False) -> SqliteStore:
    """The store of the settings, opened with this key; `serve` says that events will be accepted or delivered."""
    return open_sqlite(
        str(_database_path(settings)),
        migrate=migrate,
        generation=secrets.token_hex(16),
        key_id=sealer.key_id,
        sandbox=settings.sandbox,
        serve=serve,
    )


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, migrate: bool = True) -> AsyncIterator[Store]:
    """The store of the settings, closed at the end."""
    store = open_with(settings, Sealer(load_key(settings)), migrate=migrate)
    try:
        yield store
    finally:
        await store.close()


async def migrate(settings: Settings) -> None:
    """Make the database, or bring it up to date."""
    async with open_store(settings, migrate=True):
        pass


@dataclass(frozen=True, slots=True)
class Restored:
    """A database that was made from a backup. `key_missing` says in words what its key lacks; None if it is there."""

    path: Path
    key_missing: str | None


def back_up(settings: Settings, target: Path, *, progress: backup.Progress) -> Path:
    """Copy the settings' database into a new file; gives the database's path. The key is not copied.

    Raises:
        SettingsError, StoreUnfit, StoreUnavailable: there is no backup now.
    """
    source = _database_path(settings)
    backup.back_up(source, target, now=now(), progress=progress)
    return source


def restore(settings: Settings, source: Path, *, progress: backup.Progress) -> Restored:
    """Make the settings' database from a backup.

    Raises:
        SettingsError, StoreUnfit, StoreUnavailable: no database was made.
    """
    path = _database_path(settings)
    key_id = backup.restore(source, path, generation=secrets.token_hex(16), progress=progress)
    return Restored(path, _key_missing(settings, key_id))


def _key_missing(settings: Settings, key_id: str | None) -> str | None:
    path = _key_path(settings)
    if key_id is None:
        return None
    if settings.secret_key is None and not path.exists():
        return f"Its secrets are sealed with key {key_id}, which is not here: put it at {path}, mode 0600."
    if Sealer(load_key(settings)).key_id != key_id:
        return f"Its secrets are sealed with key {key_id}, and the key that is here is another."
    return None


@contextlib.asynccontextmanager
async def open_tokens(settings: Settings) -> AsyncIterator[TokenDesk]:
    """The tokens of the settings' database, for the operator at the machine."""
    async with open_store(settings) as store:
        yield token_desk(store, now=now, dice=DICE)


def token_desk(store: Store, *, now: Callable[[], Micros], dice: random.Random) -> TokenDesk:
    """The desk that makes and knows tokens."""
    return TokenDesk(store, now=now, new_gid=lambda: new_gid(dice), new_text=lambda: new_token(dice))
