"""Memory that comes back by itself, and goes back to the system when nobody asks for any."""

from __future__ import annotations

import asyncio

from edgestore.chunks.budget import REST_S, RestingBuffers
from tests.sim.loop import SimLoop

SIZE = 300_000


def test_buffers_are_used_again_and_given_back_after_a_rest() -> None:
    async def work() -> None:
        buffers = RestingBuffers(4 * SIZE)
        for _ in range(20):
            first, second = buffers.take(SIZE), buffers.take(SIZE)
            assert len(buffers._kept) == 2
            del first, second
            await asyncio.sleep(REST_S / 3)
        held = buffers.take(SIZE)
        await asyncio.sleep(2 * REST_S)
        assert [len(kept) for kept in buffers._kept] == [SIZE], "one of them is in use"
        assert buffers._kept_bytes == SIZE
        del held
        another = buffers.take(SIZE)
        assert another.obj is buffers._kept[0]
        del another
        await asyncio.sleep(2 * REST_S)
        assert not buffers._kept
        assert not buffers._kept_bytes

    loop = SimLoop()
    try:
        loop.run(work())
    finally:
        loop.abandon()
