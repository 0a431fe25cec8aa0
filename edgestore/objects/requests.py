"""What callers ask of the object service, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.records import Checksum, ChecksumType, Condition, VersionRecord


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request promises about its plain bytes. `algorithms`: checksums to compute and keep beside
    `checksums`."""

    md5: bytes | None = None
    sha256: bytes | None = None
    checksums: tuple[Checksum, ...] = ()
    algorithms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutRequest:
    """A new current version. `headers`: system headers by their usual names (`Content-Type`)."""

    bucket: str
    key: str
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"
    condition: Condition = None
    expected: Expected = field(default_factory=Expected)


@dataclass(frozen=True, slots=True)
class CopyRequest:
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


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """A multipart upload to begin."""

    bucket: str
    key: str
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: ChecksumType = ChecksumType.COMPOSITE


@dataclass(frozen=True, slots=True)
class PartRequest:
    """One part, 1..10,000."""

    bucket: str
    key: str
    upload_id: str
    number: int
    expected: Expected = field(default_factory=Expected)


@dataclass(frozen=True, slots=True)
class CopyPartRequest:
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


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part as a completion names it."""

    number: int
    etag: str
    checksums: tuple[Checksum, ...] = ()


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """The completion of an upload. `checksums`, `checksum_type`, `size_bytes`: what the caller expects of the whole."""

    bucket: str
    key: str
    upload_id: str
    parts: tuple[NamedPart, ...]
    condition: Condition = None
    checksums: tuple[Checksum, ...] = ()
    checksum_type: ChecksumType | None = None
    size_bytes: int | None = None
