"""Several chunk stores on real segments, joined by a network that loses, delays and damages as a test says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgestore.chunks import ChunkStore, Digests, StoredBody, bytes_body
from edgestore.chunks.remote import ReadAnswer
from edgestore.config import ChunksConfig, DiskConfig
from edgestore.disk import RocksIndex, Segments, SystemFiles
from edgestore.errors import Denied, Unavailable
from edgestore.net import Answer, Caller, Lane, Method, Outcome, Reply, Rights, Work
from edgestore.placement import Placement, Scheme, scheme_for
from edgestore.records import UNIT_BYTES, BucketRecord, LayoutNode, LayoutRecord, NodeState, SiteSettings

CONFIG = ChunksConfig(
    pool_bytes=128 * UNIT_BYTES,
    confirm_ms=80,
    confirm_bytes_per_s=1 << 40,
    write_timeout_s=2.0,
    fragment_timeout_s=1.0,
    linger_ms=50,
)


@dataclass
class Faults:
    """What goes wrong with the requests to one node, and from when on."""

    is_dead: bool = False
    delay_s: float = 0.0
    damage: bool = False
    denies: bool = False
    dies_after: int | None = None
    refuses: int = 0
    lies_by_bytes: int = 0
    asked: list[Method] = field(default_factory=list)


class Site:
    """The catalog's view: one layout for all, newest last."""

    def __init__(self, count: int, settings: SiteSettings) -> None:
        nodes = tuple(LayoutNode(number, 100, f"z{number}", NodeState.UP) for number in range(1, count + 1))
        self.layouts = [LayoutRecord(1, nodes)]
        self.known = [Placement(self.layouts[0])]
        self.settings = settings
        self.faults = {number: Faults() for number in range(1, count + 1)}
        self.stores: dict[int, ChunkStore] = {}
        self.views: dict[int, View] = {}
        self.suspected: set[int] = set()
        self.is_full = False
        self.seen: list[tuple[int, int, Work, Outcome]] = []

    def change(self, number: int, state: NodeState, *, closes: bool = False) -> None:
        """A new epoch in which the node has another state."""
        newest = self.layouts[-1]
        epoch = newest.epoch + 1
        nodes = tuple(
            msgspec.structs.replace(node, state=state, state_epoch=epoch) if node.number == number else node
            for node in newest.nodes
        )
        self.layouts.append(LayoutRecord(epoch, nodes, epoch if closes else newest.balance_epoch))
        self.known.append(Placement(self.layouts[-1]))


@dataclass
class View:
    """`Sites` of one node."""

    site: Site
    own_number: int
    handlers: dict[Method, Any] = field(default_factory=dict)

    def layout(self) -> LayoutRecord:
        return self.site.layouts[-1]

    def placements(self, epoch: int) -> Sequence[Placement]:
        return [one for one in self.site.known if one.epoch >= epoch] or self.site.known[-1:]

    def scheme(self, bucket: BucketRecord | None) -> Scheme:
        return scheme_for(bucket, self.layout(), self.site.settings)

    def member(self, number: int) -> str:
        return f"{number:032x}"

    def is_suspected(self, number: int) -> bool:
        return number in self.site.suspected

    def has_room(self) -> bool:
        return not self.site.is_full

    def saw(self, number: int, work: Work, outcome: Outcome, seconds: float, size_bytes: int) -> None:
        self.site.seen.append((self.own_number, number, work, outcome))

    def serve(self, method: Method, handler: Any, *, rights: Rights = Rights.MEMBER) -> None:
        """Who answers."""
        self.handlers[method] = handler

    async def call(
        self,
        member: str,
        method: Method,
        head: bytes,
        payload: Sequence[bytes | bytearray | memoryview],
        *,
        timeout_s: float,
        lane: Lane = Lane.CONTROL,
    ) -> Answer:
        """Carries a request over, as bytes."""
        faults = self.site.faults[int(member, 16)]
        faults.asked.append(method)
        sent = memoryview(b"".join(payload))
        try:
            async with asyncio.timeout(timeout_s):
                if faults.dies_after is not None:
                    faults.dies_after -= 1
                    if faults.dies_after < 0:
                        faults.is_dead = True
                if faults.is_dead:
                    await asyncio.sleep(60)
                await asyncio.sleep(faults.delay_s)
                if faults.refuses > 0:
                    faults.refuses -= 1
                    raise Unavailable("the node does not serve this yet: try again later")
                if faults.denies:
                    raise Denied("this is for members of the site")
                caller = Caller(str(self.own_number), Rights.MEMBER, "")
                reply = await self.site.views[int(member, 16)].handlers[method](caller, head, sent)
        except TimeoutError as error:
            raise Unavailable("no answer in time") from error
        if faults.lies_by_bytes and method is Method.FRAGMENT_READ:
            reply = _lie(reply, faults.lies_by_bytes)
        came = bytearray(b"".join(reply.payload))
        if faults.damage and came:
            came[len(came) // 2] ^= 1
        return Answer(reply.head, memoryview(bytes(came)))


def _lie(reply: Reply, by_bytes: int) -> Reply:
    """Says that units begin elsewhere."""
    answer = msgspec.msgpack.decode(reply.head, type=ReadAnswer)
    first, second, *rest = answer.facts.units
    lie = (
        msgspec.structs.replace(first, plain_bytes=first.plain_bytes + by_bytes),
        msgspec.structs.replace(second, plain_bytes=second.plain_bytes - by_bytes),
        *rest,
    )
    facts = msgspec.structs.replace(answer.facts, units=lie)
    return Reply(msgspec.msgpack.encode(msgspec.structs.replace(answer, facts=facts)), reply.payload)


@dataclass
class Nodes:
    """The site, and what a test does with it."""

    site: Site
    segments: dict[int, Segments]
    folder: Path

    def store(self, number: int) -> ChunkStore:
        return self.site.stores[number]

    async def write(self, number: int, data: bytes) -> StoredBody:
        store = self.store(number)
        return await store.write(bytes_body(store.pool, data), Digests())

    async def put_small(self, number: int, data: bytes) -> StoredBody:
        future: asyncio.Future[StoredBody] = asyncio.get_running_loop().create_future()

        def done(stored: StoredBody | None, error: BaseException | None) -> None:
            if stored is not None:
                future.set_result(stored)
            else:
                future.set_exception(error or AssertionError)

        self.store(number).put_small(data, done)
        return await future

    async def read(self, number: int, stored: StoredBody, offset: int = 0, length: int | None = None) -> bytes:
        length = stored.size_bytes - offset if length is None else length
        views = self.store(number).read(stored.extents(), offset, length)
        return b"".join([bytes(view) async for view in views])

    async def read_small(self, number: int, stored: StoredBody) -> bytes:
        """As a small GET does: from the page cache of the node, else from wherever the bytes are."""
        store, extent = self.store(number), stored.extents()[0]
        cached = store.read_small(extent)
        if cached is not None:
            return bytes(cached)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(view: memoryview | None, error: BaseException | None) -> None:
            if view is not None:
                future.set_result(bytes(view))
            else:
                future.set_exception(error or AssertionError)

        store.fetch_small(extent, done)
        return await future

    def flip(self, number: int, stored: StoredBody) -> None:
        """One bit of a body's first chunk on the disk of a node that holds a fragment of it."""
        segments, chunk_id = self.segments[number], stored.placed[0].chunk.chunk_id
        info = segments.lookup(chunk_id, segments.shards(chunk_id)[0])
        assert info is not None
        (path,) = (self.folder / str(number) / "segments").glob(f"*{info.segment:x}.segment")
        with path.open("r+b") as file:
            file.seek(info.data_offset)
            byte = file.read(1)[0]
            file.seek(info.data_offset)
            file.write(bytes([byte ^ 1]))

    def held(self, stored: StoredBody) -> list[int]:
        """For each chunk on how many nodes the fragments that its extent counts on lie."""
        counts = []
        for placed in stored.placed:
            chunk_id = placed.chunk.chunk_id
            found = {
                node
                for shard, node in enumerate(placed.holders)
                if node and self.segments[node].lookup(chunk_id, shard) is not None
            }
            counts.append(len(found))
        return counts

    def fragments(self) -> int:
        """On all disks together."""
        return sum(len(list(segments.chunk_ids())) for segments in self.segments.values())

    def sweep(self) -> int:
        """What the sweep of each node does where the catalog names nothing. On how many chunks it came."""
        found = [(segments, name) for segments in self.segments.values() for name in set(segments.chunk_ids())]
        for segments, chunk_id in found:
            for shard in segments.shards(chunk_id):
                segments.delete(chunk_id, shard)
        return len(found)

    def memory_is_free(self) -> bool:
        """No unit, slab or reserve is held."""
        return all(
            store.site is not None
            and not store.site.slabs.budget.taken_bytes
            and not store.pool.taken_bytes
            and not store.site.server.intake_bytes
            for store in self.site.stores.values()
        )


@asynccontextmanager
async def opened(
    folder: Path,
    count: int,
    *,
    config: ChunksConfig = CONFIG,
    settings: SiteSettings | None = None,
    reserve_bytes: dict[int, int] | None = None,
) -> AsyncIterator[Nodes]:
    site = Site(count, settings or SiteSettings())
    nodes = Nodes(site, {}, folder)
    closing: list[tuple[Segments, ChunkStore, RocksIndex]] = []
    for number in range(1, count + 1):
        files = SystemFiles(str(folder / str(number)))
        index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
        disk = DiskConfig(segment_bytes=16 << 20, reserve_bytes=(reserve_bytes or {}).get(number, 0))
        segments = await Segments.open(files, "segments", index, disk, entropy=os.urandom)
        store = ChunkStore(segments, files, config, writer=number)
        view = View(site, number)
        site.views[number] = view
        store.join_site(view, view)
        site.stores[number], nodes.segments[number] = store, segments
        closing.append((segments, store, index))
    try:
        yield nodes
    finally:
        for segments, store, index in closing:
            await store.leave_site()
            await segments.close()
            store.close()
            index.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)
