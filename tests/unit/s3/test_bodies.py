"""Bodies without their `aws-chunked` framing: full units, the promised trailer, nothing kept of the pool."""

from __future__ import annotations

import asyncio
import random
import zlib
from base64 import b64encode

import pytest

from edgestore.chunks import UnitPool, bytes_body
from edgestore.errors import BadRequest, EdgeStoreError, IncompleteBody
from edgestore.protocols.s3.bodies import ChunkedBody, trailer_checksums
from edgestore.protocols.s3.faults import Fault, code_of
from edgestore.records import UNIT_BYTES, Checksum
from edgestore.security import ChunkedDecoder, Verified

UNSIGNED = Verified("AK", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"", "", "20261124T100000Z", "scope")
SIZES = [0, 1, 1000, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 3 * UNIT_BYTES, 1_000_003]


def framed(content: bytes, chunk_bytes: int, trailer: bytes = b"") -> bytes:
    chunks = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


async def read(
    pool: UnitPool, wire: bytes, size: int, promised: tuple[str, ...] = ()
) -> tuple[list[bytes], ChunkedBody]:
    decoder = ChunkedDecoder(UNSIGNED, {"x-amz-decoded-content-length": str(size)})
    body = ChunkedBody(bytes_body(pool, wire), decoder, promised)
    units = []
    while (unit := await body.next_unit()) is not None:
        units.append(bytes(unit.view))
        unit.release()
    return units, body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk_bytes", [8_193, 65_536, 100_000_000])
def test_content_comes_out_in_full_units(size: int, chunk_bytes: int) -> None:
    content = random.Random(size).randbytes(size)
    pool = UnitPool(8 * UNIT_BYTES)
    units, body = asyncio.run(read(pool, framed(content, chunk_bytes), size))
    assert b"".join(units) == content
    assert all(len(unit) == UNIT_BYTES for unit in units[:-1])
    assert all(units)
    assert (body.size_bytes, pool.taken_bytes) == (size, 0)


def test_promised_trailer_is_handed_on() -> None:
    content = b"hello" * 100_000
    value = zlib.crc32(content).to_bytes(4, "big")
    trailer = b"x-amz-checksum-crc32:" + b64encode(value) + b"\r\n"
    _, body = asyncio.run(read(UnitPool(8 * UNIT_BYTES), framed(content, 8192, trailer), len(content), ("CRC32",)))
    assert body.trailer_checksums == (Checksum("CRC32", value),)


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: wire[:-1],
        lambda wire: wire[: len(wire) // 2],
        lambda wire: wire + b"x",
        lambda wire: wire.replace(b"\r\n", b"\n", 1),
        lambda wire: b"-" + wire,
        lambda wire: b"",
    ],
    ids=["last byte", "half", "more", "bare line feed", "negative size", "nothing"],
)
def test_broken_framing_is_refused_and_keeps_no_unit(change: object) -> None:
    content = b"x" * 700_000
    pool = UnitPool(8 * UNIT_BYTES)
    with pytest.raises(EdgeStoreError) as refused:
        asyncio.run(read(pool, change(framed(content, 65_536)), len(content)))  # type: ignore[operator]
    assert isinstance(refused.value, IncompleteBody | BadRequest)
    assert pool.taken_bytes == 0


@pytest.mark.parametrize("size", [0, 9, 11])
def test_body_of_another_length_than_announced_is_refused(size: int) -> None:
    with pytest.raises(EdgeStoreError) as refused:
        asyncio.run(read(UnitPool(8 * UNIT_BYTES), framed(b"x" * 10, 5), size))
    assert code_of(refused.value) == "IncompleteBody"


def test_trailer_other_than_promised_is_refused() -> None:
    good = {"x-amz-checksum-crc32": "AAAAAA=="}
    assert trailer_checksums(good, ("CRC32",)) == (Checksum("CRC32", bytes(4)),)
    for trailers, promised in (
        (good, ()),
        ({}, ("CRC32",)),
        (good, ("SHA1",)),
        ({**good, "x-amz-checksum-sha1": "A" * 27 + "="}, ("CRC32",)),
    ):
        with pytest.raises(Fault) as refused:
            trailer_checksums(trailers, promised)
        assert refused.value.code == "MalformedTrailerError"
