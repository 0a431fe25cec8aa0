"""What callers ask of the object service, as values."""

from __future__ import annotations

import msgspec

from edgestore.records import Checksum, ChecksumType, Condition, VersionRecord


class Expected(msgspec.Struct, frozen=True, gc=False):
    """What the request promises about its plain bytes. `algorithms`: checksums to compute and keep beside
    `checksums`."""

    md5: bytes | None = None
    sha256: bytes | None = None
    checksums: tuple[Checksum, ...] = ()
    algorithms: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether nothing is promised: any bytes will do."""
        return self.md5 is None and self.sha256 is None and not self.checksums and not self.algorithms


class PutRequest(msgspec.Struct, frozen=True, gc=False):
    """A new current version. `headers`: system headers by their usual names (`Content-Type`)."""

    bucket: str
    key: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    storage_class: str = "STANDARD"
    condition: Condition = None
    expected: Expected = msgspec.field(default_factory=Expected)


class CopyRequest(msgspec.Struct, frozen=True, gc=False):
    """A copy of `source`, which the caller has read and judged. `headers`/`metadata` None: those of the source."""

    source_bucket: str
    source_key: str
    source: VersionRecord
    bucket: str
    key: str
    headers: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    storage_class: str = "STANDARD"
    algorithm: str = ""
    condition: Condition = None


class UploadRequest(msgspec.Struct, frozen=True, gc=False):
    """A multipart upload to begin."""

    bucket: str
    key: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: ChecksumType = ChecksumType.COMPOSITE


class PartRequest(msgspec.Struct, frozen=True, gc=False):
    """One part, 1..10,000."""

    bucket: str
    key: str
    upload_id: str
    number: int
    expected: Expected = msgspec.field(default_factory=Expected)


class CopyPartRequest(msgspec.Struct, frozen=True, gc=False):
    """A part made of bytes [offset, offset + length) of an object."""

    source_bucket: str
    source_key: str
    source: VersionRecord
    offset: int
    length: int
    bucket: str
    key: str
    upload_id: str
    number: int


class NamedPart(msgspec.Struct, frozen=True, gc=False):
    """A part as a completion names it."""

    number: int
    etag: str
    checksums: tuple[Checksum, ...] = ()


class CompleteRequest(msgspec.Struct, frozen=True, gc=False):
    """The completion of an upload. `checksum`, `checksum_type`, `size_bytes`: what the caller expects of the whole.
    `checksum_parts`: of how many parts a composite `checksum` was made."""

    bucket: str
    key: str
    upload_id: str
    parts: tuple[NamedPart, ...]
    condition: Condition = None
    checksum: Checksum | None = None
    checksum_type: ChecksumType | None = None
    checksum_parts: int | None = None
    size_bytes: int | None = None
