"""Reserves of memory (rule 13): bytes that may be held at once, a line of those who wait, and slabs out of them.

Rule: each kind of work has a reserve of its own, and none waits for another's; who waits in line holds nothing of it.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import deque
from contextlib import suppress

from edgestore.errors import ConfigError
from edgestore.kernels import Buffers

REST_S = 5.0
"""After so long without anything to do memory goes back to the system."""
SLAB_STEP_BYTES = 64 * 1024
IDLE_SHARE = 4
"""A quarter of the budget at most is kept as idle slabs: a node that rests gives memory back."""


class RestingBuffers(Buffers):
    """Buffers that go back to the system when none was asked for in a while."""

    def __init__(self, kept_max_bytes: int) -> None:
        super().__init__(kept_max_bytes)
        self._loop = asyncio.get_running_loop()
        self._used_s = 0.0
        self._is_watched = False

    def take(self, size_bytes: int) -> memoryview:
        """See Buffers."""
        self._used_s = self._loop.time()
        if not self._is_watched:
            self._is_watched = True
            self._loop.call_later(REST_S, self._look)
        return super().take(size_bytes)

    def _look(self) -> None:
        left_s = self._used_s + REST_S - self._loop.time()
        if left_s > 0:
            self._loop.call_later(left_s, self._look)
            return
        self._is_watched = False
        self.rest()


class ByteBudget:
    """So many bytes may be held at once; more waits in the order of asking."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_short(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    async def take(self, count: int) -> None:
        """Waits for `count` bytes. More than there can ever be is taken for all of it."""
        count = min(count, self.limit_bytes)
        if not self._waiting and self.taken_bytes + count <= self.limit_bytes:
            self.taken_bytes += count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """What was taken is not held any more."""
        self.taken_bytes -= min(count, self.limit_bytes)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self.taken_bytes + wanted <= self.limit_bytes:
                self._waiting.popleft()
                self.taken_bytes += wanted
                turn.set_result(None)
            else:
                return


class Slab:
    """Memory for the fragments of one chunk. `hold` and `release` count its users; the last one gives it back."""

    __slots__ = ("_mapping", "_pool", "_users", "size", "view")

    def __init__(self, pool: SlabPool, mapping: mmap.mmap, size: int) -> None:
        self._pool, self._mapping, self.size = pool, mapping, size
        self.view = memoryview(mapping)
        self._users = 1

    def hold(self) -> None:
        """One user more."""
        self._users += 1

    def release(self) -> None:
        """One user less."""
        self._users -= 1
        if not self._users:
            self._pool.take_back(self._mapping, self.size)


class SlabPool:
    """Slabs of any size out of one budget. Those given back are kept for the next of their size."""

    def __init__(self, limit_bytes: int) -> None:
        self.budget = ByteBudget(limit_bytes)
        self._idle: deque[tuple[int, mmap.mmap]] = deque()
        self._idle_bytes = 0

    async def acquire(self, count: int) -> Slab:
        """A slab of at least `count` bytes with whatever it held before."""
        size = count + -count % SLAB_STEP_BYTES
        if size > self.budget.limit_bytes:
            raise ConfigError(f"chunks.slab_bytes must hold a chunk with its parity: {size} bytes")
        await self.budget.take(size)
        for entry in self._idle:
            if entry[0] == size:
                self._idle.remove(entry)
                self._idle_bytes -= size
                return Slab(self, entry[1], size)
        self._trim()
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages: ordinary ones are only slower
                mapping.madvise(mmap.MADV_HUGEPAGE)
        return Slab(self, mapping, size)

    def take_back(self, mapping: mmap.mmap, size: int) -> None:
        """The other half of `Slab.release`."""
        self.budget.give(size)
        self._idle.append((size, mapping))
        self._idle_bytes += size
        self._trim()

    def _trim(self) -> None:
        """Idle memory and what is in use stay within the budget together."""
        limit = self.budget.limit_bytes
        room = min(limit // IDLE_SHARE, limit - self.budget.taken_bytes)
        while self._idle and self._idle_bytes > room:
            size, _ = self._idle.popleft()
            self._idle_bytes -= size
