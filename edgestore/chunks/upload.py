"""One body on its way to the disk: units are hashed beside being compressed, checksummed and written.

Rule: an upload holds a few units, never a chunk; a unit goes back to the pool as soon as no thread looks at it any
more, so that an upload that waits for its next unit holds none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgestore.chunks.body import Body
from edgestore.chunks.compression import Compression
from edgestore.chunks.digests import Digests
from edgestore.chunks.numbers import ChunkNumbers
from edgestore.chunks.placed import StoredBody
from edgestore.chunks.pool import Unit
from edgestore.chunks.turns import Turns
from edgestore.disk import FragmentUnit, FragmentWriter, Segments, Worker
from edgestore.kernels import page_crcs
from edgestore.records import CHUNK_MAX_BYTES, PAGE_BYTES, ChunkRef

UNITS_IN_FLIGHT = 4
SYNC_AHEAD_BYTES = 32 * 1024 * 1024
"""A long body is synced as it comes, so that little is left to sync at its end."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every upload of a node shares. `lanes`: a digest and a store worker of one thread each, for the next one."""

    segments: Segments
    numbers: ChunkNumbers
    compression: Compression
    lanes: Iterator[tuple[Worker, Worker]]


class _ChunkInProgress:
    """One chunk being written; `store` runs in the worker. Stored bytes never pass the plain ones, nor `room`."""

    def __init__(self, chunk: ChunkRef, fragment: FragmentWriter, compression: Compression, room: int) -> None:
        self.chunk, self.fragment, self.room = chunk, fragment, room
        self._compression = compression
        self.size_bytes = 0
        self.units: list[FragmentUnit] = []
        self._crcs = bytearray()
        self._page = bytearray()

    def store(self, plain: memoryview) -> None:
        """Compresses, checksums and writes one unit (blocking)."""
        codec, stored = self._compression.pack(plain)
        self.fragment.write(stored)
        self.units.append(FragmentUnit(len(plain), len(stored), codec))
        self._add_pages(memoryview(stored))

    def _add_pages(self, stored: memoryview) -> None:
        """Page CRCs go over the stored bytes, whatever the units' borders are."""
        if self._page:
            taken = min(PAGE_BYTES - len(self._page), len(stored))
            self._page += stored[:taken]
            stored = stored[taken:]
            if len(self._page) < PAGE_BYTES:
                return
            self._crcs += page_crcs(self._page)
            self._page.clear()
        whole = len(stored) - len(stored) % PAGE_BYTES
        if whole:
            self._crcs += page_crcs(stored[:whole])
        self._page += stored[whole:]

    def crcs(self) -> bytes:
        """Of all pages, when everything is written."""
        return bytes(self._crcs + (page_crcs(self._page) if self._page else b""))


@dataclass(slots=True)
class _Piece:
    """A unit at work. `ends`: the chunk whose last unit it is."""

    unit: Unit
    jobs: list[asyncio.Future[None]] = field(default_factory=list)
    ends: _ChunkInProgress | None = None
    uses: int = 2

    def over(self) -> None:
        """One of its two uses has ended."""
        self.uses -= 1
        if not self.uses:
            self.unit.release()


class Upload:
    """Takes one body; either `run` returns, or the caller calls `abandon`."""

    def __init__(self, tools: Tools, body: Body, digests: Digests, epoch: int = 1) -> None:
        self._tools, self._body, self._digests, self._epoch = tools, body, digests, epoch
        digest_worker, store_worker = next(tools.lanes)
        self._hashing, self._storing = Turns(digest_worker), Turns(store_worker)
        self._under_way: deque[_Piece] = deque()
        self._chunk: _ChunkInProgress | None = None
        self._unsealed: list[_ChunkInProgress] = []
        self._sealed: list[ChunkRef] = []
        self._size = self._unsynced = 0
        self._sync_error: BaseException | None = None

    async def run(self) -> StoredBody:
        """Takes the body's units to their end. What it wrote is durable after `synced`."""
        while (unit := await self._body.next_unit()) is not None:
            piece = _Piece(unit)
            self._under_way.append(piece)  # from here on `abandon` gives it back
            if self._chunk is not None and unit.filled > self._chunk.room - self._chunk.size_bytes:
                await self._drain(1)
                self._seal(self._chunk)
            self._work_on(piece)
            await self._drain(UNITS_IN_FLIGHT - 1)
        await self._drain(0)
        if self._chunk is not None:
            self._seal(self._chunk)
        return StoredBody(tuple(self._sealed), self._size, epoch=self._epoch)

    def _work_on(self, piece: _Piece) -> None:
        view = piece.unit.view
        chunk = self._chunk or self._begin(len(view))
        piece.jobs.append(self._hashing.submit(lambda: self._digests.update(view), piece.over))
        piece.jobs.append(self._storing.submit(lambda: chunk.store(view), piece.over))
        self._size += len(view)
        chunk.size_bytes += len(view)
        if chunk.size_bytes == chunk.room:
            piece.ends, self._chunk = chunk, None

    def _begin(self, first_bytes: int) -> _ChunkInProgress:
        room = CHUNK_MAX_BYTES
        if self._body.size_bytes is not None:
            room = min(room, max(self._body.size_bytes - self._size, first_bytes))
        numbers = self._tools.numbers
        begun = numbers.chunk(numbers.take(), 0)
        try:
            fragment = self._tools.segments.begin(begun.chunk_id, stored_max_bytes=room)
        except BaseException:
            numbers.settle(begun.number)
            raise
        self._chunk = _ChunkInProgress(begun, fragment, self._tools.compression, room)
        self._unsealed.append(self._chunk)
        return self._chunk

    async def synced(self) -> None:
        """Everything that `run` wrote is durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            error = error or self._sync_error
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        self._tools.segments.sync(done)
        await future

    async def _drain(self, left: int) -> None:
        """Waits for the oldest units; seals the chunks that end with them."""
        while len(self._under_way) > left:
            piece = self._under_way[0]
            for job in piece.jobs:
                await job
            self._under_way.popleft()
            if piece.ends is not None:
                self._seal(piece.ends)

    def _seal(self, chunk: _ChunkInProgress) -> None:
        segments = self._tools.segments
        segments.wrote(chunk.fragment)
        segments.seal(chunk.fragment, tuple(chunk.units), chunk.crcs())
        self._unsealed.remove(chunk)
        self._sealed.append(ChunkRef(chunk.chunk.writer, chunk.chunk.number, chunk.size_bytes))
        if chunk is self._chunk:
            self._chunk = None
        self._unsynced += chunk.fragment.stored_bytes
        if self._unsynced >= SYNC_AHEAD_BYTES:
            self._unsynced = 0
            segments.sync(self._synced_ahead)

    def _synced_ahead(self, error: BaseException | None) -> None:
        self._sync_error = self._sync_error or error

    def abandon(self, drop: Callable[[StoredBody], None]) -> None:
        """Drops what was written, and ends the work: the place it writes to is dead when no thread writes there."""
        drop(StoredBody(tuple(self._sealed), self._size))
        left = 2

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._discard()

        self._hashing.stop(ended)
        self._storing.stop(ended)

    def _discard(self) -> None:
        while self._under_way:
            self._under_way.popleft().unit.release()
        for chunk in self._unsealed:
            self._tools.segments.abort(chunk.fragment)
            self._tools.numbers.settle(chunk.chunk.number)
