"""The bounded pool of 256 KiB units that all bodies pass through (rule 13).

Rule: receiving never takes what reading keeps in reserve (`ReadBudget` hands that out); who finds no unit waits in
line.
"""

from __future__ import annotations

import asyncio
from collections import deque

from edgestore.errors import ConfigError
from edgestore.kernels import BufferPool
from edgestore.records import UNIT_BYTES

UNITS_MIN = 8


class Unit:
    """256 KiB of one mapping (without a pool: own memory). `filled` bytes count; `release` gives it back once."""

    __slots__ = ("_pool", "buffer", "filled")

    def __init__(self, pool: UnitPool | None, buffer: memoryview) -> None:
        self._pool = pool
        self.buffer, self.filled = buffer, 0

    @property
    def view(self) -> memoryview:
        """The bytes that count."""
        return self.buffer[: self.filled]

    def release(self) -> None:
        """The unit may be used again; nobody may look at it after this."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.take_back(self.buffer)


class UnitPool:
    """Units of one pool of aligned buffers, and the line of those who wait for one."""

    def __init__(self, pool_bytes: int, reserve_bytes: int = 0) -> None:
        count = pool_bytes // UNIT_BYTES
        if count < UNITS_MIN or reserve_bytes >= pool_bytes:
            raise ConfigError(f"chunks.pool_bytes must hold {UNITS_MIN} units of {UNIT_BYTES} bytes beside the reserve")
        self._buffers = BufferPool(count, UNIT_BYTES)
        self._reserve = reserve_bytes // UNIT_BYTES
        self._waiting: deque[asyncio.Future[Unit]] = deque()
        self.count = count

    @property
    def taken_bytes(self) -> int:
        """Bytes of the units in use."""
        return self._buffers.taken_bytes

    @property
    def is_short(self) -> bool:
        """Whether somebody waits for a unit."""
        return bool(self._waiting)

    def try_acquire(self) -> Unit | None:
        """A unit for receiving; None where only the reserve is left or others wait."""
        if self._waiting or len(self._buffers) <= self._reserve:
            return None
        buffer = self._buffers.take()
        return None if buffer is None else Unit(self, buffer)

    async def acquire(self) -> Unit:
        """A unit for receiving, in the order of asking."""
        unit = self.try_acquire()
        if unit is not None:
            return unit
        future: asyncio.Future[Unit] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().release()
            raise

    def take_back(self, buffer: memoryview) -> None:
        """The other half of `Unit.release`."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(Unit(self, buffer))
                return
        self._buffers.give_back(buffer)
