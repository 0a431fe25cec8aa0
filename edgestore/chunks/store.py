"""Writes bodies as chunks and reads them back.

Rule: everything is synced before the caller may name it (rule 1), and checked before the caller sees it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

from edgestore.chunks.body import Body
from edgestore.chunks.compression import PLAIN, Compression
from edgestore.chunks.digests import Digests
from edgestore.chunks.numbers import NOBODY, ChunkNumbers
from edgestore.chunks.pool import UnitPool
from edgestore.chunks.reading import ReadBudget, Run, RunCutter, units_of
from edgestore.chunks.upload import StoredBody, Tools, Upload
from edgestore.config import ChunksConfig
from edgestore.disk import Files, FragmentInfo, FragmentUnit, Segments
from edgestore.errors import Corrupt, NotFound
from edgestore.records import UNIT_BYTES, ChunkRef

READ_RUN_BYTES = 1024 * 1024
MOVES_MAX = 8
"""A fragment that compaction moves is looked up again; one that moves this often in a row is not there."""

SmallDone = Callable[[tuple[ChunkRef, ...] | None, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A run that is being read. `budget_bytes`: what it took of the budget."""

    view: asyncio.Future[memoryview]
    budget_bytes: int


class ChunkStore:
    """The chunks of one node."""

    def __init__(self, segments: Segments, files: Files, config: ChunksConfig, *, writer: int = NOBODY) -> None:
        self.pool = UnitPool(config.pool_bytes, config.pool_read_reserve_bytes)
        self._segments, self._config = segments, config
        self._budget = ReadBudget(config.pool_read_reserve_bytes)
        self._compression = Compression(config.compression_level, config.compression_saving_min)
        lanes = [(files.worker(f"digest-{n}"), files.worker(f"store-{n}")) for n in range(config.worker_threads)]
        self._read_worker = files.worker("read", config.worker_threads)
        self._numbers = ChunkNumbers(writer)
        self._tools = Tools(segments, self._numbers, self._compression, cycle(lanes))
        self._workers = [self._read_worker, *(worker for lane in lanes for worker in lane)]

    # --- names -----------------------------------------------------------------------------------------

    def begin_writer(self, writer: int) -> None:
        """Chunks that are begun from now on are named after `writer`; before the first call none can be."""
        self._numbers.begin(writer)

    def settle(self, chunks: tuple[ChunkRef, ...]) -> None:
        """The outcome of naming these chunks is known."""
        for chunk in chunks:
            self._numbers.settle(chunk.number)

    def drop(self, chunks: tuple[ChunkRef, ...]) -> None:
        """These chunks will never be named: their fragments go at once."""
        for chunk in chunks:
            self._segments.delete(chunk.chunk_id)
        self.settle(chunks)

    def low_water(self) -> int:
        """Every number below is named or garbage (rule 6)."""
        return self._numbers.low_water()

    # --- writing ---------------------------------------------------------------------------------------

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull where content would eat into the disk's reserve."""
        self._segments.check_room(size_bytes)

    def put_small(self, data: bytes, done: SmallDone) -> None:
        """A body of at most one unit, in one write; `done` after the sync. Raises StorageFull at once."""
        number = self._numbers.take()
        chunk = self._numbers.chunk(number, len(data))
        try:
            codec, stored = self._compression.pack(memoryview(data))
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
        upload = Upload(self._tools, body, digests)
        try:
            stored = await upload.run()
            await upload.synced()
        except BaseException:
            upload.abandon(self.drop)
            raise
        return stored

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

    def fetch_small(self, chunk: ChunkRef, done: Callable[[memoryview | None, BaseException | None], None]) -> None:
        """The plain bytes of a chunk of one unit from the disk, by a reader thread; `done` is called on the loop."""
        view: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()

        def ended(read: asyncio.Future[memoryview]) -> None:
            error = read.exception()
            done(None if error is not None else read.result(), error)

        view.add_done_callback(ended)
        self._begin_read(Run(chunk, 0, chunk.size_bytes), view, MOVES_MAX)

    async def read(self, chunks: Sequence[ChunkRef], offset: int, length: int) -> AsyncGenerator[memoryview, None]:
        """Plain bytes [offset, offset + length) of the chunks one after another, read ahead where the budget allows.

        Close it (`contextlib.aclosing`) where it is not taken to its end. Raises Corrupt, DiskFailed.
        """
        cutter = RunCutter(chunks, offset, length)
        ahead: deque[_Ahead] = deque()
        try:
            while self._read_ahead(cutter, ahead):
                if ahead[0].view.done():
                    await asyncio.sleep(0)  # a reader that never has to wait lets the others in
                yield await ahead[0].view
                self._budget.give(ahead.popleft().budget_bytes)
        finally:
            for one in ahead:
                self._budget.give(one.budget_bytes)
                if not one.view.cancel() and not one.view.cancelled():
                    one.view.exception()  # nobody will look at it any more

    def _read_ahead(self, cutter: RunCutter, ahead: deque[_Ahead]) -> bool:
        """Begins as many reads as may be; False where nothing is left."""
        while len(ahead) < self._config.read_ahead_units:
            rich = self._budget.take(READ_RUN_BYTES)
            if not rich and ahead:
                break
            run = cutter.cut(READ_RUN_BYTES if rich else UNIT_BYTES)
            if run is None:
                self._budget.give(READ_RUN_BYTES if rich else 0)
                break
            view: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
            ahead.append(_Ahead(view, READ_RUN_BYTES if rich else 0))
            self._begin_read(run, view, MOVES_MAX)
            if view.done():
                break  # the page cache needs no reading ahead
        return bool(ahead)

    def _begin_read(self, run: Run, view: asyncio.Future[memoryview], attempts: int) -> None:
        """Looks the fragment up and has a thread read it; again where compaction moved it meanwhile."""
        chunk_id = run.chunk.chunk_id
        try:
            info = self._segments.lookup(chunk_id)
        except Corrupt as error:
            view.set_exception(error)
            return
        if info is None or not attempts:
            view.set_exception(Corrupt(f"chunk {chunk_id.hex()} has no fragment", chunk_id=chunk_id.hex()))
            return
        try:
            cached = self._read_cached(info, run)
        except Corrupt as error:
            view.set_exception(error)
            return
        if cached is not None:
            view.set_result(cached)
            return

        def done(found: memoryview | None, error: BaseException | None) -> None:
            if view.done():
                return
            if isinstance(error, NotFound):
                self._begin_read(run, view, attempts - 1)
            elif found is None:
                view.set_exception(error or Corrupt(f"chunk {chunk_id.hex()} was not read"))
            else:
                view.set_result(found)

        self._read_worker.submit(lambda: self._read_blocking(info, run), done)

    def _read_cached(self, info: FragmentInfo, run: Run) -> memoryview | None:
        """Plain units in the page cache: copied and checked (70 us a MiB) sooner than a thread is woken for it."""
        span = units_of(info, run.offset, run.length)
        if any(unit.codec != PLAIN for unit in info.fragment.units[span.first : span.last + 1]):
            return None
        at = span.stored_offset + run.offset - span.plain_offset
        view = self._segments.read_cached(info, at, run.length)
        return view if view is not None and len(view) == run.length else None

    def _read_blocking(self, info: FragmentInfo, run: Run) -> memoryview:
        """Units that lie plain beside each other are one read without a copy."""
        span = units_of(info, run.offset, run.length)
        units = info.fragment.units[span.first : span.last + 1]
        skip = run.offset - span.plain_offset
        if all(unit.codec == PLAIN for unit in units):
            view = self._segments.read_blocking(info, span.stored_offset + skip, run.length)
        else:
            stored = self._segments.read_blocking(info, span.stored_offset, sum(unit.stored_bytes for unit in units))
            pieces, at = [], 0
            for unit in units:
                piece = stored[at : at + unit.stored_bytes]
                pieces.append(piece if unit.codec == PLAIN else self._compression.unpack(piece, unit.plain_bytes))
                at += unit.stored_bytes
            view = memoryview(b"".join(pieces))[skip : skip + run.length]
        if len(view) != run.length:
            raise Corrupt(f"chunk {run.chunk.chunk_id.hex()} is shorter than its extent says")
        return view

    def close(self) -> None:
        """Ends the threads."""
        for worker in self._workers:
            worker.close()
