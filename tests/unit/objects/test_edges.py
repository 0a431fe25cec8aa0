"""The edges of the data path: unknown lengths, lying bodies, callers that go, sources that go, a full disk."""

from __future__ import annotations

import asyncio
import os
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
from edgestore.errors import BadRequest, IncompleteBody, NoSuchKey, StorageFull, TooLarge, Unavailable
from edgestore.objects import (
    CompleteRequest,
    CopyPartRequest,
    CopyRequest,
    Expected,
    PartRequest,
    PutRequest,
    SmallObject,
    UploadRequest,
)
from edgestore.records import Principal, Versioning

CONFIG = Config(
    disk=DiskConfig(reserve_bytes=0, segment_bytes=16 * 1024 * 1024, journal_file_bytes=8 * 1024 * 1024),
    chunks=ChunksConfig(pool_bytes=8 * 1024 * 1024, pool_read_reserve_bytes=1024 * 1024, reclaim_interval_ms=20),
    objects=ObjectsConfig(part_min_bytes=1000),
)


@asynccontextmanager
async def opened(folder: Path, config: Config = CONFIG) -> AsyncIterator[tuple[Core, Principal]]:
    core = await Core.open(SystemFiles(str(folder)), config)
    try:
        yield core, core.tenants.root()
    finally:
        await core.close()


async def put(core: Core, who: Principal, key: str, data: bytes) -> None:
    await core.objects.put(who, PutRequest("bucket", key), bytes_body(core.chunks.pool, data))


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("size", [0, 1, 8192, 8193, 300_000])
async def test_a_body_of_unknown_length_is_stored_as_one_of_known_length(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        body = IteratorBody(core.chunks.pool, pieces_of(data[:100], data[100:]), None)
        record = await core.objects.put(root, PutRequest("bucket", "key"), body)
        assert record.size_bytes == size
        assert bool(record.extents) == (size > 8192)
        reader = await core.objects.open(root, "bucket", "key")
        assert b"".join([bytes(view) async for view in reader.read()]) == data
        reader.close()
        assert core.chunks.pool.taken_bytes == 0


@pytest.mark.parametrize(("announced", "sent"), [(10, 9), (10, 11), (300_000, 299_999), (300_000, 6_000_000)])
async def test_a_body_of_another_length_than_announced_stores_nothing(
    tmp_path: Path, announced: int, sent: int
) -> None:
    neighbour = os.urandom(400_000)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        body = IteratorBody(core.chunks.pool, pieces_of(os.urandom(sent)), announced)
        async with asyncio.TaskGroup() as group:
            group.create_task(put(core, root, "neighbour", neighbour))
            with pytest.raises(IncompleteBody):
                await core.objects.put(root, PutRequest("bucket", "key"), body)
        reader = await core.objects.open(root, "bucket", "neighbour")
        assert b"".join([bytes(view) async for view in reader.read()]) == neighbour
        reader.close()
        with pytest.raises(NoSuchKey):
            await core.objects.head(root, "bucket", "key")
        await until(lambda: len(list(core.segments.chunk_ids())) == 1 and core.chunks.pool.taken_bytes == 0)


async def test_a_caller_that_goes_during_the_commit_leaves_no_open_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        for delay in range(12):
            task = asyncio.create_task(put(core, root, f"key-{delay}", os.urandom(50_000)))
            for _ in range(delay * 3):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: core.chunks.low_water() == core.chunks._numbers._next)
        for key, _ in core.objects.list_objects(root, "bucket").entries:
            reader = await core.objects.open(root, "bucket", key)
            assert len(b"".join([bytes(view) async for view in reader.read()])) == 50_000
            reader.close()


async def test_a_commit_that_takes_too_long_says_so_and_is_followed_up(tmp_path: Path) -> None:
    hasty = replace(CONFIG, objects=ObjectsConfig(commit_timeout_s=0.0))
    async with opened(tmp_path, hasty) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        with pytest.raises(Unavailable, match="not known yet"):
            await put(core, root, "key", os.urandom(50_000))
        await until(lambda: core.chunks.low_water() == core.chunks._numbers._next)
        assert (await core.objects.head(root, "bucket", "key")).size_bytes == 50_000


@pytest.mark.parametrize("size", [100, 50_000], ids=["inline", "chunks"])
async def test_a_source_that_went_is_no_such_key_and_never_half_a_copy(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "source", os.urandom(size))
        source = await core.objects.head(root, "bucket", "source")
        await core.objects.delete(root, "bucket", "source")
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "copy"))
        part = CopyPartRequest("bucket", "source", source, 0, size, "bucket", "copy", upload.upload_id, 1)
        whole = CopyRequest("bucket", "source", source, "bucket", "copy")
        actions: list[Callable[[], Awaitable[object]]] = [
            lambda: core.objects.copy_part(root, part),
            lambda: core.objects.copy(root, whole),
            lambda: core.objects.copy(root, msgspec.structs.replace(whole, algorithm="SHA256")),
        ]
        for action in actions:
            with pytest.raises(NoSuchKey):
                await action()
        assert core.chunks.pool.taken_bytes == 0


async def test_a_copy_for_another_checksum_has_it(tmp_path: Path) -> None:
    data = os.urandom(30_000)
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "source", data)
        source = await core.objects.head(root, "bucket", "source")
        request = CopyRequest("bucket", "source", source, "bucket", "copy", algorithm="CRC32C", metadata={"a": "b"})
        copied = await core.objects.copy(root, request)
        assert [checksum.algorithm for checksum in copied.checksums] == ["CRC32C"]
        assert copied.metadata == {"a": "b"}
        assert copied.etag == source.etag


async def test_a_full_disk_refuses_content_and_takes_deletes(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await core.objects.set_versioning(root, "bucket", Versioning.ENABLED)
        await put(core, root, "key", b"inline")
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "key"))
        source = await core.objects.head(root, "bucket", "key")
    full = replace(CONFIG, disk=replace(CONFIG.disk, reserve_bytes=1 << 60))
    async with opened(tmp_path, full) as (core, root):
        part = PartRequest("bucket", "key", upload.upload_id, 1)
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: put(core, root, "key", b"small"),
            lambda: put(core, root, "key", os.urandom(1_000_000)),
            lambda: core.objects.put_part(root, part, bytes_body(core.chunks.pool, b"x" * 5000)),
            lambda: core.objects.copy(root, CopyRequest("bucket", "key", source, "bucket", "copy")),
            lambda: core.objects.create_upload(root, UploadRequest("bucket", "other")),
        ]
        for action in refused * 3:
            with pytest.raises(StorageFull):
                await action()
        with pytest.raises(StorageFull):
            core.objects.put_small(root, PutRequest("bucket", "key"), b"x", lambda record, error: None)
        assert core.chunks.pool.taken_bytes == 0
        small = core.objects.get_small(root, "bucket", "key")
        assert isinstance(small, SmallObject)
        assert small.body == b"inline"
        assert (await core.objects.delete(root, "bucket", "key")).delete_marker
        await core.objects.delete(root, "bucket", "key", source.version_id)
        await core.objects.abort_upload(root, "bucket", "key", upload.upload_id)


async def test_an_upload_of_no_parts_is_not_completed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "key"))
        with pytest.raises(BadRequest):
            await core.objects.complete_upload(root, CompleteRequest("bucket", "key", upload.upload_id, ()))


async def test_a_read_that_lasts_long_and_goes_on_is_not_cut(tmp_path: Path) -> None:
    config = replace(CONFIG, chunks=replace(CONFIG.chunks, pin_ttl_ms=300))
    data = os.urandom(6_000_000)
    async with opened(tmp_path, config) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", data)
        reader = await core.objects.open(root, "bucket", "key")
        await core.objects.delete(root, "bucket", "key")
        found = b""
        async for view in reader.read():
            found += bytes(view)
            await asyncio.sleep(0.03)
        reader.close()
        assert found == data


async def test_a_read_that_stood_still_too_long_breaks_off(tmp_path: Path) -> None:
    config = replace(CONFIG, chunks=replace(CONFIG.chunks, pin_ttl_ms=50))
    async with opened(tmp_path, config) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", os.urandom(6_000_000))
        reader = await core.objects.open(root, "bucket", "key")
        views = reader.read()
        await anext(views)
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="stood still too long"):
            await anext(views)
        reader.close()


async def test_a_copy_for_another_owner_keeps_the_checksums_of_its_source(tmp_path: Path) -> None:
    async with opened(tmp_path) as (core, root):
        await core.tenants.create_key(name="bob", access_key="BOBSACCESSKEY1234567", secret_key="s" * 40)
        found = core.tenants.principal_for("BOBSACCESSKEY1234567")
        assert found is not None
        await core.objects.create_bucket(found[0], "bucket")
        await core.objects.create_bucket(root, "mine")
        request = PutRequest("bucket", "source", expected=Expected(algorithms=("CRC32C",)))
        source = await core.objects.put(root, request, bytes_body(core.chunks.pool, os.urandom(30_000)))
        assert source.checksums
        copied = await core.objects.copy(root, CopyRequest("bucket", "source", source, "mine", "copy"))
        assert copied.checksums == source.checksums


@pytest.mark.parametrize("size", [1001, 20_000])
async def test_the_limit_of_a_put_holds_however_small_it_is(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path, replace(CONFIG, objects=ObjectsConfig(put_max_bytes=1000))) as (core, root):
        await core.objects.create_bucket(root, "bucket")
        await put(core, root, "key", bytes(1000))
        with pytest.raises(TooLarge):
            await put(core, root, "other", bytes(size))
        with pytest.raises(TooLarge):
            core.objects.put_small(root, PutRequest("bucket", "other"), bytes(size), lambda record, error: None)
