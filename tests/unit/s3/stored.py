"""What the corpus of both lanes reads: buckets with and without versions, objects of every size, one of another
owner."""

from __future__ import annotations

import base64
import hashlib
import zlib

from tests.unit.s3.lanes import OTHER, Lanes

SMALL = bytes(range(250)) * 4
MEDIUM = hashlib.shake_128(b"medium").digest(100_000)
ZEROS = bytes(100_000)
PART = hashlib.shake_128(b"part").digest(5 << 20)
ODD_KEY = "/lanes/odd/..//a%20b%2F%C3%BC+~"
LONG_AGO, LATER = "Thu, 01 Jan 2015 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


def fill(lanes: Lanes) -> None:
    """What the corpus reads."""
    for name in ("lanes", "versioned", "suspended"):
        assert lanes.do("PUT", f"/{name}").status == 200
    assert lanes.do("PUT", "/foreign", keys=OTHER).status == 200
    assert lanes.do("PUT", "/foreign/small", SMALL, keys=OTHER).status == 200
    described = {
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "max-age=60",
        "content-disposition": 'attachment; filename="a.txt"',
        "content-language": "de",
        "content-encoding": "identity",
        "expires": LATER,
        "x-amz-meta-camera": "7",
        "x-amz-meta-caf": "caf\u00e9",
        "x-amz-checksum-crc32": crc32(SMALL),
    }
    assert lanes.do("PUT", "/lanes/small", SMALL, headers=described).status == 200
    for key, body in (("empty", b""), ("medium", MEDIUM), ("zeros", ZEROS), ("large", PART[: 1 << 20])):
        assert lanes.do("PUT", f"/lanes/{key}", body).status == 200
    assert lanes.do("PUT", ODD_KEY, SMALL).status == 200
    fill_parts(lanes)
    for name in ("versioned", "suspended"):
        fill_versions(lanes, name)


def fill_parts(lanes: Lanes) -> None:
    """An object of two parts."""
    asked = {"x-amz-checksum-algorithm": "CRC32"}
    upload = lanes.do("POST", "/lanes/parts?uploads=", b"", headers=asked).body.split(b"UploadId>")[1][:-2].decode()
    rows = ""
    for number, body in ((1, PART), (2, SMALL)):
        given = {"x-amz-checksum-crc32": crc32(body)}
        put = lanes.do("PUT", f"/lanes/parts?partNumber={number}&uploadId={upload}", body, headers=given)
        rows += (
            f"<Part><PartNumber>{number}</PartNumber><ETag>{put.headers['etag']}</ETag>"
            f"<ChecksumCRC32>{crc32(body)}</ChecksumCRC32></Part>"
        )
    document = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
    assert lanes.do("POST", f"/lanes/parts?uploadId={upload}", document).status == 200


def fill_versions(lanes: Lanes, bucket: str) -> None:
    """A null version, two with ids, a key whose newest version is a delete marker; then suspended, or not."""
    set_versioning(lanes, bucket, "Enabled")
    for body in (b"one", b"two"):
        assert lanes.do("PUT", f"/{bucket}/key", body).status == 200
    assert lanes.do("PUT", f"/{bucket}/gone", b"gone").status == 200
    assert lanes.do("DELETE", f"/{bucket}/gone").status == 204
    if bucket == "suspended":
        set_versioning(lanes, bucket, "Suspended")
        assert lanes.do("PUT", f"/{bucket}/key", b"null").status == 200


def set_versioning(lanes: Lanes, bucket: str, status: str) -> None:
    """Enabled or Suspended."""
    document = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>".encode()
    assert lanes.do("PUT", f"/{bucket}?versioning=", document).status == 200


def crc32(body: bytes) -> str:
    """As the header has it."""
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
