"""Requests that the whole protocol refuses: for the same cause in both lanes, and never half understood."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.unit.s3.door import Door, opened

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
FRAMED = b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "headers", "payload", "body", "code"),
    [
        ("/nothing/key", {}, SIGNED, FRAMED, "NoSuchBucket"),
        ("/nothing/key", {}, UNSIGNED, b"5\r\nhel", "NoSuchBucket"),
        ("/nothing/key", {"x-amz-decoded-content-length": "x"}, SIGNED, FRAMED, "MissingContentLength"),
        ("/nothing/key", {"x-amz-meta-a": "x" * 2048}, SIGNED, FRAMED, "MetadataTooLarge"),
        ("/bucket/key", {"x-amz-meta-a": "x" * 2048}, SIGNED, FRAMED, "MetadataTooLarge"),
        ("/bucket/key", {"if-none-match": '"x"'}, UNSIGNED, b"5\r\nhel", "NotImplemented"),
        ("/bucket/key", {"x-amz-decoded-content-length": str(6 << 30)}, UNSIGNED, b"5\r\nhel", "EntityTooLarge"),
        ("/bucket/key", {}, SIGNED, FRAMED, "SignatureDoesNotMatch"),
        ("/bucket/key", {}, UNSIGNED, b"5\r\nhel", "IncompleteBody"),
        ("/bucket/key", {"x-amz-trailer": "x-amz-checksum-crc32"}, UNSIGNED, b"5\r\nhello\r\n0\r\n\r\n",
         "MalformedTrailerError"),
        ("/bucket/key", {"x-amz-trailer": "x-amz-checksum-crc32"}, UNSIGNED,
         b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + b64encode(bytes(4)) + b"\r\n\r\n", "BadDigest"),
        ("/bucket/key", {"x-amz-trailer": "x-amz-checksum-crc32"}, "UNSIGNED-PAYLOAD", b"hello", "InvalidRequest"),
        ("/nothing/key", {}, "", b"hello", "NoSuchBucket"),
    ],
)  # fmt: skip
async def test_both_lanes_refuse_a_put_for_the_same_cause(
    tmp_path: Path, target: str, headers: dict[str, str], payload: str, body: bytes, code: str
) -> None:
    if payload.startswith("STREAMING"):
        headers = {"x-amz-decoded-content-length": "5", "content-encoding": "aws-chunked", **headers}
    async with opened(tmp_path) as door:
        slow = await door.send("PUT", target, headers, body, payload=payload)
        fast = await door.send("PUT", target, headers, body, payload=payload, lane="fast")
        assert (slow.code, fast.code) == (code, code)
        assert slow.status == fast.status
        assert (await door.send("GET", "/bucket/key")).status == 404


async def test_chunked_bodies_are_stored_alike_by_both_lanes(tmp_path: Path) -> None:
    headers = {
        "x-amz-decoded-content-length": "5", "content-encoding": "aws-chunked,gzip",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }  # fmt: skip
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    async with opened(tmp_path) as door:
        for lane in ("slow", "fast"):
            put = await door.send("PUT", "/bucket/key", headers, body, payload=UNSIGNED, lane=lane)
            assert (put.status, put.headers["x-amz-checksum-crc32"]) == (200, "NhCmhg==")
            got = await door.send("GET", "/bucket/key", {"x-amz-checksum-mode": "ENABLED"}, lane=lane)
            assert (got.body, got.headers["content-encoding"], got.headers["x-amz-checksum-crc32"]) == (
                b"hello", "gzip", "NhCmhg==",
            )  # fmt: skip


@pytest.mark.parametrize("lane", ["slow", "fast"])
async def test_half_given_sub_resources_leave_the_object_alone(tmp_path: Path, lane: str) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {}, b"kept")
        for query in ("partNumber=1", "versionId=null", "partNumber="):
            answer = await door.send("PUT", f"/bucket/key?{query}", {}, b"other", lane=lane)
            assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert (await door.send("GET", "/bucket/key")).body == b"kept"


@pytest.mark.parametrize("header", ["x-amz-copy-source-range", "x-amz-copy-source-if-match"])
async def test_half_given_copies_store_nothing(tmp_path: Path, header: str) -> None:
    async with opened(tmp_path) as door:
        for lane in ("slow", "fast"):
            answer = await door.send("PUT", "/bucket/key", {header: "bytes=0-1"}, lane=lane)
            assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert (await door.send("GET", "/bucket/key")).status == 404


async def test_a_full_disk_is_said_before_the_bytes_are_judged(tmp_path: Path) -> None:
    async with opened(tmp_path, reserve_bytes=1 << 60) as door:
        for size in (10, 9000):
            for lane in ("slow", "fast"):
                answer = await door.send("PUT", "/bucket/key", {}, b"x" * size, payload="0" * 64, lane=lane)
                assert (answer.status, answer.code) == (507, "InsufficientStorage")


@pytest.mark.parametrize("version", ["bogus", "NULL", "0" * 31, "A" * 32, "0" * 33])
async def test_version_ids_that_cannot_be_one_are_refused(tmp_path: Path, version: str) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {}, b"kept")
        for method, lane in (("GET", "slow"), ("GET", "fast"), ("HEAD", "slow"), ("HEAD", "fast"), ("DELETE", "slow")):
            answer = await door.send(method, f"/bucket/key?versionId={version}", lane=lane)
            assert answer.status == 400
            assert method == "HEAD" or (answer.code, answer.field("ArgumentName")) == ("InvalidArgument", "versionId")
        copied = await door.send("PUT", "/bucket/copy", {"x-amz-copy-source": f"/bucket/key?versionId={version}"})
        assert copied.code == "InvalidArgument"
        listed = await door.send("GET", f"/bucket?versions=&key-marker=key&version-id-marker={version}")
        assert listed.code == "InvalidArgument"
        assert (await door.send("GET", "/bucket/key?versionId=null")).body == b"kept"
        assert (await door.send("DELETE", f"/bucket/key?versionId={'0' * 32}")).status == 204


async def presigned_put(door: Door, query: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    answer = await door.send_presigned("PUT", f"/bucket/key?{query}", headers, b"hello", lane="fast")
    return answer.status, answer.code


async def test_hoisted_metadata_comes_back_and_is_named_like_headers(tmp_path: Path) -> None:
    refused = (400, "InvalidArgument")
    async with opened(tmp_path) as door:
        for name in ("a b", "a:b", "a\r\nb", "a\0", "\u00e4", "\u212a", "a\u007f", "a,b", 'a"b', "a/b"):
            assert await presigned_put(door, f"x-amz-meta-{quote(name, safe='')}=1") == refused
        for value in ("a\r\nb", "\0", "\x7f"):
            assert await presigned_put(door, f"x-amz-meta-a={quote(value)}") == refused
        assert await presigned_put(door, "X-Amz-Meta-A=1&x-amz-meta-a=2") == refused
        assert (await door.send("GET", "/bucket/key")).status == 404
        text = "gr\u00fc\u00df \u65e5"
        assert await presigned_put(door, f"X-Amz-Meta-A={quote(text)}&x-amz-meta-b=2&x-amz-meta-a={quote(text)}") == (
            200, "",
        )  # fmt: skip
        shown = (await door.send("HEAD", "/bucket/key")).headers
        assert shown["x-amz-meta-a"].encode("latin-1").decode() == text
        assert shown["x-amz-meta-b"] == "2"
