"""boto3: objects, keys, headers, checksums, ranges, conditions, copies, signatures."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import UNSIGNED

from edgestore.kernels import crc32c, crc64nvme
from tests.wire.answers import refused

SIZES = [0, 1, 100, 4096, 8192, 8193, 65_536, 131_072, 131_073, 262_144, 262_145, 1_000_003, 9_000_001]
ODD_KEYS = [
    "plain",
    "a/b/c",
    "../up",
    "a/../b",
    "/leading",
    "double//slash",
    "trailing/",
    "sp ace",
    "pl+us",
    "per%cent",
    "%2F",
    "%252F",
    "ü/東京/🚀",
    "q?u=e&r#y",
    "quote'\"<>&",
    "semi;colon",
    "back\\slash",
    ".",
    "..",
    "a" * 1024,
    "~tilde*star(x)!",
    "new\nline",
    "tab\t",
    "\x01\x7f",
]

KERNELS = {"CRC32C": (crc32c, 4), "CRC64NVME": (crc64nvme, 8)}


@pytest.mark.parametrize("size", SIZES)
def test_body_comes_back_byte_for_byte(s3: Any, bucket: str, size: int) -> None:
    body = os.urandom(size)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=body)["ETag"]
    assert etag == f'"{hashlib.md5(body).hexdigest()}"'
    answer = s3.get_object(Bucket=bucket, Key="k")
    assert answer["Body"].read() == body
    assert (answer["ETag"], answer["ContentLength"]) == (etag, size)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ETag"], head["ContentLength"], head["LastModified"]) == (etag, size, answer["LastModified"])


@pytest.mark.parametrize("key", ODD_KEYS)
def test_every_key_is_taken_literally(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(key.encode())
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_keys_are_listed_in_binary_order_and_deleted_together(s3: Any, bucket: str) -> None:
    for key in ODD_KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == sorted(ODD_KEYS, key=str.encode)
    deletable = [key for key in ODD_KEYS if key.isprintable()]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in deletable]})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == sorted(deletable)
    assert "Errors" not in answer


def test_key_over_1024_bytes_is_refused(s3: Any, bucket: str) -> None:
    with refused(400, "KeyTooLongError"):
        s3.put_object(Bucket=bucket, Key="k" * 1025, Body=b"")


def test_metadata_and_system_headers_come_back(s3: Any, bucket: str) -> None:
    given = {
        "ContentType": "text/plain; charset=utf-8",
        "CacheControl": "max-age=3",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de-DE",
        "Metadata": {"camera": "7", "note": "two words"},
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 300_000, Expires=datetime(2030, 1, 1, tzinfo=UTC), **given)
    for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert {name: answer[name] for name in given} == given
        assert answer["ExpiresString"] == "Tue, 01 Jan 2030 00:00:00 GMT"
    with refused(400, "MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"a": "b" * 2048})


def test_response_headers_are_overridden(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    answer = s3.get_object(
        Bucket=bucket,
        Key="k",
        ResponseContentType="text/html",
        ResponseContentDisposition='inline; filename="ü"',
        ResponseCacheControl="no-store",
    )
    assert answer["ContentType"] == "text/html"
    assert answer["CacheControl"] == "no-store"


@pytest.mark.parametrize("size", [0, 5000, 200_000, 3_000_000])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_checked_stored_and_shown(s3: Any, bucket: str, algorithm: str, size: int) -> None:
    body = os.urandom(size)
    named: dict[str, Any] = {"ChecksumAlgorithm": algorithm}
    if algorithm in KERNELS:
        # Without the C runtime of AWS, boto3 sends these two but does not compute them.
        kernel, size_bytes = KERNELS[algorithm]
        named = {"Checksum" + algorithm: b64encode(kernel(body).to_bytes(size_bytes, "big")).decode()}
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **named)
    answer = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert answer["Body"].read() == body
    assert answer["Checksum" + algorithm] == put["Checksum" + algorithm]
    assert answer["ChecksumType"] == "FULL_OBJECT"
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["Checksum" + algorithm] == put["Checksum" + algorithm]
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectSize", "ETag"])
    assert attributes["Checksum"]["Checksum" + algorithm] == put["Checksum" + algorithm]
    assert attributes["ObjectSize"] == size
    assert f'"{attributes["ETag"]}"' == put["ETag"]


@pytest.mark.parametrize("size", [5, 9000, 400_000])
def test_wrong_checksum_stores_nothing(s3: Any, bucket: str, size: int) -> None:
    body = b"x" * size
    with refused(400, "BadDigest"):
        s3.put_object(
            Bucket=bucket, Key="k", Body=body, ChecksumSHA256=b64encode(hashlib.sha256(b"other").digest()).decode()
        )
    with refused(400, "BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, ContentMD5=b64encode(hashlib.md5(b"other").digest()).decode())
    with refused(400, "InvalidDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, ContentMD5="YmFk")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("size", [1000, 100_000, 5_000_000])
def test_ranges(s3: Any, bucket: str, size: int) -> None:
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for header, expected in [
        ("bytes=0-0", body[:1]),
        ("bytes=10-99", body[10:100]),
        (f"bytes={size - 5}-{size + 5}", body[-5:]),
        ("bytes=-7", body[-7:]),
        ("bytes=500-", body[500:]),
    ]:
        answer = s3.get_object(Bucket=bucket, Key="k", Range=header)
        assert answer["Body"].read() == expected, header
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert answer["ContentRange"].endswith(f"/{size}")
        assert s3.head_object(Bucket=bucket, Key="k", Range=header)["ContentLength"] == len(expected)
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=9-3")["ResponseMetadata"]["HTTPStatusCode"] == 200
    with refused(416, "InvalidRange"):
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={size}-")


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"x"
    assert (
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch='"other"', IfUnmodifiedSince=modified)["Body"].read() == b"x"
    )
    for read in (s3.get_object, s3.head_object):
        with refused(304):
            read(Bucket=bucket, Key="k", IfNoneMatch=etag)
        with refused(304):
            read(Bucket=bucket, Key="k", IfModifiedSince=modified)
        with refused(412):
            read(Bucket=bucket, Key="k", IfMatch='"other"')
        with refused(412):
            read(Bucket=bucket, Key="k", IfUnmodifiedSince=modified - timedelta(hours=1))


@pytest.mark.parametrize("size", [10, 300_000])
def test_conditional_writes(s3: Any, bucket: str, size: int) -> None:
    body = b"x" * size
    with refused(404, "NoSuchKey"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfMatch='"e"')
    etag = s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")["ETag"]
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfMatch='"other"')
    with refused(501, "NotImplemented"):
        s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch=etag)
    s3.put_object(Bucket=bucket, Key="k", Body=body + b"y", IfMatch=etag)
    with refused(412, "PreconditionFailed"):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=f'"{hashlib.md5(body + b"y").hexdigest()}"')
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


def test_missing_things_have_their_codes(s3: Any, bucket: str) -> None:
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="missing")
    with refused(404, "404"):
        s3.head_object(Bucket=bucket, Key="missing")
    with refused(404, "NoSuchBucket"):
        s3.get_object(Bucket="no-such-bucket", Key="k")
    with refused(404, "NoSuchBucket"):
        s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x")
    with refused(404, "NoSuchBucket"):
        s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x" * 500_000)
    with refused(404, "NoSuchBucket"):
        s3.list_objects_v2(Bucket="no-such-bucket")
    with refused(404, "NoSuchBucket"):
        s3.list_objects(Bucket="no-such-bucket")
    s3.delete_object(Bucket=bucket, Key="missing")


def test_presigned_urls(s3: Any, bucket: str) -> None:
    for size in (0, 4000, 200_000, 700_000):
        body = os.urandom(size)
        url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b+ü"}, ExpiresIn=60)
        with urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT")) as answer:
            assert answer.status == 200
        url = s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "a b+ü", "ResponseContentType": "x/y"}
        )
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == body
            assert answer.headers["Content-Type"] == "x/y"


def test_expired_and_changed_presigned_urls_are_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    expired = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    good = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
    time.sleep(2.1)
    for url in (
        expired,
        good.replace("/k?", "/l?"),
        good + "&versionId=null",
        good.replace("Expires=60", "Expires=600"),
        good.split("?")[0],
    ):
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(url)
        assert failed.value.code == 403
        failed.value.close()


def test_wrong_credentials_are_refused(make_client: Callable[..., Any], bucket: str) -> None:
    with refused(403, "SignatureDoesNotMatch"):
        make_client(secret_key="wrong").list_objects_v2(Bucket=bucket)
    with refused(403, "InvalidAccessKeyId"):
        make_client(access_key="AKUNKNOWN00000000000").list_objects_v2(Bucket=bucket)
    with refused(403, "AccessDenied"):
        make_client(signature_version=UNSIGNED).get_object(Bucket=bucket, Key="k")


def test_copies(s3: Any, bucket: str) -> None:
    for size in (0, 100, 20_000, 600_000):
        body = os.urandom(size)
        etag = s3.put_object(Bucket=bucket, Key="sou/rce ü+", Body=body, Metadata={"a": "1"}, ContentType="text/x")[
            "ETag"
        ]
        source = {"Bucket": bucket, "Key": "sou/rce ü+"}
        result = s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)["CopyObjectResult"]
        assert result["ETag"] == etag
        s3.copy_object(
            Bucket=bucket,
            Key="new",
            CopySource=source,
            MetadataDirective="REPLACE",
            Metadata={"b": "2"},
            ContentType="text/y",
        )
        kept, new = s3.get_object(Bucket=bucket, Key="kept"), s3.get_object(Bucket=bucket, Key="new")
        assert kept["Body"].read() == new["Body"].read() == body
        assert (kept["Metadata"], kept["ContentType"]) == ({"a": "1"}, "text/x")
        assert (new["Metadata"], new["ContentType"]) == ({"b": "2"}, "text/y")


def test_copy_conditions_and_refusals(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfMatch=etag)
    with refused(412, "PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfNoneMatch=etag)
    with refused(412, "PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, IfNoneMatch="*")
    with refused(400, "InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, MetadataDirective="REPLACE", Metadata={"x": "y"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"x": "y"}
    with refused(404, "NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "missing"})
    with refused(404, "NoSuchBucket"):
        s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": "no-such-bucket", "Key": "k"})


def test_old_default_without_checksums_works(make_client: Callable[..., Any], bucket: str) -> None:
    client = make_client(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    client.put_object(Bucket=bucket, Key="k", Body=b"old client")
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old client"
    unsigned = make_client(s3={"addressing_style": "path", "payload_signing_enabled": True})
    unsigned.put_object(Bucket=bucket, Key="signed", Body=b"z" * 400_000)
    assert unsigned.head_object(Bucket=bucket, Key="signed")["ContentLength"] == 400_000


def test_streams_without_seeking(s3: Any, bucket: str) -> None:
    read, write = os.pipe()
    os.write(write, b"through a pipe")
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        s3.upload_fileobj(pipe, bucket, "piped")
    assert s3.get_object(Bucket=bucket, Key="piped")["Body"].read() == b"through a pipe"
