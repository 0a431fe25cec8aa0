"""A body that is stored: its chunks, where their fragments are, and the extents that a command names them by."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from edgestore.catalog import commands
from edgestore.chunks.facts import Source
from edgestore.chunks.site import Sites
from edgestore.placement import NOBODY, Scheme
from edgestore.records import EXTENT_CHUNKS_MAX, ChunkRef


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """A chunk on several nodes. `holders`: by shard the node that has confirmed it, or NOBODY."""

    chunk: ChunkRef
    scheme: Scheme
    epoch: int
    holders: tuple[int, ...]

    def source(self) -> Source:
        """To read it before it has a name."""
        held = {shard: node for shard, node in enumerate(self.holders) if node != NOBODY}
        missing = frozenset(range(self.scheme.count)) - held.keys()
        return Source(self.chunk, self.scheme.k, self.scheme.m, self.epoch, held, missing)


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body on the disks: its chunks in order, and its size. `placed`: the chunks again, where they are on several
    nodes; empty where all are on this one, under the layout of `epoch`."""

    chunks: tuple[ChunkRef, ...]
    size_bytes: int
    placed: tuple[PlacedChunk, ...] = ()
    placed_extents: tuple[commands.NewExtent, ...] = ()
    epoch: int = 1

    def extents(self) -> tuple[commands.NewExtent, ...]:
        """Runs of at most 1,024 chunks, named after their first one."""
        if self.placed:
            return self.placed_extents
        runs = (self.chunks[at : at + EXTENT_CHUNKS_MAX] for at in range(0, len(self.chunks), EXTENT_CHUNKS_MAX))
        return tuple(_plain(run, self.epoch) for run in runs)


def _plain(chunks: tuple[ChunkRef, ...], epoch: int) -> commands.NewExtent:
    size_bytes = sum(chunk.size_bytes for chunk in chunks)
    return commands.NewExtent(chunks[0].chunk_id, chunks, size_bytes, layout_epoch=epoch)


def stored_body(placed: tuple[PlacedChunk, ...], sites: Sites) -> StoredBody:
    """The extents say where the fragments are under the epoch they were written in, or the newest where that is
    closed."""
    newest = sites.layout()
    extents: list[commands.NewExtent] = []

    def kind(one: PlacedChunk) -> tuple[Scheme, int]:
        return one.scheme, one.epoch if one.epoch >= newest.balance_epoch else newest.epoch

    for (scheme, epoch), run in groupby(placed, kind):
        members = list(run)
        runs = [members[at : at + EXTENT_CHUNKS_MAX] for at in range(0, len(members), EXTENT_CHUNKS_MAX)]
        extents += [_placed_extent(some, scheme, epoch, sites) for some in runs]
    chunks = tuple(one.chunk for one in placed)
    return StoredBody(chunks, sum(chunk.size_bytes for chunk in chunks), placed, tuple(extents))


def _placed_extent(members: list[PlacedChunk], scheme: Scheme, epoch: int, sites: Sites) -> commands.NewExtent:
    placements = sites.placements(epoch)
    placement = next((found for found in placements if found.epoch == epoch), placements[-1])
    holders = {
        (position, shard): node for position, one in enumerate(members) for shard, node in enumerate(one.holders)
    }
    chunks = tuple(one.chunk for one in members)
    places = placement.places([chunk.chunk_id for chunk in chunks], scheme.count, holders)
    return commands.NewExtent(
        chunks[0].chunk_id,
        chunks,
        sum(chunk.size_bytes for chunk in chunks),
        scheme.k,
        scheme.m,
        placement.epoch,
        scheme.t,
        places.exceptions,
        places.missing,
    )
