"""Objects: put, read, delete, copy. The fast lane's methods decide at once or hand over to the journal's callback.

Rule: bytes are durable before they are named, and named by one command; what was not named is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgestore.catalog import commands
from edgestore.chunks import Body, ChunkStore, Pins, StoredBody, WholeDigests, bytes_body
from edgestore.clock import Clock, Entropy
from edgestore.config import ObjectsConfig
from edgestore.errors import (
    BadRequest,
    DeleteMarkerMethod,
    EdgeStoreError,
    NoSuchKey,
    NoSuchVersion,
    Unavailable,
)
from edgestore.meta import Meta
from edgestore.objects.buckets import version_place
from edgestore.objects.content import compare, inline_content, receive, too_large
from edgestore.objects.names import check_key
from edgestore.objects.reader import ColdObject, ObjectReader, SmallObject
from edgestore.objects.requests import CopyRequest, Expected, PutRequest
from edgestore.objects.uploads import Uploads
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import (
    INLINE_MAX_BYTES,
    UNIT_BYTES,
    BucketRecord,
    Condition,
    Principal,
    VersionKind,
    VersionRecord,
)

SmallDone = Callable[[VersionRecord | None, Any], None]
"""Takes the version, or an EdgeStoreError."""
FetchDone = Callable[[memoryview | None, EdgeStoreError | None], None]


class ObjectService(Uploads):
    """Everything that may be done with objects, for a principal."""

    def __init__(
        self,
        meta: Meta,
        chunks: ChunkStore,
        pins: Pins,
        config: ObjectsConfig,
        *,
        clock: Clock,
        entropy: Entropy,
        region: str = "us-east-1",
        metrics: Metrics = NO_METRICS,
    ) -> None:
        super().__init__(meta, chunks, config, clock=clock, entropy=entropy, region=region, metrics=metrics)
        self._pins = pins

    # --- writing ---------------------------------------------------------------------------------------

    async def put(self, principal: Principal, request: PutRequest, body: Body) -> VersionRecord:
        """Stores a body as the new current version. Raises BadDigest, TooLarge, IncompleteBody, StorageFull, ..."""
        check_key(request.key)
        await self.barrier()
        bucket = self.bucket(principal, request.bucket)
        content, stored = await receive(
            self._chunks, body, request.expected, bucket=bucket, limit_bytes=self._config.put_max_bytes
        )
        command = self._put_command(principal, bucket, request, content)
        record: VersionRecord = await self._name(bucket, command, stored)
        self._metrics.count("objects_puts_total")
        return record

    def body_of(self, data: bytes) -> Body:
        """A body that is in memory, for what takes a `Body`."""
        return bytes_body(self._chunks.pool, data)

    def _put_command(
        self, principal: Principal, bucket: BucketRecord, request: PutRequest, content: commands.Content
    ) -> commands.PutObject:
        return commands.PutObject(
            bucket.bucket_id,
            request.key,
            principal.tenant_id,
            self._clock.wall_ms(),
            content,
            request.headers,
            request.metadata,
            request.storage_class,
            request.condition,
        )

    def check_put(self, principal: Principal, request: PutRequest, size_bytes: int) -> None:
        """Raises what `put` would refuse before it reads a body of that size."""
        check_key(request.key)
        self.bucket(principal, request.bucket)
        if size_bytes > self._config.put_max_bytes:
            raise too_large(self._config.put_max_bytes)

    def put_small(self, principal: Principal, request: PutRequest, data: bytes, done: SmallDone) -> None:
        """A body that is in memory, without a task: `done` comes from the journal. Raises what is known at once."""
        check_key(request.key)
        bucket = self.bucket(principal, request.bucket)
        if len(data) > self._config.put_max_bytes:
            raise too_large(self._config.put_max_bytes)
        self._metrics.count("objects_puts_total")
        if len(data) <= INLINE_MAX_BYTES:
            self._chunks.check_room(len(data))
            content = inline_content(data, request.expected)
            self._meta.submit(bucket.owner, self._put_command(principal, bucket, request, content), done)
            return
        if len(data) > UNIT_BYTES:
            raise BadRequest(f"put_small takes at most {UNIT_BYTES} bytes")
        self._chunks.check_room(len(data))
        digests = WholeDigests(data)
        md5 = digests.md5
        kept, etag = compare(digests, md5, request.expected), md5.hex()

        def stored(body: StoredBody | None, error: BaseException | None) -> None:
            if body is None:
                done(None, error if isinstance(error, EdgeStoreError) else Unavailable("the disk failed"))
                return
            content = commands.Content(len(data), etag, kept, b"", body.extents())
            try:
                self._submit_named(bucket, self._put_command(principal, bucket, request, content), body, done)
            except EdgeStoreError as refused:
                self._chunks.drop(body)
                done(None, refused)

        self._chunks.put_small(data, stored, bucket)

    async def copy(self, principal: Principal, request: CopyRequest) -> VersionRecord:
        """Copies a version by reference; to another owner, or for another checksum, its bytes."""
        check_key(request.key)
        await self.barrier()
        source_bucket = self.bucket(principal, request.source_bucket)
        bucket = self.bucket(principal, request.bucket)
        kept = {checksum.algorithm for checksum in request.source.checksums}
        if (source_bucket.owner != bucket.owner and request.source.extents) or request.algorithm not in ("", *kept):
            return await self._copy_bytes(principal, request)
        self._chunks.check_room(0)
        source = request.source
        command = commands.CopyObject(
            source_bucket.bucket_id,
            request.source_key,
            (source.site_incarnation, source.log_index, source.position),
            bucket.bucket_id,
            request.key,
            principal.tenant_id,
            self._clock.wall_ms(),
            request.headers,
            request.metadata,
            request.storage_class,
            None,
            request.condition,
        )
        record: VersionRecord = await self._meta.propose(bucket.owner, command)
        return record

    async def _copy_bytes(self, principal: Principal, request: CopyRequest) -> VersionRecord:
        body, reader = await self._body_of(principal, request.source_bucket, request.source_key, request.source)
        kept = tuple(checksum.algorithm for checksum in request.source.checksums)
        put = PutRequest(
            request.bucket,
            request.key,
            request.source.headers if request.headers is None else request.headers,
            request.source.metadata if request.metadata is None else request.metadata,
            request.storage_class,
            request.condition,
            Expected(algorithms=(request.algorithm,) if request.algorithm else kept),
        )
        try:
            return await self.put(principal, put, body)
        finally:
            reader.close()

    async def delete(
        self, principal: Principal, bucket: str, key: str, version: str | None = None, condition: Condition = None
    ) -> commands.Deleted:
        """Deletes the current version (or writes a delete marker), or one version for good."""
        check_key(key)
        await self.barrier()
        record = self.bucket(principal, bucket)
        command = commands.DeleteObject(
            record.bucket_id, key, principal.tenant_id, self._clock.wall_ms(), version_place(version), condition
        )
        deleted: commands.Deleted = await self._meta.propose(record.owner, command)
        return deleted

    # --- reading ---------------------------------------------------------------------------------------

    def _find(self, bucket: BucketRecord, key: str, version: str | None) -> VersionRecord:
        """Raises NoSuchKey, NoSuchVersion, DeleteMarkerMethod."""
        state = self._meta.state
        if version is None:
            found = state.head(bucket, key)
            if found is not None:
                return found
            check_key(key)
            hidden = state.newest(bucket, key) if bucket.versioning else None
            if hidden is not None:
                raise NoSuchKey(
                    "the key is hidden by a delete marker",
                    key=key,
                    delete_marker_version=hidden.version_id,
                    modified_ms=hidden.modified_ms,
                )
            raise NoSuchKey("the key has no current version", key=key)
        found = state.version(bucket, key, version_place(version) or ())
        if found is None:
            raise NoSuchVersion("the key has no such version", key=key, version_id=version)
        if found.kind is VersionKind.DELETE_MARKER:
            raise DeleteMarkerMethod(
                "the version is a delete marker",
                delete_marker_version=found.version_id,
                modified_ms=found.modified_ms,
            )
        return found

    def head_now(
        self, principal: Principal, bucket: str, key: str, version: str | None = None, *, readable: bool = False
    ) -> VersionRecord | None:
        """The version; None where the answer needs waiting. `readable`: the caller has waited (`when_readable`)."""
        if not (readable or self._meta.can_read_now()):
            return None
        return self._find(self.bucket(principal, bucket), key, version)

    async def head(
        self, principal: Principal, bucket: str, key: str, version: str | None = None, *, local: bool = False
    ) -> VersionRecord:
        """The version. `local`: as this node knows it, without a word to the leader."""
        if not local:
            await self.barrier()
        return self._find(self.bucket(principal, bucket), key, version)

    def get_small(
        self, principal: Principal, bucket: str, key: str, version: str | None = None, *, readable: bool = False
    ) -> SmallObject | ColdObject | None:
        """A version and its bytes where all is at hand. ColdObject: `fetch` reads them; None: use `open`. `readable`:
        the caller has waited (`when_readable`)."""
        if not (readable or self._meta.can_read_now()):
            return None
        record = self.bucket(principal, bucket)
        found = self._find(record, key, version)
        if found.inline or not found.extents:
            self._metrics.count("objects_gets_total")
            return SmallObject(found, self._meta.state.inline(record, found) if found.inline else b"")
        if found.size_bytes > UNIT_BYTES or len(found.extents) > 1:
            return None
        extent = self._meta.state.extent(record.owner, found.extents[0].extent_id)
        if extent is None or len(extent.chunks) != 1:
            return None
        body = self._chunks.read_small(extent)
        if body is None:
            return ColdObject(found, extent)
        self._metrics.count("objects_gets_total")
        return SmallObject(found, body)

    def fetch(self, cold: ColdObject, done: FetchDone) -> None:
        """Has a thread read what `get_small` has just found, without a task; `done` is called on the loop."""
        pin = self._pins.pin(self._meta.applied_index)
        self._metrics.count("objects_gets_total")

        def read(view: memoryview | None, error: BaseException | None) -> None:
            try:
                pin.check()
            except EdgeStoreError as lapsed:
                view, error = None, lapsed
            pin.release()
            if view is not None:
                done(view, None)
            else:
                done(None, error if isinstance(error, EdgeStoreError) else Unavailable("the disk failed"))

        self._chunks.fetch_small(cold.extent, read)

    async def open(
        self, principal: Principal, bucket: str, key: str, version: str | None = None, *, local: bool = False
    ) -> ObjectReader:
        """A pinned reader; close it. `local`: see `head`."""
        if not local:
            await self.barrier()
        record = self.bucket(principal, bucket)
        pin = self._pins.pin(self._meta.applied_index)
        try:
            found = self._find(record, key, version)
            return self._reader(record, found, pin)
        except BaseException:
            pin.release()
            raise
