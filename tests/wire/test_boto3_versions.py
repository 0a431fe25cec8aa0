"""boto3: versions, delete markers, suspended versioning."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire.answers import refused


def read(s3: Any, bucket: str, key: str, **options: Any) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key, **options)["Body"].read()
    return body


def test_versioning_states(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Enabled", "Suspended", "Enabled"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status
    with refused(400, "IllegalVersioningConfigurationException"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Off"})
    with refused(501, "NotImplemented"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Enabled"})


@pytest.mark.parametrize("size", [10, 500_000])
def test_every_version_stays_readable(s3: Any, versioned: str, size: int) -> None:
    bodies = [bytes([number]) * size for number in range(4)]
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=body)["VersionId"] for body in bodies]
    assert len(set(ids)) == 4
    assert read(s3, versioned, "k") == bodies[-1]
    for version, body in zip(ids, bodies, strict=True):
        assert read(s3, versioned, "k", VersionId=version) == body
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version
    listed = s3.list_object_versions(Bucket=versioned)["Versions"]
    assert [(entry["VersionId"], entry["IsLatest"]) for entry in listed] == [
        (version, version == ids[-1]) for version in reversed(ids)
    ]


def test_delete_marker_hides_and_its_removal_restores(s3: Any, versioned: str) -> None:
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert deleted["DeleteMarker"] is True
    marker = deleted["VersionId"]
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=versioned, Key="k")
    with refused(405, "MethodNotAllowed"):
        s3.get_object(Bucket=versioned, Key="k", VersionId=marker)
    assert read(s3, versioned, "k", VersionId=first) == b"1"
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    listed = s3.list_object_versions(Bucket=versioned)
    assert [(entry["VersionId"], entry["IsLatest"]) for entry in listed["DeleteMarkers"]] == [(marker, True)]
    removed = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, marker)
    assert read(s3, versioned, "k") == b"1"


def test_delete_marker_is_named_in_the_answer(s3: Any, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="k", Body=b"1")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with pytest.raises(s3.exceptions.NoSuchKey) as missing:
        s3.get_object(Bucket=versioned, Key="k")
    headers = missing.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert (headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == ("true", marker)


def test_removing_the_newest_version_uncovers_the_one_below(s3: Any, versioned: str) -> None:
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=body)["VersionId"] for body in (b"1", b"2", b"3")]
    for version, left in ((ids[2], b"2"), (ids[0], b"2"), (ids[1], None)):
        s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
        if left is not None:
            assert read(s3, versioned, "k") == left
    assert "Versions" not in s3.list_object_versions(Bucket=versioned)
    s3.delete_bucket(Bucket=versioned)


def test_suspended_versioning_overwrites_the_null_version_only(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept = s3.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    assert read(s3, bucket, "k", VersionId="null") == b"before"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"null again")
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    assert read(s3, bucket, "k", VersionId="null") == read(s3, bucket, "k") == b"null again"
    assert read(s3, bucket, "k", VersionId=kept) == b"kept"
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert (marker["DeleteMarker"], marker["VersionId"]) == (True, "null")
    assert [entry["VersionId"] for entry in s3.list_object_versions(Bucket=bucket)["Versions"]] == [kept]


def test_unversioned_answers_show_no_version_ids(s3: Any, bucket: str) -> None:
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "VersionId" not in s3.get_object(Bucket=bucket, Key="k")
    assert "VersionId" not in s3.delete_object(Bucket=bucket, Key="k")


def test_missing_versions_have_their_codes(s3: Any, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    with refused(404, "NoSuchVersion"):
        s3.get_object(Bucket=versioned, Key="k", VersionId="0" * 32)
    with refused(404):
        s3.head_object(Bucket=versioned, Key="k", VersionId="0" * 32)


def test_old_version_is_copied_back(s3: Any, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    answer = s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": old})
    assert answer["CopySourceVersionId"] == old
    assert answer["VersionId"] != old
    assert read(s3, versioned, "k") == b"old"


def test_versions_are_listed_in_pages(s3: Any, versioned: str) -> None:
    written = []
    for key in ("a", "b/1", "b/2", "c"):
        written.extend(
            (key, s3.put_object(Bucket=versioned, Key=key, Body=body)["VersionId"]) for body in (b"1", b"2", b"3")
        )
        written.append((key, s3.delete_object(Bucket=versioned, Key=key)["VersionId"]))
    for page_size in (1, 2, 3, 5, 1000):
        pages = s3.get_paginator("list_object_versions").paginate(
            Bucket=versioned, PaginationConfig={"PageSize": page_size}
        )
        found = [
            (entry["Key"], entry["VersionId"])
            for page in pages
            for entry in page.get("Versions", []) + page.get("DeleteMarkers", [])
        ]
        assert sorted(found) == sorted(written)
    grouped = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [entry["Prefix"] for entry in grouped["CommonPrefixes"]] == ["b/"]
    assert {entry["Key"] for entry in grouped["Versions"]} == {"a", "c"}


def test_deletions_of_versions_and_markers_in_one_request(s3: Any, versioned: str) -> None:
    first = s3.put_object(Bucket=versioned, Key="a", Body=b"1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="b", Body=b"1")
    answer = s3.delete_objects(
        Bucket=versioned, Delete={"Objects": [{"Key": "a", "VersionId": first}, {"Key": "b"}, {"Key": "missing"}]}
    )
    deleted = {entry["Key"]: entry for entry in answer["Deleted"]}
    assert deleted["a"] == {"Key": "a", "VersionId": first}
    assert deleted["b"]["DeleteMarker"] is True
    assert deleted["b"]["DeleteMarkerVersionId"]
    quiet = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet
