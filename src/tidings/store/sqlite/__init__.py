"""The embedded store: one SQLite file in WAL mode, durable before anything is acknowledged.

One thread owns the write connection and commits in groups (`writer.py`); readers have connections of their own. The
transactions themselves are plain functions over a connection, filed by noun:

    schema         opening and migrating          places        the hierarchy
    log            append                         establishing  webhooks
    claiming       choose, lease                  reading       what was leased, and the pages
    marking        raise heads                    stretches     where events are visible from
    waiting        when there will be work        recording     records, attempts
    trimming       delete what is past keeping    access        tokens
    holders        who holds leases               rows          columns to model and back
    turns          whose turn it is to write      files         files that appear whole
    wal            flushing apart from a commit   readers       reading beside the writer
    backup         copies, and what begins anew
"""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tidings.errors import StoreUnavailable, StoreUnfit
from tidings.model import (
    Claimed,
    ClaimRequest,
    Filter,
    Keeping,
    Micros,
    NewWebhook,
    Owner,
    Publication,
    Published,
    Quotas,
    Record,
    Recorded,
    Resource,
    ResourceDraft,
    Sweep,
    Token,
    Webhook,
)
from tidings.store import LoggedAttempt, Reservation
from tidings.store.sqlite import (
    access,
    backup,
    claiming,
    establishing,
    log,
    reading,
    recording,
    schema,
    trimming,
    waiting,
)
from tidings.store.sqlite.holders import Holders
from tidings.store.sqlite.places import Places, referenced
from tidings.store.sqlite.readers import Readers
from tidings.store.sqlite.rows import read_meta, write_meta
from tidings.store.sqlite.turns import Turns
from tidings.store.sqlite.wal import WriteAheadLog
from tidings.store.sqlite.writer import Drive, GroupCommit, Rank, Writer

T = TypeVar("T")

MEMORY: Final = ":memory:"


class SqliteStore:
    """The `Store` on one SQLite file. Made by `open_store`."""

    def __init__(self, path: str, connection: sqlite3.Connection, *, drive: Drive = Writer) -> None:
        """`connection` is the one to write on: open, migrated, from now on the writer's. `drive` runs the commits."""
        # A database in memory has but one connection.
        self._readers = None if path == MEMORY else Readers(path)
        self._places = Places()
        # SQLite's log lies beside the file itself, not beside a symbolic link to it; so does what processes share.
        file = None if path == MEMORY else Path(path).resolve()
        self._holders = Holders(file)
        # Leases (webhook and fence) that were committed and then could not be read.
        self._unread: list[tuple[int, int]] = []
        self._writer = drive(
            GroupCommit(
                connection,
                reopen=partial(schema.connect, path),
                on_abort=self._places.reset,
                turns=Turns(file),
                wal=None if file is None else WriteAheadLog(file),
            )
        )
        self._seen = self._data_version()

    # -- running transactions ----------------------------------------------------------------------

    async def _write(self, unit: Callable[[sqlite3.Connection], T], rank: Rank = Rank.WRITE) -> T:
        written: T = await self._writer.run(unit, rank)
        return written

    async def _read(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            return await self._write(unit)
        return await self._readers.run(unit)

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def check(self) -> None:
        await self._write(lambda connection: write_meta(connection, "checked", 1))

    async def close(self) -> None:
        await self._writer.close()
        if self._readers is not None:
            await self._readers.close()
        self._holders.close()

    # -- log and hierarchy -------------------------------------------------------------------------

    async def publish(self, publication: Publication, *, now: Micros) -> Published:
        publishing = log.Publishing(self._places, publication, now=now)
        published: Published = await self._writer.run(publishing.run, ahead=publishing.prepare)
        return published

    async def put_resources(
        self, drafts: Sequence[ResourceDraft], *, workspaces: frozenset[str] | None, now: Micros
    ) -> tuple[Resource, ...]:
        def put(connection: sqlite3.Connection) -> tuple[Resource, ...]:
            hierarchy = self._places.load(connection, referenced(drafts), workspaces=workspaces)
            hierarchy.apply(drafts)
            self._places.write(connection, hierarchy.changed, now=now)
            return tuple(hierarchy.visible(draft.gid, path="resource") for draft in drafts)

        return await self._write(put)

    async def get_resource(self, gid: str) -> Resource | None:
        return await self._read(lambda connection: establishing.load_resource(connection, gid))

    async def delete_resource(self, gid: str, *, now: Micros) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE resources SET deleted_at = coalesce(deleted_at, ?) WHERE gid = ?", (now, gid)
            )
            self._places.forget(connection)

        await self._write(delete)

    async def note_uptime(self, passed: Callable[[], Micros], *, since: Micros, now: Micros) -> Micros:
        return await self._write(
            lambda connection: trimming.note_uptime(connection, passed, since=since, now=now)
        )

    async def survey(self, *, now: Micros, keeping: Keeping) -> Sweep:
        return await self._read(lambda connection: trimming.survey(connection, now=now, keeping=keeping))

    async def trim(self, sweep: Sweep, *, now: Micros) -> int:
        return await self._write(lambda connection: trimming.trim(connection, sweep, now=now))

    # -- webhooks ----------------------------------------------------------------------------------

    async def reserve(
        self,
        *,
        owner: Owner,
        resource: str,
        target: str,
        key: str,
        quotas: Quotas,
        now: Micros,
        until: Micros,
    ) -> Reservation | None:
        return await self._write(
            lambda connection: establishing.reserve(
                connection,
                owner=owner,
                resource=resource,
                target=target,
                key=key,
                quotas=quotas,
                now=now,
                until=until,
            )
        )

    async def release(self, reservation: Reservation) -> None:
        await self._write(lambda connection: establishing.release(connection, reservation.key))

    async def add_webhook(self, new: NewWebhook, *, reservation: Reservation, quotas: Quotas) -> Webhook:
        return await self._write(
            lambda connection: establishing.add(connection, new, reservation=reservation, quotas=quotas)
        )

    async def get_webhook(self, gid: str) -> Webhook | None:
        return await self._read(lambda connection: establishing.get(connection, gid))

    async def list_webhooks(
        self, owner: Owner, *, workspace: str, resource: str | None, after: int, limit: int
    ) -> tuple[Webhook, ...]:
        return await self._read(
            lambda connection: establishing.list_of(
                connection, owner, workspace=workspace, resource=resource, after=after, limit=limit
            )
        )

    async def replace_filters(self, gid: str, filters: Sequence[Filter]) -> Webhook | None:
        return await self._write(lambda connection: establishing.replace_filters(connection, gid, filters))

    async def remove_webhook(self, gid: str, *, now: Micros) -> bool:
        return await self._write(lambda connection: establishing.remove(connection, gid, now=now))

    async def list_attempts(self, gid: str, *, before: int | None, limit: int) -> tuple[LoggedAttempt, ...]:
        return await self._read(
            lambda connection: establishing.list_attempts(connection, gid, before=before, limit=limit)
        )

    # -- engine ------------------------------------------------------------------------------------

    async def take_holder(self, *, now: Micros) -> int:
        return await self._write(lambda connection: self._holders.take(connection, now=now))

    async def drop_holder(self, holder: int) -> None:
        await self._write(lambda connection: self._holders.drop(connection, holder))

    async def release_dead_holders(self) -> int:
        return await self._write(self._holders.release_dead, Rank.CLAIM)

    async def claim(self, request: ClaimRequest, *, clock: Callable[[], Micros] | None = None) -> Claimed:
        def lease(connection: sqlite3.Connection) -> claiming.Leased:
            asked = request if clock is None else replace(request, now=clock())
            return claiming.lease(connection, asked, unread=self._unread)

        claimed: Claimed = await self._writer.run(lease, Rank.CLAIM, then=self._read_leased)
        return claimed

    def _read_leased(self, connection: sqlite3.Connection, leased: claiming.Leased) -> Claimed:
        """Read what a claim has leased; if that fails, the next claim gives it back before its time is over."""
        self._unread = [each for each in self._unread if each not in leased.freed]
        try:
            connection.execute("BEGIN")
            claimed = reading.read(connection, leased)
            connection.execute("ROLLBACK")
        except BaseException:
            self._unread += [(webhook, fence) for webhook, (fence, _) in leased.webhooks.items()]
            raise
        return claimed

    async def record(self, records: Sequence[Record]) -> Recorded:
        rank = Rank.STEADY if all(entry.steady for entry in records) else Rank.RECORD
        return await self._write(lambda connection: recording.record(connection, records), rank)

    async def next_due_at(self) -> Micros | None:
        return await self._read(waiting.next_due_at)

    async def changed(self) -> bool:
        seen = self._data_version()
        if seen == self._seen:
            return False
        self._seen = seen
        return True

    def _data_version(self) -> int:
        return 0 if self._readers is None else self._readers.data_version()

    async def spread_heartbeats(self, *, now: Micros, overdue_by: Micros, interval: Micros) -> None:
        def spread(connection: sqlite3.Connection) -> int:
            return waiting.spread_heartbeats(connection, now=now, overdue_by=overdue_by, interval=interval)

        # Need not be flushed: what a power cut takes back is overdue again at the next start.
        while await self._write(spread, Rank.CLAIM):
            pass

    async def oldest_due_at(self, *, now: Micros) -> Micros | None:
        return await self._read(lambda connection: waiting.oldest_due_at(connection, now=now))

    # -- tokens ------------------------------------------------------------------------------------

    async def add_token(self, token: Token, *, digest: bytes, only_first: bool = False) -> bool:
        return await self._write(
            lambda connection: access.add(connection, token, digest=digest, only_first=only_first)
        )

    async def find_token(self, digest: bytes) -> Token | None:
        return await self._read(lambda connection: access.find(connection, digest))

    async def list_tokens(self) -> tuple[Token, ...]:
        return await self._read(access.list_all)

    async def revoke_token(self, gid: str, *, now: Micros) -> bool:
        return await self._write(lambda connection: access.revoke(connection, gid, now=now))

    async def touch_tokens(self, used: Mapping[str, Micros]) -> None:
        await self._write(lambda connection: access.touch(connection, used), Rank.CLAIM)

    async def review_access(self, *, now: Micros) -> None:
        await self._write(lambda connection: access.review(connection, now=now))


def open_store(
    path: str,
    *,
    migrate: bool,
    generation: str,
    key_id: str,
    sandbox: bool = False,
    serve: bool = False,
    drive: Drive = Writer,
) -> SqliteStore:
    """Open (and, if asked, create or migrate) the store in a file, or in memory under the path `:memory:`.

    `generation` names the log if it is made now, or begins anew from a backup. `key_id` is the sealing key's: a
    database keeps the first it sees and is not opened with another. `serve`: what an earlier process left in the log is
    first written once more. `drive` says who runs the commits: a thread, or a simulation.

    Raises:
        StoreUnfit: not a database for this version, this key, or this mode.
        StoreUnavailable: it cannot be opened.
    """
    connection = schema.connect(path)
    try:
        if serve:
            _write_log_again(connection)
        _prepare(connection, migrate=migrate, generation=generation, key_id=key_id, sandbox=sandbox)
        return SqliteStore(path, connection, drive=drive)
    except BaseException:
        connection.close()
        raise


def _write_log_again(connection: sqlite3.Connection) -> None:
    """Copy the log into the database, as far as readers let it.

    An earlier process may have left a log that the disk has not kept, though the operating system shows it still; what
    is acknowledged behind it would be lost with it.
    """
    # Where there is no room for it, nothing can be acknowledged before there is, and then the log is copied too.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _prepare(
    connection: sqlite3.Connection, *, migrate: bool, generation: str, key_id: str, sandbox: bool
) -> None:
    if migrate:
        schema.migrate(connection, generation=generation, sandbox=sandbox)
    schema.check_current(connection)
    try:
        backup.begin_anew(connection, generation)
        if sandbox and not read_meta(connection, "sandbox"):
            raise StoreUnfit("this database was not made in sandbox mode; sandbox mode does not touch it")
        kept = read_meta(connection, "key_id")
        if kept is None:
            write_meta(connection, "key_id", key_id)
        elif kept != key_id:
            raise StoreUnfit(
                f"this database's secrets are sealed with key {kept}, not with {key_id}: "
                "TIDINGS_SECRET_KEY (or the key file beside the database) is another one"
            )
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the database refused: {error}") from error
