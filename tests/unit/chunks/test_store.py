"""Chunks on a real disk: what was written comes back checked, failures leave nothing, readers share one budget."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgestore.chunks import ChunkStore, Digests, IteratorBody, StoredBody, Unit, UnitPool, bytes_body
from edgestore.chunks.store import READ_RUN_BYTES
from edgestore.config import ChunksConfig, DiskConfig
from edgestore.disk import RocksIndex, Segments, SystemFiles
from edgestore.errors import Corrupt, StorageFull
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES, Checksum, ChunkRef

CONFIG = ChunksConfig(pool_bytes=16 * UNIT_BYTES, pool_read_reserve_bytes=2 * READ_RUN_BYTES)


@dataclass
class Place:
    """A chunk store and what is below it."""

    chunks: ChunkStore
    segments: Segments
    folder: Path

    async def write(self, data: bytes) -> StoredBody:
        return await self.chunks.write(bytes_body(self.chunks.pool, data), Digests())

    async def read(self, stored: StoredBody, offset: int = 0, length: int | None = None) -> bytes:
        length = stored.size_bytes - offset if length is None else length
        return b"".join([bytes(view) async for view in self.chunks.read(stored.extents(), offset, length)])

    def stored_ids(self) -> set[bytes]:
        return set(self.segments.chunk_ids())


@asynccontextmanager
async def opened(folder: Path, config: ChunksConfig = CONFIG, reserve_bytes: int = 0) -> AsyncIterator[Place]:
    files = SystemFiles(str(folder))
    index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
    disk = DiskConfig(segment_bytes=16 << 20, reserve_bytes=reserve_bytes)
    segments = await Segments.open(files, "segments", index, disk, entropy=os.urandom)
    chunks = ChunkStore(segments, files, config, writer=7)
    try:
        yield Place(chunks, segments, folder)
    finally:
        await segments.close()
        chunks.close()
        index.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def mixed(size: int) -> bytes:
    """Units that pack well beside units that do not."""
    units = [
        os.urandom(UNIT_BYTES) if at % 2 else b"edge " * (UNIT_BYTES // 5 + 1) for at in range(-(-size // UNIT_BYTES))
    ]
    return b"".join(unit[:UNIT_BYTES] for unit in units)[:size]


async def test_a_body_is_cut_at_4_mib_and_comes_back_in_any_range(tmp_path: Path) -> None:
    data = mixed(2 * CHUNK_MAX_BYTES + 3 * UNIT_BYTES + 17)
    async with opened(tmp_path) as place:
        stored = await place.write(data)
        assert [chunk.size_bytes for chunk in stored.chunks] == [CHUNK_MAX_BYTES, CHUNK_MAX_BYTES, 3 * UNIT_BYTES + 17]
        assert await place.read(stored) == data
        borders = (0, 1, UNIT_BYTES - 1, UNIT_BYTES, CHUNK_MAX_BYTES - 1, CHUNK_MAX_BYTES, 2 * CHUNK_MAX_BYTES + 5)
        for offset in borders:
            for length in (0, 1, UNIT_BYTES + 1, CHUNK_MAX_BYTES + 2):
                assert (
                    await place.read(stored, offset, min(length, len(data) - offset)) == data[offset : offset + length]
                )


async def test_digests_are_of_the_plain_bytes(tmp_path: Path) -> None:
    data = mixed(5 * UNIT_BYTES + 3)
    async with opened(tmp_path) as place:
        digests = Digests(("SHA256",))
        await place.chunks.write(bytes_body(place.chunks.pool, data), digests)
        assert digests.md5 == hashlib.md5(data).digest()
        assert digests.value("SHA256") == hashlib.sha256(data).digest()


async def test_what_packs_takes_less_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        stored = await place.write(b"edge " * 200_000)
        info = place.segments.lookup(stored.chunks[0].chunk_id)
        assert info is not None
        assert info.fragment.stored_bytes < 100_000
        assert sum(unit.plain_bytes for unit in info.fragment.units) == 1_000_000


async def test_what_write_returned_is_there_after_a_start(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES + 9)
    async with opened(tmp_path) as place:
        stored = await place.write(data)
    async with opened(tmp_path) as place:
        assert await place.read(stored) == data


class ShortUnits:
    """A body whose units are none of them full."""

    trailer_checksums: tuple[Checksum, ...] = ()

    def __init__(self, pool: UnitPool, data: bytes, step: int, size_bytes: int | None) -> None:
        self._pool, self._data, self._step, self.size_bytes = pool, data, step, size_bytes

    async def next_unit(self) -> Unit | None:
        if not self._data:
            return None
        unit = await self._pool.acquire()
        piece, self._data = self._data[: self._step], self._data[self._step :]
        unit.buffer[: len(piece)] = piece
        unit.filled = len(piece)
        return unit


@pytest.mark.parametrize("announced", [None, 100_000, 12_000_000])
async def test_no_chunk_writes_over_its_neighbour_whatever_the_body_does(tmp_path: Path, announced: int | None) -> None:
    async with opened(tmp_path) as place:
        data = os.urandom(9_000_000)
        body = ShortUnits(place.chunks.pool, data, 190_001, announced)
        async with asyncio.TaskGroup() as group:
            odd = group.create_task(place.chunks.write(body, Digests()))
            others = [group.create_task(place.write(bytes((n,)) * 700_000 + os.urandom(50_000))) for n in range(8)]
        assert await place.read(odd.result()) == data
        for number, other in enumerate(others):
            assert (await place.read(other.result()))[:700_000] == bytes((number,)) * 700_000


async def failing(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield os.urandom(UNIT_BYTES)
    raise ConnectionError("gone")


async def slow() -> AsyncIterator[bytes]:
    yield os.urandom(3 * CHUNK_MAX_BYTES // 2)
    await asyncio.sleep(60)


async def test_a_body_that_breaks_off_leaves_no_chunk_no_unit_and_no_open_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        for pieces in (0, 1, 5, 20):
            with pytest.raises(ConnectionError):
                await place.chunks.write(IteratorBody(place.chunks.pool, failing(pieces), None), Digests())
        task = asyncio.ensure_future(place.chunks.write(IteratorBody(place.chunks.pool, slow(), None), Digests()))
        await until(lambda: place.chunks.pool.taken_bytes == 0 and bool(place.stored_ids()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: place.chunks.pool.taken_bytes == 0 and not place.stored_ids())
        numbers = place.chunks.low_water()
        stored = await place.write(b"x" * 10_000)
        assert stored.chunks[0].number == numbers


async def test_a_full_disk_keeps_no_unit(tmp_path: Path) -> None:
    async with opened(tmp_path, reserve_bytes=1 << 60) as place:
        for _ in range(40):
            with pytest.raises(StorageFull):
                await place.write(os.urandom(UNIT_BYTES + 1))
        with pytest.raises(StorageFull):
            place.chunks.put_small(b"x", lambda chunks, error: None)
        assert place.chunks.pool.taken_bytes == 0
        assert place.chunks.low_water() == 41


async def test_the_mark_waits_for_the_outcome_of_a_naming(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        first, second = await place.write(b"a" * 100), await place.write(b"b" * 100)
        assert place.chunks.low_water() == first.chunks[0].number
        place.chunks.settle(second)
        assert place.chunks.low_water() == first.chunks[0].number
        place.chunks.drop(first)
        assert place.chunks.low_water() == second.chunks[0].number + 1
        assert place.stored_ids() == {second.chunks[0].chunk_id}


async def test_a_new_writer_in_the_middle_of_a_body_parts_no_chunk_from_its_name(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES + 3 * UNIT_BYTES)
    async with opened(tmp_path) as place:

        async def pieces() -> AsyncIterator[bytes]:
            yield data[: CHUNK_MAX_BYTES // 2]
            place.chunks.begin_writer(8)
            yield data[CHUNK_MAX_BYTES // 2 :]

        stored = await place.chunks.write(IteratorBody(place.chunks.pool, pieces(), len(data)), Digests())
        assert [(chunk.writer, chunk.number) for chunk in stored.chunks] == [(7, 0), (8, 1)]
        assert await place.read(stored) == data


async def test_small_chunks_are_read_at_once_while_they_are_cached(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        for data in (os.urandom(100_000), b"edge " * 20_000):
            future: asyncio.Future[StoredBody | None] = asyncio.get_running_loop().create_future()
            place.chunks.put_small(data, lambda stored, error, f=future: f.set_result(stored))
            stored = await future
            assert stored is not None
            small = place.chunks.read_small(stored.extents()[0])
            assert small is None or bytes(small) == data
            assert await place.read(stored) == data


def flip(folder: Path, place: int) -> None:
    (path,) = sorted((folder / "segments").glob("*"))[:1]
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes((byte[0] ^ 1,)))


async def test_a_flipped_bit_is_never_served(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        stored = await place.write(os.urandom(4 * UNIT_BYTES))
        info = place.segments.lookup(stored.chunks[0].chunk_id)
        assert info is not None
        flip(tmp_path, info.data_offset + 3 * UNIT_BYTES + 5)
        with pytest.raises(Corrupt):
            await place.read(stored)
        assert len(await place.read(stored, 0, UNIT_BYTES)) == UNIT_BYTES


async def test_a_chunk_without_a_fragment_is_corrupt_not_empty(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        with pytest.raises(Corrupt, match="no fragment"):
            await place.read(StoredBody((ChunkRef(7, 99, 1000),), 1000))


async def test_slow_readers_share_one_budget_and_none_waits_for_another(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path) as place:
        stored = await place.write(data)
        budget = place.chunks._budget
        readers = [place.chunks.read(stored.extents(), 0, len(data)) for _ in range(30)]
        firsts = [await anext(reader) for reader in readers]  # all of them stop here and hold what they have
        assert budget.left_bytes == 0
        assert sum(len(first) == READ_RUN_BYTES for first in firsts) <= 2
        assert all(bytes(first) == data[: len(first)] for first in firsts)
        assert await place.read(stored) == data
        for reader in readers:
            await reader.aclose()
        assert budget.left_bytes == CONFIG.pool_read_reserve_bytes


async def test_a_reader_that_stops_early_or_fails_gives_its_budget_back(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)

    async def broken_off(place: Place, stored: StoredBody) -> None:
        async with aclosing(place.chunks.read(stored.extents(), 0, len(data))) as views:
            await anext(views)

    async def failed(place: Place, stored: StoredBody) -> None:
        place.chunks.drop(stored)
        with pytest.raises(Corrupt):
            await place.read(stored)

    actions: tuple[Callable[[Place, StoredBody], Awaitable[None]], ...] = (broken_off, failed)
    async with opened(tmp_path) as place:
        for action in actions:
            await action(place, await place.write(data))
            assert place.chunks._budget.left_bytes == CONFIG.pool_read_reserve_bytes


async def test_many_uploads_at_once_stay_within_the_pool(tmp_path: Path) -> None:
    highest = 0
    async with opened(tmp_path) as place:

        async def upload(number: int) -> None:
            nonlocal highest
            data = bytes((number,)) * (2 * UNIT_BYTES) + os.urandom(UNIT_BYTES)
            stored = await place.write(data)
            highest = max(highest, place.chunks.pool.taken_bytes)
            assert await place.read(stored) == data

        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(upload(number))
        assert place.chunks.pool.taken_bytes == 0
        assert highest <= CONFIG.pool_bytes - CONFIG.pool_read_reserve_bytes
