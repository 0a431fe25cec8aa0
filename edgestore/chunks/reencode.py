"""The bytes of an extent in new chunks of another scheme, for `SwapExtent`.

Rule: chunks are written as an upload's are, acknowledged by k + t nodes, but within reserves of repair; what is not
swapped in goes.
"""

from __future__ import annotations

from edgestore.catalog import commands
from edgestore.chunks.budget import SlabPool
from edgestore.chunks.facts import sources_of
from edgestore.chunks.mover import Mover
from edgestore.chunks.placed import PlacedChunk
from edgestore.chunks.site_store import SiteStore
from edgestore.config import RepairConfig
from edgestore.errors import Unavailable
from edgestore.placement import NOBODY, Scheme
from edgestore.records import ExtentRecord


class Reencoder:
    """Of one node; the writer of the new chunks is its own."""

    def __init__(self, site: SiteStore, mover: Mover, config: RepairConfig) -> None:
        self._site, self._mover = site, mover
        self._slabs = SlabPool(config.memory_bytes)

    async def write(self, extent: ExtentRecord, scheme: Scheme) -> tuple[PlacedChunk, ...]:
        """Raises Unavailable, StorageFull, Corrupt; then nothing is left of it."""
        placed: list[PlacedChunk] = []
        try:
            for source in sources_of(extent):
                size_bytes = source.chunk.size_bytes
                # The chunk, and the fragments that it is made of where one is missing.
                held_bytes = size_bytes * 2 + size_bytes * source.count // source.k
                await self._mover.memory.take(held_bytes)
                try:
                    await self._mover.wait_for_turn(size_bytes)
                    data = await self._mover.gather.read(source, 0, size_bytes)
                    placed.append(await self._site.store(data, scheme, self._slabs))
                    del data
                finally:
                    self._mover.memory.give(held_bytes)
                _check_scheme(placed[-1], scheme)
        except BaseException:
            self.drop(tuple(placed))
            raise
        return tuple(placed)

    def command(self, tenant: int, extent: ExtentRecord, placed: tuple[PlacedChunk, ...]) -> commands.SwapExtent:
        """Names the new chunks in place of the old, by where they are under the newest layout."""
        sites, scheme = self._site.sites, placed[0].scheme
        newest = sites.placements(sites.layout().epoch)[-1]
        holders = {
            (position, shard): node
            for position, one in enumerate(placed)
            for shard, node in enumerate(one.holders)
            if node != NOBODY
        }
        places = newest.places([one.chunk.chunk_id for one in placed], scheme.count, holders)
        return commands.SwapExtent(
            tenant,
            extent.extent_id,
            extent.generation,
            extent.revision,
            tuple(one.chunk for one in placed),
            scheme.k,
            scheme.m,
            scheme.t,
            newest.epoch,
            places.exceptions,
            places.missing,
        )

    def settle(self, placed: tuple[PlacedChunk, ...]) -> None:
        """They are named."""
        self._site.settle(placed)

    def drop(self, placed: tuple[PlacedChunk, ...]) -> None:
        """They will never be named."""
        self._site.drop_placed(placed)


def _check_scheme(placed: PlacedChunk, scheme: Scheme) -> None:
    """An extent has one scheme: a chunk that had to become copies is of no use."""
    if placed.scheme != scheme:
        raise Unavailable(f"too few nodes take fragments to encode anew as {scheme}")
