"""Reads of chunks on several nodes: the data fragments themselves first, any k others where one fails or is late.

Rule: bytes count when they check out against the page CRCs that came with their fragment, whoever sent them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from edgestore.chunks.budget import ByteBudget
from edgestore.chunks.compression import PLAIN, Compression
from edgestore.chunks.encoder import pages_of, rebuild
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.remote import Shelves
from edgestore.chunks.site import Manners, Sites
from edgestore.chunks.stripes import Piece, Stripes
from edgestore.disk import FragmentUnit, Worker
from edgestore.errors import Corrupt, DiskFailed, EdgeStoreError, NotFound, Unavailable
from edgestore.placement import NOBODY
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES

TABLES_KEPT = 4096

Units = tuple[FragmentUnit, ...]


@dataclass(frozen=True, slots=True)
class GatherTools:
    """What gathering needs of the node. `worker`: threads that decode."""

    shelves: Shelves
    sites: Sites
    manners: Manners
    compression: Compression
    worker: Worker
    budget: ByteBudget


_Whole = tuple[Facts, int, memoryview] | EdgeStoreError


class _OtherUnits(Exception):
    """The chunk is packed otherwise than was guessed."""

    def __init__(self, units: Units) -> None:
        self.units = units


@dataclass(slots=True)
class _Have:
    """Bytes of one fragment from `start` on."""

    start: int
    data: memoryview

    def covers(self, start: int, stop: int) -> bool:
        return self.start <= start and stop <= self.start + len(self.data)

    def cut(self, start: int, stop: int) -> memoryview:
        return self.data[start - self.start : stop - self.start]


@dataclass(slots=True)
class Fetch:
    """A fragment being fetched. `node`: who is being asked; `is_late`: nobody counts on it any more."""

    shard: int
    start: int
    stop: int
    node: int = NOBODY
    is_late: bool = False


class Gather:
    """Reads chunks whose fragments may be anywhere."""

    def __init__(self, tools: GatherTools) -> None:
        self._tools = tools
        self._tables: OrderedDict[bytes, Units] = OrderedDict()

    # --- where fragments are ---------------------------------------------------------------------------

    def holders(self, source: Source, shard: int) -> list[int]:
        """Whom to ask for a shard, likeliest first: the exception, the owners under the epoch, then under newer
        ones (rule 8). This node goes first, and whom others are asked before goes last."""
        named = source.elsewhere.get(shard)
        found = dict.fromkeys(() if named is None else (named,))
        for placement in self._tools.sites.placements(source.epoch):
            owner = placement.owners(source.chunk.chunk_id, source.count)[shard]
            if owner != NOBODY:
                found.setdefault(owner)
        own = self._tools.sites.own_number
        return sorted(found, key=lambda node: (self._tools.manners.is_slow(node), node != own))

    def local_shard(self, source: Source) -> int | None:
        """The shard that this node should hold."""
        own = self._tools.sites.own_number
        for shard in range(source.count):
            if shard not in source.missing and own in self.holders(source, shard):
                return shard
        return None

    def is_doubtful(self, source: Source, shard: int) -> bool:
        """Whether a shard is better made of others than waited for."""
        return self._preference(source, shard)[:2] > (False, False)

    def _preference(self, source: Source, shard: int) -> tuple[bool, bool, bool, int]:
        """Smaller is better to ask."""
        first = next(iter(self.holders(source, shard)), NOBODY)
        is_far = first != self._tools.sites.own_number
        is_bad = first == NOBODY or self._tools.manners.is_slow(first)
        return shard in source.missing, is_bad, is_far, shard

    # --- reading ---------------------------------------------------------------------------------------

    async def read(self, source: Source, offset: int, length: int) -> memoryview:
        """Plain bytes [offset, offset + length) of a chunk. Raises Corrupt, Unavailable."""
        units = self._tables.get(source.chunk.chunk_id) or _guess(source.chunk.size_bytes)
        try:
            return await self._read_packed(source, units, offset, length)
        except _OtherUnits as other:
            if sum(unit.plain_bytes for unit in other.units) != source.chunk.size_bytes:
                raise Corrupt("the fragments of a chunk hold another size than its extent says") from None
            self._remember(source.chunk.chunk_id, other.units)
            try:
                return await self._read_packed(source, other.units, offset, length)
            except _OtherUnits:
                raise Corrupt("the fragments of a chunk contradict each other") from None

    def _remember(self, chunk_id: bytes, units: Units) -> None:
        self._tables[chunk_id] = units
        while len(self._tables) > TABLES_KEPT:
            self._tables.popitem(last=False)

    async def _read_packed(self, source: Source, units: Units, offset: int, length: int) -> memoryview:
        stored_at = plain_at = 0
        begin = end = skip = 0
        inside: list[FragmentUnit] = []
        for unit in units:
            if plain_at + unit.plain_bytes > offset and plain_at < offset + length:
                if not inside:
                    begin, skip = stored_at, offset - plain_at
                inside.append(unit)
                end = stored_at + unit.stored_bytes
            stored_at += unit.stored_bytes
            plain_at += unit.plain_bytes
        if all(unit.codec == PLAIN for unit in inside):
            begin, end, skip = begin + skip, begin + skip + length, 0
        stored = await self._stored(source, units, begin, end)
        return await self._plain(stored, inside, skip, length)

    async def _plain(self, stored: list[memoryview], units: list[FragmentUnit], skip: int, length: int) -> memoryview:
        if all(unit.codec == PLAIN for unit in units):
            view = stored[0] if len(stored) == 1 else memoryview(b"".join(stored))
        else:
            view = await self._tools.worker.run(lambda: self._unpacked(stored, units))
        if len(view) < skip + length:
            raise Corrupt("a chunk is shorter than its extent says")
        return view[skip : skip + length]

    def _unpacked(self, stored: list[memoryview], units: list[FragmentUnit]) -> memoryview:
        whole, at = memoryview(b"".join(stored)), 0
        pieces: list[bytes | memoryview] = []
        for unit in units:
            piece = whole[at : at + unit.stored_bytes]
            pieces.append(piece if unit.codec == PLAIN else self._tools.compression.unpack(piece, unit.plain_bytes))
            at += unit.stored_bytes
        return memoryview(b"".join(pieces))

    async def _stored(self, source: Source, units: Units, begin: int, end: int) -> list[memoryview]:
        """Stored bytes [begin, end), in order."""
        stripes = Stripes(source.k, sum(unit.stored_bytes for unit in units))
        pieces = stripes.pieces(begin, end)
        if not pieces:
            return []
        race = _Race(self, self._tools, source, units, pieces)
        try:
            return await race.run()
        finally:
            race.stop()

    # --- whole fragments, for repair ---------------------------------------------------------------------

    async def shard(self, source: Source, shard: int) -> tuple[Facts, memoryview]:
        """A whole fragment made of k others, with what its block has to say. Raises Corrupt, Unavailable."""
        found: dict[int, memoryview] = {}
        units: Units | None = None
        errors: list[EdgeStoreError] = []
        candidates = sorted(set(range(source.count)) - {shard}, key=lambda one: self._preference(source, one))
        while len(found) < source.k:
            asked, candidates = candidates[: source.k - len(found)], candidates[source.k - len(found) :]
            if not asked:
                raise _worst(errors, source)
            for one, answer in zip(asked, await self._fetch_whole(source, asked), strict=True):
                if isinstance(answer, EdgeStoreError):
                    errors.append(answer)
                elif units is None or answer[0].units == units:
                    units, found[one] = answer[0].units, answer[2]
                else:
                    errors.append(Corrupt("the fragments of a chunk contradict each other"))
        assert units is not None
        made, crcs = await self.decode(source, found, [shard])
        return Facts(source.chunk.chunk_id, source.k, source.m, shard, len(made[0]), units, crcs), made[0]

    async def _fetch_whole(self, source: Source, shards: list[int]) -> list[_Whole]:
        """Whole fragments at once, each with its own outcome."""

        async def one(shard: int) -> _Whole:
            try:
                return await self.fetch(source, Fetch(shard, 0, CHUNK_MAX_BYTES))
            except EdgeStoreError as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(shard)) for shard in shards]
        return [task.result() for task in tasks]

    async def decode(
        self, source: Source, present: dict[int, memoryview], wanted: list[int]
    ) -> tuple[list[memoryview], bytes]:
        """Missing shards of a range out of k others; copies need no arithmetic. Within the reserve of decoding."""
        size = len(next(iter(present.values()))) * source.count
        await self._tools.budget.take(size)
        try:
            return await self._tools.worker.run(lambda: rebuild(source.k, source.m, present, wanted))
        finally:
            self._tools.budget.give(size)

    async def fetch(self, source: Source, fetch: Fetch) -> tuple[Facts, int, memoryview]:
        """Whole pages of one fragment from whoever has them. Raises the last of what went wrong."""
        tools, shard = self._tools, fetch.shard
        loop = asyncio.get_running_loop()
        worst: EdgeStoreError = NotFound(f"nobody holds shard {shard} of the chunk")
        for node in self.holders(source, shard):
            begun_s, fetch.node = loop.time(), node
            shelf = tools.shelves.of(node)
            try:
                facts, first, data = await shelf.read(source.chunk.chunk_id, shard, fetch.start, fetch.stop)
            except EdgeStoreError as error:
                if isinstance(error, Unavailable):
                    tools.manners.avoid(node)
                if not isinstance(error, NotFound) or isinstance(worst, NotFound):
                    worst = error
                continue
            if (facts.k, facts.m) != (source.k, source.m):
                worst = Corrupt("a fragment is of another scheme than its extent says", shard=shard)
                continue
            if node != tools.sites.own_number:
                tools.manners.answered(node, loop.time() - begun_s)
            return facts, first, data
        raise worst


class _Race:
    """One range of one chunk."""

    def __init__(self, gather: Gather, tools: GatherTools, source: Source, units: Units, pieces: list[Piece]) -> None:
        self._gather, self._tools, self._source, self._units = gather, tools, source, units
        self._pieces = pieces
        length = Stripes(source.k, sum(unit.stored_bytes for unit in units)).fragment_bytes
        self._wanted: dict[int, tuple[int, int]] = {}
        for piece in pieces:
            start, stop = self._wanted.get(piece.shard, (piece.start, piece.stop))
            self._wanted[piece.shard] = min(start, piece.start), max(stop, piece.stop)
        hull = min(start for start, _ in self._wanted.values()), max(stop for _, stop in self._wanted.values())
        self._hull = pages_of(*hull, length)
        self._have: dict[int, _Have] = {}
        self._tasks: dict[asyncio.Task[tuple[Facts, int, memoryview]], Fetch] = {}
        self._errors: list[EdgeStoreError] = []
        self._failed: set[int] = set()
        self._spare = sorted(range(source.count), key=lambda one: gather._preference(source, one))

    async def run(self) -> list[memoryview]:
        """The pieces' bytes in their order."""
        self._tools.manners.began()
        late_s = self._tools.manners.late_s
        self._begin_directly()
        while not self._is_direct():
            if len(self._whole()) >= self._source.k:
                return await self._decoded()
            if not self._tasks:
                raise _worst(self._errors, self._source)
            done, _ = await asyncio.wait(self._tasks, timeout=late_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._judge(task)
            if not done:
                late_s *= 2
                if self._tools.manners.may_hedge():
                    self._give_up_waiting()
        return [self._have[piece.shard].cut(piece.start, piece.stop) for piece in self._pieces]

    def stop(self) -> None:
        """What is still on its way is not wanted."""
        for task, fetch in self._tasks.items():
            task.cancel()
            if fetch.is_late:
                self._tools.manners.overtaken(fetch.node)

    def _give_up_waiting(self) -> None:
        """What is on its way is late; where it comes after all it is taken."""
        for fetch in self._tasks.values():
            fetch.is_late = True
        self._recover()

    def _begin_directly(self) -> None:
        """Of copies the best one; else the data fragments that hold the range."""
        if self._source.k == 1:
            self._begin(self._spare.pop(0), *self._hull)
            return
        for shard, (start, stop) in self._wanted.items():
            if not self._gather.is_doubtful(self._source, shard):
                self._begin(shard, start, stop)
        if len(self._tasks) < len(self._wanted):
            self._recover()

    def _begin(self, shard: int, start: int, stop: int) -> None:
        fetch = Fetch(shard, start, stop)
        task = asyncio.get_running_loop().create_task(self._gather.fetch(self._source, fetch))
        task.add_done_callback(_looked_at)
        self._tasks[task] = fetch

    def _is_direct(self) -> bool:
        """Whether the range is there as it is."""
        if self._source.k == 1 and self._have:
            self._have[0] = next(iter(self._have.values()))
        return all(
            shard in self._have and self._have[shard].covers(start, stop)
            for shard, (start, stop) in self._wanted.items()
        )

    def _whole(self) -> dict[int, memoryview]:
        """The hull of every shard that is there."""
        return {shard: have.cut(*self._hull) for shard, have in self._have.items() if have.covers(*self._hull)}

    def _judge(self, task: asyncio.Task[tuple[Facts, int, memoryview]]) -> None:
        fetch = self._tasks.pop(task)
        error = task.exception()
        if error is None:
            facts, start, data = task.result()
            if facts.units != self._units:
                raise _OtherUnits(facts.units)
            known = self._have.get(fetch.shard)
            if known is None or len(known.data) < len(data):
                self._have[fetch.shard] = _Have(start, data)
            return
        if isinstance(error, DiskFailed) or not isinstance(error, EdgeStoreError):
            raise error
        self._errors.append(error)
        self._failed.add(fetch.shard)
        self._recover()

    def _recover(self) -> None:
        """Asks for as many whole shards as are still needed, the best first."""
        coming = {
            fetch.shard
            for fetch in self._tasks.values()
            if (fetch.start, fetch.stop) == self._hull and not fetch.is_late
        }
        wanted = self._source.k - len(self._whole().keys() | coming)
        late = {fetch.shard for fetch in self._tasks.values() if fetch.is_late}
        if self._source.k == 1:
            wanted = 1
        for shard in list(self._spare):
            if wanted <= 0:
                return
            self._spare.remove(shard)
            if shard in self._whole() or shard in coming or shard in self._failed or shard in late:
                continue
            self._begin(shard, *self._hull)
            wanted -= 1

    async def _decoded(self) -> list[memoryview]:
        """Out of k whole shards, those that lack."""
        present = self._whole()
        chosen = {shard: present[shard] for shard in sorted(present)[: self._source.k]}
        lacking = [shard for shard in self._wanted if shard not in present]
        made, _ = await self._gather.decode(self._source, chosen, lacking) if lacking else ([], b"")
        rows = {**present, **dict(zip(lacking, made, strict=True))}
        begin = self._hull[0]
        return [rows[piece.shard][piece.start - begin : piece.stop - begin] for piece in self._pieces]


def _looked_at(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()


def _guess(size_bytes: int) -> Units:
    """Plain units, as they are where compression did not pay."""
    return tuple(
        FragmentUnit(min(UNIT_BYTES, size_bytes - at), min(UNIT_BYTES, size_bytes - at), PLAIN)
        for at in range(0, size_bytes, UNIT_BYTES)
    )


def _worst(errors: Iterable[EdgeStoreError], source: Source) -> EdgeStoreError:
    """Corrupt only where nobody could bring better bytes later."""
    name = source.chunk.chunk_id.hex()
    for error in errors:
        if isinstance(error, Unavailable):
            return Unavailable(f"too few nodes with fragments of chunk {name} answer", chunk_id=name)
    for error in errors:
        if isinstance(error, Corrupt):
            return Corrupt(f"too few fragments of chunk {name} check out", chunk_id=name)
    return Corrupt(f"too few fragments of chunk {name} are there", chunk_id=name)
