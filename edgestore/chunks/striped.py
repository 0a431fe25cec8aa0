"""One body on its way to several nodes: units are packed into the slab of their chunk, whole chunks go out beside it.

Rule: an upload holds the chunk it fills and those under way, out of a reserve that all uploads share. Who brings
nothing while others wait for a slab ends its chunk early, so a slow client never holds up the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgestore.chunks.body import Body
from edgestore.chunks.budget import Slab, SlabPool
from edgestore.chunks.digests import Digests
from edgestore.chunks.encoder import ChunkBuilder, Encoded, slab_bytes
from edgestore.chunks.placed import PlacedChunk
from edgestore.chunks.pool import Unit
from edgestore.chunks.sender import Sender
from edgestore.chunks.turns import Turns
from edgestore.chunks.upload import UNITS_IN_FLIGHT, Tools
from edgestore.config import ChunksConfig
from edgestore.placement import Scheme
from edgestore.records import CHUNK_MAX_BYTES

SchemeOf = Callable[[int | None], Scheme]
"""The scheme of the next chunk; takes the size of the whole body where it is known."""


@dataclass(slots=True)
class _Filling:
    """The chunk that takes units."""

    builder: ChunkBuilder
    slab: Slab
    scheme: Scheme
    size_bytes: int = 0


@dataclass(slots=True)
class _Piece:
    """A unit at work."""

    unit: Unit
    jobs: list[asyncio.Future[None]] = field(default_factory=list)
    uses: int = 2

    def over(self) -> None:
        """One of its two uses has ended."""
        self.uses -= 1
        if not self.uses:
            self.unit.release()


class StripedUpload:
    """Takes one body; either `run` returns, or the caller calls `abandon`."""

    def __init__(
        self,
        tools: Tools,
        slabs: SlabPool,
        sender: Sender,
        config: ChunksConfig,
        body: Body,
        digests: Digests,
        scheme_of: SchemeOf,
    ) -> None:
        self._tools, self._slabs, self._sender, self._config = tools, slabs, sender, config
        self._body, self._digests, self._scheme_of = body, digests, scheme_of
        digest_worker, store_worker = next(tools.lanes)
        self._hashing, self._storing = Turns(digest_worker), Turns(store_worker)
        self._under_way: deque[_Piece] = deque()
        self._filling: _Filling | None = None
        self._sending: deque[asyncio.Task[PlacedChunk]] = deque()
        self._sent: list[PlacedChunk] = []
        self._coming: asyncio.Task[Unit | None] | None = None
        self._size = 0

    async def run(self) -> tuple[PlacedChunk, ...]:
        """Takes the body to its end; everything is durable on enough nodes when it returns."""
        while (unit := await self._next_unit()) is not None:
            piece = _Piece(unit)
            self._under_way.append(piece)  # from here on `abandon` gives it back
            filling = self._filling
            if filling is not None and unit.filled > filling.builder.room - filling.size_bytes:
                await self._send()
            if self._filling is None:
                await self._begin(unit.filled)
            self._work_on(piece)
            if self._filling is not None and self._filling.size_bytes == self._filling.builder.room:
                await self._send()
            await self._drain(UNITS_IN_FLIGHT - 1)
        await self._drain(0)
        if self._filling is not None:
            await self._send()
        while self._sending:
            await self._sent_one()
        return tuple(self._sent)

    async def _next_unit(self) -> Unit | None:
        """The next unit of the body; meanwhile the chunk ends where its slab is wanted."""
        if self._filling is None:
            return await self._body.next_unit()
        self._coming = asyncio.get_running_loop().create_task(self._next())
        while True:
            done, _ = await asyncio.wait([self._coming], timeout=self._config.linger_ms / 1000)
            if done:
                coming, self._coming = self._coming, None
                return coming.result()
            if self._slabs.budget.is_short and self._filling is not None:
                await self._drain(0)
                await self._send()

    async def _next(self) -> Unit | None:
        return await self._body.next_unit()

    async def _begin(self, first_bytes: int) -> None:
        room = CHUNK_MAX_BYTES
        if self._body.size_bytes is not None:
            room = min(room, max(self._body.size_bytes - self._size, first_bytes))
        scheme = self._scheme_of(self._body.size_bytes)
        slab = await self._slabs.acquire(slab_bytes(scheme.k, scheme.m, room))
        builder = ChunkBuilder(slab.view, scheme.k, scheme.m, room, self._tools.compression)
        self._filling = _Filling(builder, slab, scheme)

    def _work_on(self, piece: _Piece) -> None:
        filling, view = self._filling, piece.unit.view
        assert filling is not None
        piece.jobs.append(self._hashing.submit(lambda: self._digests.update(view), piece.over))
        piece.jobs.append(self._storing.submit(lambda: filling.builder.add(view), piece.over))
        self._size += len(view)
        filling.size_bytes += len(view)

    async def _send(self) -> None:
        """The chunk goes out; waits where too many are under way already."""
        filling, self._filling = self._filling, None
        assert filling is not None
        made: list[Encoded] = []
        encoding = self._storing.submit(lambda: made.append(filling.builder.finish()), _nothing)
        task = asyncio.get_running_loop().create_task(self._send_chunk(filling, encoding, made))
        # Not by the task itself: one that is cancelled before its first step does nothing at all.
        task.add_done_callback(lambda _: _release(filling.slab, encoding))
        self._sending.append(task)
        while len(self._sending) > self._config.chunks_in_flight:
            await self._sent_one()

    async def _send_chunk(self, filling: _Filling, encoding: asyncio.Future[None], made: list[Encoded]) -> PlacedChunk:
        await asyncio.wait([encoding])
        encoding.result()
        slab, scheme = filling.slab, filling.scheme
        return await self._sender.send(made[0], filling.size_bytes, scheme, hold=slab.hold, release=slab.release)

    async def _sent_one(self) -> None:
        self._sent.append(await self._sending[0])
        self._sending.popleft()

    async def _drain(self, left: int) -> None:
        """Waits for the oldest units."""
        while len(self._under_way) > left:
            for job in self._under_way[0].jobs:
                await job
            self._under_way.popleft()

    def abandon(self, drop: Callable[[tuple[PlacedChunk, ...]], None]) -> None:
        """Drops what was stored, and ends the work; units and slabs go back when no thread works on them."""
        left = 2
        filling, self._filling = self._filling, None

        def ended() -> None:
            nonlocal left
            left -= 1
            if left:
                return
            while self._under_way:
                piece = self._under_way.popleft()
                piece.unit.release()
            if filling is not None:
                filling.slab.release()

        self._hashing.stop(ended)
        self._storing.stop(ended)
        if self._coming is not None:
            self._coming.cancel()
            self._coming.add_done_callback(_give_back)
        for task in self._sending:
            task.cancel()
        drop(tuple(self._sent))
        for task in self._sending:
            task.add_done_callback(lambda one: drop(_result(one)))


def _nothing() -> None:
    """The slab is counted by whoever sends it."""


def _release(slab: Slab, encoding: asyncio.Future[None]) -> None:
    """Until the thread is done with the slab it must not go to anybody else."""
    if encoding.done():
        slab.release()
    else:
        encoding.add_done_callback(lambda _: slab.release())


def _give_back(task: asyncio.Task[Unit | None]) -> None:
    """A unit that came while the upload was ending."""
    if not task.cancelled() and task.exception() is None and (unit := task.result()) is not None:
        unit.release()


def _result(task: asyncio.Task[PlacedChunk]) -> tuple[PlacedChunk, ...]:
    if task.cancelled() or task.exception() is not None:
        return ()
    return (task.result(),)
