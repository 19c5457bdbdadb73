"""The gate: never more inside than it lets in, in order, and no place lost to a cancelled wait."""

import asyncio

import pytest

from tidings.transport.gate import Gate


async def waiting(gate: Gate, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(gate.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_it_lets_in_as_many_as_it_says() -> None:
    gate = Gate(2)
    assert [gate.try_enter() for _ in range(3)] == [True, True, False]
    gate.leave()
    assert gate.try_enter()
    gate.leave()
    gate.leave()
    assert gate.unused


async def test_who_came_first_goes_first_and_nobody_slips_between() -> None:
    gate = Gate(1)
    assert gate.try_enter()
    first, second = await waiting(gate, 2)
    gate.leave()
    assert not gate.try_enter()
    await first
    assert not second.done()
    gate.leave()
    await second
    assert gate.inside == 1
    gate.leave()
    assert gate.unused


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_wait_that_is_cancelled_as_its_turn_comes_passes_it_on(cancel_first: bool) -> None:
    gate = Gate(1)
    assert gate.try_enter()
    first, second = await waiting(gate, 2)
    if cancel_first:
        first.cancel()
        gate.leave()
    else:
        gate.leave()
        first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await second
    assert gate.inside == 1
    gate.leave()
    assert gate.unused


async def test_cancelled_waits_leave_no_trace() -> None:
    gate = Gate(1)
    assert gate.try_enter()
    tasks = await waiting(gate, 50)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gate.leave()
    assert gate.unused
    assert gate.try_enter()
