"""What is not there yet says so: 501 by name, never silently ignored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire.answers import refused

PUT_OPTIONS: list[dict[str, Any]] = [
    {"ServerSideEncryption": "AES256"},
    {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"},
    {"Tagging": "a=b"},
    {"ObjectLockLegalHoldStatus": "ON"},
    {"WebsiteRedirectLocation": "/x"},
    {"GrantRead": "id=1"},
    {"ACL": "public-read"},
]


@pytest.mark.parametrize("options", PUT_OPTIONS, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("size", [10, 300_000])
def test_put_that_asks_for_more_is_refused_and_stores_nothing(
    s3: Any, bucket: str, options: dict[str, Any], size: int
) -> None:
    with refused(501, "NotImplemented"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x" * size, **options)
    with refused(501, "NotImplemented"):
        s3.create_multipart_upload(Bucket=bucket, Key="k", **options)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_other_storage_classes_are_refused(s3: Any, bucket: str) -> None:
    with refused(400, "InvalidStorageClass"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="STANDARD")


BUCKET_READS = [
    "get_bucket_tagging",
    "get_bucket_policy",
    "get_bucket_cors",
    "get_bucket_lifecycle_configuration",
    "get_bucket_encryption",
    "get_bucket_notification_configuration",
    "get_bucket_website",
    "get_bucket_logging",
    "get_bucket_replication",
    "get_object_lock_configuration",
    "get_public_access_block",
    "get_bucket_ownership_controls",
    "get_bucket_accelerate_configuration",
    "get_bucket_request_payment",
    "get_bucket_policy_status",
    "delete_bucket_tagging",
    "delete_bucket_policy",
    "delete_bucket_cors",
]


@pytest.mark.parametrize("operation", BUCKET_READS)
def test_missing_bucket_feature_says_so(s3: Any, bucket: str, operation: str) -> None:
    with refused(501, "NotImplemented"):
        getattr(s3, operation)(Bucket=bucket)


@pytest.mark.parametrize(
    "operation",
    [
        "get_object_tagging",
        "delete_object_tagging",
        "get_object_retention",
        "get_object_legal_hold",
        "get_object_torrent",
    ],
)
def test_missing_object_feature_says_so(s3: Any, bucket: str, operation: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused(501, "NotImplemented"):
        getattr(s3, operation)(Bucket=bucket, Key="k")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_locked_buckets_are_not_made(s3: Any) -> None:
    with refused(501, "NotImplemented"):
        s3.create_bucket(Bucket="locked-bucket", ObjectLockEnabledForBucket=True)
    with refused(404):
        s3.head_bucket(Bucket="locked-bucket")
