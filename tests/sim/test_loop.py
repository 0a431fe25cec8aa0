"""The end of a simulated machine."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tests.sim.loop import Crash, SimLoop


def test_no_collector_closes_a_coroutine_that_runs() -> None:
    """It would begin with the inner one, which is younger; the outer one, freed meanwhile, would close it once more."""
    ends: list[str] = []
    loop = SimLoop()
    with pytest.raises(Crash):
        loop.run(_crash(ends))
    loop.abandon()
    gc.collect()
    assert ends == ["inner GeneratorExit()", "outer GeneratorExit()"]


def test_what_waits_again_while_it_is_closed_is_closed_again() -> None:
    waited: list[int] = []
    running: list[asyncio.Task[None]] = []
    loop = SimLoop()

    async def stubborn() -> None:
        for number in range(4):
            try:
                await loop.create_future()
            except GeneratorExit:
                waited.append(number)

    async def crash() -> None:
        running.append(asyncio.get_running_loop().create_task(stubborn()))
        await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        loop.run(crash())
    loop.abandon()
    assert waited == [0, 1, 2, 3]


def test_a_generator_that_the_loop_was_just_closing_is_left_as_it_is() -> None:
    """What asyncio makes a task of, where a generator was dropped, has no frame."""
    loop = SimLoop()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await loop.create_future()

    async def crash() -> None:
        async for _ in numbers():
            break
        gc.collect()
        await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        loop.run(crash())
    loop.abandon()


async def _crash(ends: list[str]) -> None:
    task = asyncio.get_running_loop().create_task(_outer(ends))
    del task  # nobody but what it waits for holds it
    await asyncio.sleep(0.001)
    raise Crash


async def _outer(ends: list[str]) -> None:
    gc.collect(0)  # what comes after it is younger
    try:
        await _inner(ends, asyncio.get_running_loop().create_future())
    except BaseException as error:
        ends.append(f"outer {error!r}")
        raise


async def _inner(ends: list[str], waiting: asyncio.Future[None]) -> None:
    try:
        await waiting
    except BaseException as error:
        ends.append(f"inner {error!r}")
        _quietly(waiting.cancel)
        raise


def _quietly(end: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        end()
