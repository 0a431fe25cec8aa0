"""Checksum headers in, checksum headers and elements out."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode

import pytest

from edgestore.errors import NotSupported
from edgestore.protocols.s3 import checksums
from edgestore.protocols.s3.checksums import NOTHING, Announced, Completed
from edgestore.protocols.s3.faults import Fault, code_of
from edgestore.protocols.s3.names import header_names
from edgestore.records import Checksum, ChecksumType

CRC32 = zlib.crc32(b"hello").to_bytes(4, "big")
TEXT = b64encode(CRC32).decode()


def announced(headers: dict[str, str]) -> Announced:
    return checksums.announced(headers, header_names(tuple(headers)))


def completed(headers: dict[str, str]) -> Completed:
    return checksums.completed(headers, header_names(tuple(headers)))


def test_header_checksum_is_announced() -> None:
    expected = Announced((Checksum("CRC32", CRC32),), ())
    assert announced({"x-amz-checksum-crc32": TEXT}) == expected
    assert announced({"x-amz-checksum-crc32": TEXT, "x-amz-sdk-checksum-algorithm": "CRC32"}) == expected
    assert announced({"x-amz-checksum-mode": "ENABLED", "x-amz-checksum-type": "FULL_OBJECT"}) == NOTHING


def test_trailer_checksum_is_announced() -> None:
    assert announced({"x-amz-trailer": "x-amz-checksum-crc64nvme"}) == Announced((), ("CRC64NVME",))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-checksum-crc32": TEXT, "x-amz-checksum-sha1": TEXT}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": TEXT, "x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "!!!!!!=="}, "InvalidRequest"),
        ({"x-amz-checksum-sha256": TEXT}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": TEXT}, "InvalidRequest"),
        ({"x-amz-trailer": "x-amz-meta-late"}, "InvalidRequest"),
        ({"x-amz-checksum-xxhash64": TEXT}, "NotImplemented"),
        ({"x-amz-trailer": "x-amz-checksum-sha512"}, "NotImplemented"),
    ],
)
def test_checksums_that_cannot_be_kept_are_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises((Fault, NotSupported)) as refused:
        announced(headers)
    assert code_of(refused.value) == code


def test_content_md5() -> None:
    digest = hashlib.md5(b"hello").digest()
    assert checksums.content_md5({"content-md5": b64encode(digest).decode()}) == digest
    assert checksums.content_md5({}) is None
    for value in ("", "YmFkIGRpZ2VzdA==", "not base64", digest.hex()):
        with pytest.raises(Fault) as refused:
            checksums.content_md5({"content-md5": value})
        assert refused.value.code == "InvalidDigest"


def test_upload_type_is_that_of_s3() -> None:
    assert checksums.upload_type({}, "CRC32") is ChecksumType.COMPOSITE
    assert checksums.upload_type({}, "CRC64NVME") is ChecksumType.FULL_OBJECT
    assert checksums.upload_type({"x-amz-checksum-type": "FULL_OBJECT"}, "CRC32C") is ChecksumType.FULL_OBJECT
    for kind, algorithm in (
        ("FULL_OBJECT", "SHA1"),
        ("FULL_OBJECT", "SHA256"),
        ("COMPOSITE", "CRC64NVME"),
        ("FULL_OBJECT", ""),
        ("BOTH", "CRC32"),
    ):
        with pytest.raises(Fault):
            checksums.upload_type({"x-amz-checksum-type": kind}, algorithm)


def test_composite_checksum_carries_its_number_of_parts() -> None:
    composite = Checksum("CRC32", CRC32, ChecksumType.COMPOSITE)
    assert checksums.checksum_headers((composite,), 3) == [
        ("x-amz-checksum-crc32", TEXT + "-3"),
        ("x-amz-checksum-type", "COMPOSITE"),
    ]
    assert checksums.checksum_headers((Checksum("CRC32", CRC32),), 3)[0][1] == TEXT
    assert completed({"x-amz-checksum-crc32": TEXT + "-3"}) == (composite, ChecksumType.COMPOSITE, 3)
    whole = (Checksum("CRC32", CRC32), ChecksumType.FULL_OBJECT, None)
    assert completed({"x-amz-checksum-crc32": TEXT}) == whole
    assert (
        checksums.checksum_elements((composite,), 3)
        == f"<ChecksumCRC32>{TEXT}-3</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType>"
    )


def test_algorithm_names() -> None:
    assert checksums.named_algorithm("crc64nvme") == "CRC64NVME"
    with pytest.raises(Fault):
        checksums.named_algorithm("MD4")
