"""The dumb model of a catalog: dicts and lists, no rows, no counts that are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.catalog import commands
from edgestore.errors import (
    BadRequest,
    BucketExists,
    BucketNotEmpty,
    EdgeStoreError,
    InvalidPart,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
    StaleChunk,
)
from edgestore.records import Condition, IfAbsent, Versioning, format_version_id

INCARNATION = 3
Place = tuple[int, int]


@dataclass(frozen=True)
class Version:
    """One version. `extents` are the ids in order; `body` is an inline one."""

    place: Place
    is_null: bool
    is_marker: bool = False
    size: int = 0
    etag: str = ""
    body: bytes = b""
    extents: tuple[bytes, ...] = ()

    @property
    def version_id(self) -> str:
        return "null" if self.is_null else format_version_id(INCARNATION, *self.place)


@dataclass
class Upload:
    key: str
    parts: dict[int, Version] = field(default_factory=dict)


@dataclass
class Bucket:
    bucket_id: int
    name: str
    versioning: Versioning = Versioning.OFF
    keys: dict[str, list[Version]] = field(default_factory=dict)
    """Newest first."""
    uploads: dict[str, Upload] = field(default_factory=dict)

    def current(self, key: str) -> Version | None:
        versions = self.keys.get(key)
        return versions[0] if versions and not versions[0].is_marker else None


class Model:
    """`apply` returns what the catalog should: a version id, None, or the class of an error."""

    def __init__(self, next_bucket: int = 1) -> None:
        self.buckets: dict[int, Bucket] = {}
        self.next_bucket = next_bucket
        self.named: set[bytes] = set()
        """Extents that were ever named; each has one chunk of the same id."""
        self.low_water = 0

    def apply(self, command: commands.Command, place: Place) -> object:
        try:
            return getattr(self, type(command).__name__)(command, place)
        except EdgeStoreError as error:
            return type(error)

    def bucket(self, bucket_id: int) -> Bucket:
        if bucket_id not in self.buckets:
            raise NoSuchBucket
        return self.buckets[bucket_id]

    def live_extents(self) -> set[bytes]:
        found: set[bytes] = set()
        for bucket in self.buckets.values():
            for versions in bucket.keys.values():
                found.update(extent for version in versions for extent in version.extents)
            for upload in bucket.uploads.values():
                found.update(extent for part in upload.parts.values() for extent in part.extents)
        return found

    # --- buckets ---------------------------------------------------------------------------------------

    def CreateBucket(self, command: commands.CreateBucket, _: Place) -> object:  # noqa: N802
        if any(bucket.name == command.name for bucket in self.buckets.values()):
            raise BucketExists
        self.buckets[self.next_bucket] = Bucket(self.next_bucket, command.name)
        self.next_bucket += 1
        return self.next_bucket - 1

    def DeleteBucket(self, command: commands.DeleteBucket, _: Place) -> object:  # noqa: N802
        if self.bucket(command.bucket_id).keys:
            raise BucketNotEmpty
        del self.buckets[command.bucket_id]
        return None

    def SetVersioning(self, command: commands.SetVersioning, _: Place) -> object:  # noqa: N802
        bucket = self.bucket(command.bucket_id)
        if command.versioning is Versioning.OFF:
            raise BadRequest
        bucket.versioning = command.versioning
        return command.bucket_id

    # --- objects ---------------------------------------------------------------------------------------

    def check(self, condition: Condition, current: Version | None) -> None:
        if isinstance(condition, IfAbsent) and current is not None:
            raise PreconditionFailed
        if condition is None or isinstance(condition, IfAbsent):
            return
        if current is None:
            raise NoSuchKey
        if condition.etag not in ("*", current.etag):
            raise PreconditionFailed

    def name(self, extents: tuple[commands.NewExtent, ...]) -> tuple[bytes, ...]:
        ids = tuple(extent.extent_id for extent in extents)
        numbers = [extent.chunks[0].number for extent in extents]
        if self.named & set(ids) or len(set(ids)) < len(ids) or min(numbers, default=self.low_water) < self.low_water:
            raise StaleChunk
        self.named.update(ids)
        return ids

    def install(self, bucket: Bucket, key: str, version: Version) -> str:
        versions = bucket.keys.setdefault(key, [])
        if version.is_null:
            versions[:] = [one for one in versions if not one.is_null]
        versions.insert(0, version)
        return version.version_id

    def PutObject(self, command: commands.PutObject, place: Place) -> object:  # noqa: N802
        bucket = self.bucket(command.bucket_id)
        self.check(command.condition, bucket.current(command.key))
        content = command.content
        extents = self.name(content.extents)
        is_null = bucket.versioning is not Versioning.ENABLED
        version = Version(place, is_null, False, content.size_bytes, content.etag, content.inline, extents)
        return self.install(bucket, command.key, version)

    def CopyObject(self, command: commands.CopyObject, place: Place) -> object:  # noqa: N802
        source_bucket, bucket = self.bucket(command.source_bucket_id), self.bucket(command.bucket_id)
        for source in source_bucket.keys.get(command.source_key, []):
            if source.place == command.source_version[1:] and not source.is_marker:
                break
        else:
            raise NoSuchKey
        self.check(command.condition, bucket.current(command.key))
        is_null = bucket.versioning is not Versioning.ENABLED
        version = Version(place, is_null, False, source.size, source.etag, source.body, source.extents)
        return self.install(bucket, command.key, version)

    def DeleteObject(self, command: commands.DeleteObject, place: Place) -> object:  # noqa: N802
        bucket = self.bucket(command.bucket_id)
        if command.version is not None:
            return self.delete_version(bucket, command)
        current = bucket.current(command.key)
        self.check(command.condition, current)
        if bucket.versioning is Versioning.OFF:
            bucket.keys.pop(command.key, None)
            return ""
        return self.install(
            bucket, command.key, Version(place, bucket.versioning is Versioning.SUSPENDED, is_marker=True)
        )

    def delete_version(self, bucket: Bucket, command: commands.DeleteObject) -> object:
        versions = bucket.keys.get(command.key, [])
        for found in versions:
            if (found.is_null and command.version == ()) or (
                not found.is_null and command.version == (INCARNATION, *found.place)
            ):
                break
        else:
            self.check(command.condition, None)
            return ""
        self.check(command.condition, found)
        versions.remove(found)
        if not versions:
            del bucket.keys[command.key]
        return found.version_id

    # --- uploads ---------------------------------------------------------------------------------------

    def upload(self, command: commands.PutPart | commands.CompleteUpload | commands.AbortUpload) -> Upload:
        found = self.bucket(command.bucket_id).uploads.get(command.upload_id)
        if found is None or found.key != command.key:
            raise NoSuchUpload
        return found

    def CreateUpload(self, command: commands.CreateUpload, _: Place) -> object:  # noqa: N802
        self.bucket(command.bucket_id).uploads[command.upload_id] = Upload(command.key)
        return command.upload_id

    def PutPart(self, command: commands.PutPart, place: Place) -> object:  # noqa: N802
        upload = self.upload(command)
        content = command.content
        extents = self.name(content.extents)
        part = Version(place, is_null=True, size=content.size_bytes, etag=content.etag, extents=extents)
        upload.parts[command.number] = part
        return command.number

    def CompleteUpload(self, command: commands.CompleteUpload, place: Place) -> object:  # noqa: N802
        upload, bucket = self.upload(command), self.buckets[command.bucket_id]
        self.check(command.condition, bucket.current(command.key))
        parts = [upload.parts.get(number) for number, _ in command.parts]
        if not parts or [part.etag if part else None for part in parts] != [etag for _, etag in command.parts]:
            raise InvalidPart
        kept = [part for part in parts if part is not None]
        extents = tuple(extent for part in kept for extent in part.extents)
        is_null = bucket.versioning is not Versioning.ENABLED
        size = sum(part.size for part in kept)
        del bucket.uploads[command.upload_id]
        return self.install(bucket, command.key, Version(place, is_null, False, size, command.etag, b"", extents))

    def AbortUpload(self, command: commands.AbortUpload, _: Place) -> object:  # noqa: N802
        self.upload(command)
        del self.buckets[command.bucket_id].uploads[command.upload_id]
        return None

    def AdvanceWriter(self, command: commands.AdvanceWriter, _: Place) -> object:  # noqa: N802
        self.low_water = max(self.low_water, command.low_water)
        return None
