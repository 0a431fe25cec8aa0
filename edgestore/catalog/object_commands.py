"""The commands on buckets, objects and uploads, and what new bytes are; `commands` carries their names too.

Rule: as in `commands`.
"""

from __future__ import annotations

import msgspec

from edgestore.catalog.bounds import (
    Fragments,
    Headers,
    Millis,
    Number,
    ShortBytes,
    Size,
    Tenant,
    Text,
    VersionName,
    Word,
)
from edgestore.records import Checksum, ChecksumType, ChunkRef, Condition, Versioning


class NewExtent(msgspec.Struct, frozen=True, array_like=True):
    """An extent named for the first time, with its one reference. `extent_id` is the id of its first chunk.

    `exceptions`: (chunk position, shard, node) that its owner does not hold; `missing`: (chunk position, shard) that
    nobody has confirmed to be durable. All others are, at their owners under `layout_epoch` (rule 1).
    """

    extent_id: ShortBytes
    chunks: tuple[ChunkRef, ...]
    size_bytes: Size
    k: Fragments = 1
    m: Fragments = 0
    layout_epoch: Number = 1
    tolerate: Fragments = 0
    exceptions: tuple[tuple[Number, Number, Number], ...] = ()
    missing: tuple[tuple[Number, Number], ...] = ()


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What the bytes of a new version or part are: inline, or new extents (an empty object has neither)."""

    size_bytes: Size
    etag: Word
    checksums: tuple[Checksum, ...] = ()
    inline: bytes = b""
    extents: tuple[NewExtent, ...] = ()


class CreateBucket(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Result: BucketRecord. Fails: BucketExists(owned=...), TooLarge when the owner has its maximum of buckets."""

    name: Word
    owner: Tenant
    created_ms: Millis
    region: Word
    buckets_max: Number = 1000


class DeleteBucket(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Aborts its uploads. Fails: NoSuchBucket, BucketNotEmpty (versions, delete markers, or too many uploads)."""

    bucket_id: Number


class SetVersioning(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Fails: NoSuchBucket, BadRequest for a return to OFF."""

    bucket_id: Number
    versioning: Versioning


class PutObject(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Result: VersionRecord. Fails: NoSuchBucket, PreconditionFailed, NoSuchKey (nothing to match), StaleChunk,
    StaleFragments."""

    bucket_id: Number
    key: Text
    owner: Tenant
    modified_ms: Millis
    content: Content
    headers: Headers = {}
    metadata: Headers = {}
    storage_class: Word = "STANDARD"
    condition: Condition = None


class CopyObject(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Copies by reference. `source_version`: (incarnation, log index, position). Result: VersionRecord.

    `headers`/`metadata` None: those of the source. Fails: NoSuchBucket, NoSuchKey (it went), PreconditionFailed.
    `checksums` None: those of the source.
    """

    source_bucket_id: Number
    source_key: Text
    source_version: tuple[Number, Number, Number]
    bucket_id: Number
    key: Text
    owner: Tenant
    modified_ms: Millis
    headers: Headers | None = None
    metadata: Headers | None = None
    storage_class: Word = "STANDARD"
    checksums: tuple[Checksum, ...] | None = None
    condition: Condition = None


class DeleteObject(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Deletes the current version, or writes a delete marker where versioning asks for it, or removes a named version.

    `version`: None; () for the null version; or (site incarnation, log index, position). Result: Deleted.
    Fails: NoSuchBucket, PreconditionFailed. Deleting what is not there succeeds.
    """

    bucket_id: Number
    key: Text
    owner: Tenant
    modified_ms: Millis
    version: VersionName | None = None
    condition: Condition = None


class CreateUpload(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Begins a multipart upload. `upload_id`: 32 hex digits from the proposer's entropy. Result: UploadRecord."""

    bucket_id: Number
    key: Text
    upload_id: Word
    owner: Tenant
    started_ms: Millis
    headers: Headers = {}
    metadata: Headers = {}
    storage_class: Word = "STANDARD"
    checksum_algorithm: Word = ""
    checksum_type: ChecksumType = ChecksumType.COMPOSITE


class PutPart(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Adds or replaces a part. Never inline. Result: PartRecord. Fails: NoSuchUpload, StaleChunk, StaleFragments."""

    bucket_id: Number
    key: Text
    upload_id: Word
    number: Number
    modified_ms: Millis
    content: Content


class CompleteUpload(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Makes the parts one version, by reference. `parts`: (number, etag), ascending. Result: VersionRecord.

    `etag` and `checksums` were computed by the proposer from the same parts (etags are compared again here).
    Parts left out are dropped with a cursor afterwards. Fails: NoSuchUpload, InvalidPart, PreconditionFailed.
    """

    bucket_id: Number
    key: Text
    upload_id: Word
    parts: tuple[tuple[Number, Word], ...]
    etag: Word
    modified_ms: Millis
    checksums: tuple[Checksum, ...] = ()
    condition: Condition = None


class AbortUpload(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Fails: NoSuchUpload. Its parts are dropped with a cursor afterwards."""

    bucket_id: Number
    key: Text
    upload_id: Word
