"""What programs do with boto3, in one go. Runs in an environment of its own, so it knows nothing of this repository.

Arguments: endpoint, access key, secret key, bucket, and whether this boto3 sends checksums unasked ("checksums" or
"plain").
"""

from __future__ import annotations

import io
import os
import sys
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

endpoint, access_key, secret_key, bucket, default = sys.argv[1:]
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    aws_access_key_id=access_key,
    aws_secret_access_key=secret_key,
    region_name="us-east-1",
    config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, signature_version="s3v4"),
)


def read(key: str, **options: str) -> bytes:
    """The content of an object."""
    return bytes(s3.get_object(Bucket=bucket, Key=key, **options)["Body"].read())


def code_of(operation: str, **options: object) -> str:
    """The code that an operation is refused with."""
    try:
        getattr(s3, operation)(Bucket=bucket, **options)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def small() -> None:
    """Put, get, head, conditions, ranges."""
    put = s3.put_object(
        Bucket=bucket, Key="a/small", Body=b"content", ContentType="text/plain", Metadata={"camera": "7"}
    )
    head = s3.head_object(Bucket=bucket, Key="a/small", ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (7, "text/plain", {"camera": "7"})
    assert head["ETag"] == put["ETag"]
    assert ("ChecksumCRC32" in head) == (default == "checksums"), head
    assert read("a/small") == b"content"
    assert read("a/small", Range="bytes=1-3") == b"ont"
    assert code_of("get_object", Key="a/small", IfNoneMatch=put["ETag"]) == "304"
    assert code_of("put_object", Key="a/small", Body=b"x", IfNoneMatch="*") == "PreconditionFailed"
    assert code_of("get_object", Key="nothing") == "NoSuchKey"
    for algorithm in ("CRC32", "SHA1", "SHA256"):  # the others need a package of their own
        s3.put_object(Bucket=bucket, Key=f"sums/{algorithm}", Body=b"content", ChecksumAlgorithm=algorithm)
        assert read(f"sums/{algorithm}", ChecksumMode="ENABLED") == b"content"


def large() -> None:
    """The transfer manager's multipart upload and download, from a file and from a stream."""
    body = os.urandom(11_000_000)
    cut = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_fileobj(io.BytesIO(body), bucket, "a/large", Config=cut)
    back = io.BytesIO()
    s3.download_fileobj(bucket, "a/large", back, Config=cut)
    assert back.getvalue() == body
    assert s3.head_object(Bucket=bucket, Key="a/large")["ETag"].endswith('-3"')
    upload = s3.create_multipart_upload(Bucket=bucket, Key="a/given up")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="a/given up", UploadId=upload, PartNumber=1, Body=b"part")
    assert [part["Size"] for part in s3.list_parts(Bucket=bucket, Key="a/given up", UploadId=upload)["Parts"]] == [4]
    s3.abort_multipart_upload(Bucket=bucket, Key="a/given up", UploadId=upload)
    s3.copy({"Bucket": bucket, "Key": "a/large"}, bucket, "b/large", Config=cut)
    assert read("b/large") == body
    s3.copy_object(Bucket=bucket, Key="b/small", CopySource={"Bucket": bucket, "Key": "a/small"})
    assert read("b/small") == b"content"


def presigned() -> None:
    """By someone without keys."""
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "signed"}, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(url, b"by url", {"Content-Type": ""}, method="PUT")).close()
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "signed"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"by url"


def end() -> None:
    """List, and delete one, many and all."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3})
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    assert keys == ["a/large", "a/small", "b/large", "b/small", "signed", "sums/CRC32", "sums/SHA1", "sums/SHA256"]
    folders = s3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"]
    assert [folder["Prefix"] for folder in folders] == ["a/", "b/", "sums/"]
    s3.delete_object(Bucket=bucket, Key="signed")
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[:-1]]})
    assert "Errors" not in gone
    assert [entry["Key"] for entry in s3.list_objects(Bucket=bucket)["Contents"]] == ["sums/SHA256"]
    s3.delete_object(Bucket=bucket, Key="sums/SHA256")
    s3.delete_bucket(Bucket=bucket)


for step in (small, large, presigned, end):
    step()
sys.stdout.write(f"ok {boto3.__version__}\n")
