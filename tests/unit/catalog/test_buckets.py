"""Buckets, owners, keys and the site."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.errors import (
    AccessKeyExists,
    BadRequest,
    BucketExists,
    BucketNotEmpty,
    NoSuchAccessKey,
    NoSuchBucket,
    TooLarge,
)
from edgestore.records import BucketUsage, KeyRecord, TenantRecord, Versioning
from tests.unit.catalog.audit import audit
from tests.unit.catalog.site import OWNER, Site, place

UPLOAD = "0123456789abcdef" * 2


def test_bucket_is_found_by_name_and_id() -> None:
    site = Site()
    made = site.bucket("videos")
    assert site.state.bucket("videos") == site.state.bucket_by_id(made.bucket_id) == made
    assert site.state.buckets() == site.state.buckets(OWNER) == [made]
    assert site.state.buckets(OWNER + 1) == []
    assert site.state.usage(made) == BucketUsage()


@pytest.mark.parametrize(("owner", "owned"), [(OWNER, True), (OWNER + 1, False)])
def test_taken_name_says_whether_the_caller_owns_it(owner: int, owned: bool) -> None:
    site = Site()
    site.bucket("videos")
    with pytest.raises(BucketExists) as refused:
        site.do(commands.CreateBucket("videos", owner, 0, "us-east-1"))
    assert refused.value.fields["owned"] is owned


def test_owner_has_a_maximum_of_buckets() -> None:
    site = Site()
    site.bucket("one")
    with pytest.raises(TooLarge):
        site.do(commands.CreateBucket("two", OWNER, 0, "us-east-1", 1))
    site.do(commands.CreateBucket("three", OWNER + 1, 0, "us-east-1", 1))


def test_bucket_id_is_never_reused() -> None:
    site = Site()
    first = site.bucket("videos")
    site.do(commands.DeleteBucket(first.bucket_id))
    with pytest.raises(NoSuchBucket):
        site.state.bucket("videos")
    with pytest.raises(NoSuchBucket):
        site.state.bucket_by_id(first.bucket_id)
    second = site.bucket("videos")
    assert second.bucket_id > first.bucket_id
    with pytest.raises(NoSuchBucket):
        site.put(first, "key")


def test_bucket_with_a_version_or_marker_is_not_deleted() -> None:
    site = Site()
    bucket = site.bucket("videos", Versioning.ENABLED)
    record = site.put(bucket, "key")
    for _ in range(2):
        with pytest.raises(BucketNotEmpty):
            site.do(commands.DeleteBucket(bucket.bucket_id))
        site.delete(bucket, "key")
    site.delete(bucket, "key", place(record))
    with pytest.raises(BucketNotEmpty):
        site.do(commands.DeleteBucket(bucket.bucket_id))


def test_deleting_a_bucket_aborts_its_uploads() -> None:
    site = Site()
    bucket = site.bucket()
    site.upload(bucket, "key", UPLOAD)
    content = site.content()
    site.part(bucket, "key", UPLOAD, 1, content)
    site.do(commands.DeleteBucket(bucket.bucket_id))
    site.run_drops()
    assert [chunk_id for chunk_id, _ in site.state.condemned(10)] == [content.extents[0].extent_id]
    audit(site.store)


def test_bucket_with_very_many_uploads_is_not_deleted() -> None:
    site = Site()
    bucket = site.bucket()
    site.all(*(commands.CreateUpload(bucket.bucket_id, "key", f"{n:032x}", OWNER, 0) for n in range(1, 102)))
    with pytest.raises(BucketNotEmpty):
        site.do(commands.DeleteBucket(bucket.bucket_id))
    site.do(commands.AbortUpload(bucket.bucket_id, "key", f"{1:032x}"))
    site.do(commands.DeleteBucket(bucket.bucket_id))
    audit(site.store)


def test_versioning_never_returns_to_off() -> None:
    site = Site()
    bucket = site.bucket("videos", Versioning.ENABLED, Versioning.SUSPENDED)
    assert site.state.bucket("videos").versioning is Versioning.SUSPENDED
    with pytest.raises(BadRequest):
        site.do(commands.SetVersioning(bucket.bucket_id, Versioning.OFF))
    assert site.state.bucket("videos").versioning is Versioning.SUSPENDED


def test_readers_see_a_bucket_change_at_once() -> None:
    site = Site()
    bucket = site.bucket()
    assert site.state.bucket("bucket").versioning is Versioning.OFF
    created, put, changed = site.all(
        commands.CreateBucket("other", OWNER, 0, "us-east-1"),
        commands.PutObject(bucket.bucket_id, "key", OWNER, 0, commands.Content(0, "e")),
        commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED),
    )
    assert put.is_null
    assert site.state.bucket("bucket") == changed
    assert site.state.bucket("other") == created


def test_bucket_made_and_deleted_in_one_entry_leaves_nothing() -> None:
    site = Site()
    before = dict(site.store.rows)
    made = site.bucket("next")
    site.do(commands.DeleteBucket(made.bucket_id))
    site.all(
        commands.CreateBucket("videos", OWNER, 0, "us-east-1"),
        commands.PutObject(made.bucket_id + 1, "key", OWNER, 0, commands.Content(3, "e", (), b"abc")),
        commands.DeleteObject(made.bucket_id + 1, "key", OWNER, 0),
        commands.DeleteBucket(made.bucket_id + 1),
    )
    audit(site.store)
    assert site.state.buckets() == []
    assert {key for key in site.store.rows if key[2] not in (1, 16)} == {key for key in before if key[2] not in (1, 16)}


def test_owners_take_ids_that_are_free() -> None:
    site = Site()
    fifth = site.do(commands.PutTenant(5, "c5", "five"))
    next_one = site.do(commands.PutTenant(0, "c6", "six", "six@example.org"))
    assert (fifth.tenant_id, next_one.tenant_id) == (5, 6)
    renamed = site.do(commands.PutTenant(5, "c5", "five again"))
    assert site.state.tenant(5) == renamed == TenantRecord(5, "c5", "five again")
    assert site.state.tenants() == [renamed, next_one]
    assert site.state.tenant(9) is None


def test_two_nodes_that_create_an_owner_of_one_name_get_one_owner() -> None:
    site = Site()
    first = site.do(commands.PutTenant(0, "c1", "one", "one@example.org"))
    assert site.do(commands.PutTenant(0, "c2", "one")) == first
    assert site.do(commands.PutTenant(0, "c3", "other")).tenant_id == first.tenant_id + 1
    assert [owner.name for owner in site.state.tenants()] == ["one", "other"]


def test_same_key_pair_again_is_no_error_and_another_is() -> None:
    site = Site()
    record = site.do(commands.PutKey("AK", "secret", 5, 1))
    assert record == KeyRecord("AK", "secret", 5, 1)
    assert site.do(commands.PutKey("AK", "secret", 5, 2)) == record
    for other in (commands.PutKey("AK", "other", 5, 1), commands.PutKey("AK", "secret", 6, 1)):
        with pytest.raises(AccessKeyExists):
            site.do(other)
    assert site.state.access_keys() == [record]
    site.do(commands.DeleteKey("AK"))
    assert site.state.access_keys() == []
    with pytest.raises(NoSuchAccessKey):
        site.do(commands.DeleteKey("AK"))


def test_first_founding_counts() -> None:
    site = Site()
    assert site.do(commands.FoundSite(b"another", 9)) == b"0123456789abcdef"
    assert site.state.site().site_incarnation == 3
