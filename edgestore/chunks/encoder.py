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


def rebuild(k: int, m: int, present: Mapping[int, Buffer], wanted: Sequence[int]) -> tuple[list[memoryview], bytes]:
    """The shards `wanted` out of the same range of any k others (blocking), and the CRC32Cs of their pages.

    A range begins at a page of its fragment, so that the CRCs are those of the fragment.
    """
    chosen = sorted(present)[:k]
    length = len(present[chosen[0]])
    stride = length + -length % 64
    stripe = memoryview(bytearray((k + m) * stride))
    for shard in chosen:
        stripe[shard * stride : shard * stride + length] = present[shard]
    crcs = decode(stripe, k, m, length, stride, tuple(chosen), tuple(wanted))
    return [stripe[shard * stride : shard * stride + length] for shard in wanted], crcs


def pages_of(start: int, stop: int, fragment_bytes: int) -> tuple[int, int]:
    """[start, stop) widened to whole pages of a fragment."""
    return start - start % PAGE_BYTES, min(stop + -stop % PAGE_BYTES, fragment_bytes)
