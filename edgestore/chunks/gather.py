"""Reads of chunks on several nodes: the data fragments themselves first, any k others where one fails or is late.

Rule: bytes count when they check out against the page CRCs that came with their fragment, whoever sent them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from edgestore.chunks.budget import ByteBudget, RestingBuffers
from edgestore.chunks.compression import PLAIN, Compression
from edgestore.chunks.encoder import rebuild, scratch_bytes
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.race import Fetch, LeftForLast, OtherUnits, Race, Units
from edgestore.chunks.reading import joined
from edgestore.chunks.remote import Shelves
from edgestore.chunks.shelf import SMALL_BYTES
from edgestore.chunks.site import Manners, Sites
from edgestore.chunks.stripes import Stripes
from edgestore.disk import FragmentUnit, Worker
from edgestore.errors import Corrupt, EdgeStoreError, NotFound, Unavailable
from edgestore.placement import NOBODY
from edgestore.records import SHUT_OUT, UNIT_BYTES, NodeState

PRESENT = (NodeState.UP, NodeState.DRAINING)
TABLES_KEPT = 4096
TABLES_TRIED_MAX = 3
"""Of one chunk: what was guessed, what a fragment says, and what the others say where that one lies."""


@dataclass(frozen=True, slots=True)
class GatherTools:
    """What gathering needs of the node. `worker`: threads that decode."""

    shelves: Shelves
    sites: Sites
    manners: Manners
    compression: Compression
    worker: Worker
    budget: ByteBudget
    buffers_kept_bytes: int


class Gather:
    """Reads chunks whose fragments may be anywhere."""

    def __init__(self, tools: GatherTools) -> None:
        self._tools, self.budget = tools, tools.budget
        self._tables: OrderedDict[bytes, Units] = OrderedDict()
        self._memory = RestingBuffers(tools.buffers_kept_bytes)

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

    def at_hand(self, source: Source, shard: int) -> list[int]:
        """Other nodes that may hold it and are there, as far as this one knows."""
        sites, is_slow = self._tools.sites, self._tools.manners.is_slow
        there = {node.number for node in sites.layout().nodes if node.state in PRESENT} - {sites.own_number}
        return [node for node in self.holders(source, shard) if node in there and not is_slow(node)]

    def preference(self, source: Source, shard: int) -> tuple[bool, bool, bool, int]:
        """Smaller is better to ask."""
        first = next(iter(self.holders(source, shard)), NOBODY)
        is_far = first != self._tools.sites.own_number
        is_bad = first == NOBODY or self._tools.manners.is_slow(first)
        return shard in source.missing, is_bad, is_far, shard

    def is_anybody_away(self) -> bool:
        """Whether a node that is down may have what nobody else has, or this one is no member any more: then the
        others drop what only its readers still need."""
        sites = self._tools.sites
        return any(
            node.state is NodeState.DOWN or (node.number == sites.own_number and node.state in SHUT_OUT)
            for node in sites.layout().nodes
        )

    # --- reading ---------------------------------------------------------------------------------------

    async def read(self, source: Source, offset: int, length: int) -> memoryview:
        """Plain bytes [offset, offset + length) of a chunk. Raises Corrupt, Unavailable."""
        return joined(await self.views(source, offset, length))

    async def views(self, source: Source, offset: int, length: int) -> list[memoryview]:
        """The same as they came, in order."""
        known = self._tables.get(source.chunk.chunk_id)
        if known is not None:
            self._tables.move_to_end(source.chunk.chunk_id)
        units, tried = known or _guess(source.chunk.size_bytes), 0
        while True:
            try:
                views = await self._read_packed(source, units, offset, length, is_guess=tried == 0)
            except OtherUnits as other:
                tried += 1
                if tried > TABLES_TRIED_MAX:
                    raise Corrupt("the fragments of a chunk contradict each other") from None
                units = other.units
            else:
                if tried:
                    self._remember(source.chunk.chunk_id, units)
                return views

    def _remember(self, chunk_id: bytes, units: Units) -> None:
        self._tables[chunk_id] = units
        while len(self._tables) > TABLES_KEPT:
            self._tables.popitem(last=False)

    async def _read_packed(
        self, source: Source, units: Units, offset: int, length: int, *, is_guess: bool
    ) -> list[memoryview]:
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
        stored = await self._stored(source, units, begin, end, is_guess=is_guess)
        return await self._plain(stored, inside, skip, length)

    async def _plain(
        self, stored: list[memoryview], units: list[FragmentUnit], skip: int, length: int
    ) -> list[memoryview]:
        if all(unit.codec == PLAIN for unit in units):
            if skip or sum(len(view) for view in stored) != length:
                raise Corrupt("a chunk is shorter than its extent says")
            return stored
        view = await self._tools.worker.run(lambda: self._unpacked(stored, units))
        if len(view) < skip + length:
            raise Corrupt("a chunk is shorter than its extent says")
        return [view[skip : skip + length]]

    def _unpacked(self, stored: list[memoryview], units: list[FragmentUnit]) -> memoryview:
        whole, at = memoryview(b"".join(stored)), 0
        pieces: list[bytes | memoryview] = []
        for unit in units:
            piece = whole[at : at + unit.stored_bytes]
            pieces.append(piece if unit.codec == PLAIN else self._tools.compression.unpack(piece, unit.plain_bytes))
            at += unit.stored_bytes
        return memoryview(b"".join(pieces))

    async def _stored(self, source: Source, units: Units, begin: int, end: int, *, is_guess: bool) -> list[memoryview]:
        """Stored bytes [begin, end), in order. Raises OtherUnits where fragments would have them elsewhere, and too few
        of those that would not are there."""
        stripes = Stripes(source.k, sum(unit.stored_bytes for unit in units))
        pieces = stripes.pieces(begin, end)
        if not pieces:
            return []
        race = Race(self, self._tools.manners, source, units, pieces, is_guess=is_guess)
        try:
            return await race.run()
        except (Corrupt, Unavailable):
            if race.others is None:
                raise
            raise OtherUnits(race.others) from None
        finally:
            race.stop()

    # --- decoding --------------------------------------------------------------------------------------

    async def decode(
        self, source: Source, present: dict[int, memoryview], wanted: list[int]
    ) -> tuple[list[memoryview], bytes]:
        """Missing shards of a range out of k others; copies need no arithmetic. Within the reserve of decoding."""
        length = len(next(iter(present.values())))
        size = length * len(wanted) + scratch_bytes(source.count, length)
        await self.budget.take(size)
        try:
            rows = {shard: self.room(length) for shard in wanted}
            return list(rows.values()), await self.decode_into(source, present, rows)
        finally:
            self.budget.give(size)

    async def decode_into(
        self, source: Source, present: dict[int, memoryview], rows: Mapping[int, memoryview]
    ) -> bytes:
        """The same into memory that is there. The caller has accounted for it, and for the slices."""
        length = len(next(iter(present.values())))
        scratch = self.room(scratch_bytes(source.count, length))
        rebuilding = partial(rebuild, source.k, source.m, present, list(rows), list(rows.values()), scratch)
        # A thread gets the interpreter from a busy loop only after a while: less than 100 us are not worth one.
        return rebuilding() if length <= SMALL_BYTES else await self._tools.worker.run(rebuilding)

    def room(self, size_bytes: int) -> memoryview:
        """Memory for a fragment, or a part of one, that comes back by itself."""
        return memoryview(bytearray(size_bytes)) if size_bytes <= SMALL_BYTES else self._memory.take(size_bytes)

    async def fetch(
        self, source: Source, fetch: Fetch, nodes: list[int] | None = None
    ) -> tuple[Facts, int, memoryview]:
        """Whole pages of one fragment from whoever has them, or from one of `nodes`. Raises the last of what went
        wrong."""
        tools, shard = self._tools, fetch.shard
        loop = asyncio.get_running_loop()
        worst: EdgeStoreError = NotFound(f"nobody holds shard {shard} of the chunk")
        for node in self.holders(source, shard) if nodes is None else nodes:
            if not fetch.is_patient and tools.manners.is_slow(node):
                raise LeftForLast("others are asked before the nodes that may have the fragment", shard=shard)
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


def _guess(size_bytes: int) -> Units:
    """Plain units, as they are where compression did not pay."""
    return tuple(
        FragmentUnit(min(UNIT_BYTES, size_bytes - at), min(UNIT_BYTES, size_bytes - at), PLAIN)
        for at in range(0, size_bytes, UNIT_BYTES)
    )
