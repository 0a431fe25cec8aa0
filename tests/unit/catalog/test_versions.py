"""Versions, delete markers and the null version."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.records import BucketUsage, Versioning, VersionKind
from tests.unit.catalog.audit import audit
from tests.unit.catalog.site import Site, inline, place


def test_older_versions_stay_readable() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    records = [site.put(bucket, "key", inline(bytes([n]))) for n in range(1, 4)]
    assert site.state.head(bucket, "key") == records[-1]
    for n, record in enumerate(records, 1):
        assert site.state.version(bucket, "key", place(record)) == record
        assert site.state.inline(bucket, record) == bytes([n])
    assert len({record.version_id for record in records}) == 3
    assert site.state.usage(bucket) == BucketUsage(1, 3, 3, 0)
    audit(site.store)


def test_delete_marker_hides_and_its_removal_brings_back() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    record = site.put(bucket, "key")
    deleted = site.delete(bucket, "key")
    assert deleted.delete_marker
    assert site.state.head(bucket, "key") is None
    marker = site.state.newest(bucket, "key")
    assert marker is not None
    assert (marker.kind, marker.version_id) == (VersionKind.DELETE_MARKER, deleted.version_id)
    assert site.state.usage(bucket) == BucketUsage(0, 2, 4, 0)
    audit(site.store)
    assert site.delete(bucket, "key", place(marker)) == commands.Deleted(marker.version_id, delete_marker=True)
    assert site.state.head(bucket, "key") == record
    assert site.state.usage(bucket) == BucketUsage(1, 1, 4, 0)
    audit(site.store)


def test_marker_is_written_where_nothing_was() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    first, second = site.delete(bucket, "key"), site.delete(bucket, "key")
    assert first.delete_marker
    assert second.delete_marker
    assert site.state.usage(bucket) == BucketUsage(0, 2, 0, 0)
    audit(site.store)


def test_deleting_the_newest_version_promotes_the_next() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    records = [site.put(bucket, "key", site.content()) for _ in range(3)]
    for record in reversed(records):
        assert site.state.head(bucket, "key") == record
        assert site.delete(bucket, "key", place(record)) == commands.Deleted(record.version_id)
        audit(site.store)
    assert site.state.newest(bucket, "key") is None
    assert site.state.usage(bucket) == BucketUsage()
    assert len(site.state.condemned(10)) == 3


def test_deleting_the_newest_version_does_not_promote_a_marker() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    site.put(bucket, "key")
    site.delete(bucket, "key")
    record = site.put(bucket, "key")
    site.delete(bucket, "key", place(record))
    assert site.state.head(bucket, "key") is None
    assert site.state.usage(bucket).current_objects == 0
    audit(site.store)


def test_deleting_an_old_version_leaves_the_head() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    old, new = site.put(bucket, "key"), site.put(bucket, "key")
    site.delete(bucket, "key", place(old))
    assert site.state.head(bucket, "key") == new
    assert site.state.version(bucket, "key", place(old)) is None
    assert site.delete(bucket, "key", place(old)) == commands.Deleted()
    audit(site.store)


def test_old_object_becomes_the_null_version_when_versioning_begins() -> None:
    site = Site()
    bucket = site.bucket()
    old = site.put(bucket, "key", inline(b"old"))
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED))
    new = site.put(bucket, "key", inline(b"new"))
    assert site.state.head(bucket, "key") == new
    assert site.state.version(bucket, "key", ()) == old
    assert site.state.inline(bucket, old) == b"old"
    audit(site.store)
    site.delete(bucket, "key", place(new))
    assert site.state.head(bucket, "key") == old
    audit(site.store)


@pytest.mark.parametrize("deletes_between", [0, 1])
def test_suspended_put_replaces_the_null_version_wherever_it_is(deletes_between: int) -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key", inline(b"first null"))
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED))
    kept = site.put(bucket, "key", inline(b"kept"))
    for _ in range(deletes_between):
        site.delete(bucket, "key")
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.SUSPENDED))
    for body in (b"second", b"third null"):
        null = site.put(bucket, "key", inline(body))
        assert null.version_id == "null"
        assert site.state.head(bucket, "key") == site.state.version(bucket, "key", ()) == null
        assert site.state.version(bucket, "key", place(kept)) == kept
        assert site.state.usage(bucket) == BucketUsage(1, 2 + deletes_between, 4 + len(body), 0)
        audit(site.store)


def test_suspended_delete_replaces_the_null_version_by_a_null_marker() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    kept = site.put(bucket, "key", inline(b"kept"))
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.SUSPENDED))
    site.put(bucket, "key", inline(b"null"))
    for _ in range(2):
        assert site.delete(bucket, "key") == commands.Deleted("null", delete_marker=True)
        assert site.state.usage(bucket) == BucketUsage(0, 2, 4, 0)
        audit(site.store)
    assert site.delete(bucket, "key", ()) == commands.Deleted("null", delete_marker=True)
    assert site.state.head(bucket, "key") == kept
    audit(site.store)


def test_null_version_is_not_found_under_its_hidden_id() -> None:
    site = Site()
    bucket = site.bucket()
    record = site.put(bucket, "key")
    assert site.state.version(bucket, "key", (record.site_incarnation, record.log_index, record.position)) is None


def test_versions_of_one_entry_are_told_apart_by_position() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    made = site.all(*(commands.PutObject(bucket.bucket_id, "key", 7, 0, inline(bytes([n])), {}, {}) for n in range(5)))
    assert [record.position for record in made] == list(range(5))
    assert site.state.head(bucket, "key") == made[-1]
    assert [site.state.inline(bucket, record) for record in made] == [bytes([n]) for n in range(5)]
    audit(site.store)
