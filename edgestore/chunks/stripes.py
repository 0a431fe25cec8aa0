"""Where the stored bytes of a chunk lie in its fragments. Pure.

A stripe holds k units of stored bytes, and fragment i is shard i of each stripe in order; the last stripe is cut into k
equal shards, padded to 64 bytes each. A single data fragment (k = 1) is the stored bytes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgestore.kernels import ALIGNMENT_BYTES
from edgestore.records import UNIT_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Stored bytes [at, at + stop - start) of a chunk are bytes [start, stop) of fragment `shard`."""

    shard: int
    start: int
    stop: int
    at: int


@dataclass(frozen=True, slots=True)
class Stripes:
    """The stripes of a chunk of `stored_bytes` with k data fragments."""

    k: int
    stored_bytes: int

    @property
    def full(self) -> int:
        """How many stripes are full."""
        return self.stored_bytes // (self.k * UNIT_BYTES)

    @property
    def rest_bytes(self) -> int:
        """Stored bytes in the last stripe, where it is not full."""
        return self.stored_bytes % (self.k * UNIT_BYTES)

    @property
    def last_shard_bytes(self) -> int:
        """The length of a shard of the last stripe, padded; 0 where all are full."""
        if self.k == 1:
            return self.rest_bytes
        share = -(-self.rest_bytes // self.k)
        return share + -share % ALIGNMENT_BYTES

    @property
    def fragment_bytes(self) -> int:
        """The length of every fragment."""
        return self.full * UNIT_BYTES + self.last_shard_bytes

    def locate(self, position: int) -> tuple[int, int, int]:
        """(shard, offset in its fragment, how many stored bytes go on from there)."""
        stripe, inner = divmod(position, self.k * UNIT_BYTES)
        width = UNIT_BYTES if stripe < self.full else self.last_shard_bytes
        shard, offset = divmod(inner, width)
        return shard, stripe * UNIT_BYTES + offset, min(width - offset, self.stored_bytes - position)

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What stored bytes [start, stop) are made of, in order; pieces that go on in one fragment are one."""
        found: list[Piece] = []
        at = start
        while at < min(stop, self.stored_bytes):
            shard, offset, run = self.locate(at)
            length = min(run, stop - at)
            last = found[-1] if found else None
            if last is not None and last.shard == shard and last.stop == offset:
                found[-1] = Piece(shard, last.start, offset + length, last.at)
            else:
                found.append(Piece(shard, offset, offset + length, at))
            at += length
        return found


def filling_bytes(k: int, room_bytes: int) -> int:
    """How long a fragment is while a chunk of at most `room_bytes` is being filled: nobody knows yet which stripe is
    the last, so each is taken for a full one."""
    if k == 1:
        return room_bytes + -room_bytes % ALIGNMENT_BYTES
    return -(-room_bytes // (k * UNIT_BYTES)) * UNIT_BYTES
