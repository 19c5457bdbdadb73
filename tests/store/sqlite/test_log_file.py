"""The write-ahead log's file: what a long reader makes it grow to is not kept."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.building import NOON, Case, names_of, steady
from tidings.store.sqlite import open_store, schema
from tidings.store.sqlite.wal import WriteAheadLog

KEPT = 256 << 10
# Many more than it takes.
PUBLISHES_MAX = 500


async def test_the_log_is_small_again_after_a_long_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is flushed apart from its commit is still written to that file, and found in it."""
    monkeypatch.setattr(schema, "LOG_FILE_BYTES_KEPT", KEPT)
    monkeypatch.setattr(schema, "CHECKPOINT_PAGES", 10)
    flushed: list[os.stat_result] = []
    flush = WriteAheadLog.flush

    def note(wal: WriteAheadLog) -> None:
        flush(wal)
        assert wal._file is not None
        flushed.append(os.fstat(wal._file))

    monkeypatch.setattr(WriteAheadLog, "flush", note)
    path = tmp_path / "tidings.db"
    log = path.with_name("tidings.db-wal")
    store = open_store(str(path), migrate=True, generation="g", key_id="k")
    case = await Case.on(store)
    await case.establish()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        while log.stat().st_size <= 4 * KEPT:
            await case.publish(*names_of(100))
    for _ in range(PUBLISHES_MAX):
        await case.publish("more")
        if log.stat().st_size <= KEPT:
            break
    assert log.stat().st_size <= KEPT
    await case.record(steady(await case.only(), now=NOON, events=1))
    # It is flushed once it is told of, before anything else is written.
    await store.check()
    assert flushed and os.path.samestat(flushed[-1], log.stat())
    with closing(sqlite3.connect(path)) as another:
        assert another.execute("SELECT count(*) FROM cursors WHERE cursor > 0").fetchone() == (1,)
    await store.close()
