"""What one delivery carries: a hundred events, a mebibyte, the same again after a failure; and whose filters decide."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.rig import FAILED, HOUR, MINUTE, OK, Between, Post, Rig, names, policy_of, running, until
from tidings.errors import StoreUnavailable
from tidings.limits import BATCH_BYTES_MAX, BATCHES_PER_LEASE_MAX, GOING_ON_MAX, LEASE_SLACK, SCAN_MAX
from tidings.model import Answer, Filter, Reply, Webhook


def wanting(*fields: str) -> tuple[Filter, ...]:
    return (Filter(resource_type="task", action="changed", fields=fields),)


async def test_a_hundred_events_in_log_order(rig: Rig) -> None:
    await rig.establish()
    expected = names(250)
    for start, end in ((0, 120), (120, 200), (200, 250)):
        await rig.publish(*expected[start:end])
    await rig.settle_all()
    assert [len(post.events) for post in rig.target.posts] == [100, 100, 50]
    assert rig.target.names() == expected


# -- several batches under one lease ---------------------------------------------------------------


async def test_a_backlog_is_claimed_once_for_several_batches(rig: Rig) -> None:
    """Each is sent when the record of the one before is written, never two at once, and all are logged."""
    webhook = await rig.establish()
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    expected = names(100 * BATCHES_PER_LEASE_MAX + 1)
    await rig.publish(*expected)

    def see_the_cursor(post: Post) -> Reply:
        recorded.append(between.records)
        return OK

    recorded: list[int] = []
    rig.target.answer = see_the_cursor
    async with running(dispatcher):
        await until(lambda: rig.target.names() == expected)
        await until(lambda: not dispatcher.in_flight)
    assert [len(post.events) for post in rig.target.posts] == [100] * BATCHES_PER_LEASE_MAX + [1]
    assert recorded == list(range(BATCHES_PER_LEASE_MAX + 1))
    assert [entry.attempt.events for entry in await rig.attempts(webhook)] == [1] + [
        100
    ] * BATCHES_PER_LEASE_MAX
    # Two that found something, and those that looked for more.
    assert between.claimed == 2


async def test_who_waits_for_a_slot_waits_for_no_more_than_one_lease(rig: Rig) -> None:
    busy = await rig.establish("http://busy.example/")
    await rig.publish(*names(20 * BATCHES_PER_LEASE_MAX))
    dispatcher = rig.make_dispatcher(concurrency=1, policy=policy_of(batch_max=1))
    other: list[Webhook] = []

    async def establish_another(post: Post) -> Reply:
        rig.clock.turn(1)
        if not other:
            other.append(await rig.establish("http://other.example/"))
            await rig.publish("for both")
        return OK

    rig.target.answer = establish_another
    async with running(dispatcher):
        await until(lambda: other and rig.target.to(other[0]))
    before = [post.header("X-Tidings-Webhook") for post in rig.target.posts].index(other[0].gid)
    assert before <= BATCHES_PER_LEASE_MAX + 1
    assert rig.target.names(busy)[:before] == names(before)


async def test_filters_replaced_between_two_batches_of_a_lease_decide_for_the_second(rig: Rig) -> None:
    webhook = await rig.establish()
    dispatcher = rig.make_dispatcher(policy=policy_of(batch_max=1))
    await rig.publish("a", "b", "c", "d")

    async def replace_once(post: Post) -> Reply:
        if post.names == ["a"]:
            await rig.store.replace_filters(webhook.gid, wanting("d"))
        return OK

    rig.target.answer = replace_once
    async with running(dispatcher):
        await until(lambda: "d" in rig.target.names())
    assert rig.target.names() == ["a", "d"]


async def test_a_failure_in_the_middle_of_a_lease_is_retried_from_there(rig: Rig) -> None:
    await rig.establish()
    dispatcher = rig.make_dispatcher(policy=policy_of(batch_max=1))
    await rig.publish("a", "b", "c")
    rig.target.answer = lambda post: FAILED if post.names == ["b"] else OK
    async with running(dispatcher):
        await until(lambda: len(rig.target.posts) == 2 and not dispatcher.in_flight)
    rig.target.answer = OK
    await rig.live_through(MINUTE)
    assert rig.target.names() == ["a", "b", "b", "c"]
    assert rig.target.posts[1].id == rig.target.posts[2].id


async def test_a_lease_that_is_too_short_for_another_delivery_is_given_back(rig: Rig) -> None:
    await rig.establish()
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store(), policy=policy_of(batch_max=1))
    await rig.publish("a", "b")

    def dawdle(post: Post) -> Reply:
        rig.clock.turn(LEASE_SLACK + 1)
        return OK

    rig.target.answer = dawdle
    async with running(dispatcher):
        await until(lambda: rig.target.names() == ["a", "b"])
    assert between.claimed >= 2


async def test_a_lease_does_not_go_on_for_long(rig: Rig) -> None:
    """Others may wait for its slot: it is given back, though it would cover more deliveries."""
    await rig.establish()
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store(), policy=policy_of(batch_max=1))
    await rig.publish(*names(4))

    def dawdle(post: Post) -> Reply:
        rig.clock.turn(GOING_ON_MAX // 2 + 1)
        return OK

    rig.target.answer = dawdle
    async with running(dispatcher):
        await until(lambda: rig.target.names() == names(4))
    assert between.claimed == 2


async def test_a_drain_begins_no_further_batch(rig: Rig) -> None:
    await rig.establish()
    dispatcher = rig.make_dispatcher(policy=policy_of(batch_max=1))
    await rig.publish("a", "b")

    def drain(post: Post) -> Reply:
        dispatcher.drain()
        return OK

    rig.target.answer = drain
    async with running(dispatcher) as task:
        await task
    assert rig.target.names() == ["a"]
    assert await rig.run_once() == 1
    assert rig.target.names() == ["a", "b"]


# -- the size of a batch ---------------------------------------------------------------------------


async def test_a_batch_ends_before_a_mebibyte(rig: Rig) -> None:
    await rig.establish()
    await rig.publish(*names(40), padding=60_000)
    await rig.settle_all()
    assert rig.target.names() == names(40)
    sizes = [len(post.body) for post in rig.target.posts]
    assert max(sizes) <= BATCH_BYTES_MAX
    # As full as the next event allowed.
    assert all(size > BATCH_BYTES_MAX - 61_000 for size in sizes[:-1])


async def test_the_body_is_the_bytes_of_the_log(rig: Rig) -> None:
    """Compact JSON, no names; the envelope and nothing else around it."""
    await rig.establish()
    await rig.publish("a")
    await rig.settle_all()
    assert rig.target.posts[0].body == (
        b'{"events":[{"user":null,"created_at":"2026-01-05T12:00:00.000Z","action":"changed",'
        b'"resource":{"gid":"100","resource_type":"task","resource_subtype":"default_task"},"parent":null,'
        b'"change":{"field":"a","action":"changed"}}]}'
    )


async def test_a_retry_is_the_same_bytes_under_the_same_id(rig: Rig) -> None:
    """What came in between waits for its turn, also over a restart."""
    await rig.establish()
    await rig.publish(*names(3))
    rig.target.answer = FAILED
    await rig.settle_all()
    await rig.publish("later")
    await rig.live_through(MINUTE)
    rig.dispatcher = rig.make_dispatcher()
    rig.target.answer = OK
    await rig.live_through(HOUR)
    *tries, last = rig.target.posts
    assert len(tries) > 3
    assert {post.id for post in tries} == {tries[0].id}
    assert {post.body for post in tries} == {tries[0].body}
    assert tries[0].names == names(3)
    assert last.names == ["later"]
    assert last.id != tries[0].id


async def test_what_the_filters_refuse_does_not_change_the_id(rig: Rig) -> None:
    """A process died before it could record; what came behind the batch since is none of the receiver's business."""
    await rig.establish(filters=wanting("a"))
    between = Between(rig.store)
    between.failing = StoreUnavailable("the process died here")
    await rig.publish("a")
    with pytest.raises(StoreUnavailable):
        await rig.make_dispatcher(store=between.as_store()).run_once()
    await rig.publish("refused")
    rig.clock.turn(MINUTE)
    assert await rig.run_once() == 1
    assert rig.target.names() == ["a", "a"]
    assert rig.target.posts[0].id == rig.target.posts[1].id


async def test_filters_replaced_between_attempts_cut_the_batch_anew(rig: Rig) -> None:
    webhook = await rig.establish()
    await rig.publish("a", "b", "c")
    rig.target.answer = FAILED
    await rig.settle_all()
    await rig.desk.replace_filters(rig.caller, webhook.gid, wanting("b"))
    await rig.publish("b2", "b")
    rig.target.answer = OK
    await rig.live_through(MINUTE)
    assert [post.names for post in rig.target.posts] == [["a", "b", "c"], ["b", "b"]]
    first, second = rig.target.posts
    assert first.id != second.id


@pytest.mark.parametrize("answer", [FAILED, OK])
async def test_filters_replaced_during_an_attempt_decide_for_what_is_unread(rig: Rig, answer: Answer) -> None:
    """The attempt's record must not bring the old cut back, nor skip what the new filters accept."""
    webhook = await rig.establish(filters=wanting("a"))
    rig.target.gate = asyncio.Event()
    rig.target.answer = answer
    async with running(rig.dispatcher):
        await rig.publish("a", "b")
        rig.dispatcher.wake()
        await until(lambda: rig.target.posts)
        await rig.desk.replace_filters(rig.caller, webhook.gid, wanting("b"))
        await rig.publish("a", "b")
        rig.target.gate.set()
        await until(lambda: not rig.dispatcher.in_flight)
        rig.target.answer = OK
        rig.clock.turn(MINUTE)
        rig.dispatcher.wake()
        await until(lambda: len(rig.target.posts) > 1)
    assert rig.target.posts[0].names == ["a"]
    # Read and dropped is read; a failed batch was not.
    assert rig.target.names()[1:] == (["b"] if answer is OK else ["b", "b"])


async def test_events_published_during_an_attempt_follow_it(rig: Rig) -> None:
    await rig.establish()
    rig.target.gate = asyncio.Event()
    async with running(rig.dispatcher):
        await rig.publish("a")
        rig.dispatcher.wake()
        await until(lambda: rig.target.posts)
        await rig.publish("b", "c")
        rig.dispatcher.wake()
        rig.target.gate.set()
        await until(lambda: len(rig.target.posts) == 2)
    assert rig.target.names() == ["a", "b", "c"]


async def test_a_picky_webhook_gets_what_it_wants_out_of_much(rig: Rig) -> None:
    """More is refused than one turn reads; the last of it is wanted."""
    webhook = await rig.establish(filters=wanting("wanted"))
    for start in range(0, 2 * SCAN_MAX, 500):
        await rig.publish(*names(500, f"x{start}-"))
    await rig.publish("wanted")
    await rig.publish("unwanted")
    await rig.settle_all()
    assert rig.target.names(webhook) == ["wanted"]
    # Nothing is left behind its cursor.
    assert await rig.run_once() == 0


async def test_a_failed_batch_out_of_many_refused_events_is_the_same_again(rig: Rig) -> None:
    webhook = await rig.establish(filters=wanting("wanted"))
    for _ in range(3):
        await rig.publish(*names(700, "x"), "wanted")
    rig.target.answer = FAILED
    await rig.settle_all()
    await rig.publish("wanted")
    rig.target.answer = OK
    await rig.live_through(MINUTE)
    first, second, *_ = rig.target.to(webhook)
    assert (first.id, first.body) == (second.id, second.body)
    assert len(rig.target.names(webhook)) - len(first.names) == 4


async def test_each_webhook_reads_the_log_for_itself(rig: Rig) -> None:
    """One that fails holds nobody else up."""
    good = await rig.establish("http://good.example/")
    bad = await rig.establish("http://bad.example/")
    rig.target.answers["http://bad.example/"] = FAILED
    for name in names(5):
        await rig.publish(name)
        await rig.settle_all()
    assert rig.target.names(good) == names(5)
    assert set(rig.target.names(bad)) == {"e0"}


async def test_an_answer_that_is_no_http_status_of_success_is_a_failure(rig: Rig) -> None:
    """Any 2xx is success, redirects are not followed (contract §12.7, §12.14)."""
    webhook = await rig.establish()
    await rig.publish("a")
    statuses = iter([301, 304, 100, 404, 202])

    def answer(post: Post) -> Reply:
        return Answer(next(statuses), "", (), b"")

    rig.target.answer = answer
    await rig.live_through(HOUR)
    assert [entry.attempt.status for entry in await rig.attempts(webhook)] == [202, 404, 100, 304, 301]
