"""The object service on real rooms: bytes in, the same bytes out; conditions, owners, multipart, space."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgestore.chunks import IteratorBody, bytes_body
from edgestore.config import ChunksConfig, Config, DiskConfig, ObjectsConfig
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.errors import (
    BadDigest,
    BucketNotEmpty,
    Denied,
    IncompleteBody,
    InvalidName,
    InvalidPart,
    InvalidPartOrder,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
    TooLarge,
    TooSmall,
)
from edgestore.kernels import crc32
from edgestore.objects import (
    CompleteRequest,
    CopyPartRequest,
    CopyRequest,
    Expected,
    NamedPart,
    PartRequest,
    PutRequest,
    SmallObject,
    UploadRequest,
)
from edgestore.records import Checksum, ChecksumType, IfAbsent, IfMatch, Principal, Versioning

CONFIG = Config(
    disk=DiskConfig(reserve_bytes=0, segment_bytes=16 * 1024 * 1024, journal_file_bytes=8 * 1024 * 1024),
    chunks=ChunksConfig(pool_bytes=8 * 1024 * 1024, pool_read_reserve_bytes=1024 * 1024, reclaim_interval_ms=20),
    objects=ObjectsConfig(part_min_bytes=1000, put_max_bytes=50_000_000),
)
SIZES = (0, 1, 8192, 8193, 65_536, 262_144, 262_145, 1_000_000, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, 9_000_000)


@asynccontextmanager
async def opened(folder: Path, config: Config = CONFIG) -> AsyncIterator[tuple[Core, Principal]]:
    """A core and its root."""
    core = await Core.open(SystemFiles(str(folder)), config)
    try:
        yield core, core.tenants.root()
    finally:
        await core.close()


async def put(core: Core, who: Principal, key: str, body: bytes, **more: object) -> str:
    """Returns the ETag."""
    request = PutRequest("bucket", key, **more)  # type: ignore[arg-type]
    return (await core.objects.put(who, request, bytes_body(core.chunks.pool, body))).etag


async def get(core: Core, who: Principal, key: str, offset: int = 0, length: int | None = None) -> bytes:
    """By the streaming path."""
    reader = await core.objects.open(who, "bucket", key)
    try:
        return b"".join([bytes(view) async for view in reader.read(offset, length)])
    finally:
        reader.close()


async def until(true: Callable[[], bool], limit_s: float = 10) -> None:
    """Waits for what happens in the background."""
    async with asyncio.timeout(limit_s):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("compressible", [True, False], ids=["compressible", "random"])
async def test_every_size_comes_back_whole_and_in_ranges(tmp_path: Path, compressible: bool) -> None:
    rng = random.Random(3)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        for size in SIZES:
            body = (b"the quick brown fox " * (size // 20 + 1))[:size] if compressible else rng.randbytes(size)
            assert await put(core, root, "key", body) == hashlib.md5(body).hexdigest()
            assert await get(core, root, "key") == body
            small = core.objects.get_small(root, "bucket", "key")
            assert not isinstance(small, SmallObject) or bytes(small.body) == body
            for _ in range(5 if size else 0):
                start = rng.randrange(size)
                length = rng.randrange(size - start + 1)
                assert await get(core, root, "key", start, length) == body[start : start + length]
        assert core.chunks.pool.taken_bytes == 0


async def test_small_puts_by_callback_are_the_same_as_streamed_ones(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        for size in (0, 10, 8192, 8193, 131_072):
            body = os.urandom(size)
            future = asyncio.get_running_loop().create_future()
            core.objects.put_small(
                root, PutRequest("bucket", "key"), body, lambda record, error, f=future: f.set_result((record, error))
            )
            record, error = await future
            assert error is None
            assert record.etag == hashlib.md5(body).hexdigest()
            assert await get(core, root, "key") == body


async def test_what_the_bytes_are_not_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        wrong = [
            Expected(md5=bytes(16)),
            Expected(sha256=bytes(32)),
            Expected(checksums=(Checksum("CRC32", bytes(4)),)),
            Expected(checksums=(Checksum("CRC64NVME", bytes(8)),)),
        ]
        for expected in wrong:
            for body in (b"small", os.urandom(500_000)):
                with pytest.raises(BadDigest):
                    await put(core, root, "key", body, expected=expected)
        right = Expected(checksums=(Checksum("CRC32", crc32(b"small").to_bytes(4, "big")),))
        await put(core, root, "key", b"small", expected=right)
        assert core.objects.list_objects(root, "bucket").entries[0][1].size_bytes == 5
        assert not list(core.segments.chunk_ids())


async def test_a_body_cut_short_or_too_long_stores_nothing(tmp_path: Path) -> None:
    async def short() -> AsyncIterator[bytes]:
        yield os.urandom(5_000_000)

    async with opened(tmp_path, replace(CONFIG, objects=ObjectsConfig(put_max_bytes=1_000_000))) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        with pytest.raises(TooLarge):
            await put(core, root, "key", os.urandom(1_000_001))
        with pytest.raises(TooLarge):
            body = IteratorBody(core.chunks.pool, short(), None)
            await core.objects.put(root, PutRequest("bucket", "key"), body)
    async with opened(tmp_path) as (core, root):
        with pytest.raises(IncompleteBody):
            body = IteratorBody(core.chunks.pool, short(), 6_000_000)
            await core.objects.put(root, PutRequest("bucket", "key"), body)
        with pytest.raises(NoSuchKey):
            await core.objects.head(root, "bucket", "key")
        assert not list(core.segments.chunk_ids())
        await until(lambda: core.chunks.pool.taken_bytes == 0)


async def test_a_cancelled_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield os.urandom(1_000_000)
        await asyncio.sleep(60)

    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        body = IteratorBody(core.chunks.pool, slow(), 2_000_000)
        task = asyncio.create_task(core.objects.put(root, PutRequest("bucket", "key"), body))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: core.chunks.pool.taken_bytes == 0)
        assert not list(core.segments.chunk_ids())


async def test_conditions_on_writes(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        etag = await put(core, root, "key", b"one", condition=IfAbsent())
        with pytest.raises(PreconditionFailed):
            await put(core, root, "key", b"two", condition=IfAbsent())
        with pytest.raises(PreconditionFailed):
            await put(core, root, "key", os.urandom(20_000), condition=IfMatch("0" * 32))
        with pytest.raises(NoSuchKey):
            await put(core, root, "other", b"x", condition=IfMatch("*"))
        assert await get(core, root, "key") == b"one"
        await put(core, root, "key", b"three", condition=IfMatch(etag))
        assert await get(core, root, "key") == b"three"
        await until(lambda: not list(core.segments.chunk_ids()))


async def test_one_of_many_creators_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")

        async def create(number: int) -> bool:
            try:
                await put(core, root, "key", str(number).encode(), condition=IfAbsent())
            except PreconditionFailed:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(create(number)) for number in range(50)]
        winners = [number for number, task in enumerate(tasks) if task.result()]
        assert len(winners) == 1
        assert await get(core, root, "key") == str(winners[0]).encode()


async def test_space_comes_back_when_nothing_names_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "a", os.urandom(3_000_000))
        await put(core, root, "b", os.urandom(3_000_000))
        source = await core.objects.head(root, "bucket", "b")
        await core.objects.copy(root, CopyRequest("bucket", "b", source, "bucket", "c"))
        kept = await get(core, root, "c")
        await core.objects.delete(root, "bucket", "a")
        await core.objects.delete(root, "bucket", "b")
        await until(lambda: len(list(core.segments.chunk_ids())) == 1)
        assert await get(core, root, "c") == kept
        await core.objects.delete(root, "bucket", "c")
        await until(lambda: not list(core.segments.chunk_ids()))
        assert core.meta.state.usage(core.meta.state.bucket("bucket")).size_bytes == 0


async def test_a_reader_keeps_what_it_reads(tmp_path: Path) -> None:
    body = os.urandom(6_000_000)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", body)
        reader = await core.objects.open(root, "bucket", "key")
        views = reader.read()
        found = [bytes(await anext(views))]
        await core.objects.delete(root, "bucket", "key")
        await asyncio.sleep(0.2)
        found += [bytes(view) async for view in views]
        reader.close()
        assert b"".join(found) == body
        await until(lambda: not list(core.segments.chunk_ids()))


async def test_garbage_of_an_earlier_start_is_swept(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", os.urandom(100_000))
        future = asyncio.get_running_loop().create_future()
        core.chunks.put_small(os.urandom(50_000), lambda chunks, error: future.set_result(chunks))
        await future
        assert len(list(core.segments.chunk_ids())) == 2
    async with opened(tmp_path) as (core, root):
        await until(lambda: len(list(core.segments.chunk_ids())) == 1)
        assert len(await get(core, root, "key")) == 100_000


async def test_a_completion_that_is_sent_again_is_answered_again_while_its_version_is_the_current_one(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "key"))
        for number in (1, 2):
            request = PartRequest("bucket", "key", upload.upload_id, number)
            part = await core.objects.put_part(root, request, bytes_body(core.chunks.pool, b"part"))
        complete = CompleteRequest("bucket", "key", upload.upload_id, (NamedPart(2, part.etag),), IfAbsent())
        record = await core.objects.complete_upload(root, complete)
        assert await core.objects.complete_upload(root, complete) == record
        for other in (
            msgspec.structs.replace(complete, parts=(NamedPart(1, part.etag),)),
            msgspec.structs.replace(complete, upload_id="0" * 32),
            msgspec.structs.replace(complete, key="other"),
        ):
            with pytest.raises(NoSuchUpload):
                await core.objects.complete_upload(root, other)
        await put(core, root, "key", b"another")
        with pytest.raises(NoSuchUpload):
            await core.objects.complete_upload(root, complete)


async def test_multipart_in_any_order_with_leftovers(tmp_path: Path) -> None:
    rng = random.Random(9)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        request = UploadRequest("bucket", "key", checksum_algorithm="CRC32", checksum_type=ChecksumType.FULL_OBJECT)
        upload = await core.objects.create_upload(root, request)
        bodies = {number: rng.randbytes(300_000) for number in (1, 2, 3, 5)}

        async def part(number: int, body: bytes) -> NamedPart:
            record = await core.objects.put_part(
                root,
                PartRequest("bucket", "key", upload.upload_id, number),
                bytes_body(core.chunks.pool, body),
            )
            return NamedPart(number, record.etag)

        stale = await part(2, b"stale")
        named = {number: await part(number, bodies[number]) for number in (5, 3, 2, 1)}
        complete = CompleteRequest("bucket", "key", upload.upload_id, (named[1], named[2], named[5]))
        with pytest.raises(InvalidPart):
            await core.objects.complete_upload(root, msgspec.structs.replace(complete, parts=(named[1], stale)))
        with pytest.raises(InvalidPartOrder):
            await core.objects.complete_upload(root, msgspec.structs.replace(complete, parts=(named[2], named[1])))
        record = await core.objects.complete_upload(root, complete)
        whole = bodies[1] + bodies[2] + bodies[5]
        digests = b"".join(bytes.fromhex(named[number].etag) for number in (1, 2, 5))
        assert record.etag == hashlib.md5(digests).hexdigest() + "-3"
        assert record.checksums[0].value == crc32(whole).to_bytes(4, "big")
        assert await get(core, root, "key") == whole
        assert await get(core, root, "key", 299_990, 300_020) == whole[299_990:600_010]
        await until(lambda: len(list(core.segments.chunk_ids())) == 3 and not core.meta.state.drop_jobs(1))
        source = await core.objects.head(root, "bucket", "key")
        again = await core.objects.create_upload(root, UploadRequest("bucket", "copy"))
        copied = await core.objects.copy_part(
            root, CopyPartRequest("bucket", "key", source, 1000, 400_000, "bucket", "copy", again.upload_id, 1)
        )
        assert copied.etag == hashlib.md5(whole[1000:401_000]).hexdigest()
        await core.objects.abort_upload(root, "bucket", "copy", again.upload_id)
        await until(lambda: len(list(core.segments.chunk_ids())) == 3)


async def test_small_parts_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "key"))
        named = []
        for number, size in ((1, 999), (2, 5)):
            request = PartRequest("bucket", "key", upload.upload_id, number)
            part = await core.objects.put_part(root, request, bytes_body(core.chunks.pool, os.urandom(size)))
            named.append(NamedPart(number, part.etag))
        with pytest.raises(TooSmall):
            await core.objects.complete_upload(root, CompleteRequest("bucket", "key", upload.upload_id, tuple(named)))


async def test_owners_are_kept_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        keys = {name: await core.tenants.create_key(name=name) for name in ("alice", "bob")}
        alice, bob = (core.tenants.principal_for(keys[name].access_key) for name in ("alice", "bob"))
        assert alice is not None
        assert bob is not None
        await core.objects.create_bucket(alice[0], "bucket")
        await put(core, alice[0], "key", b"secret")
        denied: list[Callable[[], Awaitable[object]]] = [
            lambda: get(core, bob[0], "key"),
            lambda: put(core, bob[0], "key", b"x"),
            lambda: core.objects.delete(bob[0], "bucket", "key"),
            lambda: core.objects.delete_bucket(bob[0], "bucket"),
        ]
        for action in denied:
            with pytest.raises(Denied):
                await action()
        assert await core.objects.list_buckets(bob[0]) == []
        assert await get(core, root, "key") == b"secret"
        with pytest.raises(BucketNotEmpty):
            await core.objects.delete_bucket(root, "bucket")


@pytest.mark.parametrize("name", ["ab", "UPPER", "a" * 64, "a..b", "192.168.0.1", "-a-", "xn--b", "a_b", "é" * 4])
async def test_bad_bucket_names_are_refused(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as (core, root):
        with pytest.raises(InvalidName):
            await core.objects.create_bucket(root, name)


async def test_versions_of_one_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", b"null")
        await core.objects.set_versioning(root, "bucket", Versioning.ENABLED)
        await put(core, root, "key", b"one")
        await put(core, root, "key", b"two")
        marker = await core.objects.delete(root, "bucket", "key")
        assert marker.delete_marker
        with pytest.raises(NoSuchKey) as hidden:
            await core.objects.head(root, "bucket", "key")
        assert hidden.value.fields["delete_marker_version"] == marker.version_id
        versions = [version for _, version, _ in core.objects.list_versions(root, "bucket").entries]
        assert [version.size_bytes for version in versions] == [0, 3, 3, 4]
        assert versions[-1].version_id == "null"
        await core.objects.delete(root, "bucket", "key", marker.version_id)
        assert await get(core, root, "key") == b"two"
        await core.objects.delete(root, "bucket", "key", versions[1].version_id)
        assert await get(core, root, "key") == b"one"
