"""Commands on objects. The head is the newest version unless that is a delete marker; all others lie in VERSIONS."""

from __future__ import annotations

import msgspec

from edgestore.catalog import commands, extents, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, head_row, inline_row, number
from edgestore.catalog.state import newest_row, version_row
from edgestore.errors import BadRequest, NoSuchKey, PreconditionFailed
from edgestore.records import (
    BucketRecord,
    Condition,
    IfAbsent,
    IfMatch,
    Versioning,
    VersionKind,
    VersionRecord,
)

KEY_MAX_BYTES = 1024


def check_condition(condition: Condition, current: VersionRecord | None) -> None:
    """Raises PreconditionFailed, or NoSuchKey for IfMatch where there is nothing to match."""
    if condition is None:
        return
    if isinstance(condition, IfAbsent):
        if current is not None:
            raise PreconditionFailed("the key exists already", condition="If-None-Match")
        return
    if current is None:
        raise NoSuchKey("there is no current version to match")
    if not _matches(condition, current):
        raise PreconditionFailed("the current version is another one: read it again", condition="If-Match")


def _matches(condition: IfMatch, current: VersionRecord) -> bool:
    if condition.etag not in ("", "*", current.etag):
        return False
    if condition.size_bytes is not None and condition.size_bytes != current.size_bytes:
        return False
    return condition.modified_ms is None or condition.modified_ms // 1000 == current.modified_ms // 1000


def check_key(key: str) -> None:
    """Raises BadRequest for what is no key."""
    if not key or (len(key) * 4 > KEY_MAX_BYTES and len(key.encode()) > KEY_MAX_BYTES):
        raise BadRequest(f"a key has 1 to {KEY_MAX_BYTES} bytes", limit_bytes=KEY_MAX_BYTES)


def put_object(context: Context, command: commands.PutObject) -> VersionRecord:
    """A new current version."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    check_key(command.key)
    current = context.state.head(bucket, command.key)
    check_condition(command.condition, current)
    content = command.content
    record = VersionRecord(
        kind=VersionKind.OBJECT,
        log_index=context.index,
        position=context.position,
        site_incarnation=context.site.site_incarnation,
        is_null=bucket.versioning is not Versioning.ENABLED,
        log_time_ms=context.log_time_ms,
        size_bytes=content.size_bytes,
        etag=content.etag,
        modified_ms=command.modified_ms,
        owner=command.owner,
        storage_class=command.storage_class,
        checksums=content.checksums,
        inline=bool(content.inline),
        extents=extents.name_extents(context, bucket, content.extents) if content.extents else (),
        headers=command.headers,
        metadata=command.metadata,
    )
    if content.inline:
        _put_inline(context, bucket, record, content.inline)
    install(context, bucket, command.key, record, current)
    return record


def _put_inline(context: Context, bucket: BucketRecord, record: VersionRecord, body: bytes) -> None:
    at = inline_row(context.group, bucket.owner, bucket.bucket_id, record.log_index, record.position)
    context.transaction.put(at, body)


def install(
    context: Context, bucket: BucketRecord, key: str, record: VersionRecord, current: VersionRecord | None
) -> None:
    """Makes `record` the head; what it replaces goes, what it hides moves back."""
    at = head_row(context.group, bucket.owner, bucket.bucket_id, key)
    context.transaction.put(at, rows.encode(record))
    if record.is_null and bucket.versioning is Versioning.OFF and current is not None and current.is_null:
        # What nearly every overwriting put is: one row for another, and the counts are moved once.
        extents.release_version(context, bucket, current)
        context.move(bucket, size_bytes=record.size_bytes - current.size_bytes)
        return
    _make_room(context, bucket, key, record.is_null, current)
    context.move(bucket, current=0 if current else 1, versions=1, size_bytes=record.size_bytes)


def _make_room(
    context: Context, bucket: BucketRecord, key: str, null_comes: bool, current: VersionRecord | None
) -> None:
    if null_comes and bucket.versioning is Versioning.SUSPENDED:
        _remove_null(context, bucket, key)
    if current is None:
        return
    if null_comes and current.is_null:
        extents.release_version(context, bucket, current)
        context.move(bucket, versions=-1, size_bytes=-current.size_bytes)
    else:
        _put_behind(context, bucket, key, current)


def _remove_null(context: Context, bucket: BucketRecord, key: str) -> None:
    """The null version behind the head, if there is one, is replaced."""
    rest = number(bucket.bucket_id) + key.encode()
    pointer = context.get(Table.NULLS, bucket.owner, rest)
    if pointer is None:
        return
    at = version_row(context.group, bucket, key, *rows.position(pointer))
    data = context.transaction.get(at)
    if data is not None:
        record = rows.version(data)
        extents.release_version(context, bucket, record)
        context.move(bucket, versions=-1, size_bytes=-record.size_bytes)
        context.transaction.delete(at)
    context.delete(Table.NULLS, bucket.owner, rest)


def _put_behind(context: Context, bucket: BucketRecord, key: str, record: VersionRecord) -> None:
    at = version_row(context.group, bucket, key, record.log_index, record.position)
    context.transaction.put(at, rows.encode(record))
    if record.is_null:
        place = rows.encode((record.log_index, record.position))
        context.put(Table.NULLS, bucket.owner, number(bucket.bucket_id) + key.encode(), place)


def copy_object(context: Context, command: commands.CopyObject) -> VersionRecord:
    """By reference: extents are shared, an inline body is copied."""
    source_bucket = context.state.bucket_by_id(command.source_bucket_id)
    bucket = context.state.bucket_by_id(command.bucket_id)
    check_key(command.key)
    source = _find_source(context, source_bucket, command)
    current = context.state.head(bucket, command.key)
    check_condition(command.condition, current)
    if source_bucket.owner != bucket.owner and source.extents:
        raise NoSuchKey("a copy to another owner copies bytes, not references")
    record = msgspec.structs.replace(
        source,
        modified_ms=command.modified_ms,
        log_index=context.index,
        position=context.position,
        site_incarnation=context.site.site_incarnation,
        is_null=bucket.versioning is not Versioning.ENABLED,
        owner=command.owner,
        storage_class=command.storage_class,
        checksums=source.checksums if command.checksums is None else command.checksums,
        log_time_ms=context.log_time_ms,
        headers=source.headers if command.headers is None else command.headers,
        metadata=source.metadata if command.metadata is None else command.metadata,
        upload_id="",
    )
    if source.inline:
        _put_inline(context, bucket, record, context.state.inline(source_bucket, source))
    extents.share_extents(context, bucket.owner, source.extents)
    install(context, bucket, command.key, record, current)
    return record


def _find_source(context: Context, bucket: BucketRecord, command: commands.CopyObject) -> VersionRecord:
    """The version that the proposer read, null or not."""
    _, log_index, position = command.source_version
    found = context.state.head(bucket, command.source_key)
    if found is None or (found.log_index, found.position) != (log_index, position):
        data = context.transaction.get(version_row(context.group, bucket, command.source_key, log_index, position))
        found = rows.version(data) if data is not None else None
    if found is None or found.kind is not VersionKind.OBJECT:
        raise NoSuchKey("the source of the copy is gone", key=command.source_key)
    return found


def delete_object(context: Context, command: commands.DeleteObject) -> commands.Deleted:
    """See commands.DeleteObject."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    check_key(command.key)
    if command.version is not None:
        return _delete_version(context, bucket, command, command.version)
    current = context.state.head(bucket, command.key)
    check_condition(command.condition, current)
    if bucket.versioning is Versioning.OFF:
        if current is not None:
            _remove_head(context, bucket, command.key, current)
        return commands.Deleted()
    marker = VersionRecord(
        kind=VersionKind.DELETE_MARKER,
        size_bytes=0,
        etag="",
        modified_ms=command.modified_ms,
        log_index=context.index,
        position=context.position,
        site_incarnation=context.site.site_incarnation,
        is_null=bucket.versioning is Versioning.SUSPENDED,
        owner=command.owner,
        storage_class="STANDARD",
        checksums=(),
        log_time_ms=context.log_time_ms,
    )
    _make_room(context, bucket, command.key, marker.is_null, current)
    if current is not None:
        context.transaction.delete(head_row(context.group, bucket.owner, bucket.bucket_id, command.key))
    _put_behind(context, bucket, command.key, marker)
    context.move(bucket, current=-1 if current else 0, versions=1)
    return commands.Deleted(marker.version_id, delete_marker=True)


def _remove_head(context: Context, bucket: BucketRecord, key: str, head: VersionRecord) -> None:
    context.transaction.delete(head_row(context.group, bucket.owner, bucket.bucket_id, key))
    extents.release_version(context, bucket, head)
    context.move(bucket, current=-1, versions=-1, size_bytes=-head.size_bytes)


def _delete_version(
    context: Context, bucket: BucketRecord, command: commands.DeleteObject, version: tuple[int, ...]
) -> commands.Deleted:
    found = context.state.version(bucket, command.key, version)
    if command.condition is not None:
        check_condition(command.condition, found)
    if found is None:
        return commands.Deleted()
    head = context.state.head(bucket, command.key)
    if head == found:
        _remove_head(context, bucket, command.key, head)
    else:
        context.transaction.delete(version_row(context.group, bucket, command.key, found.log_index, found.position))
        if found.is_null:
            context.delete(Table.NULLS, bucket.owner, number(bucket.bucket_id) + command.key.encode())
        extents.release_version(context, bucket, found)
        context.move(bucket, versions=-1, size_bytes=-found.size_bytes)
    if head is None or head == found:
        _promote(context, bucket, command.key)
    return commands.Deleted(found.version_id, found.kind is VersionKind.DELETE_MARKER)


def _promote(context: Context, bucket: BucketRecord, key: str) -> None:
    """The newest version left becomes the head, unless it is a delete marker."""
    newest = newest_row(context.transaction, context.group, bucket, key)
    if newest is None or newest.kind is VersionKind.DELETE_MARKER:
        return
    context.transaction.delete(version_row(context.group, bucket, key, newest.log_index, newest.position))
    rest = number(bucket.bucket_id) + key.encode()
    if newest.is_null:
        context.delete(Table.NULLS, bucket.owner, rest)
    context.put(Table.HEADS, bucket.owner, rest, rows.encode(newest))
    context.move(bucket, current=1)
