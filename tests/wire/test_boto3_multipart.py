"""boto3: multipart uploads, by hand and by the transfer manager."""

from __future__ import annotations

import hashlib
import io
import os
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from tests.wire.answers import refused

PART_BYTES = 5 * 1024 * 1024


def upload_parts(
    s3: Any, bucket: str, key: str, bodies: list[bytes], **options: Any
) -> tuple[str, list[dict[str, Any]]]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        algorithm = {"ChecksumAlgorithm": options["ChecksumAlgorithm"]} if "ChecksumAlgorithm" in options else {}
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **algorithm)
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        part.update({name: value for name, value in answer.items() if name.startswith("Checksum") and algorithm})
        parts.append(part)
    return upload, parts


def etag_of(bodies: list[bytes]) -> str:
    return f'"{hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()}-{len(bodies)}"'


def test_parts_become_one_object(s3: Any, bucket: str) -> None:
    bodies = [os.urandom(PART_BYTES), os.urandom(PART_BYTES + 13), os.urandom(77)]
    upload, parts = upload_parts(s3, bucket, "k", bodies, Metadata={"a": "b"}, ContentType="text/x")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    answer = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert answer["ETag"] == etag_of(bodies)
    assert (answer["Bucket"], answer["Key"]) == (bucket, "k")
    found = s3.get_object(Bucket=bucket, Key="k")
    assert found["Body"].read() == b"".join(bodies)
    assert (found["ETag"], found["Metadata"], found["ContentType"]) == (etag_of(bodies), {"a": "b"}, "text/x")
    assert s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={PART_BYTES - 3}-{PART_BYTES + 3}")["Body"].read() == (
        bodies[0][-3:] + bodies[1][:4]
    )
    for number, body in enumerate(bodies, 1):
        part = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert part["Body"].read() == body
        assert part["PartsCount"] == 3
        assert s3.head_object(Bucket=bucket, Key="k", PartNumber=number)["ContentLength"] == len(body)
    with refused(416, "InvalidPartNumber"):
        s3.get_object(Bucket=bucket, Key="k", PartNumber=4)
    with refused(404, "NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    again = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert again["ETag"] == answer["ETag"]


def test_part_is_replaced_and_left_out(s3: Any, bucket: str) -> None:
    bodies = [os.urandom(PART_BYTES), b"wrong", b"unused"]
    upload, parts = upload_parts(s3, bucket, "k", bodies)
    parts[1]["ETag"] = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=b"right")["ETag"]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts[:2]})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == bodies[0] + b"right"


def test_completions_that_do_not_fit_are_refused(s3: Any, bucket: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", [b"small", b"small too"])

    def complete(listed: list[dict[str, Any]]) -> None:
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": listed})

    with refused(400, "EntityTooSmall"):
        complete(parts)
    with refused(400, "InvalidPartOrder"):
        complete(parts[::-1])
    with refused(400, "InvalidPart"):
        complete([{**parts[0], "ETag": '"' + "0" * 32 + '"'}])
    with refused(400, "InvalidPart"):
        complete([parts[0], {**parts[1], "PartNumber": 7}])
    with refused(400, "MalformedXML"):
        complete([])
    complete(parts[:1])
    with refused(404, "NoSuchUpload"):
        complete(parts)


def test_abort_forgets_the_parts(s3: Any, bucket: str) -> None:
    upload, _ = upload_parts(s3, bucket, "k", [b"x"])
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    for action in (s3.list_parts, s3.abort_multipart_upload):
        with refused(404, "NoSuchUpload"):
            action(Bucket=bucket, Key="k", UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("upload", ["../../etc/passwd", "x", "%2e%2e", "0" * 32, "0" * 33, "\x00"])
def test_upload_id_is_never_a_path(s3: Any, bucket: str, upload: str) -> None:
    with refused(404, "NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    with refused(404, "NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


def test_upload_belongs_to_its_key(s3: Any, bucket: str) -> None:
    upload, _ = upload_parts(s3, bucket, "k", [b"x"])
    with refused(404, "NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="other", UploadId=upload, PartNumber=1, Body=b"x")


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_part_numbers_are_1_to_10000(s3: Any, bucket: str, number: int) -> None:
    upload, _ = upload_parts(s3, bucket, "k", [])
    with refused(400, "InvalidArgument"):
        s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=b"x")


def test_parts_are_listed_in_pages(s3: Any, bucket: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", [b"x" * number for number in range(1, 8)])
    pages = s3.get_paginator("list_parts").paginate(
        Bucket=bucket, Key="k", UploadId=upload, PaginationConfig={"PageSize": 3}
    )
    listed = [part for page in pages for part in page["Parts"]]
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in listed] == [
        (part["PartNumber"], part["ETag"], part["PartNumber"]) for part in parts
    ]


def test_uploads_are_listed_in_pages_and_by_prefix(s3: Any, bucket: str) -> None:
    keys = ["a/1", "a/1", "a/2", "b", "c/x"]
    begun = sorted((key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in keys)
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    listed = [(upload["Key"], upload["UploadId"]) for page in pages for upload in page["Uploads"]]
    assert sorted(listed) == begun
    assert [key for key, _ in listed] == sorted(keys)
    grouped = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [prefix["Prefix"] for prefix in grouped["CommonPrefixes"]] == ["a/", "c/"]
    assert [upload["Key"] for upload in grouped["Uploads"]] == ["b"]
    assert len(s3.list_multipart_uploads(Bucket=bucket, Prefix="a/1")["Uploads"]) == 2


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("SHA1", "COMPOSITE"), ("SHA256", "COMPOSITE")],
)
def test_multipart_checksums(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    bodies = [os.urandom(PART_BYTES), os.urandom(1000)]
    upload, parts = upload_parts(s3, bucket, "k", bodies, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, ChecksumType=kind
    )
    name = "Checksum" + algorithm
    assert done[name].endswith("-2") == (kind == "COMPOSITE")
    answer = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert answer["Body"].read() == b"".join(bodies)
    assert (answer[name], answer["ChecksumType"]) == (done[name], kind)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectParts"])
    assert attributes["ObjectParts"]["TotalPartsCount"] == 2
    assert [part[name] for part in attributes["ObjectParts"]["Parts"]] == [part[name] for part in parts]


def test_part_with_a_wrong_checksum_is_refused(s3: Any, bucket: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", [b"x"], ChecksumAlgorithm="SHA256")
    parts[0]["ChecksumSHA256"] = "A" * 43 + "="
    with refused(400, "InvalidPart"):
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})


def test_conditional_completion(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
    upload, parts = upload_parts(s3, bucket, "k", [b"new"])
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"other"'}):
        with refused(412, "PreconditionFailed"):
            s3.complete_multipart_upload(
                Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, IfMatch=etag
    )
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"


def test_parts_are_copied(s3: Any, bucket: str) -> None:
    source = os.urandom(2 * PART_BYTES + 100)
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = []
    for number, (first, last) in enumerate([(50, PART_BYTES + 49), (PART_BYTES + 50, len(source) - 1)], 1):
        answer = s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId=upload, PartNumber=number,
            CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange=f"bytes={first}-{last}",
        )  # fmt: skip
        assert answer["CopyPartResult"]["ETag"] == f'"{hashlib.md5(source[first : last + 1]).hexdigest()}"'
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    with refused(416, "InvalidRange"):
        s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId=upload, PartNumber=3,
            CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange=f"bytes=0-{len(source)}",
        )  # fmt: skip
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == source[50:]


def test_transfer_manager_round_trip(s3: Any, bucket: str) -> None:
    body = os.urandom(40 * 1024 * 1024 + 3)
    config = TransferConfig(multipart_threshold=8 * 1024 * 1024, multipart_chunksize=8 * 1024 * 1024, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, "large", Config=config)
    found = io.BytesIO()
    s3.download_fileobj(bucket, "large", found, Config=config)
    assert found.getvalue() == body
    s3.copy({"Bucket": bucket, "Key": "large"}, bucket, "copied", Config=config)
    assert hashlib.md5(s3.get_object(Bucket=bucket, Key="copied")["Body"].read()).digest() == hashlib.md5(body).digest()
