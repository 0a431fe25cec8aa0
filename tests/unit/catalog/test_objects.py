"""Objects without versions, conditions, copies by reference."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.errors import BadRequest, NoSuchBucket, NoSuchKey, PreconditionFailed
from edgestore.records import BucketUsage, Checksum, Condition, IfAbsent, IfMatch, Versioning, VersionRecord
from tests.unit.catalog.audit import audit
from tests.unit.catalog.site import OWNER, Site, inline, put


def test_inline_object_is_read_back() -> None:
    site = Site()
    bucket = site.bucket()
    record = site.put(bucket, "key", inline(b"body"))
    assert site.state.head(bucket, "key") == site.state.newest(bucket, "key") == record
    assert site.state.version(bucket, "key", ()) == record
    assert site.state.inline(bucket, record) == b"body"
    assert (record.version_id, record.size_bytes, record.log_index) == ("null", 4, len(site.entries))
    assert site.state.usage(bucket) == BucketUsage(1, 1, 4, 0)


def test_overwrite_drops_what_it_replaces_in_the_same_step() -> None:
    site = Site()
    bucket = site.bucket()
    content = site.content(site.extent(3))
    site.put(bucket, "key", content)
    record = site.put(bucket, "key", inline(b"small"))
    assert site.state.usage(bucket) == BucketUsage(1, 1, 5, 0)
    condemned = [(chunk.chunk_id, record.log_index) for chunk in content.extents[0].chunks]
    assert site.state.condemned(10) == condemned
    assert site.state.extents(OWNER, record.extents) == []
    audit(site.store)


def test_delete_leaves_nothing_and_may_be_repeated() -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key", inline(b"body"))
    for _ in range(2):
        assert site.delete(bucket, "key") == commands.Deleted()
        assert site.state.head(bucket, "key") is None
    assert site.state.usage(bucket) == BucketUsage()
    audit(site.store)


def test_null_version_of_a_bucket_without_versions_can_be_named() -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key")
    assert site.delete(bucket, "key", (3, 1, 0)) == commands.Deleted()
    assert site.delete(bucket, "key", ()) == commands.Deleted("null")
    assert site.state.head(bucket, "key") is None


@pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513])
def test_what_is_no_key_is_refused(key: str) -> None:
    site = Site()
    bucket = site.bucket()
    with pytest.raises(BadRequest):
        site.put(bucket, key)


@pytest.mark.parametrize("key", ["x" * 1024, "ü" * 512, "\x00", "a\x00b", "../x", "//", "\U0010ffff", " "])
def test_any_other_text_is_a_key(key: str) -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    first = site.put(bucket, key)
    second = site.put(bucket, key)
    assert site.state.head(bucket, key) == second
    assert site.state.version(bucket, key, (3, first.log_index, 0)) == first
    audit(site.store)


def test_unknown_bucket_is_refused() -> None:
    with pytest.raises(NoSuchBucket):
        Site().do(commands.PutObject(99, "key", OWNER, 0, inline(b"")))


MATCH = IfMatch("etag-4", 4, 5_999)


@pytest.mark.parametrize(
    ("exists", "condition", "failure"),
    [
        (False, IfAbsent(), None),
        (True, IfAbsent(), PreconditionFailed),
        (True, IfMatch("etag-4"), None),
        (True, IfMatch("*"), None),
        (True, IfMatch("other"), PreconditionFailed),
        (False, IfMatch("etag-4"), NoSuchKey),
        (False, IfMatch("*"), NoSuchKey),
        (True, MATCH, None),
        (True, IfMatch("", 4), None),
        (True, IfMatch("", 5), PreconditionFailed),
        (True, IfMatch("", None, 6_000), PreconditionFailed),
        (True, IfMatch("", 4, 5_000), None),
    ],
)
@pytest.mark.parametrize("versioning", [Versioning.OFF, Versioning.ENABLED, Versioning.SUSPENDED])
def test_condition_is_judged_against_the_current_version(
    exists: bool, condition: Condition, failure: type[Exception] | None, versioning: Versioning
) -> None:
    site = Site()
    bucket = site.bucket("bucket", *([versioning] if versioning else []))
    if exists:
        site.put(bucket, "key", inline(b"body"))
    elif versioning:
        site.put(bucket, "key", inline(b"body"))
        site.delete(bucket, "key")  # a marker counts as absent
    before = site.state.newest(bucket, "key"), site.state.usage(bucket)
    if failure is not None:
        with pytest.raises(failure):
            site.put(bucket, "key", inline(b"new"), condition)
        assert (site.state.newest(bucket, "key"), site.state.usage(bucket)) == before
    else:
        record = site.put(bucket, "key", inline(b"new"), condition)
        assert site.state.head(bucket, "key") == record
    audit(site.store)


@pytest.mark.parametrize(("condition", "failure"), [(IfMatch("other"), PreconditionFailed), (IfMatch("etag-4"), None)])
def test_delete_takes_conditions(condition: Condition, failure: type[Exception] | None) -> None:
    site = Site()
    bucket = site.bucket()
    record = site.put(bucket, "key", inline(b"body"))
    for version in (None, ()):
        site.put(bucket, "key", inline(b"body"))
        if failure is None:
            site.delete(bucket, "key", version, condition)
            assert site.state.head(bucket, "key") is None
        else:
            with pytest.raises(failure):
                site.delete(bucket, "key", version, condition)
            assert site.state.head(bucket, "key") is not None
    assert record.is_null


def copy(site: Site, source: VersionRecord, to: commands.CopyObject) -> VersionRecord:
    made: VersionRecord = site.do(to)
    assert made.log_index > source.log_index
    return made


def test_copy_shares_extents_and_the_last_reference_condemns() -> None:
    site = Site()
    bucket, other = site.bucket(), site.bucket("other")
    source = site.put(bucket, "key", site.content(site.extent(2), site.extent()))
    named = (source.site_incarnation, source.log_index, source.position)
    made = copy(
        site,
        source,
        commands.CopyObject(bucket.bucket_id, "key", named, other.bucket_id, "copy", OWNER, 9, {"a": "1"}, {"b": "2"}),
    )
    assert (made.extents, made.etag, made.size_bytes) == (source.extents, source.etag, source.size_bytes)
    assert (made.headers, made.metadata, made.modified_ms) == ({"a": "1"}, {"b": "2"}, 9)
    audit(site.store)
    site.delete(bucket, "key")
    assert site.state.condemned(10) == []
    assert all(site.state.extents(OWNER, made.extents))
    site.delete(other, "copy")
    assert len(site.state.condemned(10)) == 3
    audit(site.store)


def test_copy_of_an_inline_body_stands_alone() -> None:
    site = Site()
    bucket = site.bucket()
    source = site.put(bucket, "key", inline(b"body"))
    named = (source.site_incarnation, source.log_index, source.position)
    checksum = Checksum("CRC32", b"1234")
    made = copy(
        site,
        source,
        commands.CopyObject(
            bucket.bucket_id, "key", named, bucket.bucket_id, "copy", OWNER, 9, None, None, "COLD", (checksum,)
        ),
    )
    site.delete(bucket, "key")
    assert site.state.inline(bucket, made) == b"body"
    assert (made.storage_class, made.checksums, made.metadata) == ("COLD", (checksum,), source.metadata)
    audit(site.store)


@pytest.mark.parametrize("body", [b"body", None])
@pytest.mark.parametrize("versioning", list(Versioning))
def test_copy_onto_itself_keeps_the_bytes(body: bytes | None, versioning: Versioning) -> None:
    site = Site()
    bucket = site.bucket("bucket", *([versioning] if versioning else []))
    source = site.put(bucket, "key", site.content() if body is None else inline(body))
    named = (source.site_incarnation, source.log_index, source.position)
    made = copy(
        site, source, commands.CopyObject(bucket.bucket_id, "key", named, bucket.bucket_id, "key", OWNER, 9, {}, {})
    )
    assert all(site.state.extents(OWNER, made.extents))
    assert site.state.inline(bucket, made) == (body or b"")
    assert site.state.condemned(10) == []
    audit(site.store)


def test_copy_of_what_went_or_of_a_marker_fails() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    record = site.put(bucket, "key")
    site.delete(bucket, "key")
    marker = site.state.newest(bucket, "key")
    assert marker is not None
    for log_index, position in [(marker.log_index, marker.position), (record.log_index, 9), (999, 0)]:
        with pytest.raises(NoSuchKey):
            site.do(
                commands.CopyObject(
                    bucket.bucket_id, "key", (3, log_index, position), bucket.bucket_id, "copy", OWNER, 9
                )
            )
    assert site.state.head(bucket, "copy") is None
    audit(site.store)


def test_copy_of_extents_to_another_owner_is_refused() -> None:
    site = Site()
    bucket = site.bucket()
    theirs = site.do(commands.CreateBucket("theirs", OWNER + 1, 0, "us-east-1"))
    source = site.put(bucket, "key", site.content())
    with pytest.raises(NoSuchKey):
        site.do(
            commands.CopyObject(
                bucket.bucket_id, "key", (3, source.log_index, source.position), theirs.bucket_id, "copy", OWNER, 9
            )
        )
    audit(site.store)


def test_conditions_see_earlier_operations_of_the_same_entry() -> None:
    site = Site()
    bucket = site.bucket()
    first, second, third = site.all(
        put(bucket, "key", inline(b"1")),
        put(bucket, "key", inline(b"2"), IfAbsent()),
        put(bucket, "key", inline(b"33"), IfMatch("etag-1")),
    )
    assert first.position == 0
    assert isinstance(second, PreconditionFailed)
    assert site.state.head(bucket, "key") == third
    assert site.state.usage(bucket) == BucketUsage(1, 1, 2, 0)
    audit(site.store)
