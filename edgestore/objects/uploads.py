"""Multipart uploads: parts are stored like objects, and become one version by reference."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from edgestore.catalog import commands
from edgestore.chunks import Body, ChunkStore, IteratorBody, Pin, Pins, StoredBody
from edgestore.clock import Clock, Entropy
from edgestore.config import ObjectsConfig
from edgestore.errors import (
    BadRequest,
    EdgeStoreError,
    InvalidPart,
    InvalidPartOrder,
    NoSuchKey,
    NoSuchUpload,
    StaleFragments,
    TooLarge,
    TooSmall,
    Unavailable,
    is_refusal,
)
from edgestore.meta import Meta
from edgestore.objects.buckets import Buckets
from edgestore.objects.content import receive
from edgestore.objects.names import check_key
from edgestore.objects.reader import ObjectReader
from edgestore.objects.requests import CompleteRequest, CopyPartRequest, Expected, NamedPart, PartRequest, UploadRequest
from edgestore.objects.whole import whole_checksums
from edgestore.observe import Metrics
from edgestore.records import (
    BucketRecord,
    PartRecord,
    Principal,
    UploadRecord,
    VersionRecord,
)

NamingCommand = commands.PutObject | commands.PutPart


class Uploads(Buckets):
    """Buckets, and the multipart half of the service."""

    _pins: Pins

    def __init__(
        self,
        meta: Meta,
        chunks: ChunkStore,
        config: ObjectsConfig,
        *,
        clock: Clock,
        entropy: Entropy,
        region: str,
        metrics: Metrics,
    ) -> None:
        super().__init__(meta, config, clock, region)
        self._chunks, self._entropy, self._metrics = chunks, entropy, metrics
        self._mending: dict[asyncio.Task[None], None] = {}

    def _submit_named(
        self,
        bucket: BucketRecord,
        command: NamingCommand,
        stored: StoredBody,
        done: Callable[[Any, Any], None],
        mended: int = 0,
    ) -> None:
        """Proposes a command that names chunks; they go where it is certain that it did not. Where it came too late for
        its fragments (rule 1) what is missing is rebuilt, and it is proposed again."""

        def answered(value: Any, error: BaseException | None) -> None:
            if isinstance(error, StaleFragments) and stored.placed and mended < self._config.mends_max:
                self._mend(bucket, command, stored, done, mended + 1)
                return
            if isinstance(error, EdgeStoreError) and is_refusal(error):
                self._chunks.drop(stored)
            else:
                self._chunks.settle(stored)
            done(value, error)

        self._meta.submit(bucket.owner, command, answered)

    def _mend(
        self,
        bucket: BucketRecord,
        command: NamingCommand,
        stored: StoredBody,
        done: Callable[[Any, Any], None],
        mends: int,
    ) -> None:
        async def again() -> None:
            latest = stored
            try:
                latest = await self._chunks.mend(stored, bucket)
                content = msgspec.structs.replace(command.content, extents=latest.extents())
                changed = msgspec.structs.replace(command, content=content)
                self._submit_named(bucket, changed, latest, done, mends)
            except EdgeStoreError as error:
                self._chunks.drop(latest)
                done(None, error)

        task = asyncio.get_running_loop().create_task(again())
        self._mending[task] = None
        task.add_done_callback(lambda ended: self._mending.pop(ended, None))

    async def _name(self, bucket: BucketRecord, command: NamingCommand, stored: StoredBody) -> Any:
        """`_submit_named` as a coroutine. Where the caller is cancelled, the chunks still get their outcome."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(value: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        try:
            self._submit_named(bucket, command, stored, done)
        except EdgeStoreError:
            self._chunks.drop(stored)  # it was not even taken
            raise
        try:
            async with asyncio.timeout(self._config.commit_timeout_s):
                return await future
        except TimeoutError as error:
            message = "the commit takes too long: whether it happened is not known yet; read, then decide"
            raise Unavailable(message) from error

    def _reader(self, bucket: BucketRecord, record: VersionRecord, pin: Pin) -> ObjectReader:
        state = self._meta.state
        inline = state.inline(bucket, record) if record.inline else b""
        extents = state.extents(bucket.owner, record.extents)
        self._metrics.count("objects_gets_total")
        return ObjectReader(record, inline, extents, self._chunks, pin)

    async def _body_of(
        self,
        principal: Principal,
        bucket: str,
        key: str,
        record: VersionRecord,
        offset: int = 0,
        length: int | None = None,
    ) -> tuple[Body, ObjectReader]:
        """Bytes of a version as a body, for copies that move bytes."""
        found = self.bucket(principal, bucket)
        pin = self._pins.pin(self._meta.applied_index)
        reader = self._reader(found, record, pin)
        if not reader.is_whole:
            reader.close()
            raise NoSuchKey("the source went while it was being copied", key=key)
        size = record.size_bytes - offset if length is None else length
        return IteratorBody(self._chunks.pool, reader.read(offset, size), size), reader

    async def create_upload(self, principal: Principal, request: UploadRequest) -> UploadRecord:
        """Begins an upload."""
        check_key(request.key)
        await self.barrier()
        bucket = self.bucket(principal, request.bucket)
        self._chunks.check_room(0)
        command = commands.CreateUpload(
            bucket.bucket_id,
            request.key,
            self._entropy(16).hex(),
            principal.tenant_id,
            self._clock.wall_ms(),
            request.headers,
            request.metadata,
            request.storage_class,
            request.checksum_algorithm,
            request.checksum_type,
        )
        record: UploadRecord = await self._meta.propose(bucket.owner, command)
        return record

    async def put_part(self, principal: Principal, request: PartRequest, body: Body) -> PartRecord:
        """Stores a part; the same number again replaces it."""
        if not 1 <= request.number <= self._config.parts_max:
            raise BadRequest(f"a part number is 1 to {self._config.parts_max}", part=request.number)
        await self.barrier()
        bucket = self.bucket(principal, request.bucket)
        upload = self._meta.state.upload(bucket, request.key, request.upload_id)
        expected = _with_algorithm(request.expected, upload.checksum_algorithm)
        content, stored = await receive(
            self._chunks, body, expected, bucket=bucket, limit_bytes=self._config.put_max_bytes, may_inline=False
        )
        command = commands.PutPart(
            bucket.bucket_id, request.key, request.upload_id, request.number, self._clock.wall_ms(), content
        )
        record: PartRecord = await self._name(bucket, command, stored)
        self._metrics.count("objects_puts_total")
        return record

    async def copy_part(self, principal: Principal, request: CopyPartRequest) -> PartRecord:
        """A part made of a range of an object."""
        body, reader = await self._body_of(
            principal, request.source_bucket, request.source_key, request.source, request.offset, request.length
        )
        part = PartRequest(request.bucket, request.key, request.upload_id, request.number)
        try:
            return await self.put_part(principal, part, body)
        finally:
            reader.close()

    async def complete_upload(self, principal: Principal, request: CompleteRequest) -> VersionRecord:
        """Makes the named parts the current version. Raises InvalidPart, InvalidPartOrder, TooSmall, BadDigest.

        Who had no answer asks again, through another node maybe: what this upload has become is the answer as long as
        it is the current version.
        """
        try:
            await self.barrier()
            return await self._complete(self.bucket(principal, request.bucket), request)
        except NoSuchUpload:
            await self.barrier()
            record = self._meta.state.head(self.bucket(principal, request.bucket), request.key)
            if record is None or record.upload_id != request.upload_id or not _is_made_of(record, request.parts):
                raise
            return record

    async def _complete(self, bucket: BucketRecord, request: CompleteRequest) -> VersionRecord:
        """Raises NoSuchUpload, and what `complete_upload` raises."""
        upload = self._meta.state.upload(bucket, request.key, request.upload_id)
        stored = {part.number: part for part in self._meta.state.parts(bucket, request.upload_id)}
        parts = _match_parts(request.parts, stored, self._config.part_min_bytes)
        size = sum(part.size_bytes for part in parts)
        self._chunks.check_room(0)
        if size > self._config.object_max_bytes:
            raise TooLarge("the object is over the maximum size", limit_bytes=self._config.object_max_bytes)
        if request.size_bytes is not None and request.size_bytes != size:
            raise BadRequest(
                f"The provided 'x-amz-mp-object-size' header value {request.size_bytes} does not match what was "
                f"computed: {size}"
            )
        checksums = whole_checksums(upload, parts, request)
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
        command = commands.CompleteUpload(
            bucket.bucket_id,
            request.key,
            request.upload_id,
            tuple((part.number, part.etag) for part in parts),
            f"{digest.hexdigest()}-{len(parts)}",
            self._clock.wall_ms(),
            checksums,
            request.condition,
        )
        record: VersionRecord = await self._meta.propose(bucket.owner, command)
        return record

    async def abort_upload(self, principal: Principal, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchUpload."""
        await self.barrier()
        record = self.bucket(principal, bucket)
        await self._meta.propose(record.owner, commands.AbortUpload(record.bucket_id, key, upload_id))


def _with_algorithm(expected: Expected, algorithm: str) -> Expected:
    """Parts keep the checksum that their upload asks for."""
    named = {checksum.algorithm for checksum in expected.checksums} | set(expected.algorithms)
    if not algorithm or algorithm in named:
        return expected
    return Expected(expected.md5, expected.sha256, expected.checksums, (*expected.algorithms, algorithm))


def _is_made_of(record: VersionRecord, named: tuple[NamedPart, ...]) -> bool:
    asked = [(part.number, part.etag.strip('"')) for part in named]
    return asked == [(part.number, part.etag) for part in record.parts]


def _match_parts(named: tuple[NamedPart, ...], stored: dict[int, PartRecord], part_min_bytes: int) -> list[PartRecord]:
    """The stored parts in the order named. Raises InvalidPartOrder, InvalidPart, TooSmall."""
    if not named:
        raise BadRequest("an upload is completed of one part at least")
    numbers = [part.number for part in named]
    if numbers != sorted(set(numbers)):
        raise InvalidPartOrder("the parts are not in ascending order")
    found = []
    for part in named:
        record = stored.get(part.number)
        if record is None or record.etag != part.etag.strip('"'):
            raise InvalidPart(f"part {part.number} is missing or has another ETag", part=part.number)
        kept = {checksum.algorithm: checksum.value for checksum in record.checksums}
        if any(kept.get(checksum.algorithm) != checksum.value for checksum in part.checksums):
            raise InvalidPart(f"part {part.number} has another checksum", part=part.number)
        found.append(record)
    for record in found[:-1]:
        if record.size_bytes < part_min_bytes:
            raise TooSmall(
                f"part {record.number} has {record.size_bytes} bytes; only the last may be under {part_min_bytes}",
                part=record.number,
                size_bytes=record.size_bytes,
                limit_bytes=part_min_bytes,
                etag=record.etag,
            )
    return found
