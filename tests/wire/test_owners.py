"""Two owners on one node: what belongs to one is closed to the other, also through the source of a copy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.process import NodeProcess
from tests.wire.answers import refused
from tests.wire.raw import call

ALICE = ("AKALICE0000000000001", "alice-secret-0000000000000000000000000001")


@pytest.fixture(scope="module")
def alice(node: NodeProcess, make_client: Callable[..., Any]) -> Any:
    command = [sys.executable, "-m", "edgestore", "key", "create", "--data", str(node.data), "--access-key", ALICE[0]]
    subprocess.run([*command, "--secret-key", ALICE[1], "--name", "alice", "--email", "a@example.org"], check=True)
    return make_client(access_key=ALICE[0], secret_key=ALICE[1])


@pytest.fixture
def closed(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="k", Body=b"not alice's")
    return bucket


def test_owner_does_all_on_its_own_buckets(s3: Any, alice: Any) -> None:
    alice.create_bucket(Bucket="alices-own")
    alice.put_object(Bucket="alices-own", Key="k", Body=b"mine")
    assert alice.get_object(Bucket="alices-own", Key="k")["Body"].read() == b"mine"
    listed = alice.list_buckets()
    assert [entry["Name"] for entry in listed["Buckets"]] == ["alices-own"]
    assert listed["Owner"]["DisplayName"] == "alice"
    assert alice.get_bucket_acl(Bucket="alices-own")["Owner"] == listed["Owner"]
    assert s3.get_object(Bucket="alices-own", Key="k")["Body"].read() == b"mine"


def test_other_owners_bucket_is_closed(alice: Any, closed: str) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: alice.get_object(Bucket=closed, Key="k"),
        lambda: alice.head_object(Bucket=closed, Key="k"),
        lambda: alice.put_object(Bucket=closed, Key="k", Body=b"x"),
        lambda: alice.put_object(Bucket=closed, Key="k", Body=b"x" * 500_000),
        lambda: alice.delete_object(Bucket=closed, Key="k"),
        lambda: alice.list_objects_v2(Bucket=closed),
        lambda: alice.list_object_versions(Bucket=closed),
        lambda: alice.list_multipart_uploads(Bucket=closed),
        lambda: alice.create_multipart_upload(Bucket=closed, Key="k"),
        lambda: alice.head_bucket(Bucket=closed),
        lambda: alice.delete_bucket(Bucket=closed),
        lambda: alice.get_bucket_acl(Bucket=closed),
        lambda: alice.get_object_acl(Bucket=closed, Key="k"),
        lambda: alice.get_bucket_versioning(Bucket=closed),
        lambda: alice.put_bucket_versioning(Bucket=closed, VersioningConfiguration={"Status": "Enabled"}),
        lambda: alice.delete_objects(Bucket=closed, Delete={"Objects": [{"Key": "k"}]}),
        lambda: alice.get_object_attributes(Bucket=closed, Key="k", ObjectAttributes=["ETag"]),
    ]
    for attempt in attempts:
        with refused(403):
            attempt()


def test_source_of_a_copy_needs_its_own_rights(s3: Any, alice: Any, closed: str) -> None:
    alice.create_bucket(Bucket="alices-copies")
    with refused(403, "AccessDenied"):
        alice.copy_object(Bucket="alices-copies", Key="k", CopySource={"Bucket": closed, "Key": "k"})
    upload = alice.create_multipart_upload(Bucket="alices-copies", Key="k")["UploadId"]
    with refused(403, "AccessDenied"):
        alice.upload_part_copy(
            Bucket="alices-copies", Key="k", UploadId=upload, PartNumber=1, CopySource={"Bucket": closed, "Key": "k"}
        )
    with refused(403, "AccessDenied"):
        alice.copy_object(Bucket=closed, Key="copy", CopySource={"Bucket": closed, "Key": "k"})
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=closed)["Contents"]] == ["k"]


def test_dot_segments_do_not_lead_to_another_owner(node: NodeProcess, alice: Any, closed: str) -> None:
    alice.create_bucket(Bucket="alices-dots")
    for target in (f"/alices-dots/../{closed}/k", f"/alices-dots/%2E%2E/{closed}/k", f"/alices-dots%2F..%2F{closed}/k"):
        answer = call(node.endpoint, "GET", target, credentials=ALICE)
        assert answer.code in ("NoSuchKey", "NoSuchBucket", "SignatureDoesNotMatch")
        answer = call(node.endpoint, "PUT", "/alices-dots/k", {"x-amz-copy-source": target}, credentials=ALICE)
        assert answer.status == 404


def test_bucket_name_of_another_owner_is_taken(alice: Any, closed: str) -> None:
    with refused(409, "BucketAlreadyExists"):
        alice.create_bucket(Bucket=closed)


def test_expected_owner_is_compared(s3: Any, alice: Any, closed: str) -> None:
    owner = s3.list_buckets()["Owner"]["ID"]
    other = alice.list_buckets()["Owner"]["ID"]
    s3.get_object(Bucket=closed, Key="k", ExpectedBucketOwner=owner)
    for action in (s3.get_object, s3.head_object, s3.delete_object):
        with refused(403):
            action(Bucket=closed, Key="k", ExpectedBucketOwner=other)
