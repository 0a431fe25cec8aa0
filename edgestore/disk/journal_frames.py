"""The bytes of the journal: file header, frames, records. Pure: no file is touched here.

Rule: a frame checks out only at the file, offset and salt that it was written for: stale bytes never pass for one.
The grammar stands in docs/internals/formats.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from edgestore.kernels import crc32c

FILE_MAGIC = b"ESJF"
FRAME_MAGIC = b"ESJB"
FORMAT = 1
SALT_BYTES = 16
FILE_HEADER_BYTES = 64
FRAME_ALIGNMENT_BYTES = 8

_FILE = struct.Struct("<4sHHQ16s")
_FRAME = struct.Struct("<4sIIIQQ")
_RECORD = struct.Struct("<BxHIQQI")
_PLACE = struct.Struct("<QQ")
_CRC = struct.Struct("<I")

FRAME_HEADER_BYTES = _FRAME.size
RECORD_HEADER_BYTES = _RECORD.size


class RecordKind(IntEnum):
    """What a record says."""

    ENTRY = 1
    """A log entry at `index` of `term`; the payload is the command bytes."""
    TRUNCATE = 2
    """Entries of the group from `index` on are void."""
    HARD_STATE = 3
    """Current `term`; the payload is the vote (UTF-8, empty for none)."""
    MEMBERS = 4
    """Members of the incarnation (msgpack)."""
    SNAPSHOT = 5
    """The catalog is the snapshot at `index` of `term`; the payload names its folder and members."""
    STOP_SIGN = 6
    """`index` is the stop-sign of the incarnation; the payload names the next members."""
    MARK = 7
    """Nothing: its frame only records what was synced."""


_KINDS = frozenset(RecordKind)
HEADER_KINDS = (RecordKind.HARD_STATE, RecordKind.MEMBERS, RecordKind.SNAPSHOT, RecordKind.STOP_SIGN)
"""The newest record of each of these kinds, for each group, opens every file."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One record of one group's log."""

    group: int
    incarnation: int
    kind: RecordKind
    index: int = 0
    term: int = 0
    payload: bytes = b""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in the journal."""

    file: int
    offset: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that checks out. `synced`: what was durable before it was written. `end`: offset behind it."""

    synced: Place
    records: list[JournalRecord]
    end: int


def encode_record(record: JournalRecord) -> bytes:
    """One record."""
    head = _RECORD.pack(record.kind, record.group, record.incarnation, record.index, record.term, len(record.payload))
    return head + record.payload


def encode_file_header(number: int, salt: bytes) -> bytes:
    """The first 64 bytes of a file."""
    body = _FILE.pack(FILE_MAGIC, FORMAT, 0, number, salt)
    return (body + _CRC.pack(crc32c(body))).ljust(FILE_HEADER_BYTES, b"\0")


def decode_file_header(data: bytes, number: int) -> bytes | None:
    """The salt; None where the header does not check out for this file number. ValueError for an unknown format."""
    if len(data) < FILE_HEADER_BYTES:
        return None
    body = data[: _FILE.size]
    magic, version, _, found, salt = _FILE.unpack(body)
    if magic != FILE_MAGIC or _CRC.unpack_from(data, _FILE.size)[0] != crc32c(body) or found != number:
        return None
    if version != FORMAT:
        raise ValueError(f"journal format {version} is not {FORMAT}")
    return bytes(salt)


def encode_frame(place: Place, salt: bytes, synced: Place, records: list[bytes]) -> bytes:
    """One frame of encoded records for exactly this place, padded to 8 bytes."""
    payload = b"".join(records)
    head = _FRAME.pack(FRAME_MAGIC, 0, len(payload), len(records), synced.file, synced.offset)
    checksum = crc32c(payload, crc32c(head[8:], _seed(place, salt)))
    padding = -(len(head) + len(payload)) % FRAME_ALIGNMENT_BYTES
    return b"".join((head[:4], _CRC.pack(checksum), head[8:], payload, bytes(padding)))


def frame_bytes(data: memoryview, at: int) -> int | None:
    """Length of the frame that begins at `at`, without its padding, as its header says; None where none begins."""
    if at + FRAME_HEADER_BYTES > len(data) or data[at : at + len(FRAME_MAGIC)] != FRAME_MAGIC:
        return None
    length: int = _FRAME.unpack_from(data, at)[2]
    return FRAME_HEADER_BYTES + length


def decode_frame(data: memoryview, place: Place, salt: bytes, start: int = 0) -> Frame | None:
    """The frame at `place`, where `data` begins at offset `start` of the file; None where none checks out.

    Raises ValueError for a record of an unknown kind.
    """
    at = place.offset - start
    length = frame_bytes(data, at)
    if length is None or at + length > len(data):
        return None
    _, checksum, _, count, file, offset = _FRAME.unpack_from(data, at)
    if crc32c(data[at + 8 : at + length], _seed(place, salt)) != checksum:
        return None
    records = list(_records(data[at + FRAME_HEADER_BYTES : at + length], count))
    end = place.offset + length
    return Frame(Place(file, offset), records, end + -end % FRAME_ALIGNMENT_BYTES)


def _seed(place: Place, salt: bytes) -> int:
    checksum: int = crc32c(salt + _PLACE.pack(place.file, place.offset))
    return checksum


def _records(payload: memoryview, count: int) -> Iterator[JournalRecord]:
    at = 0
    for _ in range(count):
        kind, group, incarnation, index, term, length = _RECORD.unpack_from(payload, at)
        at += RECORD_HEADER_BYTES
        if kind not in _KINDS:
            raise ValueError(f"journal record kind {kind} is not known")
        yield JournalRecord(group, incarnation, RecordKind(kind), index, term, bytes(payload[at : at + length]))
        at += length
