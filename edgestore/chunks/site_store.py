"""Chunks on several nodes: writing, reading, mending what a commit refused, and what repair builds on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from edgestore.chunks.body import Body
from edgestore.chunks.budget import ByteBudget, RestingBuffers, SlabPool
from edgestore.chunks.compression import Compression
from edgestore.chunks.digests import Digests
from edgestore.chunks.encoder import ChunkBuilder, slab_bytes
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.gather import Gather, GatherTools
from edgestore.chunks.numbers import ChunkNumbers
from edgestore.chunks.pieces import AT_ONCE, made
from edgestore.chunks.placed import PlacedChunk, StoredBody, stored_body
from edgestore.chunks.remote import Calls, Shelves
from edgestore.chunks.sender import Sender, holders_left
from edgestore.chunks.server import FragmentServer
from edgestore.chunks.shelf import Intake, LocalShelf
from edgestore.chunks.site import Manners, Sites
from edgestore.chunks.spread import SpreadTools
from edgestore.chunks.striped import StripedUpload
from edgestore.chunks.upload import Tools
from edgestore.config import ChunksConfig
from edgestore.disk import Worker
from edgestore.errors import EdgeStoreError
from edgestore.placement import NOBODY, Scheme, copies_for, is_counted, is_storage
from edgestore.records import UNIT_BYTES, BucketRecord, ChunkRef

log = logging.getLogger("edgestore.chunks")


class SiteStore:
    """What a node of a site of several does with chunks; `ChunkStore` asks it where they are not its own alone."""

    def __init__(
        self,
        tools: Tools,
        sites: Sites,
        peers: Calls,
        config: ChunksConfig,
        *,
        compression: Compression,
        numbers: ChunkNumbers,
        worker: Worker,
        intake_worker: Worker,
        repair_worker: Worker,
    ) -> None:
        self._tools, self.sites, self._config, self._numbers = tools, sites, config, numbers
        self._compression, self._worker, self._repair_worker = compression, worker, repair_worker
        self.local = LocalShelf(tools.segments, intake_worker, RestingBuffers(config.buffers_kept_bytes))
        self.shelves = Shelves(sites, self.local, peers, config.fragment_timeout_s)
        self.server = FragmentServer(Intake(self.local, config.intake_bytes))
        self.manners = Manners(sites, config)
        self.slabs = SlabPool(config.slab_bytes)
        spreading = SpreadTools(self.shelves, sites, self.manners, config)
        self._sender = Sender(spreading, numbers, self._drop_at)
        self.gather = self._gather_within(ByteBudget(config.decode_bytes), worker)
        self._jobs: dict[asyncio.Task[None], None] = {}
        self._is_closed = False

    def _gather_within(self, budget: ByteBudget, worker: Worker) -> Gather:
        kept_bytes = self._config.buffers_kept_bytes
        tools = GatherTools(self.shelves, self.sites, self.manners, self._compression, worker, budget, kept_bytes)
        return Gather(tools)

    # --- writing ---------------------------------------------------------------------------------------

    @property
    def is_lone(self) -> bool:
        """Whether the site has no other node."""
        return len(self.sites.layout().nodes) <= 1

    def is_alone(self, bucket: BucketRecord | None) -> bool:
        """Whether chunks are written as a lone node does: nobody else takes data, and nothing more was promised.
        Raises Unavailable where more was promised than one node can hold."""
        if self.is_lone:
            return True
        own = self.sites.own_number
        live = [node.number for node in self.sites.layout().nodes if is_storage(node)]
        return live == [own] and self.sites.scheme(bucket).count == 1

    def _scheme(self, bucket: BucketRecord | None, size_bytes: int | None) -> Scheme:
        """Small bodies are copies: one node answers for the whole of them."""
        scheme = self.sites.scheme(bucket)
        if size_bytes is not None and size_bytes <= self._config.copies_max_bytes:
            return copies_for(scheme.t)
        return scheme

    async def write(self, body: Body, digests: Digests, bucket: BucketRecord | None) -> StoredBody:
        """A whole body; returns when enough nodes have synced it. Whatever fails, what was stored goes."""
        upload = StripedUpload(
            self._tools,
            self.slabs,
            self._sender,
            self._config,
            body,
            digests,
            lambda size_bytes: self._scheme(bucket, size_bytes),
        )
        try:
            placed = await upload.run()
        except BaseException:
            upload.abandon(self.drop_placed)
            raise
        return stored_body(placed, self.sites)

    async def write_small(self, data: bytes | memoryview, bucket: BucketRecord | None) -> StoredBody:
        """A body that is in memory, as one chunk."""
        placed = await self.store(memoryview(data), self._scheme(bucket, len(data)), self.slabs)
        return stored_body((placed,), self.sites)

    async def store(self, data: memoryview, scheme: Scheme, slabs: SlabPool) -> PlacedChunk:
        """One chunk, made in memory of `slabs`."""
        slab = await slabs.acquire(slab_bytes(scheme.k, scheme.m, len(data)))
        builder = ChunkBuilder(slab.view, scheme.k, scheme.m, len(data), self._compression)

        def make() -> None:
            for at in range(0, len(data), UNIT_BYTES):
                builder.add(data[at : at + UNIT_BYTES])

        try:
            # 100 us of packing are not worth a thread; more are.
            if len(data) <= self._config.copies_max_bytes:
                make()
            else:
                await self._worker.run(make)
            return await self._sender.send(builder.finish(), len(data), scheme, hold=slab.hold, release=slab.release)
        finally:
            slab.release()

    # --- a commit that came too late ---------------------------------------------------------------------

    async def mend(self, stored: StoredBody, bucket: BucketRecord | None) -> StoredBody:
        """After StaleFragments: what lies on nodes that do not count any more is rebuilt on others, or its chunk is
        written again. Raises Unavailable, Corrupt where that cannot be done; then what it wrote goes, and the caller
        drops what was there before."""
        mended: list[PlacedChunk] = []
        try:
            for placed in stored.placed:
                mended.append(await self._mend_chunk(placed, bucket))  # noqa: PERF401
        except BaseException:
            self.drop_placed(tuple(mended))
            raise
        return stored_body(tuple(mended), self.sites)

    async def _mend_chunk(self, placed: PlacedChunk, bucket: BucketRecord | None) -> PlacedChunk:
        layout = self.sites.layout()
        counted = frozenset(node.number for node in layout.nodes if is_counted(node))
        holders = list(holders_left(placed, counted))
        # Also nodes that do not count may still hand out what they have.
        source = placed.source()
        placement = self.sites.placements(layout.epoch)[-1]
        spares = [node for node in placement.ranking(placed.chunk.chunk_id) if node not in holders]
        for shard in range(placed.scheme.count):
            held = len(set(holders) - {NOBODY})
            if held >= placed.scheme.needed:
                return PlacedChunk(placed.chunk, placed.scheme, layout.epoch, tuple(holders))
            if holders[shard] == NOBODY:
                holders[shard] = await self._restore(source, shard, spares)
        if len(set(holders) - {NOBODY}) >= placed.scheme.needed:
            return PlacedChunk(placed.chunk, placed.scheme, layout.epoch, tuple(holders))
        return await self._write_again(placed, source, bucket)

    async def _restore(self, source: Source, shard: int, spares: list[int]) -> int:
        """On the first of the spare nodes that takes it; NOBODY where none does."""
        while spares:
            node = spares.pop(0)
            try:
                await self.restore(source, shard, node)
            except EdgeStoreError as error:
                log.info("fragment-not-restored node=%d shard=%d error=%s", node, shard, error)
            else:
                return node
        return NOBODY

    async def _write_again(self, placed: PlacedChunk, source: Source, bucket: BucketRecord | None) -> PlacedChunk:
        again = await self.encode_again(source, self._scheme(bucket, placed.chunk.size_bytes))
        self.drop_placed((placed,))
        return again

    # --- for repair -------------------------------------------------------------------------------------

    def gather_behind(self, budget: ByteBudget) -> Gather:
        """Reads within a reserve and by threads of repair (rule 13)."""
        return self._gather_within(budget, self._repair_worker)

    async def put_behind(self, facts: Facts, data: memoryview) -> None:
        """On the own disk, by threads of repair. See Shelf."""
        await self.local.put(facts, data, self._repair_worker)

    async def encode_again(self, source: Source, scheme: Scheme) -> PlacedChunk:
        """The same bytes as a new chunk of another scheme, durable; `stored_body` makes extents of such."""
        data = await self.gather.read(source, 0, source.chunk.size_bytes)
        return await self.store(data, scheme, self.slabs)

    async def restore(self, source: Source, shard: int, node: int) -> None:
        """Makes a fragment of any k others, and puts it on a node; returns when it is synced there."""
        facts, data = await made(self.gather, source, shard, AT_ONCE)
        await self.shelves.of(node).put(facts, data)

    # --- dropping ---------------------------------------------------------------------------------------

    def drop(self, stored: StoredBody) -> None:
        """The body will never be named."""
        self.drop_placed(stored.placed)

    def settle(self, placed: tuple[PlacedChunk, ...]) -> None:
        """The outcome of naming these chunks is known."""
        for one in placed:
            self._numbers.settle(one.chunk.number)

    def drop_placed(self, placed: tuple[PlacedChunk, ...]) -> None:
        """These chunks will never be named."""
        for one in placed:
            self._drop_at(one.chunk, tuple(set(one.holders) - {NOBODY}))

    def _drop_at(self, chunk: ChunkRef, nodes: tuple[int, ...]) -> None:
        """At once here; elsewhere where there is room for another job, else the sweep finds it."""
        self._numbers.settle(chunk.number)
        for node in () if self._is_closed else nodes:
            if node == self.sites.own_number:
                self._forget(chunk.chunk_id)
            elif len(self._jobs) < self._config.drops_max:
                self._begin(self._drop(chunk.chunk_id, node))

    def _forget(self, chunk_id: bytes) -> None:
        try:
            self.local.forget(chunk_id)
        except EdgeStoreError as error:
            self._not_dropped(chunk_id, self.sites.own_number, error)

    async def _drop(self, chunk_id: bytes, node: int) -> None:
        try:
            await self.shelves.of(node).drop(chunk_id)
        except EdgeStoreError as error:
            self._not_dropped(chunk_id, node, error)

    @staticmethod
    def _not_dropped(chunk_id: bytes, node: int, error: EdgeStoreError) -> None:
        log.info("fragment-not-dropped node=%d chunk=%s error=%s", node, chunk_id.hex(), error)

    def _begin(self, job: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs[task] = None
        task.add_done_callback(lambda ended: self._jobs.pop(ended, None))

    async def close(self) -> None:
        """Ends what drops fragments elsewhere; what is not dropped is found by the sweep."""
        self._is_closed = True
        jobs = list(self._jobs)
        for task in jobs:
            task.cancel()
        if jobs:
            await asyncio.wait(jobs)
