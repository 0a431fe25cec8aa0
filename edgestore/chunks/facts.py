"""What travels beside the bytes of a fragment, and which fragments an extent says there are. Formats of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from edgestore.chunks.stripes import Stripes
from edgestore.disk import FragmentInfo, FragmentUnit
from edgestore.errors import Corrupt
from edgestore.kernels import page_crcs
from edgestore.records import CHUNK_MAX_BYTES, PAGE_BYTES, ChunkRef

Buffer = bytes | bytearray | memoryview


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What the block of a fragment says: which shard of which chunk, and how its bytes check out."""

    chunk_id: bytes
    k: int
    m: int
    shard: int
    stored_bytes: int
    units: tuple[FragmentUnit, ...]
    page_crcs: bytes

    def check(self, start: int, data: Buffer) -> None:
        """Raises Corrupt where `data` is not what the fragment holds from the page at `start` on."""
        first = start // PAGE_BYTES * 4
        found = page_crcs(data)
        if start % PAGE_BYTES or found != self.page_crcs[first : first + len(found)]:
            raise Corrupt(f"shard {self.shard} does not check out", chunk_id=self.chunk_id.hex(), shard=self.shard)

    def check_shape(self) -> None:
        """Raises Corrupt where the numbers do not go together."""
        stored = sum(unit.stored_bytes for unit in self.units)
        pages = -(-self.stored_bytes // PAGE_BYTES)
        if (
            self.k < 1
            or self.m < 0
            or not 0 <= self.shard < self.k + self.m
            or not 0 < stored <= CHUNK_MAX_BYTES
            or Stripes(self.k, stored).fragment_bytes != self.stored_bytes
            or len(self.page_crcs) != 4 * pages
        ):
            raise Corrupt("the facts of a fragment contradict each other", chunk_id=self.chunk_id.hex())


def facts_of(info: FragmentInfo) -> Facts:
    """Of a fragment on this disk."""
    found = info.fragment
    return Facts(found.chunk_id, found.k, found.m, found.shard, found.stored_bytes, found.units, found.page_crcs)


class Extent(Protocol):
    """What reading needs of an extent: `ExtentRecord` and `NewExtent` have it."""

    @property
    def chunks(self) -> tuple[ChunkRef, ...]: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def m(self) -> int: ...
    @property
    def layout_epoch(self) -> int: ...
    @property
    def exceptions(self) -> tuple[tuple[int, int, int], ...]: ...
    @property
    def missing(self) -> tuple[tuple[int, int], ...]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """One chunk to read: its scheme, and what its extent says of where its fragments are."""

    chunk: ChunkRef
    k: int = 1
    m: int = 0
    epoch: int = 0
    elsewhere: Mapping[int, int] = field(default_factory=dict)
    """Shard -> node, where the owner does not hold it."""
    missing: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """All fragments."""
        return self.k + self.m


def sources_of(extent: Extent, first: int = 0, stop: int | None = None) -> list[Source]:
    """The chunks [first, stop) of an extent."""
    chunks = extent.chunks[first:stop]
    if extent.k == 1 and not extent.m and not extent.exceptions:
        return [Source(chunk, epoch=extent.layout_epoch) for chunk in chunks]
    elsewhere: dict[int, dict[int, int]] = {}
    for position, shard, node in extent.exceptions:
        elsewhere.setdefault(position, {})[shard] = node
    missing: dict[int, set[int]] = {}
    for position, shard in extent.missing:
        missing.setdefault(position, set()).add(shard)
    return [
        Source(
            chunk,
            extent.k,
            extent.m,
            extent.layout_epoch,
            elsewhere.get(first + at, {}),
            frozenset(missing.get(first + at, ())),
        )
        for at, chunk in enumerate(chunks)
    ]


def chunks_in(extents: Sequence[Extent], offset: int, length: int) -> tuple[list[Source], int]:
    """The chunks that hold plain bytes [offset, offset + length) of extents in order, and where it begins in the first
    of them."""
    found: list[Source] = []
    at = inner = 0
    for extent in extents:
        if at >= offset + length:
            break
        if at + extent.size_bytes <= offset:
            at += extent.size_bytes
            continue
        first, stop = 0, len(extent.chunks)
        for position, chunk in enumerate(extent.chunks):
            if at + chunk.size_bytes <= offset:
                first = position + 1
            elif not found and position == first:
                inner = offset - at
            at += chunk.size_bytes
            if at >= offset + length:
                stop = position + 1
                break
        found += sources_of(extent, first, stop)
    return found, max(inner, 0)
