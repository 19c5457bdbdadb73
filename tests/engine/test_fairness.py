"""How many deliveries run at once, and whose turn it is: nobody but the slow one waits."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.engine.rig import (
    FAILED,
    HOUR,
    MINUTE,
    OK,
    PROJECT,
    SECOND,
    WORKSPACE,
    Between,
    Post,
    Rig,
    names,
    policy_of,
    running,
    until,
)
from tidings.dispatcher.slots import FIRST_SHARE, SHARE, Slots
from tidings.limits import BATCH_BYTES_MAX, CLAIM_MAX, EVENT_BYTES_MAX, HELD_BYTES_MAX
from tidings.model import Claim, Filter, Health, Lease, Reply

PROJECTS = (Filter(resource_type="project"),)


async def test_no_more_at_once_than_there_are_slots(rig: Rig) -> None:
    """All slots are used, none twice, and everybody is served in the end."""
    dispatcher = rig.make_dispatcher(concurrency=8)
    webhooks = [await rig.establish(f"http://host{number}.example/") for number in range(30)]
    rig.target.gate = asyncio.Event()
    async with running(dispatcher):
        await rig.publish("a")
        dispatcher.wake()
        await until(lambda: rig.target.in_flight[""] == 8)
        assert dispatcher.in_flight == 8
        rig.target.gate.set()
        await until(lambda: len(rig.target.posts) == 30)
    assert rig.target.peaks[""] == 8
    assert all(rig.target.names(webhook) == ["a"] for webhook in webhooks)


async def test_a_slow_store_is_asked_for_as_many_as_it_can_read_in_time(rig: Rig) -> None:
    """All at once they would take longer than their leases, and be given back undelivered, for ever."""
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    webhooks = [await rig.establish(f"http://host{number}.example/") for number in range(64)]
    between.on_claimed = lambda count: rig.clock.turn(count * SECOND // 5)
    await rig.publish("a")
    async with asyncio.timeout(10):
        while await dispatcher.run_once():
            pass
    assert all(rig.target.names(webhook) == ["a"] for webhook in webhooks)
    # It is quick again.
    between.on_claimed = lambda count: None
    for name in names(4, "b"):
        await rig.publish(name)
        asked = between.claims
        while await dispatcher.run_once():
            pass
    assert between.claims == asked + 2


async def test_no_more_at_once_per_origin_than_a_quarter(rig: Rig) -> None:
    """A slow origin fills its share; the others are served past it."""
    dispatcher = rig.make_dispatcher(concurrency=8)
    slow = [await rig.establish(f"http://slow.example/{number}") for number in range(10)]
    fast = [await rig.establish(f"http://fast.example/{number}") for number in range(10)]
    gate = asyncio.Event()

    async def hang(post: Post) -> Reply:
        await gate.wait()
        return OK

    for webhook in slow:
        rig.target.answers[webhook.target] = hang
    async with running(dispatcher):
        for name in names(3):
            await rig.publish(name)
        dispatcher.wake()
        await until(lambda: all(rig.target.names(webhook) == names(3) for webhook in fast))
        assert rig.target.in_flight["slow.example"] == 2
        gate.set()
        await until(lambda: all(rig.target.names(webhook) == names(3) for webhook in slow))
    assert rig.target.peaks["slow.example"] == 2
    assert rig.target.peaks["fast.example"] <= 2


async def test_ports_are_origins_of_their_own(rig: Rig) -> None:
    dispatcher = rig.make_dispatcher(concurrency=4)
    for port in (8001, 8002, 8003, 8004):
        await rig.establish(f"http://host.example:{port}/")
    rig.target.gate = asyncio.Event()
    async with running(dispatcher):
        await rig.publish("a")
        dispatcher.wake()
        await until(lambda: rig.target.in_flight[""] == 4)
        rig.target.gate.set()


async def test_failing_webhooks_share_a_quarter(rig: Rig) -> None:
    """However many are due, healthy ones find their slots free."""
    failing = [await rig.establish(f"http://failing{number}.example/") for number in range(20)]
    rig.target.answer = FAILED
    await rig.publish("a")
    await rig.settle_all()
    rig.clock.turn(MINUTE)
    posted = len(rig.target.posts)
    rig.target.gate = asyncio.Event()
    dispatcher = rig.make_dispatcher(concurrency=8)
    async with running(dispatcher):
        await until(lambda: rig.target.in_flight[""] == 2)
        rig.target.answer = OK
        healthy = [await rig.establish(f"http://healthy{number}.example/") for number in range(6)]
        await rig.publish("b")
        dispatcher.wake()
        await until(lambda: rig.target.in_flight[""] == 8)
        assert all(len(rig.target.to(webhook)) == 1 for webhook in healthy)
        assert len(rig.target.posts) - posted == 8
        rig.target.gate.set()
        await until(lambda: all(rig.target.to(webhook)[-1].names == ["b"] for webhook in failing))


async def test_targets_that_died_unnoticed_leave_room_for_those_served_lately(rig: Rig) -> None:
    """Many more than there are slots, none of which has failed yet, and none of which ever answers."""
    for number in range(20):
        await rig.establish(f"http://dead{number}.example/")
    rig.clock.turn(HOUR)
    healthy = [
        await rig.establish(f"http://healthy{number}.example/", resource=WORKSPACE, filters=PROJECTS)
        for number in range(2)
    ]
    never = asyncio.Event()

    async def answer(post: Post) -> Reply:
        if "dead" in post.delivery.url:
            await never.wait()
        return OK

    rig.target.answer = answer
    dispatcher = rig.make_dispatcher(concurrency=8)
    async with running(dispatcher):
        await rig.publish("for all", resource=PROJECT)
        dispatcher.wake()
        await until(lambda: sum("dead" in post.delivery.url for post in rig.target.posts) == 4)
        for number in range(5):
            await rig.publish(f"again{number}", resource=PROJECT)
            dispatcher.wake()
            heard = 2 * (number + 2)
            await until(lambda heard=heard: sum(map(len, map(rig.target.names, healthy))) == heard)  # type: ignore[misc]
        await until(lambda: dispatcher.in_flight == 4)
        never.set()
    assert rig.target.names(healthy[0]) == ["for all", *(f"again{number}" for number in range(5))]


async def test_targets_that_died_unnoticed_are_not_taken_for_well_for_what_filters_refused(rig: Rig) -> None:
    """Their webhooks were served a moment ago, but nothing has been posted to them for long."""
    wanted = (Filter(action="changed", fields=("wanted",)),)
    for number in range(20):
        await rig.establish(f"http://dead{number}.example/", filters=wanted)
    rig.clock.turn(2 * HOUR)
    healthy = await rig.establish("http://healthy.example/")
    await rig.publish("unwanted")
    await rig.settle_all()
    rig.target.posts.clear()
    rig.target.gate = asyncio.Event()
    dispatcher = rig.make_dispatcher(concurrency=8)
    async with running(dispatcher):
        rig.clock.turn(MINUTE)
        await rig.publish("wanted")
        dispatcher.wake()
        await until(lambda: rig.target.to(healthy))
        assert dispatcher.in_flight <= 5
        rig.target.gate.set()


@pytest.fixture
def claim() -> Claim:
    """Of a webhook that is neither proven nor failing."""
    return Claim(
        lease=Lease(1, 1, MINUTE),
        gid="1",
        target="http://receiver.example/",
        origin=1,
        workspace=WORKSPACE,
        filters=(),
        secrets=(),
        cursor=0,
        head=1,
        epoch=0,
        batch_end=None,
        health=Health(last_success_at=None, heartbeat_at=HOUR),
        page=(),
        more=False,
    )


def test_the_more_first_deliveries_fail_the_fewer_slots_they_get(claim: Claim) -> None:
    """From half of them to a quarter, and back; those of proven or failing webhooks say nothing."""
    slots = Slots(64)

    def learn(claim: Claim, *, delivered: bool, times: int = 1_000) -> int:
        for _ in range(times):
            slots.take(claim)
            slots.learn(claim.lease, delivered=delivered)
            slots.release(claim.lease)
        return slots.unproven_free

    assert slots.unproven_free == 32
    failing = replace(claim, health=replace(claim.health, failures=1))
    assert learn(replace(claim, proven=True), delivered=False) == 32
    assert learn(failing, delivered=False) == 32
    assert 16 < learn(claim, delivered=False, times=32) < 32
    assert learn(claim, delivered=False) == 16
    assert learn(claim, delivered=True) == 31
    assert (slots.unproven, slots.free) == (0, 64)


@pytest.mark.parametrize("kind", ["failing", "quiet"])
@pytest.mark.parametrize(("total", "most"), [(1, 1), (8, 1), (64, 4), (512, 32)])
def test_so_few_that_fail_or_are_quiet_go_before_others(
    claim: Claim, kind: str, total: int, most: int
) -> None:
    """One for so many others that were served, and none while so many are in flight."""
    slots = Slots(total)
    healthy = claim.health
    if kind == "failing":
        claim = replace(claim, health=replace(claim.health, failures=1))
    else:
        claim = replace(claim, head=claim.cursor)

    def first() -> int:
        return slots.failing_first if kind == "failing" else slots.quiet_first

    def serve(number: int) -> None:
        other = replace(claim, lease=Lease(0, number, MINUTE), head=2, cursor=1, health=healthy)
        slots.take(other)
        slots.release(other.lease)

    for number in range(FIRST_SHARE):
        assert first() == 0
        serve(number)
    assert first() == 1
    for number in range(FIRST_SHARE * total):
        serve(number)
    taken = [replace(claim, lease=Lease(number, 1, MINUTE)) for number in range(1, most + 1)]
    for count, each in enumerate(taken):
        assert first() == most - count
        slots.take(each)
        assert first() == 0
        for number in range(FIRST_SHARE * total):
            serve(number)
    assert first() == 0
    slots.release(taken[0].lease)
    assert first() == 1


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_few_slots_have_room_for_first_deliveries_too(claim: Claim, total: int) -> None:
    slots = Slots(total)
    slots.going_well = 0.0
    assert 1 <= slots.unproven_free <= total


def test_what_is_held_leaves_less_room_until_it_is_released(claim: Claim) -> None:
    slots = Slots(64)
    room = slots.room
    # As much as each slot may hold anyway.
    slots.take(replace(claim, bytes_held=EVENT_BYTES_MAX))
    assert slots.room == room
    other = replace(claim, lease=Lease(2, 1, MINUTE), bytes_held=EVENT_BYTES_MAX + 1_000)
    slots.take(other)
    assert slots.room == room - 1_000
    slots.replace(replace(other, bytes_held=EVENT_BYTES_MAX + 100))
    assert slots.room == room - 100
    slots.release(claim.lease)
    slots.release(other.lease)
    assert slots.room == room


def test_retries_are_claimed_while_there_is_room_for_the_largest(claim: Claim) -> None:
    """They must carry what failed, however much that was; what healthy webhooks hold is another matter."""
    slots = Slots(512)
    slots.take(replace(claim, bytes_held=HELD_BYTES_MAX))
    failing = replace(claim, health=replace(claim.health, failures=1), bytes_held=BATCH_BYTES_MAX)
    leases = [Lease(number, 1, MINUTE) for number in range(2, 512)]
    taken = 0
    while (free := slots.failing_free) > 0:
        for lease in leases[taken : taken + free]:
            slots.take(replace(failing, lease=lease))
        taken += free
    assert taken * (BATCH_BYTES_MAX - EVENT_BYTES_MAX) <= HELD_BYTES_MAX // SHARE
    slots.release(leases[0])
    assert slots.failing_free == 1


async def test_who_is_not_proven_sends_one_batch_under_a_lease(rig: Rig) -> None:
    """Its target may hang, as those of thousands like it: what follows is read once it has answered."""
    await rig.establish()
    rig.clock.turn(HOUR)
    between = Between(rig.store)
    dispatcher = rig.make_dispatcher(store=between.as_store())
    await rig.publish(*names(300))
    async with running(dispatcher):
        await until(lambda: rig.target.names() == names(300))
    assert between.claimed == 2


async def test_events_then_retries_then_heartbeats(rig: Rig) -> None:
    """One slot, and all three reasons at once."""
    dispatcher = rig.make_dispatcher(concurrency=1)
    # Events of tasks do not rise to the workspace: it stays quiet.
    projects = (Filter(resource_type="project"),)
    quiet = await rig.establish("http://quiet.example/", resource=WORKSPACE, filters=projects)
    assert await dispatcher.run_once() == 0
    rig.clock.turn(round(7.5 * HOUR))
    failing = await rig.establish("http://failing.example/")
    rig.target.answers[failing.target] = FAILED
    await rig.publish("a")
    await dispatcher.run_once()
    rig.clock.turn(HOUR)
    ready = await rig.establish("http://ready.example/")
    await rig.publish("b")
    rig.target.posts.clear()
    for _ in range(3):
        assert await dispatcher.run_once() == 1
    order = [post.header("X-Tidings-Webhook") for post in rig.target.posts]
    assert order == [ready.gid, failing.gid, quiet.gid]


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_retries_and_heartbeats_come_under_a_load_that_takes_every_slot(
    rig: Rig, concurrency: int
) -> None:
    """A webhook failed once and its receiver is well again; another is quiet; many others have much to be sent."""
    quiet = await rig.establish("http://quiet.example/", resource=WORKSPACE, filters=PROJECTS)
    rig.clock.turn(round(7.5 * HOUR))
    busy = [await rig.establish(f"http://busy{number}.example/") for number in range(20)]
    flaky = await rig.establish("http://flaky.example/")
    rig.target.answers[flaky.target] = FAILED
    dispatcher = rig.make_dispatcher(concurrency=concurrency, policy=policy_of(batch_max=1))
    await rig.publish("first")
    while await dispatcher.run_once():
        pass
    rig.target.answers[flaky.target] = OK
    rig.clock.turn(HOUR)
    await rig.publish(*names(8))
    rig.target.posts.clear()
    while not rig.target.to(flaky) or not rig.target.to(quiet):
        assert len(rig.target.posts) < 3 * FIRST_SHARE
        await dispatcher.run_once()
    assert max(len(rig.target.to(webhook)) for webhook in busy) < 8


async def test_whoever_waited_longest_goes_first(rig: Rig) -> None:
    """One slot, three webhooks with much to do: they take turns."""
    webhooks = [await rig.establish(f"http://host{number}.example/") for number in range(3)]
    dispatcher = rig.make_dispatcher(concurrency=1, policy=policy_of(batch_max=1))
    await rig.publish(*names(4))
    for _ in range(12):
        rig.clock.turn(1)
        await dispatcher.run_once()
    order = [post.header("X-Tidings-Webhook") for post in rig.target.posts]
    assert len(order) == 12
    assert order == order[:3] * 4
    assert set(order) == {webhook.gid for webhook in webhooks}


async def test_a_claim_takes_a_bounded_number(rig: Rig) -> None:
    dispatcher = rig.make_dispatcher(concurrency=1_000)
    for number in range(CLAIM_MAX + 20):
        await rig.establish(f"http://host{number}.example/")
    await rig.publish("a")
    assert await dispatcher.run_once() == CLAIM_MAX
    assert await dispatcher.run_once() == 20
