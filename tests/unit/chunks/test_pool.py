"""The pool hands out what it has, in the order of asking, and loses nothing (rule 13)."""

from __future__ import annotations

import asyncio

import pytest

from edgestore.chunks import UnitPool
from edgestore.errors import ConfigError
from edgestore.records import UNIT_BYTES


def pool(units: int = 8, reserve: int = 0) -> UnitPool:
    return UnitPool(units * UNIT_BYTES, reserve * UNIT_BYTES)


def test_receiving_never_takes_the_reserve_of_reading() -> None:
    units = pool(8, reserve=3)
    taken = [units.try_acquire() for _ in range(8)]
    assert sum(unit is not None for unit in taken) == 5
    assert units.taken_bytes == 5 * UNIT_BYTES


def test_a_unit_released_twice_is_given_back_once() -> None:
    units = pool()
    unit = units.try_acquire()
    assert unit is not None
    unit.release()
    unit.release()
    assert units.taken_bytes == 0
    taken = [units.try_acquire() for _ in range(9)]
    assert sum(one is not None for one in taken) == 8


def test_no_two_units_share_a_byte() -> None:
    units = pool()
    taken = [unit for unit in (units.try_acquire() for _ in range(8)) if unit is not None]
    for number, unit in enumerate(taken):
        unit.buffer[:] = bytes((number,)) * UNIT_BYTES
        unit.filled = UNIT_BYTES
    assert [bytes(unit.view) for unit in taken] == [bytes((number,)) * UNIT_BYTES for number in range(8)]


def test_who_waits_is_served_in_the_order_of_asking() -> None:
    async def main() -> None:
        units = pool()
        held = [await units.acquire() for _ in range(8)]
        served: list[int] = []

        async def wait(number: int) -> None:
            unit = await units.acquire()
            served.append(number)
            unit.release()

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(wait(number))
            await asyncio.sleep(0)
            assert units.try_acquire() is None
            held.pop().release()
        assert served == list(range(20))
        for unit in held:
            unit.release()
        assert units.taken_bytes == 0

    asyncio.run(main())


def test_one_that_came_late_does_not_pass_those_who_wait() -> None:
    async def main() -> None:
        units = pool()
        held = [await units.acquire() for _ in range(8)]
        waiting = asyncio.ensure_future(units.acquire())
        await asyncio.sleep(0)
        held.pop().release()
        assert units.try_acquire() is None
        (await waiting).release()

    asyncio.run(main())


@pytest.mark.parametrize("served_before", [False, True])
def test_a_cancelled_wait_loses_no_unit(served_before: bool) -> None:
    async def main() -> None:
        units = pool()
        held = [await units.acquire() for _ in range(8)]
        waiting = asyncio.ensure_future(units.acquire())
        await asyncio.sleep(0)
        if served_before:
            held.pop().release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for unit in held:
            unit.release()
        assert units.taken_bytes == 0
        assert units.try_acquire() is not None

    asyncio.run(main())


@pytest.mark.parametrize(("pool_units", "reserve_units"), [(7, 0), (8, 8)])
def test_a_pool_too_small_to_work_is_refused(pool_units: int, reserve_units: int) -> None:
    with pytest.raises(ConfigError, match=r"chunks\.pool_bytes"):
        pool(pool_units, reserve_units)
