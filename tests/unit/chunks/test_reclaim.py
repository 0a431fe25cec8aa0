"""What is condemned goes when no pin holds it, and no sooner (rule 6)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgestore.chunks import Pins, Reclaimer
from edgestore.config import ChunksConfig, DiskConfig
from edgestore.disk import FragmentUnit, RocksIndex, Segments, SystemFiles
from edgestore.errors import Corrupt, DiskFailed, EdgeStoreError, Unavailable


@dataclass
class Clock:
    """Boot time by hand."""

    at_ms: int = 0

    def boot_ms(self) -> int:
        return self.at_ms

    def wall_ms(self) -> int:
        return self.at_ms


@dataclass
class Catalog:
    """The interface that the node hands in, over plain sets."""

    index: int = 10
    rows: dict[bytes, int] = field(default_factory=dict)
    named: set[bytes] = field(default_factory=set)
    asked: list[bytes] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    jobs: list[bytes] = field(default_factory=list)

    def applied_index(self) -> int:
        return self.index

    def condemned(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        return [row for row in sorted(self.rows.items()) if row[0] > after or not after][:limit]

    def names_chunk(self, chunk_id: bytes) -> bool:
        return chunk_id in self.named

    def drop_jobs(self, limit: int) -> list[bytes]:
        return self.jobs[:limit]

    async def reclaimed(self, chunk_ids: tuple[bytes, ...]) -> None:
        for chunk_id in chunk_ids:
            del self.rows[chunk_id]

    async def condemn(self, chunk_ids: tuple[bytes, ...]) -> None:
        self.asked += chunk_ids

    async def continue_drop(self, job_id: bytes) -> bool:
        self.jobs.remove(job_id)
        return True

    async def advance_writer(self, low_water: int) -> None:
        self.marks.append(low_water)


def chunk_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


@dataclass
class Place:
    segments: Segments
    catalog: Catalog
    clock: Clock
    pins: Pins
    reclaimer: Reclaimer
    low_water: int = 0

    def stored(self) -> list[int]:
        return sorted(int.from_bytes(found, "big") for found in self.segments.chunk_ids())

    async def turns(self) -> None:
        while await self.reclaimer.turn():
            continue


@asynccontextmanager
async def opened(folder: Path, chunks: int) -> AsyncIterator[Place]:
    """So many stored chunks, numbered from 0."""
    files = SystemFiles(str(folder))
    index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
    disk = DiskConfig(segment_bytes=16 << 20, reserve_bytes=0)
    segments = await Segments.open(files, "segments", index, disk, entropy=os.urandom)
    catalog, clock = Catalog(), Clock()
    pins = Pins(clock, 1000)
    place: Place
    config = ChunksConfig(reclaim_batch_chunks=4)
    reclaimer = Reclaimer(
        catalog, segments, pins, config, disk, low_water=lambda: place.low_water, forget=segments.delete
    )
    place = Place(segments, catalog, clock, pins, reclaimer)
    for number in range(chunks):
        segments.put(chunk_id(number), b"data", (FragmentUnit(4, 4, 0),))
    try:
        yield place
    finally:
        await segments.close()
        index.close()


async def test_a_pinned_chunk_stays_until_the_reader_has_ended(tmp_path: Path) -> None:
    async with opened(tmp_path, 3) as place:
        pin = place.pins.pin(10)
        place.catalog.index = 13
        place.catalog.rows = {chunk_id(0): 9, chunk_id(1): 11, chunk_id(2): 12}
        await place.turns()
        assert place.stored() == [1, 2]
        pin.release()
        await place.turns()
        assert place.stored() == []
        assert not place.catalog.rows


async def test_a_lapsed_pin_holds_nothing_and_its_reader_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path, 1) as place:
        pin = place.pins.pin(5)
        place.catalog.rows = {chunk_id(0): 6}
        place.clock.at_ms = 1000
        await place.turns()
        assert place.stored() == [0]
        place.clock.at_ms = 1001
        for _ in range(2):
            with pytest.raises(Unavailable):
                pin.check()
        await place.turns()
        assert place.stored() == []


async def test_a_pin_whose_reader_makes_progress_never_lapses(tmp_path: Path) -> None:
    async with opened(tmp_path, 1) as place:
        pin = place.pins.pin(5)
        place.catalog.rows = {chunk_id(0): 6}
        for _ in range(20):
            place.clock.at_ms += 1000
            pin.check()
            await place.turns()
            assert place.stored() == [0]
        place.clock.at_ms += 1001
        await place.turns()
        assert place.stored() == []
        with pytest.raises(Unavailable):
            pin.check()


async def test_chunks_that_are_pinned_do_not_hide_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path, 40) as place:
        place.pins.pin(10)
        place.catalog.index = 30
        place.catalog.rows = {chunk_id(number): 20 if number < 30 else 5 for number in range(40)}
        await place.turns()
        assert place.stored() == list(range(30))


async def test_the_sweep_asks_for_what_nothing_names_and_moves_the_mark_first(tmp_path: Path) -> None:
    async with opened(tmp_path, 11) as place:
        place.catalog.named = {chunk_id(number) for number in (1, 5, 6)}
        place.low_water = 7
        await place.reclaimer.sweep()
        await place.reclaimer.sweep()
        assert place.catalog.marks == [7]
        assert sorted(set(place.catalog.asked)) == [chunk_id(n) for n in (0, 2, 3, 4, 7, 8, 9, 10)]
        assert place.stored() == list(range(11))


async def test_drop_jobs_go_on_piece_by_piece(tmp_path: Path) -> None:
    async with opened(tmp_path, 0) as place:
        place.catalog.jobs = [b"one", b"two"]
        assert await place.reclaimer.turn()
        assert place.catalog.jobs == [b"two"]
        await place.turns()
        assert place.catalog.jobs == []


async def test_housekeeping_goes_on_after_a_postponed_turn(tmp_path: Path) -> None:
    async with opened(tmp_path, 1) as place:
        place.catalog.rows = {chunk_id(0): 1}
        failures = [Unavailable("not now")]
        whole = place.catalog.reclaimed

        async def reclaimed(chunk_ids: tuple[bytes, ...]) -> None:
            if failures:
                raise failures.pop()
            await whole(chunk_ids)

        place.catalog.reclaimed = reclaimed  # type: ignore[method-assign]
        task = asyncio.ensure_future(place.reclaimer.run())
        async with asyncio.timeout(10):
            while place.catalog.rows:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert not failures


@pytest.mark.parametrize(
    "failure",
    [Unavailable("not now"), Corrupt("a row is damaged"), DiskFailed("EIO"), OSError("bare"), RuntimeError("a fault")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("job", ["sweep", "reclaim", "compaction"])
async def test_a_job_that_fails_ends_neither_itself_nor_the_others(
    tmp_path: Path, job: str, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, 3) as place:
        met: list[str] = []
        counts = dict.fromkeys(("sweep", "reclaim", "compaction"), 0)

        def ask(name: str) -> None:
            counts[name] += 1
            if name == job and not met:
                met.append(name)
                raise failure

        names = place.catalog.names_chunk

        def names_chunk(found: bytes) -> bool:
            ask("sweep")
            return names(found)

        condemned, sparse = place.catalog.condemned, place.segments.dead_and_sparse

        def rows(limit: int) -> list[tuple[bytes, int]]:
            ask("reclaim")
            return condemned(limit)

        def candidates() -> tuple[list[int], int | None]:
            ask("compaction")
            return sparse()

        place.catalog.names_chunk = names_chunk  # type: ignore[method-assign]
        place.catalog.condemned = rows  # type: ignore[method-assign]
        place.segments.dead_and_sparse = candidates  # type: ignore[method-assign]
        place.reclaimer._config = ChunksConfig(reclaim_interval_ms=1, sweep_interval_ms=0)
        task = asyncio.ensure_future(place.reclaimer.run())
        async with asyncio.timeout(10):
            while min(counts.values()) < 5:
                await asyncio.sleep(0.001)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert f"job={job}" in caplog.text
        assert caplog.text.count("housekeeping-") == 1
        assert isinstance(failure, EdgeStoreError) == ("housekeeping-postponed" in caplog.text)


async def test_failures_in_a_row_are_tried_less_and_less_often(tmp_path: Path) -> None:
    async with opened(tmp_path, 0) as place:
        asked: list[float] = []

        def rows(limit: int) -> list[tuple[bytes, int]]:
            asked.append(asyncio.get_running_loop().time())
            raise DiskFailed("EIO")

        place.catalog.condemned = rows  # type: ignore[method-assign]
        place.reclaimer._config = ChunksConfig(reclaim_interval_ms=2)
        task = asyncio.ensure_future(place.reclaimer.run())
        async with asyncio.timeout(10):
            while len(asked) < 6:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert asked[5] - asked[4] > 5 * (asked[1] - asked[0]) or asked[5] - asked[4] > 0.06


async def test_one_of_several_nodes_deletes_its_own_and_leaves_the_rows_to_the_leader(tmp_path: Path) -> None:
    async with opened(tmp_path, 6) as place:
        floor, own = 12, {b"job-1"}
        place.reclaimer.join_site(lambda: floor, lambda name: name in own)
        place.catalog.index = 20
        place.catalog.rows = {chunk_id(number): 10 + number for number in range(5)}
        place.catalog.jobs = [b"job-0", b"job-1"]
        pin = place.pins.pin(12)
        await place.turns()
        assert place.stored() == [2, 3, 4, 5], "what the own reader at 12 may need stays"
        assert place.reclaimer.reclaimed_index == 11
        assert place.catalog.jobs == [b"job-0"], "another node's job is its own"
        assert len(place.catalog.rows) == 5
        pin.release()
        await place.turns()
        assert place.stored() == [3, 4, 5], "others still read at 13"
        floor = 30
        await place.turns()
        assert place.stored() == [5]
        assert place.reclaimer.reclaimed_index == 20, "nothing is said of what is not applied here yet"
