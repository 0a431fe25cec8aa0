"""The rows of the segment index: where each fragment lies, and what the segments remember beside it.

`"f" chunk_id shard -> place, block`; `"checkpoint"`: everything before that place is in the index; `"last-number"`: of
all segments that were ever begun; `"rescan" number`: a segment that could not be read, or not all of it; `"scrub"`: the
last pass.
"""

from __future__ import annotations

import struct

from edgestore.disk.fragments import Fragment, FragmentInfo, decode_block, encode_block, short_block
from edgestore.disk.index import OrderedView

FRAGMENTS = b"f"
FRAGMENTS_END = FRAGMENTS + b"\xff" * 32
CHECKPOINT = b"checkpoint"
LAST_NUMBER = b"last-number"
RESCAN = b"rescan"
SCRUB = b"scrub"
CHUNK_ID_BYTES = 16
SHARD_MAX = 0xFFFF

PLACE = struct.Struct(">QQQ")
"""Segment, offset, reserved bytes."""
POSITION = struct.Struct(">QQ")
NUMBER = struct.Struct(">Q")


def row_key(chunk_id: bytes, shard: int = 0) -> bytes:
    """The key of a fragment's row."""
    return FRAGMENTS + chunk_id + shard.to_bytes(2, "big")


def row_shard(key: bytes) -> int:
    """The shard that the key of a fragment's row names."""
    return int.from_bytes(key[-2:], "big")


def rescan_key(number: int) -> bytes:
    """The key that asks the next start for a whole scan of a segment."""
    return RESCAN + NUMBER.pack(number)


def encode_row(number: int, offset: int, fragment: Fragment, block: bytes) -> bytes:
    """The value of a fragment's row, from the block that is written to the segment."""
    return PLACE.pack(number, offset, fragment.reserved_bytes) + short_block(block)


def row_of(info: FragmentInfo, salt: bytes) -> tuple[bytes, bytes]:
    """The whole row of a fragment that lies on the disk already."""
    fragment = info.fragment
    block = encode_block(info.segment, info.offset, salt, fragment)
    return row_key(fragment.chunk_id, fragment.shard), encode_row(info.segment, info.offset, fragment, block)


def decode_row(value: bytes, number: int, offset: int, salt: bytes) -> Fragment | None:
    """The fragment; None where its block does not check out."""
    return decode_block(memoryview(value)[PLACE.size :], number, offset, salt)


def names(index: OrderedView, key: bytes, number: int, offset: int) -> bool:
    """Whether the row of `key` names this place."""
    value = index.get(key)
    return value is not None and PLACE.unpack_from(value)[:2] == (number, offset)
