"""boto3: listings against a plain model, buckets, ACLs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.wire.answers import refused

KEYS = ["a", "b/1", "b/2", "b/c/1", "b0", "d//x", "e f/1+1", "e f/2", "z", "ü/1"]


def model(keys: list[str], prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    """What S3 lists, said as simply as it goes."""
    contents, prefixes = [], []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            common = prefix + rest.split(delimiter)[0] + delimiter
            if common not in prefixes:
                prefixes.append(common)
        else:
            contents.append(key)
    return contents, prefixes


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
@pytest.mark.parametrize("prefix", ["", "b", "b/", "e f/", "none"])
@pytest.mark.parametrize("delimiter", ["", "/", "1"])
def test_pages_add_up_to_the_model(
    s3: Any, filled: str, operation: str, page_size: int, prefix: str, delimiter: str
) -> None:
    pages = s3.get_paginator(operation).paginate(
        Bucket=filled, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": page_size}
    )
    contents, prefixes = [], []
    for page in pages:
        rows = [entry["Key"] for entry in page.get("Contents", [])]
        groups = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        assert len(rows) + len(groups) <= page_size
        contents += rows
        prefixes += groups
    assert (contents, prefixes) == model(KEYS, prefix, delimiter)


def test_page_shows_size_etag_date_and_class(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12345")["ETag"]
    head = s3.head_object(Bucket=bucket, Key="k")
    entry = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (5, etag, "STANDARD")
    assert entry["LastModified"] == head["LastModified"]
    assert entry["Owner"]["ID"]
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"] == entry["Owner"]


def test_start_after_and_marker(s3: Any, filled: str) -> None:
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=filled, StartAfter="b/c/1")["Contents"]] == KEYS[4:]
    assert [entry["Key"] for entry in s3.list_objects(Bucket=filled, Marker="b/bb")["Contents"]] == KEYS[3:]
    assert "Contents" not in s3.list_objects_v2(Bucket=filled, StartAfter="\U0010ffff")


def test_limits_of_a_page(s3: Any, filled: str) -> None:
    empty = s3.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert (empty["KeyCount"], empty["IsTruncated"]) == (0, False)
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=5000)["MaxKeys"] == 1000
    with refused(400, "InvalidArgument"):
        s3.list_objects_v2(Bucket=filled, MaxKeys=-1)
    with refused(400, "InvalidArgument"):
        s3.list_objects_v2(Bucket=filled, ContinuationToken="not a token ü")


def test_two_thousand_keys_in_pages_of_a_thousand(s3: Any, bucket: str) -> None:
    keys = [f"{number:05d}" for number in range(2_100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket))
    assert [page["KeyCount"] for page in pages] == [1000, 1000, 100]
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == keys
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[:1000]]})
    assert len(answer["Deleted"]) == 1000
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["Contents"][0]["Key"] == keys[1000]
    with refused(400, "MalformedXML"):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[:1001]]})


def test_buckets_are_created_listed_and_deleted(s3: Any, bucket: str) -> None:
    listed = s3.list_buckets()
    assert bucket in [entry["Name"] for entry in listed["Buckets"]]
    assert listed["Owner"]["ID"]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    s3.create_bucket(Bucket=bucket)  # in us-east-1, as in S3
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    with refused(404):
        s3.head_bucket(Bucket=bucket)


def test_bucket_of_another_region_is_refused(s3: Any) -> None:
    with refused(400, "IllegalLocationConstraintException"):
        s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_acl_shows_the_owner_with_full_control(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ACL="private")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert [grant["Permission"] for grant in acl["Grants"]] == ["FULL_CONTROL"]
        assert acl["Grants"][0]["Grantee"]["ID"] == acl["Owner"]["ID"]
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    with refused(501, "NotImplemented"):
        s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
