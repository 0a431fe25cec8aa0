"""Every change that the catalog knows, as bytes: an entry is a header and up to some hundred operations (rule 9).

Rule: an operation is deterministic, bounded and validated when it is applied; it is never refused for being old data,
only for its format version. Tags and field order are the disk format: append only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgestore.catalog.site_commands import (
    AddNode,
    CreateToken,
    DropToken,
    FoundNode,
    PlaceExtent,
    QuarantineMember,
    RaiseFeatureLevel,
    RetireLayouts,
    SetAuthority,
    SetBucketPolicy,
    SetNodeQuality,
    SetNodeState,
    SetNodeWeight,
    SetSiteSettings,
    SwapExtent,
    UpdateNode,
)
from edgestore.catalog.site_commands import NewNode as NewNode
from edgestore.records import (
    Checksum,
    ChecksumType,
    ChunkRef,
    Condition,
    Versioning,
)

ENTRY_FORMAT = 1
FEATURE_LEVEL = 1


class NewExtent(msgspec.Struct, frozen=True, array_like=True):
    """An extent named for the first time, with its one reference. `extent_id` is the id of its first chunk.

    `exceptions`: (chunk position, shard, node) that its owner does not hold; `missing`: (chunk position, shard) that
    nobody has confirmed to be durable. All others are, at their owners under `layout_epoch` (rule 1).
    """

    extent_id: bytes
    chunks: tuple[ChunkRef, ...]
    size_bytes: int
    k: int = 1
    m: int = 0
    layout_epoch: int = 1
    tolerate: int = 0
    exceptions: tuple[tuple[int, int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What the bytes of a new version or part are: inline, or new extents (an empty object has neither)."""

    size_bytes: int
    etag: str
    checksums: tuple[Checksum, ...] = ()
    inline: bytes = b""
    extents: tuple[NewExtent, ...] = ()


class CreateBucket(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Result: BucketRecord. Fails: BucketExists(owned=...), TooLarge when the owner has its maximum of buckets."""

    name: str
    owner: int
    created_ms: int
    region: str
    buckets_max: int = 1000


class DeleteBucket(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Aborts its uploads. Fails: NoSuchBucket, BucketNotEmpty (versions, delete markers, or too many uploads)."""

    bucket_id: int


class SetVersioning(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Fails: NoSuchBucket, BadRequest for a return to OFF."""

    bucket_id: int
    versioning: Versioning


class PutObject(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Result: VersionRecord. Fails: NoSuchBucket, PreconditionFailed, NoSuchKey (nothing to match), StaleChunk,
    StaleFragments."""

    bucket_id: int
    key: str
    owner: int
    modified_ms: int
    content: Content
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    storage_class: str = "STANDARD"
    condition: Condition = None


class CopyObject(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Copies by reference. `source_version`: (incarnation, log index, position). Result: VersionRecord.

    `headers`/`metadata` None: those of the source. Fails: NoSuchBucket, NoSuchKey (it went), PreconditionFailed.
    `checksums` None: those of the source.
    """

    source_bucket_id: int
    source_key: str
    source_version: tuple[int, int, int]
    bucket_id: int
    key: str
    owner: int
    modified_ms: int
    headers: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    storage_class: str = "STANDARD"
    checksums: tuple[Checksum, ...] | None = None
    condition: Condition = None


class DeleteObject(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Deletes the current version, or writes a delete marker where versioning asks for it, or removes a named version.

    `version`: None; () for the null version; or (site incarnation, log index, position). Result: Deleted.
    Fails: NoSuchBucket, PreconditionFailed. Deleting what is not there succeeds.
    """

    bucket_id: int
    key: str
    owner: int
    modified_ms: int
    version: tuple[int, ...] | None = None
    condition: Condition = None


class CreateUpload(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Begins a multipart upload. `upload_id`: 32 hex digits from the proposer's entropy. Result: UploadRecord."""

    bucket_id: int
    key: str
    upload_id: str
    owner: int
    started_ms: int
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: ChecksumType = ChecksumType.COMPOSITE


class PutPart(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Adds or replaces a part. Never inline. Result: PartRecord. Fails: NoSuchUpload, StaleChunk, StaleFragments."""

    bucket_id: int
    key: str
    upload_id: str
    number: int
    modified_ms: int
    content: Content


class CompleteUpload(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Makes the parts one version, by reference. `parts`: (number, etag), ascending. Result: VersionRecord.

    `etag` and `checksums` were computed by the proposer from the same parts (etags are compared again here).
    Parts left out are dropped with a cursor afterwards. Fails: NoSuchUpload, InvalidPart, PreconditionFailed.
    """

    bucket_id: int
    key: str
    upload_id: str
    parts: tuple[tuple[int, str], ...]
    etag: str
    modified_ms: int
    checksums: tuple[Checksum, ...] = ()
    condition: Condition = None


class AbortUpload(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Fails: NoSuchUpload. Its parts are dropped with a cursor afterwards."""

    bucket_id: int
    key: str
    upload_id: str


class RegisterWriter(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Opens a writer for one start of `node` and closes its earlier ones. Result: WriterRecord."""

    node: str


class AdvanceWriter(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Moves the low-water mark up (never down)."""

    writer: int
    low_water: int


class CloseWriter(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """No chunk of this writer is named for the first time after this."""

    writer: int


class CondemnChunks(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Condemns those of `chunk_ids` that are garbage: nothing names them, nothing may any more. Result: list of ids."""

    chunk_ids: tuple[bytes, ...]


class ReclaimedChunks(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Their fragments are gone: the condemned rows go too."""

    chunk_ids: tuple[bytes, ...]


class ContinueDrop(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Does the next bounded piece of a drop job (an ended upload, a huge version). Result: True when done."""

    job_id: bytes
    pieces_max: int = 256


class PutTenant(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Creates an owner, or changes its name and mail. `tenant_id` 0: take the next. Result: TenantRecord."""

    tenant_id: int
    canonical_id: str
    name: str
    email: str = ""


class PutKey(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Creates a key pair. Result: KeyRecord. Fails: AccessKeyExists (with another secret or owner)."""

    access_key: str
    secret_key: str
    tenant_id: int
    created_ms: int


class DeleteKey(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Fails: NoSuchAccessKey."""

    access_key: str


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Only carries log time on, so that what is due expires."""


class FoundSite(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """The first command of a site: its random id. Applied once; later ones are ignored. Result: the id in force."""

    site_id: bytes
    site_incarnation: int


Command = (
    CreateBucket
    | DeleteBucket
    | SetVersioning
    | PutObject
    | CopyObject
    | DeleteObject
    | CreateUpload
    | PutPart
    | CompleteUpload
    | AbortUpload
    | RegisterWriter
    | AdvanceWriter
    | CloseWriter
    | CondemnChunks
    | ReclaimedChunks
    | ContinueDrop
    | PutTenant
    | PutKey
    | DeleteKey
    | Tick
    | FoundSite
    | FoundNode
    | AddNode
    | UpdateNode
    | SetNodeState
    | SetNodeWeight
    | SetNodeQuality
    | QuarantineMember
    | CreateToken
    | DropToken
    | SetAuthority
    | SetSiteSettings
    | SetBucketPolicy
    | RaiseFeatureLevel
    | RetireLayouts
    | PlaceExtent
    | SwapExtent
)


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One command with its id: (session, sequence), born at `born_ms` of log time. Session: one start of one proposer.

    `settled`: the proposer knows the outcome of every sequence below it, so their results need not be remembered.
    """

    session: int
    sequence: int
    settled: int
    born_ms: int
    tenant: int
    command: Command


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry: the header that its operations share, and the operations."""

    feature_level: int
    group: int
    incarnation: int
    log_time_ms: int
    operations: tuple[Operation, ...]


class Deleted(msgspec.Struct, frozen=True, array_like=True):
    """What a delete did. `version_id`: the marker written, or the version removed; empty where nothing was there."""

    version_id: str = ""
    delete_marker: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """One format byte, then msgpack."""
    return bytes((ENTRY_FORMAT,)) + _encoder.encode(entry)


def splice_entry(
    feature_level: int, group: int, incarnation: int, log_time_ms: int, operations: Sequence[msgspec.Raw]
) -> bytes:
    """`encode_entry` of operations that are encoded already."""
    return bytes((ENTRY_FORMAT,)) + _encoder.encode((feature_level, group, incarnation, log_time_ms, operations))


def decode_entry(data: bytes | memoryview) -> Entry:
    """The reverse. Raises ValueError for another format version or malformed bytes (msgspec errors are ValueErrors)."""
    if len(data) < 1 or data[0] != ENTRY_FORMAT:
        raise ValueError(f"log entry format {data[0] if len(data) else None} is not {ENTRY_FORMAT}")
    return _decoder.decode(memoryview(data)[1:])
