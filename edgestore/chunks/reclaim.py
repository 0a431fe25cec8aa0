"""Deletes what the catalog has condemned, finds garbage after a start, and keeps the writer's low-water mark (rule 6).

Rule: no clock decides what goes: a chunk goes when it was condemned below every index that a reader has pinned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from edgestore.clock import Clock
from edgestore.config import ChunksConfig, DiskConfig
from edgestore.disk import Segments, compact
from edgestore.errors import EdgeStoreError, Unavailable
from edgestore.observe import NO_METRICS, Metrics

log = logging.getLogger("edgestore.chunks")

CONDEMNED_BATCHES = 16
SWEEP_CHUNKS_A_STEP = 64
DROP_JOBS_SEEN = 16
"""On a site of several, each node does those of them that are its own."""
BACK_OFF_MAX = 6
"""Doublings of the pause after failures in a row: about a minute."""


class ChunkCatalog(Protocol):
    """What chunks need of the catalog; the node hands it in."""

    def applied_index(self) -> int:
        """The index that a read made now sees."""
        ...

    def condemned(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        """(chunk id, index at which it was condemned) by id, of those behind `after`."""
        ...

    def names_chunk(self, chunk_id: bytes) -> bool:
        """Whether an extent names the chunk."""
        ...

    def drop_jobs(self, limit: int) -> list[bytes]:
        """Ids of unfinished drop jobs."""
        ...

    async def reclaimed(self, chunk_ids: tuple[bytes, ...]) -> None:
        """Their fragments are gone."""
        ...

    async def condemn(self, chunk_ids: tuple[bytes, ...]) -> None:
        """Asks to condemn those that are garbage."""
        ...

    async def continue_drop(self, job_id: bytes) -> bool:
        """The next piece of a drop job; True when it is done."""
        ...

    async def advance_writer(self, low_water: int) -> None:
        """Moves the low-water mark of this node's writer."""
        ...


class Pin:
    """A reader's hold on everything that the catalog named at `index`."""

    __slots__ = ("_pins", "deadline_ms", "index")

    def __init__(self, pins: Pins, index: int, deadline_ms: int) -> None:
        self._pins, self.index, self.deadline_ms = pins, index, deadline_ms

    def check(self) -> None:
        """Before each unit: raises Unavailable where the pin has lapsed; else the reader makes progress, and the pin
        holds as long again."""
        now_ms = self._pins.now_ms()
        if now_ms > self.deadline_ms:
            raise Unavailable("the read stood still too long and its bytes may be gone: read the rest again")
        self.deadline_ms = now_ms + self._pins.ttl_ms

    def release(self) -> None:
        """The reader has ended."""
        self._pins.release(self)


class Pins:
    """The pins of all readers of this node."""

    def __init__(self, clock: Clock, ttl_ms: int) -> None:
        self._clock, self.ttl_ms = clock, ttl_ms
        self._pins: set[Pin] = set()

    def now_ms(self) -> int:
        """Boot time."""
        return self._clock.boot_ms()

    def pin(self, index: int) -> Pin:
        """A new pin."""
        pin = Pin(self, index, self.now_ms() + self.ttl_ms)
        self._pins.add(pin)
        return pin

    def release(self, pin: Pin) -> None:
        """See `Pin.release`."""
        self._pins.discard(pin)

    def lowest(self, otherwise: int) -> int:
        """The lowest index that a live pin holds."""
        now_ms = self.now_ms()
        self._pins = {pin for pin in self._pins if pin.deadline_ms >= now_ms}
        return min((pin.index for pin in self._pins), default=otherwise)


class Reclaimer:
    """The housekeeping of chunks, one turn at a time."""

    def __init__(
        self,
        catalog: ChunkCatalog,
        segments: Segments,
        pins: Pins,
        config: ChunksConfig,
        disk_config: DiskConfig,
        *,
        low_water: Callable[[], int],
        forget: Callable[[bytes], None],
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self._catalog, self._segments, self._pins, self._config = catalog, segments, pins, config
        self._disk_config, self._metrics = disk_config, metrics
        self._low_water, self._marked, self._forget = low_water, 0, forget
        self._floor: Callable[[], int] | None = None
        self._is_mine: Callable[[bytes], bool] = lambda _: True
        self.reclaimed_index = 0
        """On a site of several: no fragment of a chunk that was condemned at or before this index is here."""

    def join_site(self, floor: Callable[[], int], is_mine: Callable[[bytes], bool]) -> None:
        """There are other nodes. `floor`: what was condemned up to this index no reader of any of them needs; the
        leader ends what all have reclaimed. `is_mine`: whether this node does a job that any could do."""
        self._floor, self._is_mine = floor, is_mine

    async def run(self) -> None:
        """Until cancelled: a turn every `chunks.reclaim_interval_ms`, less often while something is broken; a sweep
        every `chunks.sweep_interval_ms`."""
        sweep_ms = self._pins.now_ms()
        failures = 0
        while True:
            failed = False
            if self._pins.now_ms() >= sweep_ms:
                failed |= await self._attempt("sweep", self.sweep)
                sweep_ms = self._pins.now_ms() + self._config.sweep_interval_ms
            failed |= await self._attempt("reclaim", self._all_turns)
            failed |= await self._attempt("compaction", self._compact)
            failures = min(failures + 1, BACK_OFF_MAX) if failed else 0
            await asyncio.sleep(self._config.reclaim_interval_ms / 1000 * 2**failures)

    async def _attempt(self, job: str, work: Callable[[], Awaitable[None]]) -> bool:
        """One job, which must not keep the others from theirs; True where it failed, and not for want of space or
        time. A failure of the disk that is one of the node has been told to the node by the room that met it."""
        failure: BaseException | None = None
        try:
            await work()
        except EdgeStoreError as error:
            failure = error
            log.warning("housekeeping-postponed job=%s error=%s", job, error)
        except Exception as error:
            failure = error
            log.exception("housekeeping-failed job=%s", job)
        if failure is not None:
            self._metrics.count("chunks_housekeeping_failures_total")
        return failure is not None and not isinstance(failure, Unavailable)

    async def _all_turns(self) -> None:
        while await self.turn():
            await asyncio.sleep(0)

    async def _compact(self) -> None:
        await compact(self._segments, self._disk_config, self._metrics)

    async def turn(self) -> bool:
        """One bounded piece of work; False where there is none."""
        worked = False
        for job_id in self._catalog.drop_jobs(DROP_JOBS_SEEN):
            if self._is_mine(job_id):
                await self._catalog.continue_drop(job_id)
                worked = True
                break
        if self._floor is not None:
            await self._reclaim_here(self._floor())
            return worked
        below = self._pins.lowest(self._catalog.applied_index() + 1)
        # Rows that are still pinned must not hide the others: look at more than one batch.
        rows = self._catalog.condemned(CONDEMNED_BATCHES * self._config.reclaim_batch_chunks)
        gone = tuple(chunk_id for chunk_id, index in rows if index < below)[: self._config.reclaim_batch_chunks]
        if gone:
            for chunk_id in gone:
                self._forget(chunk_id)
            self._metrics.count("chunks_reclaimed_total", len(gone))
            await self._catalog.reclaimed(gone)
        return worked or bool(gone)

    async def _reclaim_here(self, floor: int) -> None:
        """One of several nodes deletes its own fragments, and says how far it is (`reclaimed_index`)."""
        upto = min(floor, self._pins.lowest(self._catalog.applied_index() + 1) - 1)
        if upto <= self.reclaimed_index:
            return
        after, limit = b"", self._config.reclaim_batch_chunks
        while rows := self._catalog.condemned(limit, after):
            gone = [chunk_id for chunk_id, index in rows if self.reclaimed_index < index <= upto]
            for chunk_id in gone:
                self._forget(chunk_id)
            self._metrics.count("chunks_reclaimed_total", len(gone))
            after = rows[-1][0]
            await asyncio.sleep(0)
        self.reclaimed_index = upto

    async def sweep(self) -> None:
        """Condemns what lies on the disk and is named by nothing: what earlier starts and failed uploads left
        behind."""
        low_water = self._low_water()
        if low_water > self._marked:
            await self._catalog.advance_writer(low_water)
            self._marked = low_water
        batch: list[bytes] = []
        for turn, chunk_id in enumerate(self._segments.chunk_ids()):
            if not self._catalog.names_chunk(chunk_id):
                batch.append(chunk_id)
            if len(batch) >= self._config.reclaim_batch_chunks:
                await self._catalog.condemn(tuple(batch))
                batch.clear()
            if turn % SWEEP_CHUNKS_A_STEP == 0:
                await asyncio.sleep(0)
        if batch:
            await self._catalog.condemn(tuple(batch))
