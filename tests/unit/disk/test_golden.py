"""What was once written stays readable: the bytes of each disk format, as they were when it was first released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgestore.disk.fragments import Fragment, Unit, decode_block, decode_segment_header, encode_block
from edgestore.disk.fragments import encode_segment_header as encode_segment
from edgestore.disk.identity import Identity, decode_identity, encode_identity
from edgestore.disk.journal_frames import (
    JournalRecord,
    Place,
    RecordKind,
    decode_file_header,
    decode_frame,
    encode_file_header,
    encode_frame,
    encode_record,
)

GOLDEN: dict[str, str] = json.loads(
    (Path(__file__).parents[2] / "golden" / "disk_formats.json").read_text(encoding="utf-8")
)
SALT = bytes(range(16))
PLACE, SYNCED = Place(7, 64), Place(6, 4096)
RECORDS = [JournalRecord(2, 3, kind, 1000 + kind, 5, b"payload-%d" % kind) for kind in RecordKind]
UNITS = (Unit(262_144, 1000, 1), Unit(5, 5))
FRAGMENT = Fragment(bytes(range(16)), 4, 2, 1, 9, 2048, 1005, UNITS, b"\x01\x02\x03\x04")
IDENTITY = Identity(bytes(range(16)), bytes(range(16, 32)), 3)


def test_the_bytes_are_those_of_the_first_release() -> None:
    frame = encode_frame(PLACE, SALT, SYNCED, [encode_record(record) for record in RECORDS])
    assert {
        "journal_file_header": encode_file_header(7, SALT).hex(),
        "journal_frame": frame.hex(),
        "segment_header": encode_segment(7, SALT).hex(),
        "fragment_block": encode_block(7, 512, SALT, FRAGMENT).hex(),
        "identity": encode_identity(IDENTITY).hex(),
    } == GOLDEN


def test_the_bytes_of_the_first_release_are_understood() -> None:
    assert decode_file_header(bytes.fromhex(GOLDEN["journal_file_header"]), 7) == SALT
    content = bytes(64) + bytes.fromhex(GOLDEN["journal_frame"])
    frame = decode_frame(memoryview(content), PLACE, SALT)
    assert frame is not None
    assert (frame.synced, frame.records, frame.end) == (SYNCED, RECORDS, len(content))
    assert decode_segment_header(bytes.fromhex(GOLDEN["segment_header"]), 7) == SALT
    assert decode_block(bytes.fromhex(GOLDEN["fragment_block"]), 7, 512, SALT) == FRAGMENT
    assert decode_identity(bytes.fromhex(GOLDEN["identity"])) == IDENTITY


@pytest.mark.parametrize(("number", "offset", "salt"), [(8, 512, SALT), (7, 1024, SALT), (7, 512, bytes(16))])
def test_a_block_seals_its_place(number: int, offset: int, salt: bytes) -> None:
    assert decode_block(bytes.fromhex(GOLDEN["fragment_block"]), number, offset, salt) is None
