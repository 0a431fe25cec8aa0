"""Writes bodies as chunks and reads them back.

Rule: everything is synced before the caller may name it (rule 1), and checked before the caller sees it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from edgestore.chunks.body import Body
from edgestore.chunks.compression import PLAIN, Compression
from edgestore.chunks.digests import Digests
from edgestore.chunks.facts import Extent, Source, chunks_in, sources_of
from edgestore.chunks.numbers import NOBODY, ChunkNumbers
from edgestore.chunks.placed import StoredBody
from edgestore.chunks.pool import UnitPool
from edgestore.chunks.reading import ReadBudget, Run, RunCutter, joined, units_of
from edgestore.chunks.site import Sites
from edgestore.chunks.upload import Tools, Upload
from edgestore.config import ChunksConfig
from edgestore.disk import Files, FragmentInfo, FragmentUnit, Segments
from edgestore.errors import Corrupt, EdgeStoreError, NotFound, StorageFull, Unavailable
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES, BucketRecord

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.chunks.remote import Calls
    from edgestore.chunks.site_store import SiteStore

READ_RUN_BYTES = 1024 * 1024
STRIPED_RUN_BYTES = CHUNK_MAX_BYTES
"""What a request to another node costs beside its bytes is paid once a fragment."""
MOVES_MAX = 8
"""A fragment that compaction moves is looked up again; one that moves this often in a row is not there."""

SmallDone = Callable[[StoredBody | None, BaseException | None], None]


_Views = asyncio.Future[Sequence[memoryview]]
"""The bytes of a run in order, as they came."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A run that is being read. `budget_bytes`: what it took of the budget."""

    views: _Views
    budget_bytes: int


class ChunkStore:
    """The chunks of one node. `site` is what it does with those of several nodes, once it has been told of them."""

    def __init__(self, segments: Segments, files: Files, config: ChunksConfig, *, writer: int = NOBODY) -> None:
        self.pool = UnitPool(config.pool_bytes, config.pool_read_reserve_bytes)
        self.site: SiteStore | None = None
        self._segments, self._config = segments, config
        self._budget = ReadBudget(config.pool_read_reserve_bytes)
        self._compression = Compression(config.compression_level, config.compression_saving_min)
        lanes = [(files.worker(f"digest-{n}"), files.worker(f"store-{n}")) for n in range(config.worker_threads)]
        self._files = files
        self._read_worker = files.worker("read", config.worker_threads)
        self._numbers = ChunkNumbers(writer)
        self._tools = Tools(segments, self._numbers, self._compression, cycle(lanes))
        self._workers = [self._read_worker, *(worker for lane in lanes for worker in lane)]
        self._tasks: dict[asyncio.Task[None], None] = {}

    def join_site(self, sites: Sites, peers: Calls) -> SiteStore:
        """There are other nodes from now on, or may be: they are answered, and chunks go to several of them."""
        from edgestore.chunks.site_store import SiteStore

        intake_worker, repair_worker = (
            self._files.worker(name, self._config.worker_threads) for name in ("intake", "repair")
        )
        self._workers += [intake_worker, repair_worker]
        self.site = SiteStore(
            self._tools,
            sites,
            peers,
            self._config,
            compression=self._compression,
            numbers=self._numbers,
            worker=self._read_worker,
            intake_worker=intake_worker,
            repair_worker=repair_worker,
        )
        self.site.server.serve(peers)
        return self.site

    # --- names -----------------------------------------------------------------------------------------

    def begin_writer(self, writer: int) -> None:
        """Chunks that are begun from now on are named after `writer`; before the first call none can be."""
        self._numbers.begin(writer)

    def settle(self, stored: StoredBody) -> None:
        """The outcome of naming these chunks is known."""
        for chunk in stored.chunks:
            self._numbers.settle(chunk.number)

    def drop(self, stored: StoredBody) -> None:
        """These chunks will never be named: their fragments go at once, on other nodes as soon as they hear of it."""
        for chunk in stored.chunks:
            self._segments.delete(chunk.chunk_id)
        if stored.placed and self.site is not None:
            self.site.drop(stored)
        self.settle(stored)

    def forget(self, chunk_id: bytes) -> None:
        """What this node holds of a condemned chunk goes."""
        if self.site is None:
            self._segments.delete(chunk_id)
            return
        for shard in self._segments.shards(chunk_id):
            self._segments.delete(chunk_id, shard)

    async def mend(self, stored: StoredBody, bucket: BucketRecord | None) -> StoredBody:
        """After StaleFragments: the body again on nodes that count now. Raises Unavailable, Corrupt."""
        if self.site is None or not stored.placed:
            raise Unavailable("the layout changed while the body was stored: send it again")
        return await self.site.mend(stored, bucket)

    def low_water(self) -> int:
        """Every number below is named or garbage (rule 6)."""
        return self._numbers.low_water()

    # --- writing ---------------------------------------------------------------------------------------

    def _epoch(self, bucket: BucketRecord | None) -> int | None:
        """The layout epoch of what is stored on this node alone; None where chunks go to several."""
        if self.site is None:
            return 1
        return self.site.sites.layout().epoch if self.site.is_alone(bucket) else None

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull where content would eat into the disk's reserve. On a site of several nodes others may
        have room: there it is about the command alone, and so about the voters."""
        if self.site is None or self.site.is_lone:
            self._segments.check_room(size_bytes)
        elif not self.site.sites.has_room():
            raise StorageFull(
                "a majority of the voters has no room left beside its reserve (disk.reserve_bytes): delete something "
                "or add space; reading and deleting work",
                retry_after_s=30,
            )

    def put_small(self, data: bytes, done: SmallDone, bucket: BucketRecord | None = None) -> None:
        """A body of at most one unit, in one write; `done` after the sync. Raises StorageFull at once."""
        epoch = self._epoch(bucket)
        if epoch is None:
            self._put_small_on_site(data, done, bucket)
            return
        number = self._numbers.take()
        chunk = self._numbers.chunk(number, len(data))
        stored = StoredBody((chunk,), len(data), epoch=epoch)
        try:
            codec, packed = self._compression.pack(memoryview(data))
            self._segments.put(chunk.chunk_id, packed, (FragmentUnit(len(data), len(packed), codec),))
        except BaseException:
            self.settle(stored)
            raise

        def synced(error: BaseException | None) -> None:
            if error is not None:
                self.drop(stored)
                done(None, error)
            else:
                done(stored, None)

        self._segments.sync(synced)

    def _put_small_on_site(self, data: bytes, done: SmallDone, bucket: BucketRecord | None) -> None:
        site = self.site
        assert site is not None

        async def put() -> None:
            try:
                stored = await site.write_small(data, bucket)
            except EdgeStoreError as error:
                done(None, error)
            else:
                done(stored, None)

        self._begin(put())

    def _begin(self, job: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks[task] = None
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    async def write(self, body: Body, digests: Digests, bucket: BucketRecord | None = None) -> StoredBody:
        """A whole body; returns when it is on the disk. Whatever fails, the chunks written so far go."""
        epoch = self._epoch(bucket)
        if epoch is None:
            assert self.site is not None
            return await self.site.write(body, digests, bucket)
        upload = Upload(self._tools, body, digests, epoch)
        try:
            stored = await upload.run()
            await upload.synced()
        except BaseException:
            upload.abandon(self.drop)
            raise
        return stored

    # --- reading ---------------------------------------------------------------------------------------

    def read_small(self, extent: Extent) -> memoryview | bytes | None:
        """An extent of one chunk of one unit where the page cache has it, whole; None where `fetch_small` must look."""
        shard = 0 if extent.k + extent.m == 1 else self._own_copy(extent)
        if shard is None:
            return None
        try:
            info = self._segments.lookup(extent.chunks[0].chunk_id, shard)
            if info is None or len(info.fragment.units) != 1:
                return None
            data = self._segments.read_cached(info, 0, info.fragment.stored_bytes)
            unit = info.fragment.units[0]
            return data if data is None or unit.codec == PLAIN else self._compression.unpack(data, unit.plain_bytes)
        except Corrupt:
            return None  # other nodes may have better bytes

    def _own_copy(self, extent: Extent) -> int | None:
        if extent.k > 1 or self.site is None:
            return None
        return self.site.gather.local_shard(sources_of(extent)[0])

    def fetch_small(self, extent: Extent, done: Callable[[memoryview | None, BaseException | None], None]) -> None:
        """The plain bytes of an extent of one chunk of one unit, from the disk by a reader thread or from other nodes;
        `done` is called on the loop."""
        views: _Views = asyncio.get_running_loop().create_future()

        def ended(read: _Views) -> None:
            error = read.exception()
            done(None if error is not None else joined(read.result()), error)

        views.add_done_callback(ended)
        self._begin_read(Run(sources_of(extent)[0], 0, extent.size_bytes), views, MOVES_MAX)

    async def read(self, extents: Sequence[Extent], offset: int, length: int) -> AsyncGenerator[memoryview, None]:
        """Plain bytes [offset, offset + length) of the extents one after another, read ahead where the budget allows.

        Close it (`contextlib.aclosing`) where it is not taken to its end. Raises Corrupt, DiskFailed.
        """
        sources, inner = chunks_in(extents, offset, length)
        cutter = RunCutter(sources, inner, length)
        ahead: deque[_Ahead] = deque()
        try:
            while self._read_ahead(cutter, ahead):
                if ahead[0].views.done():
                    await asyncio.sleep(0)  # a reader that never has to wait lets the others in
                for view in await ahead[0].views:
                    yield view
                self._budget.give(ahead.popleft().budget_bytes)
        finally:
            for one in ahead:
                self._budget.give(one.budget_bytes)
                if not one.views.cancel() and not one.views.cancelled():
                    one.views.exception()  # nobody will look at it any more

    def _read_ahead(self, cutter: RunCutter, ahead: deque[_Ahead]) -> bool:
        """Begins as many reads as may be; False where nothing is left."""
        while (source := cutter.source) is not None:
            is_striped = source.k > 1
            if len(ahead) >= (self._config.read_ahead_chunks if is_striped else self._config.read_ahead_units):
                break
            wanted = (STRIPED_RUN_BYTES, READ_RUN_BYTES) if is_striped else (READ_RUN_BYTES,)
            taken_bytes = next((size for size in wanted if self._budget.take(size)), 0)
            if not taken_bytes and ahead:
                break
            run = cutter.cut(taken_bytes or UNIT_BYTES)
            assert run is not None
            views: _Views = asyncio.get_running_loop().create_future()
            ahead.append(_Ahead(views, taken_bytes))
            self._begin_read(run, views, MOVES_MAX)
            if views.done():
                break  # the page cache needs no reading ahead
        return bool(ahead)

    def _begin_read(self, run: Run, views: _Views, attempts: int) -> None:
        """Looks the fragment up and has a thread read it; again where compaction moved it meanwhile."""
        try:
            info = self._look_up(run.source) if attempts else None
            cached = self._read_cached(info, run) if info is not None else None
        except Corrupt as error:
            self._read_elsewhere(run, views, error)
            return
        if info is None:
            name = run.source.chunk.chunk_id.hex()
            self._read_elsewhere(run, views, Corrupt(f"chunk {name} has no fragment", chunk_id=name))
            return
        if cached is not None:
            views.set_result((cached,))
            return
        found_info = info

        def done(found: memoryview | None, error: BaseException | None) -> None:
            if views.done():
                return
            if isinstance(error, NotFound):
                self._begin_read(run, views, attempts - 1)
            elif found is None:
                self._read_elsewhere(run, views, error or Corrupt("the chunk was not read"))
            else:
                views.set_result((found,))

        self._read_worker.submit(lambda: self._read_blocking(found_info, run), done)

    def _look_up(self, source: Source) -> FragmentInfo | None:
        """A fragment here that holds the whole chunk."""
        shard: int | None = 0
        if source.count > 1:
            shard = self.site.gather.local_shard(source) if source.k == 1 and self.site is not None else None
        return None if shard is None else self._segments.lookup(source.chunk.chunk_id, shard)

    def _read_elsewhere(self, run: Run, views: _Views, error: BaseException) -> None:
        """What this disk alone cannot give comes from several nodes, if there are several."""
        site = self.site
        if site is None:
            views.set_exception(error)
            return

        async def read() -> None:
            try:
                found = await site.gather.views(run.source, run.offset, run.length)
            except Exception as failure:
                if not views.done():
                    views.set_exception(failure)
            else:
                if not views.done():
                    views.set_result(found)

        self._begin(read())

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
            raise Corrupt(f"chunk {run.source.chunk.chunk_id.hex()} is shorter than its extent says")
        return view

    async def leave_site(self) -> None:
        """Ends what is under way with other nodes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.site is not None:
            await self.site.close()

    def close(self) -> None:
        """Ends the threads."""
        for worker in self._workers:
            worker.close()
