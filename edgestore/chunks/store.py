"""Writes bodies as chunks and reads them back.

Rule: an upload holds a few units, never a chunk; everything is synced before the caller may name it (rule 1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from edgestore.chunks.body import Body
from edgestore.chunks.compression import PLAIN, Compression
from edgestore.chunks.digests import Digests
from edgestore.chunks.pool import Unit, UnitPool
from edgestore.config import ChunksConfig
from edgestore.disk import Files, FragmentInfo, FragmentUnit, FragmentWriter, Segments, Worker
from edgestore.errors import Corrupt, NotFound
from edgestore.kernels import page_crcs
from edgestore.records import CHUNK_MAX_BYTES, EXTENT_CHUNKS_MAX, PAGE_BYTES, UNIT_BYTES, ChunkRef

UNITS_IN_FLIGHT = 4
READ_RUN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body on the disk: its chunks in order, and its size."""

    chunks: tuple[ChunkRef, ...]
    size_bytes: int

    def extents(self) -> list[tuple[ChunkRef, ...]]:
        """The chunks in runs of at most 1,024."""
        return [self.chunks[at : at + EXTENT_CHUNKS_MAX] for at in range(0, len(self.chunks), EXTENT_CHUNKS_MAX)]


class _Turns:
    """Jobs of one stream on a shared worker, one after another."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jobs: deque[tuple[Callable[[], object], asyncio.Future[None]]] = deque()
        self._busy = False

    def submit(self, job: Callable[[], object]) -> asyncio.Future[None]:
        """The future is done when the job is."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        self._next()
        return future

    def _next(self) -> None:
        if self._busy or not self._jobs:
            return
        job, future = self._jobs.popleft()
        self._busy = True

        def done(_: Any, error: BaseException | None) -> None:
            self._busy = False
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
            self._next()

        self._worker.submit(job, done)


class _ChunkInProgress:
    """One chunk being written; `store` runs in the worker."""

    def __init__(self, number: int, fragment: FragmentWriter, compression: Compression) -> None:
        self.number, self.fragment = number, fragment
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


class ChunkStore:
    """The chunks of one node."""

    def __init__(self, segments: Segments, files: Files, config: ChunksConfig, *, writer: int) -> None:
        self.pool = UnitPool(config.pool_bytes, config.pool_read_reserve_bytes)
        self._segments, self._config = segments, config
        self._compression = Compression(config.compression_level, config.compression_saving_min)
        self._digest_worker = files.worker("digest", config.worker_threads)
        self._store_worker = files.worker("store", config.worker_threads)
        self._writer, self._next_number = writer, 0
        self._outstanding: dict[int, None] = {}

    # --- names -----------------------------------------------------------------------------------------

    def _take_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        self._outstanding[number] = None
        return number

    def settle(self, chunks: tuple[ChunkRef, ...]) -> None:
        """The outcome of naming these chunks is known."""
        for chunk in chunks:
            self._outstanding.pop(chunk.number, None)

    def drop(self, chunks: tuple[ChunkRef, ...]) -> None:
        """These chunks will never be named: their fragments go at once."""
        for chunk in chunks:
            self._segments.delete(chunk.chunk_id)
        self.settle(chunks)

    def low_water(self) -> int:
        """Every number below is named or garbage (rule 6)."""
        return next(iter(self._outstanding), self._next_number)

    # --- writing ---------------------------------------------------------------------------------------

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull where content would eat into the disk's reserve."""
        self._segments.check_room(size_bytes)

    def put_small(self, data: bytes, done: Callable[[tuple[ChunkRef, ...] | None, BaseException | None], None]) -> None:
        """A body of at most one unit, in one write; `done` after the sync. Raises StorageFull at once."""
        number = self._take_number()
        chunk = ChunkRef(self._writer, number, len(data))
        codec, stored = self._compression.pack(memoryview(data))
        try:
            self._segments.put(chunk.chunk_id, stored, (FragmentUnit(len(data), len(stored), codec),))
        except BaseException:
            self.settle((chunk,))
            raise

        def synced(error: BaseException | None) -> None:
            if error is not None:
                self.drop((chunk,))
                done(None, error)
            else:
                done((chunk,), None)

        self._segments.sync(synced)

    async def write(self, body: Body, digests: Digests) -> StoredBody:
        """A whole body; returns when it is on the disk. Whatever fails, the chunks written so far go."""
        upload = _Upload(self, body, digests)
        try:
            stored = await upload.run()
            await self._synced()
        except BaseException:
            upload.abandon()
            raise
        return stored

    async def _synced(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        self._segments.sync(done)
        await future

    # --- reading ---------------------------------------------------------------------------------------

    def read_small(self, chunk: ChunkRef) -> memoryview | bytes | None:
        """A chunk of one unit where the page cache has it; None where it has not. Raises Corrupt."""
        info = self._segments.lookup(chunk.chunk_id)
        if info is None or len(info.fragment.units) != 1:
            return None
        data = self._segments.read_cached(info, 0, info.fragment.stored_bytes)
        if data is None:
            return None
        unit = info.fragment.units[0]
        return data if unit.codec == PLAIN else self._compression.unpack(data, unit.plain_bytes)

    async def read(self, chunks: list[ChunkRef], offset: int, length: int) -> AsyncIterator[memoryview]:
        """Plain bytes [offset, offset + length) of the chunks one after another, read ahead by a few runs."""
        ahead: deque[asyncio.Task[memoryview]] = deque()
        loop = asyncio.get_running_loop()
        runs = self._runs(chunks, offset, length)
        try:
            for run in runs:
                ahead.append(loop.create_task(self._read_run(run)))
                if len(ahead) >= self._config.read_ahead_units:
                    yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()

    def _runs(self, chunks: list[ChunkRef], offset: int, length: int) -> list[_Run]:
        found: list[_Run] = []
        for chunk in chunks:
            if length <= 0:
                break
            if offset >= chunk.size_bytes:
                offset -= chunk.size_bytes
                continue
            taken = min(length, chunk.size_bytes - offset)
            end = offset + taken
            found.extend(
                _Run(chunk, start, min(READ_RUN_BYTES, end - start)) for start in range(offset, end, READ_RUN_BYTES)
            )
            offset, length = 0, length - taken
        return found

    async def _read_run(self, run: _Run) -> memoryview:
        for attempt in (1, 2):
            info = self._segments.lookup(run.chunk.chunk_id)
            if info is None:
                break
            try:
                return await self._store_worker.run(lambda info=info: self._read_blocking(info, run))  # type: ignore[misc]
            except NotFound:
                if attempt == 2:
                    raise
        raise Corrupt(f"chunk {run.chunk.chunk_id.hex()} has no fragment", chunk_id=run.chunk.chunk_id.hex())

    def _read_blocking(self, info: FragmentInfo, run: _Run) -> memoryview:
        """Units that lie plain beside each other are one read without a copy."""
        first, last, stored_at, plain_at = _units_of(info, run.offset, run.length)
        units = info.fragment.units[first : last + 1]
        stored = self._segments.read_blocking(info, stored_at, sum(unit.stored_bytes for unit in units))
        skip = run.offset - plain_at
        if all(unit.codec == PLAIN for unit in units):
            return stored[skip : skip + run.length]
        pieces, at = [], 0
        for unit in units:
            piece = stored[at : at + unit.stored_bytes]
            pieces.append(piece if unit.codec == PLAIN else self._compression.unpack(piece, unit.plain_bytes))
            at += unit.stored_bytes
        return memoryview(b"".join(pieces))[skip : skip + run.length]

    def close(self) -> None:
        """Ends the threads."""
        self._digest_worker.close()
        self._store_worker.close()


@dataclass(frozen=True, slots=True)
class _Run:
    """Plain bytes [offset, offset + length) of one chunk."""

    chunk: ChunkRef
    offset: int
    length: int


def _units_of(info: FragmentInfo, offset: int, length: int) -> tuple[int, int, int, int]:
    """(first unit, last unit, stored offset of the first, plain offset of the first) that hold a range."""
    stored = plain = 0
    units = info.fragment.units
    first = 0
    while first < len(units) - 1 and plain + units[first].plain_bytes <= offset:
        plain += units[first].plain_bytes
        stored += units[first].stored_bytes
        first += 1
    last, reach = first, plain + units[first].plain_bytes
    while reach < offset + length and last < len(units) - 1:
        last += 1
        reach += units[last].plain_bytes
    return first, last, stored, plain


class _Upload:
    """One body on its way to the disk."""

    def __init__(self, store: ChunkStore, body: Body, digests: Digests) -> None:
        self._store, self._body, self._digests = store, body, digests
        self._hashing = _Turns(store._digest_worker)
        self._storing = _Turns(store._store_worker)
        self._under_way: deque[tuple[Unit, list[asyncio.Future[None]]]] = deque()
        self._chunk: _ChunkInProgress | None = None
        self._sealed: list[ChunkRef] = []

    async def run(self) -> StoredBody:
        """Takes the body's units to their end."""
        size = 0
        while (unit := await self._body.next_unit()) is not None:
            if self._chunk is None:
                self._chunk = self._begin(size)
            chunk = self._chunk
            view = unit.view
            jobs = [self._hashing.submit(lambda view=view: self._digests.update(view))]  # type: ignore[misc]
            jobs.append(self._storing.submit(lambda chunk=chunk, view=view: chunk.store(view)))  # type: ignore[misc]
            self._under_way.append((unit, jobs))
            size += len(view)
            chunk.size_bytes += len(view)
            if chunk.size_bytes >= CHUNK_MAX_BYTES:
                await self._drain(0)
                self._seal()
            await self._drain(UNITS_IN_FLIGHT - 1)
        await self._drain(0)
        self._seal()
        return StoredBody(tuple(self._sealed), size)

    def _begin(self, done_bytes: int) -> _ChunkInProgress:
        left = CHUNK_MAX_BYTES
        if self._body.size_bytes is not None:
            left = min(left, max(self._body.size_bytes - done_bytes, UNIT_BYTES))
        number = self._store._take_number()
        chunk_id = ChunkRef(self._store._writer, number, 0).chunk_id
        try:
            fragment = self._store._segments.begin(chunk_id, stored_max_bytes=left)
        except BaseException:
            self._store._outstanding.pop(number, None)
            raise
        return _ChunkInProgress(number, fragment, self._store._compression)

    async def _drain(self, left: int) -> None:
        while len(self._under_way) > left:
            unit, jobs = self._under_way[0]
            for job in jobs:
                await job
            self._under_way.popleft()
            unit.release()

    def _seal(self) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        self._store._segments.wrote(chunk.fragment)
        self._store._segments.seal(chunk.fragment, tuple(chunk.units), chunk.crcs())
        self._sealed.append(ChunkRef(self._store._writer, chunk.number, chunk.size_bytes))

    def abandon(self) -> None:
        """Drops what was written. Units are released when their jobs have ended."""
        for unit, jobs in self._under_way:
            _release_after(unit, jobs)
        if self._chunk is not None:
            self._store._segments.abort(self._chunk.fragment)
            self._store._outstanding.pop(self._chunk.number, None)
        self._store.drop(tuple(self._sealed))


def _release_after(unit: Unit, jobs: list[asyncio.Future[None]]) -> None:
    left = [job for job in jobs if not job.done()]
    if not left:
        unit.release()
        for job in jobs:
            if not job.cancelled():
                job.exception()
        return
    left[0].add_done_callback(lambda _: _release_after(unit, jobs))
