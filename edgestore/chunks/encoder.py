"""A chunk becomes fragments, and any k fragments become those that are missing; both around one C call.

All fragments of a chunk lie in one slab, `stride` bytes apart, so that one call encodes every stripe and takes the
CRC32C of every page of every fragment while the bytes are in its registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgestore.chunks.compression import Compression
from edgestore.chunks.stripes import Stripes, filling_bytes
from edgestore.disk import FragmentUnit
from edgestore.kernels import decode, encode, page_crcs
from edgestore.records import PAGE_BYTES, UNIT_BYTES

Buffer = bytes | bytearray | memoryview

SLICE_BYTES = 4 * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Encoded:
    """The fragments of one chunk in memory. Copies (k = 1) are one run of bytes, whatever m is."""

    k: int
    m: int
    units: tuple[FragmentUnit, ...]
    stored_bytes: int
    rows: tuple[Buffer, ...]
    crcs: tuple[bytes, ...]

    def fragment(self, shard: int) -> Buffer:
        """The bytes of a fragment."""
        return self.rows[0] if self.k == 1 else self.rows[shard]

    def page_crcs(self, shard: int) -> bytes:
        """Of its pages."""
        return self.crcs[0] if self.k == 1 else self.crcs[shard]

    def as_copies(self, m: int) -> Encoded:
        """The same chunk as 1 + m copies, in memory of its own where it was striped."""
        if self.k == 1:
            return Encoded(1, m, self.units, self.stored_bytes, self.rows, self.crcs)
        pieces = Stripes(self.k, self.stored_bytes).pieces(0, self.stored_bytes)
        stored = b"".join(memoryview(self.rows[piece.shard])[piece.start : piece.stop] for piece in pieces)
        return Encoded(1, m, self.units, len(stored), (stored,), (page_crcs(stored),))


def slab_bytes(k: int, m: int, room_bytes: int) -> int:
    """The memory that a chunk of at most `room_bytes` plain bytes needs while it is made."""
    return filling_bytes(k, room_bytes) * (1 if k == 1 else k + m)


class ChunkBuilder:
    """Packs units into the rows of a slab. Methods may run in any thread, one call at a time."""

    def __init__(self, slab: memoryview, k: int, m: int, room: int, compression: Compression) -> None:
        self.k, self.m, self.room = k, m, room
        self.size_bytes = 0
        self._slab, self._compression = slab, compression
        self._stride = filling_bytes(k, room)
        self._units: list[FragmentUnit] = []
        self._stored_bytes = 0

    def add(self, plain: memoryview) -> None:
        """Compresses one unit where that pays, and lays it behind the others."""
        codec, stored = self._compression.pack(plain)
        self._units.append(FragmentUnit(len(plain), len(stored), codec))
        data, done = memoryview(stored), 0
        while done < len(data):
            at = self._stored_bytes + done
            if self.k == 1:
                shard, offset, length = 0, at, len(data) - done
            else:
                stripe, inner = divmod(at, self.k * UNIT_BYTES)
                shard, within = divmod(inner, UNIT_BYTES)
                offset, length = stripe * UNIT_BYTES + within, min(UNIT_BYTES - within, len(data) - done)
            place = shard * self._stride + offset
            self._slab[place : place + length] = data[done : done + length]
            done += length
        self._stored_bytes += len(data)

    def finish(self) -> Encoded:
        """All units are there: spreads the last stripe evenly, makes the parity, takes the CRCs."""
        units, stored = tuple(self._units), self._stored_bytes
        if self.k == 1:
            row = self._slab[:stored]
            return Encoded(1, self.m, units, stored, (row,), (page_crcs(row),))
        stripes = Stripes(self.k, stored)
        if stripes.rest_bytes:
            self._spread_last(stripes)
        length, count = stripes.fragment_bytes, self.k + self.m
        crcs = encode(self._slab, self.k, self.m, length, self._stride)
        size = len(crcs) // count
        return Encoded(
            self.k,
            self.m,
            units,
            stored,
            tuple(self._slab[shard * self._stride : shard * self._stride + length] for shard in range(count)),
            tuple(crcs[shard * size : (shard + 1) * size] for shard in range(count)),
        )

    def _spread_last(self, stripes: Stripes) -> None:
        """From unit-sized shards, as it was filled, to k equal ones."""
        begin, width = stripes.full * UNIT_BYTES, stripes.last_shard_bytes
        rest = bytearray()
        for shard in range(self.k):
            at = shard * self._stride + begin
            rest += self._slab[at : at + min(UNIT_BYTES, stripes.rest_bytes - len(rest))]
        rest += bytes(width * self.k - len(rest))
        for shard in range(self.k):
            at = shard * self._stride + begin
            self._slab[at : at + width] = memoryview(rest)[shard * width : (shard + 1) * width]


def rebuild(
    k: int,
    m: int,
    present: Mapping[int, Buffer],
    wanted: Sequence[int],
    rows: Sequence[memoryview],
    scratch: memoryview,
) -> bytes:
    """The shards `wanted` out of the same range of any k others (blocking), into `rows`. Returns the CRC32Cs of their
    pages; a range begins at a page of its fragment, so that they are those of the fragment.

    It goes by slices that stay in the processor's cache: `scratch` holds one of each shard (`scratch_bytes`).
    """
    chosen = tuple(sorted(present)[:k])
    length = len(present[chosen[0]])
    crcs: list[list[bytes]] = [[] for _ in wanted]
    stride = len(scratch) // (k + m)
    for at in range(0, length, stride):
        size = min(stride, length - at)
        for shard in chosen:
            scratch[shard * stride : shard * stride + size] = memoryview(present[shard])[at : at + size]
        found = decode(scratch, k, m, size, stride, chosen, tuple(wanted))
        share = len(found) // len(wanted)
        for one, shard in enumerate(wanted):
            rows[one][at : at + size] = scratch[shard * stride : shard * stride + size]
            crcs[one].append(found[one * share : (one + 1) * share])
    return b"".join(b"".join(pages) for pages in crcs)


def scratch_bytes(count: int, length: int) -> int:
    """What `rebuild` needs beside its results, for ranges of `length` bytes of chunks of `count` fragments."""
    return count * min(SLICE_BYTES, length + -length % 64)


def pages_of(start: int, stop: int, fragment_bytes: int) -> tuple[int, int]:
    """[start, stop) widened to whole pages of a fragment."""
    return start - start % PAGE_BYTES, min(stop + -stop % PAGE_BYTES, fragment_bytes)
