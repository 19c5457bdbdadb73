"""The database of the settings, and the key its secrets are sealed with."""

import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tidings.config import Settings, SqliteFile
from tidings.errors import SettingsError, StoreUnfit
from tidings.model import Micros
from tidings.runtime.machine import DICE, new_gid, new_token, now
from tidings.sealing import KEY_BYTES, Sealer
from tidings.service.tokens import TokenDesk
from tidings.store import Store
from tidings.store.sqlite import SqliteStore
from tidings.store.sqlite import open_store as open_sqlite


def load_key(settings: Settings) -> bytes:
    """The sealing key: the setting, or the file beside the database, made when it is missing.

    Raises:
        StoreUnfit: the file does not hold a key, or others may read it.
    """
    if settings.secret_key is not None:
        return settings.secret_key
    path = _database_path(settings).with_name(_database_path(settings).name + ".key")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise StoreUnfit(f"the key file {path} cannot be made: {error.strerror}") from error
    key = secrets.token_bytes(KEY_BYTES)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


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


def open_with(settings: Settings, sealer: Sealer, *, migrate: bool) -> SqliteStore:
    """The store of the settings, opened with this key."""
    return open_sqlite(
        str(_database_path(settings)),
        migrate=migrate,
        generation=secrets.token_hex(16),
        key_id=sealer.key_id,
        sandbox=settings.sandbox,
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


@contextlib.asynccontextmanager
async def open_tokens(settings: Settings) -> AsyncIterator[TokenDesk]:
    """The tokens of the settings' database, for the operator at the machine."""
    async with open_store(settings) as store:
        yield token_desk(store, now=now, dice=DICE)


def token_desk(store: Store, *, now: Callable[[], Micros], dice: random.Random) -> TokenDesk:
    """The desk that makes and knows tokens."""
    return TokenDesk(store, now=now, new_gid=lambda: new_gid(dice), new_text=lambda: new_token(dice))
