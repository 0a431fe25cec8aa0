"""Commands on multipart uploads: parts become one version by reference, leftovers go by a drop job."""

from __future__ import annotations

from edgestore.catalog import commands, extents, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, escape, number
from edgestore.catalog.state import upload_bytes
from edgestore.catalog.versions import check_condition, install
from edgestore.errors import InvalidPart
from edgestore.records import (
    BucketRecord,
    PartRecord,
    PartSpan,
    UploadRecord,
    Versioning,
    VersionKind,
    VersionRecord,
)


def create_upload(context: Context, command: commands.CreateUpload) -> UploadRecord:
    """Begins an upload."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    record = UploadRecord(
        upload_id=command.upload_id,
        bucket_id=command.bucket_id,
        key=command.key,
        owner=command.owner,
        started_ms=command.started_ms,
        headers=command.headers,
        metadata=command.metadata,
        storage_class=command.storage_class,
        checksum_algorithm=command.checksum_algorithm,
        checksum_type=command.checksum_type,
    )
    context.put(Table.UPLOADS, bucket.owner, _upload_rest(bucket, command.key, command.upload_id), rows.encode(record))
    return record


def _upload_rest(bucket: BucketRecord, key: str, upload_id: str) -> bytes:
    return number(bucket.bucket_id) + escape(key.encode()) + upload_bytes(upload_id)


def _part_rest(upload_id: str, part: int) -> bytes:
    return upload_bytes(upload_id) + part.to_bytes(2, "big")


def put_part(context: Context, command: commands.PutPart) -> PartRecord:
    """Adds or replaces a part."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    context.state.upload(bucket, command.key, command.upload_id)
    rest = _part_rest(command.upload_id, command.number)
    before = context.get(Table.PARTS, bucket.owner, rest)
    content = command.content
    record = PartRecord(
        number=command.number,
        size_bytes=content.size_bytes,
        etag=content.etag,
        modified_ms=command.modified_ms,
        checksums=content.checksums,
        extents=extents.name_extents(context, bucket.owner, content.extents),
    )
    if before is not None:
        extents.release(context, bucket.owner, rows.part(before).extents)
    context.put(Table.PARTS, bucket.owner, rest, rows.encode(record))
    return record


def complete_upload(context: Context, command: commands.CompleteUpload) -> VersionRecord:
    """The parts named become the current version."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    upload = context.state.upload(bucket, command.key, command.upload_id)
    current = context.state.head(bucket, command.key)
    check_condition(command.condition, current)
    parts = [_named_part(context, bucket, command.upload_id, *named) for named in command.parts]
    record = VersionRecord(
        kind=VersionKind.OBJECT,
        size_bytes=sum(part.size_bytes for part in parts),
        etag=command.etag,
        modified_ms=command.modified_ms,
        log_index=context.index,
        position=context.position,
        site_incarnation=context.site.site_incarnation,
        is_null=bucket.versioning is not Versioning.ENABLED,
        owner=upload.owner,
        storage_class=upload.storage_class,
        checksums=command.checksums,
        log_time_ms=context.log_time_ms,
        extents=tuple(span for part in parts for span in part.extents),
        parts=tuple(PartSpan(part.number, part.size_bytes, part.checksums, part.etag) for part in parts),
        headers=upload.headers,
        metadata=upload.metadata,
    )
    end_upload(context, bucket, command.key, command.upload_id, tuple(part.number for part in parts))
    install(context, bucket, command.key, record, current)
    return record


def _named_part(context: Context, bucket: BucketRecord, upload_id: str, part: int, etag: str) -> PartRecord:
    data = context.get(Table.PARTS, bucket.owner, _part_rest(upload_id, part))
    record = rows.part(data) if data is not None else None
    if record is None or record.etag != etag:
        raise InvalidPart(f"part {part} is missing or has another ETag: upload it again", part=part)
    return record


def abort_upload(context: Context, command: commands.AbortUpload) -> None:
    """The upload and all its parts go."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    context.state.upload(bucket, command.key, command.upload_id)
    end_upload(context, bucket, command.key, command.upload_id, ())


def end_upload(context: Context, bucket: BucketRecord, key: str, upload_id: str, kept: tuple[int, ...]) -> None:
    """Removes the upload; its parts go by a drop job, which releases those that are not kept."""
    context.delete(Table.UPLOADS, bucket.owner, _upload_rest(bucket, key, upload_id))
    extents.begin_drop(context, rows.DropJob(bucket.owner, (), upload_bytes(upload_id), kept))
