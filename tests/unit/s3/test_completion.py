"""What a CompleteMultipartUpload says of the whole object is compared, or refused: never dropped."""

from __future__ import annotations

import hashlib
import os
import zlib
from base64 import b64encode
from pathlib import Path

import pytest

from edgestore.kernels import crc32c, crc64nvme
from tests.unit.s3.door import Answer, Door, opened

BODIES = [os.urandom(5000), os.urandom(7001), os.urandom(10)]
WHOLE = b"".join(BODIES)
WRONG = b64encode(bytes(8)).decode()


def digest(algorithm: str, data: bytes) -> bytes:
    if algorithm.startswith("SHA"):
        return hashlib.new(algorithm.lower(), data).digest()
    value = {"CRC32": zlib.crc32, "CRC32C": crc32c, "CRC64NVME": crc64nvme}[algorithm](data)
    return value.to_bytes(8 if algorithm == "CRC64NVME" else 4, "big")


def text(value: bytes) -> str:
    return b64encode(value).decode()


def full(algorithm: str) -> str:
    return text(digest(algorithm, WHOLE))


def composite(algorithm: str, parts: int = 3) -> str:
    return f"{text(digest(algorithm, b''.join(digest(algorithm, body) for body in BODIES)))}-{parts}"


async def upload(door: Door, algorithm: str = "", kind: str = "", *, of_parts: str = "") -> tuple[str, bytes]:
    """The target of the completion, and its document. `of_parts`: an algorithm that only the parts name."""
    given = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    begun = await door.send("POST", "/bucket/key?uploads=", {name: value for name, value in given.items() if value})
    target = f"/bucket/key?uploadId={begun.field('UploadId')}"
    rows = ""
    for number, body in enumerate(BODIES, 1):
        headers = {f"x-amz-checksum-{of_parts.lower()}": text(digest(of_parts, body))} if of_parts else {}
        etag = (await door.send("PUT", f"{target}&partNumber={number}", headers, body)).headers["etag"]
        rows += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
    return target, f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


async def complete(door: Door, upload: tuple[str, bytes], **headers: str) -> Answer:
    named = {f"x-amz-{name.replace('_', '-')}": value for name, value in headers.items()}
    return await door.send("POST", upload[0], named, upload[1])


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "FULL_OBJECT"), ("CRC32C", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("CRC32", "COMPOSITE"),
        ("CRC32C", "COMPOSITE"), ("SHA1", "COMPOSITE"), ("SHA256", "COMPOSITE"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "named by the parts"])
async def test_checksum_of_the_whole_is_compared(tmp_path: Path, algorithm: str, kind: str, announced: bool) -> None:
    name = f"checksum_{algorithm.lower()}"
    right = full(algorithm) if kind == "FULL_OBJECT" else composite(algorithm)
    wrong = text(bytes(len(digest(algorithm, b"")))) + ("" if kind == "FULL_OBJECT" else "-3")
    async with opened(tmp_path) as door:
        begun = await (upload(door, algorithm, kind) if announced else upload(door, of_parts=algorithm))
        answer = await complete(door, begun, **{name: wrong})
        assert (answer.status, answer.code) == (400, "BadDigest")
        if kind == "COMPOSITE":
            assert (await complete(door, begun, **{name: composite(algorithm, 2)})).code == "BadDigest"
        answer = await complete(door, begun, **{name: right}, checksum_type=kind)
        assert (answer.status, answer.field(f"Checksum{algorithm}")) == (200, right)
        assert answer.field("ChecksumType") == kind
        shown = await door.send("HEAD", "/bucket/key", {"x-amz-checksum-mode": "ENABLED"})
        assert (shown.headers[f"x-amz-checksum-{algorithm.lower()}"], shown.headers["x-amz-checksum-type"]) == (
            right, kind,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("begun", "headers"),
    [
        (("", "", ""), {"checksum_crc32": full("CRC32")}),
        (("", "", ""), {"checksum_type": "COMPOSITE"}),
        (("", "", "CRC32"), {"checksum_crc32c": full("CRC32C")}),
        (("", "", "SHA256"), {"checksum_sha256": full("SHA256")}),
        (("CRC32", "FULL_OBJECT", ""), {"checksum_sha256": full("SHA256")}),
        (("CRC32", "FULL_OBJECT", ""), {"checksum_crc32": composite("CRC32")}),
        (("CRC32", "FULL_OBJECT", ""), {"checksum_type": "COMPOSITE"}),
        (("CRC32", "COMPOSITE", ""), {"checksum_crc32": full("CRC32")}),
        (("CRC32", "COMPOSITE", ""), {"checksum_type": "FULL_OBJECT"}),
        (("CRC32", "COMPOSITE", ""), {"checksum_type": "BOTH"}),
        (("CRC32", "COMPOSITE", ""), {"checksum_crc32": composite("CRC32"), "checksum_type": "FULL_OBJECT"}),
        (("CRC32", "COMPOSITE", ""), {"checksum_crc32": composite("CRC32") + "x"}),
        (("CRC32", "FULL_OBJECT", ""), {"checksum_crc32": WRONG}),
        (("CRC32", "FULL_OBJECT", ""), {"checksum_crc32": full("CRC32"), "checksum_crc32c": full("CRC32C")}),
        (("", "", ""), {"mp_object_size": str(len(WHOLE) - 1)}),
        (("", "", ""), {"mp_object_size": "-1"}),
    ],
)
async def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, begun: tuple[str, str, str], headers: dict[str, str]
) -> None:
    async with opened(tmp_path) as door:
        started = await upload(door, begun[0], begun[1], of_parts=begun[2])
        answer = await complete(door, started, **headers)
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert (await door.send("GET", "/bucket/key")).status == 404
        assert (await complete(door, started, mp_object_size=str(len(WHOLE)))).status == 200


async def test_document_is_still_compared_with_its_own_digests(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        target, document = await upload(door, "CRC32", "FULL_OBJECT")
        headers = {"x-amz-checksum-crc32": full("CRC32"), "content-md5": text(hashlib.md5(b"other").digest())}
        assert (await door.send("POST", target, headers, document)).code == "BadDigest"
        headers["content-md5"] = text(hashlib.md5(document).digest())
        answer = await door.send("POST", target, headers, document, payload=hashlib.sha256(b"other").hexdigest())
        assert answer.code == "XAmzContentSHA256Mismatch"
        assert (await door.send("POST", target, headers, document)).status == 200
