"""The bytes of a segment: its header, and before each fragment's data one block that seals it. Pure.

Rule: a block checks out only in its segment, at its offset, for its chunk and shard, so neither stale bytes nor the
content
of an object ever pass for a fragment; a fragment without a valid block was never acknowledged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from edgestore.errors import UnknownFormat
from edgestore.kernels import crc32c
from edgestore.records import PAGE_BYTES

SEGMENT_MAGIC = b"ESSG"
BLOCK_MAGIC = b"ESFB"
FORMAT = 1
SALT_BYTES = 16
SEGMENT_HEADER_BYTES = 512
BLOCK_BYTES = 1024
ALIGNMENT_BYTES = 512

_SEGMENT = struct.Struct("<4sHHQ16s")
_BLOCK = struct.Struct("<4sIHH")
_SEED = struct.Struct("<QQHH")
_CRC = struct.Struct("<I")


class Unit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One unit of a chunk as it lies in the fragment. `codec`: 0 as it is, 1 zstd."""

    plain_bytes: int
    stored_bytes: int
    codec: int = 0


class Fragment(msgspec.Struct, frozen=True, array_like=True):
    """What a block says: shard `shard` of k + m of a chunk, its units, and the CRC32C of each 64 KiB page of its
    data."""

    chunk_id: bytes
    k: int
    m: int
    shard: int
    generation: int
    reserved_bytes: int
    stored_bytes: int
    units: tuple[Unit, ...]
    page_crcs: bytes


@dataclass(frozen=True, slots=True)
class FragmentInfo:
    """A sealed fragment and where it lies. `data_offset` is that of its first stored byte in the segment."""

    segment: int
    offset: int
    fragment: Fragment

    @property
    def data_offset(self) -> int:
        """Behind the block."""
        return self.offset + BLOCK_BYTES


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Fragment).decode


def reserved_bytes(stored_bytes: int) -> int:
    """What a fragment of at most `stored_bytes` takes in a segment."""
    total = BLOCK_BYTES + stored_bytes
    return total + -total % ALIGNMENT_BYTES


def encode_segment_header(number: int, salt: bytes) -> bytes:
    """The first 512 bytes of a segment."""
    body = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT, 0, number, salt)
    return (body + _CRC.pack(crc32c(body))).ljust(SEGMENT_HEADER_BYTES, b"\0")


def decode_segment_header(data: bytes, number: int) -> bytes | None:
    """The salt; None where the header does not check out. Raises UnknownFormat."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    body = data[: _SEGMENT.size]
    magic, version, _, found, salt = _SEGMENT.unpack(body)
    if magic != SEGMENT_MAGIC or found != number or _CRC.unpack_from(data, _SEGMENT.size)[0] != crc32c(body):
        return None
    if version != FORMAT:
        raise UnknownFormat(f"segment {number} has format {version}, not {FORMAT}: start the version that wrote it")
    return bytes(salt)


def encode_block(number: int, offset: int, salt: bytes, fragment: Fragment) -> bytes:
    """The block of a fragment at exactly this place."""
    body = _encode(fragment)
    if _BLOCK.size + len(body) > BLOCK_BYTES:
        raise ValueError("the fragment has too many units or pages for its block")
    checksum = crc32c(body, crc32c(salt + _SEED.pack(number, offset, FORMAT, len(body))))
    return (_BLOCK.pack(BLOCK_MAGIC, checksum, FORMAT, len(body)) + body).ljust(BLOCK_BYTES, b"\0")


def short_block(block: bytes) -> bytes:
    """A block without its padding, as the index keeps it."""
    return block[: _BLOCK.size + _BLOCK.unpack_from(block)[3]]


def decode_block(data: bytes | memoryview, number: int, offset: int, salt: bytes) -> Fragment | None:
    """The fragment whose block lies at the beginning of `data`; None where none checks out.

    The checksum covers the version, so a block of another version is told apart from a damaged one: UnknownFormat.
    """
    if len(data) < _BLOCK.size:
        return None
    magic, checksum, version, length = _BLOCK.unpack_from(data)
    body = bytes(data[_BLOCK.size : _BLOCK.size + length])
    if magic != BLOCK_MAGIC or len(body) != length:
        return None
    if crc32c(body, crc32c(salt + _SEED.pack(number, offset, version, length))) != checksum:
        return None
    if version != FORMAT:
        raise UnknownFormat(
            f"the fragment at offset {offset} of segment {number} has format {version}, not {FORMAT}: "
            "start the version that wrote it"
        )
    return _decode(body)


def page_span(offset: int, length: int, stored_bytes: int) -> tuple[int, int]:
    """[start, stop) of the whole pages that hold the range."""
    start = offset - offset % PAGE_BYTES
    stop = offset + length
    return start, min(stop + -stop % PAGE_BYTES, stored_bytes)
