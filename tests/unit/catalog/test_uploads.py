"""Multipart uploads: parts, completion by reference, leftovers."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.errors import (
    BadRequest,
    Conflict,
    InvalidPart,
    InvalidPartOrder,
    NoSuchBucket,
    NoSuchUpload,
    PreconditionFailed,
)
from edgestore.records import BucketUsage, Checksum, ChecksumType, IfAbsent, Versioning
from tests.unit.catalog.audit import audit
from tests.unit.catalog.site import OWNER, Site, inline

UPLOAD = "0123456789abcdef" * 2
OTHER = "f" * 32


def begun(*numbers: int) -> tuple[Site, object, dict[int, commands.Content]]:
    site = Site()
    bucket = site.bucket()
    site.upload(bucket, "key", UPLOAD)
    contents = {number: site.content() for number in numbers}
    for number, content in contents.items():
        site.part(bucket, "key", UPLOAD, number, content)
    return site, bucket, contents


def test_parts_become_one_version_by_reference() -> None:
    site = Site()
    bucket = site.bucket()
    checksum = Checksum("CRC32", b"1234", ChecksumType.COMPOSITE)
    site.do(
        commands.CreateUpload(
            bucket.bucket_id, "key", UPLOAD, OWNER, 1, {"h": "1"}, {"m": "2"}, "COLD", "CRC32", ChecksumType.COMPOSITE
        )
    )
    contents = [site.content(site.extent(2)), site.content()]
    for number, content in zip((2, 7), contents, strict=True):
        site.part(bucket, "key", UPLOAD, number, content)
    assert site.state.usage(bucket) == BucketUsage(0, 0, 0, 1)
    record = site.do(
        commands.CompleteUpload(
            bucket.bucket_id, "key", UPLOAD, ((2, contents[0].etag), (7, contents[1].etag)), "whole-2", 5, (checksum,)
        )
    )
    assert site.state.head(bucket, "key") == record
    assert (record.size_bytes, record.etag, record.checksums) == (3000, "whole-2", (checksum,))
    assert (record.headers, record.metadata, record.storage_class) == ({"h": "1"}, {"m": "2"}, "COLD")
    assert [(part.number, part.size_bytes, part.etag) for part in record.parts] == [
        (2, 2000, contents[0].etag),
        (7, 1000, contents[1].etag),
    ]
    assert [span.extent_id for span in record.extents] == [content.extents[0].extent_id for content in contents]
    assert site.state.usage(bucket) == BucketUsage(1, 1, 3000, 0)
    assert site.state.condemned(10) == []
    audit(site.store)


def test_completed_upload_is_gone() -> None:
    site, bucket, contents = begun(1)
    site.complete(bucket, "key", UPLOAD, (1, contents[1].etag))
    for command in (
        commands.PutPart(bucket.bucket_id, "key", UPLOAD, 1, 0, site.content()),
        commands.CompleteUpload(bucket.bucket_id, "key", UPLOAD, ((1, contents[1].etag),), "e", 0),
        commands.AbortUpload(bucket.bucket_id, "key", UPLOAD),
    ):
        with pytest.raises(NoSuchUpload):
            site.do(command)
    assert site.state.parts(bucket, UPLOAD) == []
    audit(site.store)


def test_replacing_a_part_drops_the_earlier_bytes() -> None:
    site, bucket, contents = begun(1)
    again = site.content()
    site.part(bucket, "key", UPLOAD, 1, again)
    assert [chunk_id for chunk_id, _ in site.state.condemned(10)] == [contents[1].extents[0].extent_id]
    part = site.state.part(bucket, UPLOAD, 1)
    assert part is not None
    assert part.etag == again.etag
    audit(site.store)


@pytest.mark.parametrize("count", [3, 70])
def test_parts_left_out_are_dropped(count: int) -> None:
    site, bucket, contents = begun(*range(1, count + 1))
    record = site.complete(bucket, "key", UPLOAD, (2, contents[2].etag))
    audit(site.store)
    assert (site.run_drops(pieces_max=16) > 1) is (count > 64)
    assert len(site.state.condemned(1000)) == count - 1
    assert all(site.state.extents(OWNER, record.extents))
    assert site.state.parts(bucket, UPLOAD) == []
    audit(site.store)


@pytest.mark.parametrize("count", [0, 3, 70])
def test_abort_drops_all_parts(count: int) -> None:
    site, bucket, _ = begun(*range(1, count + 1))
    site.do(commands.AbortUpload(bucket.bucket_id, "key", UPLOAD))
    audit(site.store)
    site.run_drops(pieces_max=7)
    assert len(site.state.condemned(1000)) == count
    assert site.state.usage(bucket) == BucketUsage()
    audit(site.store)


@pytest.mark.parametrize(
    ("parts", "failure"),
    [
        ((), InvalidPart),
        (((1, "wrong"),), InvalidPart),
        (((9, "etag"),), InvalidPart),
        (((2, "2"), (1, "1")), InvalidPartOrder),
        (((1, "1"), (1, "1")), InvalidPartOrder),
    ],
)
def test_part_list_is_checked(parts: tuple[tuple[int, str], ...], failure: type[Exception]) -> None:
    site, bucket, contents = begun(1, 2)
    etags = {str(number): content.etag for number, content in contents.items()}
    named = tuple((number, etags.get(etag, etag)) for number, etag in parts)
    with pytest.raises(failure):
        site.complete(bucket, "key", UPLOAD, *named)
    assert len(site.state.parts(bucket, UPLOAD)) == 2
    audit(site.store)


def test_completion_takes_conditions_and_a_refused_one_may_be_repeated() -> None:
    site, bucket, contents = begun(1)
    site.put(bucket, "key", inline(b"there"))
    command = commands.CompleteUpload(bucket.bucket_id, "key", UPLOAD, ((1, contents[1].etag),), "e", 0, (), IfAbsent())
    with pytest.raises(PreconditionFailed):
        site.do(command)
    audit(site.store)
    site.delete(bucket, "key")
    assert site.do(command).size_bytes == 1000
    audit(site.store)


def test_completion_in_a_versioned_bucket_keeps_the_version_before() -> None:
    site, bucket, contents = begun(1)
    site.put(bucket, "key", inline(b"there"))
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED))
    record = site.complete(bucket, "key", UPLOAD, (1, contents[1].etag))
    assert not record.is_null
    assert site.state.version(bucket, "key", ()) is not None
    audit(site.store)


@pytest.mark.parametrize("upload_id", ["", "../../x", "0" * 31, "G" * 32, OTHER, "ü" * 32, UPLOAD.upper()])
def test_unknown_upload_is_refused(upload_id: str) -> None:
    site, bucket, _ = begun(1)
    if upload_id.lower() == UPLOAD:
        return
    with pytest.raises(NoSuchUpload):
        site.state.upload(bucket, "key", upload_id)
    with pytest.raises(NoSuchUpload):
        site.do(commands.PutPart(bucket.bucket_id, "key", upload_id, 1, 0, site.content()))


def test_upload_belongs_to_its_key_and_bucket() -> None:
    site, bucket, _ = begun(1)
    other = site.bucket("other")
    for of, key in ((bucket, "other key"), (other, "key")):
        with pytest.raises(NoSuchUpload):
            site.do(commands.AbortUpload(of.bucket_id, key, UPLOAD))


def test_upload_ids_are_checked_and_not_taken_twice() -> None:
    site, bucket, _ = begun()
    with pytest.raises(Conflict):
        site.upload(bucket, "key", UPLOAD)
    for upload_id in ("short", "X" * 32, "0" * 31 + "G"):
        with pytest.raises(BadRequest):
            site.upload(bucket, "key", upload_id)
    with pytest.raises(NoSuchBucket):
        site.do(commands.CreateUpload(99, "key", OTHER, OWNER, 0))
    assert site.state.usage(bucket).uploads == 1


@pytest.mark.parametrize("number", [-1, 0, 10_001, 70_000, 2**63])
def test_part_number_out_of_range_is_refused(number: int) -> None:
    site, bucket, _ = begun(1)
    with pytest.raises(BadRequest):
        site.part(bucket, "key", UPLOAD, number, site.content())
    with pytest.raises(BadRequest):
        site.part(bucket, "key", UPLOAD, 2, inline(b"inline"))
    assert site.state.part(bucket, UPLOAD, number) is None
    assert [part.number for part in site.state.parts(bucket, UPLOAD)] == [1]


def test_parts_are_listed_from_a_number_on() -> None:
    site, bucket, _ = begun(1, 2, 5, 10_000)
    for after, limit, expected in [
        (0, 10, [1, 2, 5, 10_000]),
        (-5, 2, [1, 2]),
        (2, 1, [5]),
        (5, 10, [10_000]),
        (10_000, 10, []),
        (2**31, 10, []),
        (0, 0, []),
    ]:
        assert [part.number for part in site.state.parts(bucket, UPLOAD, after=after, limit=limit)] == expected
