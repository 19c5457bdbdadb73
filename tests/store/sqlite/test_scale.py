"""What a turn costs is what there is to do, not how many webhooks there are.

Counted are the steps of SQLite's machine (those at which it asks whether to go on: every turn of every loop), not
time: they are the same on every computer.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest

from tests.store.building import (
    DAY,
    HEARTBEAT,
    NOON,
    OWNER,
    SECOND,
    TASK,
    WORKSPACE,
    Case,
    delivered,
    failed,
    token,
)
from tests.store.sqlite.filling import crowded, pass_over
from tidings.store.sqlite import MEMORY, SqliteStore, open_store
from tidings.store.sqlite.writer import Rank

FEW: Final = 200
MANY: Final = 20_000
# A hundred times the webhooks: some trees are a level deeper, nothing more.
ALLOWANCE: Final = 1.2


class Steps:
    """Counts the steps of a store in memory, where one connection does everything."""

    def __init__(self) -> None:
        self.taken = 0

    def _count(self) -> int:
        self.taken += 1
        return 0

    async def of(self, store: SqliteStore, work: Callable[[], Awaitable[Any]]) -> int:
        def start(connection: sqlite3.Connection) -> None:
            connection.set_progress_handler(self._count, 1)

        def stop(connection: sqlite3.Connection) -> None:
            connection.set_progress_handler(None, 0)

        await store._write(start)
        before = self.taken
        await work()
        await store._write(stop)
        return self.taken - before


async def _publish(case: Case) -> None:
    await case.publish("e")


async def _claim(case: Case) -> None:
    assert len((await case.claim()).claims) == 1


async def _deliver(case: Case) -> None:
    await case.record(delivered(await case.only(), now=NOON))


async def _fail_and_retry(case: Case) -> None:
    await case.record(failed(await case.only(), now=NOON, next_attempt_at=NOON + SECOND))
    await case.record(delivered(await case.only(now=NOON + SECOND), now=NOON + SECOND))


async def _look_in_vain(case: Case) -> None:
    await _deliver(case)
    assert (await case.claim()).claims == ()


async def _ask_when_it_is_due(case: Case) -> None:
    assert await case.store.next_due_at() is not None
    assert await case.store.oldest_due_at(now=NOON) is None


async def _wait_for_a_slot(case: Case) -> None:
    """Marked by a claim that had no room for it."""
    assert (await case.claim(limit=0)).claims == ()
    assert await case.store.oldest_due_at(now=NOON) is not None


async def _establish(case: Case) -> None:
    await case.establish("http://another.example/", resource=TASK)


async def _read(case: Case) -> None:
    (webhook,) = await case.store.list_webhooks(OWNER, workspace=WORKSPACE, resource=None, after=0, limit=100)
    assert await case.store.get_webhook(webhook.gid) == webhook
    await case.attempts(webhook.gid)


@pytest.mark.parametrize(
    ("published", "work"),
    [
        pytest.param(False, _publish, id="publish"),
        pytest.param(True, _claim, id="claim"),
        pytest.param(True, _deliver, id="claim and record"),
        pytest.param(True, _fail_and_retry, id="fail and try again"),
        pytest.param(True, _look_in_vain, id="find nothing more"),
        pytest.param(False, _ask_when_it_is_due, id="when is what due"),
        pytest.param(False, _establish, id="establish"),
        pytest.param(False, _read, id="read"),
    ],
)
async def test_a_hundred_times_the_webhooks_cost_no_more(
    published: bool, work: Callable[[Case], Awaitable[None]]
) -> None:
    """One event for one webhook, among few and among many that are quiet, failing, stopped, ended or leased."""
    counted = []
    for count in (FEW, MANY):
        store, case = await crowded(count)
        if published:
            await case.publish("e")
        counted.append(await Steps().of(store, partial(work, case)))
        await store.close()
    few, many = counted
    assert 0 < many <= few * ALLOWANCE


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(_claim, id="claim"),
        pytest.param(_deliver, id="claim and record"),
        pytest.param(_fail_and_retry, id="fail and try again"),
        pytest.param(_wait_for_a_slot, id="wait for a slot"),
    ],
)
async def test_a_quiet_webhook_costs_no_more_however_much_was_published_for_others(
    work: Callable[[Case], Awaitable[None]],
) -> None:
    """Its cursor stays where it was; a month at a thousand events a second is this far."""
    counted = []
    for gap in (0, 2_500_000_000):
        store, case = await crowded(FEW)
        await case.publish("e")
        await case.record(delivered(await case.only(), now=NOON))
        await store._write(partial(pass_over, positions=gap))
        await case.publish("f")
        counted.append(await Steps().of(store, partial(work, case)))
        await store.close()
    near, far = counted
    assert 0 < far <= near * ALLOWANCE


async def test_a_look_for_heartbeats_under_load_costs_no_more_the_more_are_waiting_for_their_turn() -> None:
    """Of those, too, a heartbeat would be due if they had no events; none goes first for it."""
    counted = []
    for count in (MANY // 4, MANY):
        store, case = await crowded(count)
        await store._write(
            lambda connection: connection.execute("UPDATE cursors SET head = head + 1 WHERE webhook % 4 = 0")
        )
        ask = partial(case.claim, now=NOON + 2 * HEARTBEAT, limit=1, quiet_first=1)
        counted.append(await Steps().of(store, ask))
        await store.close()
    few, many = counted
    assert 0 < many <= few * ALLOWANCE


async def test_ten_times_the_work_costs_ten_times_as_much() -> None:
    """Each webhook that an event concerns costs about the same, however many it concerns at once."""
    counted = []
    for count in (6, 60):
        store, case = await crowded(FEW)
        for number in range(count - 1):
            await case.establish(f"http://receiver.example/{number}")
        await case.publish("e")
        counted.append(await Steps().of(store, case.claim))
        await store.close()
    few, many = counted
    assert many <= 10 * few * ALLOWANCE


async def test_spreading_heartbeats_holds_nobody_up_for_long() -> None:
    """A bounded number is moved at once, and then others may write; in the end none is overdue."""
    store, _ = await crowded(MANY)
    now = NOON + 30 * DAY
    moved: list[int] = []
    inner = store._write

    async def counting(unit: Callable[[sqlite3.Connection], Any], rank: Rank = Rank.WRITE) -> Any:
        def counted(connection: sqlite3.Connection) -> Any:
            before = connection.total_changes
            result = unit(connection)
            moved.append(connection.total_changes - before)
            return result

        return await inner(counted, rank)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "_write", counting)
        await store.spread_heartbeats(now=now, overdue_by=SECOND, interval=HEARTBEAT)
    assert sum(moved) > 2 * max(moved)
    assert max(moved) <= 2_000
    quiet = "failures = 0 AND stopped IS NULL AND ended_at IS NULL AND lease_until IS NULL"
    overdue = await store._read(
        lambda connection: connection.execute(
            f"SELECT count(*) FROM cursors WHERE {quiet} AND heartbeat_at < ?", (now,)
        ).fetchone()
    )
    assert overdue == (0,)
    await store.close()


async def test_what_tokens_cover_is_not_found_anew_for_each_webhook() -> None:
    """An owner who has had many tokens gets one more."""
    webhooks, tokens = 50, 200
    taken = {}
    for count in (0, tokens):
        store = open_store(MEMORY, migrate=True, generation="g", key_id="k")
        case = await Case.on(store)
        for number in range(webhooks):
            await case.establish(f"http://receiver.example/{number}")
        for number in range(count):
            await store.add_token(token(str(number), expires_at=NOON), digest=str(number).encode())
        taken[count] = await Steps().of(store, partial(store.add_token, token("new"), digest=b"new"))
        await store.close()
    assert 0 < taken[tokens] - taken[0] < webhooks * tokens
