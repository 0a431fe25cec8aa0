"""Every record that crosses a room on disk or wire: catalog rows, chunk names, conditions, principals.

Rule: fields are only appended, each with a default, so old bytes decode in the new struct and new bytes in the old one.
Sizes are bytes of plain (uncompressed) content unless the name says `stored`. Times end in `_ms` (since 1970).
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

INLINE_MAX_BYTES = 8 * 1024
UNIT_BYTES = 256 * 1024
PAGE_BYTES = 64 * 1024
CHUNK_MAX_BYTES = 4 * 1024 * 1024
EXTENT_CHUNKS_MAX = 1024

SITE_TENANT = 0
"""Rows that belong to the site itself (names of buckets, writers, chunks)."""
ROOT_TENANT = 1
"""The owner that the root key pair belongs to."""


class VersionKind(IntEnum):
    """What a version row is."""

    OBJECT = 1
    DELETE_MARKER = 2


class CloudState(IntEnum):
    """Where a version is on its way to the cloud."""

    LOCAL = 0
    QUEUED = 1
    UPLOADING = 2
    IN_CLOUD = 3


class Versioning(IntEnum):
    """Versioning state of a bucket; it never returns to OFF."""

    OFF = 0
    ENABLED = 1
    SUSPENDED = 2


class ChecksumType(IntEnum):
    """How the checksum of a multipart object is made of those of its parts."""

    FULL_OBJECT = 0
    COMPOSITE = 1


class Checksum(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A checksum of plain bytes. `algorithm`: CRC32, CRC32C, CRC64NVME, SHA1 or SHA256; `value`: big-endian raw
    digest."""

    algorithm: str
    value: bytes
    type: ChecksumType = ChecksumType.FULL_OBJECT


class ChunkRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Names one immutable chunk: `writer` + `number` are its 128-bit id. Stored size and units are the fragment's."""

    writer: int
    number: int
    size_bytes: int

    @property
    def chunk_id(self) -> bytes:
        """The 16-byte id: writer, then number, both big-endian."""
        return self.writer.to_bytes(8, "big") + self.number.to_bytes(8, "big")


class ExtentRecord(msgspec.Struct, frozen=True, array_like=True):
    """Up to 1,024 chunks in order, counted by `references`. `exceptions`: (chunk position, shard, node) that went
    elsewhere; `missing`: (chunk position, shard) that nobody is known to hold. `generation` counts changes of the
    chunks, `revision` changes of where they are. `bucket_id`: whose policy it follows, that of its first name."""

    extent_id: bytes
    chunks: tuple[ChunkRef, ...]
    size_bytes: int
    references: int = 1
    owning_group: int = 0
    k: int = 1
    m: int = 0
    generation: int = 0
    layout_epoch: int = 1
    exceptions: tuple[tuple[int, int, int], ...] = ()
    tolerate: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    revision: int = 0
    bucket_id: int = 0


class ExtentSpan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run of bytes of one extent, as a version names it."""

    extent_id: bytes
    size_bytes: int
    offset_bytes: int = 0


class PartSpan(msgspec.Struct, frozen=True, array_like=True):
    """One part boundary of a multipart object."""

    number: int
    size_bytes: int
    checksums: tuple[Checksum, ...] = ()
    etag: str = ""


class ListedVersion(msgspec.Struct, frozen=True, array_like=True):
    """The first fields of a `VersionRecord`: what a listing needs. msgspec skips the rest of the row."""

    kind: VersionKind
    size_bytes: int
    etag: str
    modified_ms: int
    log_index: int
    position: int
    site_incarnation: int
    is_null: bool
    owner: int
    storage_class: str
    checksums: tuple[Checksum, ...]

    @property
    def version_id(self) -> str:
        """The public version id; `null` for the version written while versioning was off or suspended."""
        return "null" if self.is_null else format_version_id(self.site_incarnation, self.log_index, self.position)


class VersionRecord(msgspec.Struct, frozen=True, array_like=True):
    """One version of one key. `etag` without quotes. Inline bodies lie in a row of their own (`inline`).
    `upload_id`: of the multipart upload that was completed as this version."""

    kind: VersionKind
    size_bytes: int
    etag: str
    modified_ms: int
    log_index: int
    position: int
    site_incarnation: int
    is_null: bool
    owner: int
    storage_class: str
    checksums: tuple[Checksum, ...]
    log_time_ms: int = 0
    inline: bool = False
    extents: tuple[ExtentSpan, ...] = ()
    parts: tuple[PartSpan, ...] = ()
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    cloud_state: CloudState = CloudState.LOCAL
    base_etag: str = ""
    cloud_version_id: str = ""
    key_id: str = ""
    upload_id: str = ""

    @property
    def version_id(self) -> str:
        """The public version id; `null` for the version written while versioning was off or suspended."""
        return "null" if self.is_null else format_version_id(self.site_incarnation, self.log_index, self.position)


def format_version_id(site_incarnation: int, log_index: int, position: int) -> str:
    """32 hex digits: site incarnation (8), log index (16), position in the log entry (8)."""
    return f"{site_incarnation:08x}{log_index:016x}{position:08x}"


def parse_version_id(text: str) -> tuple[int, int, int] | None:
    """The reverse of `format_version_id`; None for anything that is not one (also for `null`)."""
    if len(text) != 32 or not all(c in "0123456789abcdef" for c in text):
        return None
    return int(text[:8], 16), int(text[8:24], 16), int(text[24:], 16)


class BucketRecord(msgspec.Struct, frozen=True, array_like=True):
    """One bucket. `bucket_id` is never reused."""

    bucket_id: int
    name: str
    owner: int
    created_ms: int
    versioning: Versioning = Versioning.OFF
    region: str = "us-east-1"
    tolerate: int | None = None
    """None: as the site."""
    scheme: str = ""
    """`k+m`; empty: as the number of nodes suggests."""


class BucketUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counts of a bucket, moved in the same command as the names (rule 7)."""

    current_objects: int = 0
    versions: int = 0
    size_bytes: int = 0
    uploads: int = 0


class UploadRecord(msgspec.Struct, frozen=True, array_like=True):
    """A multipart upload that has begun. `upload_id` is 32 hex digits, never part of a path."""

    upload_id: str
    bucket_id: int
    key: str
    owner: int
    started_ms: int
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: ChecksumType = ChecksumType.COMPOSITE


class PartRecord(msgspec.Struct, frozen=True, array_like=True):
    """One uploaded part (1..10,000)."""

    number: int
    size_bytes: int
    etag: str
    modified_ms: int
    checksums: tuple[Checksum, ...] = ()
    extents: tuple[ExtentSpan, ...] = ()


class WriterRecord(msgspec.Struct, frozen=True, array_like=True):
    """One start of one node. Numbers below `low_water` that nothing names are garbage (rule 6)."""

    writer: int
    node: str
    opened_index: int
    low_water: int = 0
    closed: bool = False


class TenantRecord(msgspec.Struct, frozen=True, array_like=True):
    """An owner of buckets. `canonical_id`: 64 hex digits or what the operator gave, shown by S3 as the owner's ID."""

    tenant_id: int
    canonical_id: str
    name: str
    email: str = ""


class KeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """One access key pair. The secret must be readable: SigV4 needs it to check a signature."""

    access_key: str
    secret_key: str
    tenant_id: int
    created_ms: int


class NodeState(IntEnum):
    """Only nodes that are UP take new data; what lies on UP and DRAINING ones counts for an acknowledgement."""

    UP = 1
    DOWN = 2
    DRAINING = 3
    REMOVED = 4
    QUARANTINED = 5


SHUT_OUT = (NodeState.REMOVED, NodeState.QUARANTINED)
"""No member, or a member that nobody talks to: what it has counts for nothing."""


class LayoutNode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What placement knows of a node. `weight`: any positive number, usually GiB; `quality`: 1 to 100 percent of it
    count for new data; an empty `zone`: the node is a zone of its own. `state_epoch`: since when it has its state."""

    number: int
    weight: int
    zone: str
    state: NodeState
    quality: int = 100
    witness: bool = False
    joined_epoch: int = 1
    state_epoch: int = 1


class LayoutRecord(msgspec.Struct, frozen=True, array_like=True):
    """The nodes of a site at an epoch, by number. Epochs before `balance_epoch` are closed: their extents move."""

    epoch: int = 1
    nodes: tuple[LayoutNode, ...] = ()
    balance_epoch: int = 1


class NodeRecord(msgspec.Struct, frozen=True, array_like=True):
    """One member as the site knows it. Numbers are never reused; a REMOVED row stays, so that it never comes back.

    `key_digest`: sha256 of the public key's SPKI. `start_nonce`: of its running start. `drains`: a DOWN node goes on
    draining when it is back.
    """

    number: int
    member: str
    address: str
    s3_address: str
    zone: str
    capacity_bytes: int
    weight: int
    state: NodeState = NodeState.UP
    quality: int = 100
    witness: bool = False
    feature_level: int = 1
    key_digest: bytes = b""
    joined_ms: int = 0
    down_since_ms: int = 0
    start_nonce: bytes = b""
    joined_epoch: int = 1
    state_epoch: int = 1
    drains: bool = False


class SiteSettings(msgspec.Struct, frozen=True, array_like=True):
    """What the operator chose for the site. `tolerate` None and `scheme` empty: as the number of nodes suggests."""

    tolerate: int | None = None
    scheme: str = ""
    remove_after_ms: int = 0
    """A node that was down for so long is removed; 0: never by itself."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks. Root may do all; any other owner may do all on its own buckets."""

    tenant_id: int
    canonical_id: str
    name: str

    @property
    def is_root(self) -> bool:
        """Whether this is the owner of the root key pair."""
        return self.tenant_id == ROOT_TENANT


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member of a group. `member`: hex of the member id of its data folder, as votes and writers name it."""

    member: str
    is_voter: bool = True
    address: str = ""


class MembersRecord(msgspec.Struct, frozen=True, array_like=True):
    """Journal record: who forms the group in the record's incarnation (rule 4)."""

    members: tuple[Member, ...]


class SnapshotRecord(msgspec.Struct, frozen=True, array_like=True):
    """Journal record: the state machine at the record's index is what lies in `folder` (rule 2)."""

    folder: str
    members: tuple[Member, ...]


class StopSignRecord(msgspec.Struct, frozen=True, array_like=True):
    """Journal record: the entry at the record's index ended the incarnation, and names the next one (rule 4)."""

    next_incarnation: int
    members: tuple[Member, ...]


class Tombstone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key was deleted at a place of the log: a fetch from the cloud that began before it must not bring it back,
    and the cloud must still hear of it (rule 11)."""

    log_index: int
    position: int
    log_time_ms: int
    base_etag: str = ""
    cloud_version_id: str = ""


class IfAbsent(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The write happens only where the key has no current version (`If-None-Match: *`)."""


class IfMatch(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The write happens only where the current version has this ETag (`*`: any). Zero or None fields are not
    compared."""

    etag: str
    size_bytes: int | None = None
    modified_ms: int | None = None


Condition = IfAbsent | IfMatch | None
