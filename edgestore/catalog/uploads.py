"""Commands on multipart uploads: parts become one version by reference, many leftovers go by a drop job."""

from __future__ import annotations

from itertools import islice, pairwise

from edgestore.catalog import commands, extents, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import PREFIX_BYTES, UPLOAD_ID_BYTES, successor
from edgestore.catalog.state import PART_NUMBER_MAX, part_row, upload_bytes, upload_row
from edgestore.catalog.versions import check_condition, check_key, install
from edgestore.errors import BadRequest, Conflict, InvalidPart, InvalidPartOrder
from edgestore.records import (
    BucketRecord,
    ExtentSpan,
    PartRecord,
    PartSpan,
    UploadRecord,
    Versioning,
    VersionKind,
    VersionRecord,
)

PARTS_DROPPED_AT_ONCE_MAX = 64


def create_upload(context: Context, command: commands.CreateUpload) -> UploadRecord:
    """Begins an upload."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    check_key(command.key)
    if upload_bytes(command.upload_id).hex() != command.upload_id:
        raise BadRequest("an upload id has 32 lower-case hex digits")
    at = upload_row(context.group, bucket, command.key, command.upload_id)
    if context.transaction.get(at) is not None:
        raise Conflict("the upload id is taken", upload_id=command.upload_id)
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
    context.transaction.put(at, rows.encode(record))
    context.move(bucket, uploads=1)
    return record


def put_part(context: Context, command: commands.PutPart) -> PartRecord:
    """Adds or replaces a part."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    context.state.upload(bucket, command.key, command.upload_id)
    if not 1 <= command.number <= PART_NUMBER_MAX or command.content.inline:
        raise BadRequest(f"a part has a number from 1 to {PART_NUMBER_MAX} and is never inline", part=command.number)
    before = context.state.part(bucket, command.upload_id, command.number)
    content = command.content
    record = PartRecord(
        number=command.number,
        size_bytes=content.size_bytes,
        etag=content.etag,
        modified_ms=command.modified_ms,
        checksums=content.checksums,
        extents=extents.name_extents(context, bucket, content.extents),
    )
    if before is not None:
        extents.release(context, bucket.owner, before.extents)
    context.transaction.put(part_row(context.group, bucket, command.upload_id, command.number), rows.encode(record))
    return record


def complete_upload(context: Context, command: commands.CompleteUpload) -> VersionRecord:
    """The parts named become the current version."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    upload = context.state.upload(bucket, command.key, command.upload_id)
    current = context.state.head(bucket, command.key)
    check_condition(command.condition, current)
    parts = _named_parts(context, bucket, command)
    record = VersionRecord(
        kind=VersionKind.OBJECT,
        log_index=context.index,
        position=context.position,
        site_incarnation=context.site.site_incarnation,
        is_null=bucket.versioning is not Versioning.ENABLED,
        log_time_ms=context.log_time_ms,
        size_bytes=sum(part.size_bytes for part in parts),
        etag=command.etag,
        modified_ms=command.modified_ms,
        owner=upload.owner,
        storage_class=upload.storage_class,
        checksums=command.checksums,
        extents=tuple(span for part in parts for span in part.extents),
        parts=tuple(PartSpan(part.number, part.size_bytes, part.checksums, part.etag) for part in parts),
        headers=upload.headers,
        metadata=upload.metadata,
        upload_id=command.upload_id,
    )
    end_upload(context, bucket, command.key, command.upload_id, kept=tuple(part.number for part in parts))
    install(context, bucket, command.key, record, current)
    return record


def _named_parts(context: Context, bucket: BucketRecord, command: commands.CompleteUpload) -> list[PartRecord]:
    """The parts as they are stored now. Raises InvalidPart, InvalidPartOrder."""
    if not command.parts:
        raise InvalidPart("a completion names at least one part")
    if any(first[0] >= second[0] for first, second in pairwise(command.parts)):
        raise InvalidPartOrder("the parts are not in ascending order")
    stored = {part.number: part for part in context.state.parts(bucket, command.upload_id)}
    found = []
    for number, etag in command.parts:
        part = stored.get(number)
        if part is None or part.etag != etag:
            raise InvalidPart(f"part {number} is missing or has another ETag: upload it again", part=number)
        found.append(part)
    return found


def abort_upload(context: Context, command: commands.AbortUpload) -> None:
    """The upload and all its parts go."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    context.state.upload(bucket, command.key, command.upload_id)
    end_upload(context, bucket, command.key, command.upload_id)


def end_upload(context: Context, bucket: BucketRecord, key: str, upload_id: str, *, kept: tuple[int, ...] = ()) -> None:
    """Removes the upload and its parts, and releases those that are not kept: at once, or by a drop job."""
    context.transaction.delete(upload_row(context.group, bucket, key, upload_id))
    context.move(bucket, uploads=-1)
    prefix = part_row(context.group, bucket, upload_id, 0)[: PREFIX_BYTES + UPLOAD_ID_BYTES]
    found = list(islice(context.transaction.scan(prefix, successor(prefix)), PARTS_DROPPED_AT_ONCE_MAX + 1))
    if len(found) > PARTS_DROPPED_AT_ONCE_MAX:
        extents.begin_drop(context, rows.DropJob(bucket.owner, (), upload_bytes(upload_id), kept))
        return
    dropped: list[ExtentSpan] = []
    for at, value in found:
        context.transaction.delete(at)
        part = rows.part(value)
        if part.number not in kept:
            dropped.extend(part.extents)
    extents.release(context, bucket.owner, tuple(dropped))
