"""The core of a node on one data folder: every room from the disk up to the object service, wired once.

Used by the embedded store as it is, by `edgestore.node` with listeners on top, and by the simulator on a simulated
disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edgestore.catalog import commands
from edgestore.chunks import ChunkStore, Pins, Reclaimer
from edgestore.clock import Clock, Entropy, SystemClock, system_entropy
from edgestore.config import Config
from edgestore.disk import Files, Journal, Lock, OrderedStore, RocksIndex, Scrubber, Segments, open_identity
from edgestore.errors import ConfigError, EdgeStoreError, StoreDamaged
from edgestore.meta import Meta
from edgestore.objects import ObjectService
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import SITE_TENANT, WriterRecord
from edgestore.tenants import RootKeys, TenantService

log = logging.getLogger("edgestore.node")

INDEX_FOLDER = "index"


class OpenStore(Protocol):
    """Opens an ordered store in a folder (`RocksIndex.open`; the simulator has its own)."""

    def __call__(self, files: Files, folder: str, *, write_buffer_bytes: int, cache_bytes: int) -> OrderedStore:
        """See `RocksIndex.open`."""
        ...


@dataclass
class MetaChunkCatalog:
    """What the rooms of chunks need of the catalog (`chunks.ChunkCatalog`)."""

    meta: Meta
    writer: int

    def applied_index(self) -> int:
        """See ChunkCatalog."""
        return self.meta.applied_index

    def condemned(self, limit: int) -> list[tuple[bytes, int]]:
        """See ChunkCatalog."""
        return self.meta.state.condemned(limit)

    def names_chunk(self, chunk_id: bytes) -> bool:
        """See ChunkCatalog."""
        return self.meta.state.names_chunk(chunk_id)

    def drop_jobs(self, limit: int) -> list[bytes]:
        """See ChunkCatalog."""
        return self.meta.state.drop_jobs(limit)

    async def reclaimed(self, chunk_ids: tuple[bytes, ...]) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.ReclaimedChunks(chunk_ids))

    async def condemn(self, chunk_ids: tuple[bytes, ...]) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.CondemnChunks(chunk_ids))

    async def continue_drop(self, job_id: bytes) -> bool:
        """See ChunkCatalog."""
        return bool(await self.meta.propose(SITE_TENANT, commands.ContinueDrop(job_id)))

    async def advance_writer(self, low_water: int) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.AdvanceWriter(self.writer, low_water))


class Core:
    """All rooms of one data folder. `open` and `close`; `on_failure` is called when the disk failed for good."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics) -> None:
        self.config, self.clock, self.metrics = config, clock, metrics
        self.failed: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self._tasks: list[asyncio.Task[None]] = []
        self._opened: list[tuple[str, Callable[[], Awaitable[None] | None]]] = []
        self.files: Files
        self.lock: Lock

    @classmethod
    async def open(
        cls,
        files: Files,
        config: Config,
        *,
        clock: Clock | None = None,
        entropy: Entropy = system_entropy,
        open_store: OpenStore = RocksIndex.open,
        root_keys: RootKeys | None = None,
        metrics: Metrics = NO_METRICS,
    ) -> Core:
        """Opens the folder and recovers it. Raises InUse, Corrupt, ConfigError, DiskFailed."""
        core = cls(config, clock or SystemClock(), metrics)
        core.files = files
        core.lock = files.lock("lock")
        core._opened.append(("lock", core.lock.release))
        try:
            await core._open(entropy, open_store, root_keys)
        except (Exception, asyncio.CancelledError):
            await core.close()
            raise
        return core

    async def _open(self, entropy: Entropy, open_store: OpenStore, root_keys: RootKeys | None) -> None:
        self._open_disk(entropy, open_store)
        await self._open_rooms(entropy, open_store)
        self._open_objects(entropy)
        self.root_keys = await self.tenants.start(self.files, root_keys)
        self.scrubber = Scrubber(self.segments, self.index_store, self.config.disk, self.clock, self.metrics)
        for housekeeping in (self.reclaimer.run(), self.scrubber.run()):
            task = asyncio.get_running_loop().create_task(housekeeping)
            task.add_done_callback(_report_end)
            self._tasks.append(task)

    def _open_disk(self, entropy: Entropy, open_store: OpenStore) -> None:
        config, files = self.config, self.files
        self.identity = open_identity(files, entropy)
        self.journal = Journal.open(files, "journal", config.disk, entropy, metrics=self.metrics)
        self._opened.append(("journal", self.journal.close))
        self.catalog_store = open_store(
            files,
            "catalog",
            write_buffer_bytes=config.meta.catalog_write_buffer_bytes,
            cache_bytes=config.meta.catalog_cache_bytes,
        )
        self._opened.append(("catalog", self.catalog_store.close))
        self.journal.on_failure = self._fail

    async def _open_segments(self, entropy: Entropy, open_store: OpenStore) -> None:
        """The index of the segments is derived from them: where it does not check out it is made again."""
        try:
            await self._open_segments_once(entropy, open_store)
        except StoreDamaged as error:
            log.critical("index-rebuilt reason=%s", error)
            for name in self.files.list(INDEX_FOLDER):
                self.files.remove(f"{INDEX_FOLDER}/{name}")
            await self._open_segments_once(entropy, open_store)
        self._opened.append(("index", self.index_store.close))
        self._opened.append(("segments", self._close_segments))
        self.segments.on_failure = self._fail

    async def _open_segments_once(self, entropy: Entropy, open_store: OpenStore) -> None:
        disk = self.config.disk
        self.index_store = open_store(
            self.files,
            INDEX_FOLDER,
            write_buffer_bytes=disk.index_write_buffer_bytes,
            cache_bytes=disk.index_cache_bytes,
        )
        try:
            self.segments = await Segments.open(
                self.files, "segments", self.index_store, disk, entropy=entropy, metrics=self.metrics
            )
        except (Exception, asyncio.CancelledError):
            self.index_store.close()
            raise

    async def _open_rooms(self, entropy: Entropy, open_store: OpenStore) -> None:
        config, files = self.config, self.files
        self.meta = await Meta.open(
            files,
            self.journal,
            self.catalog_store,
            config.meta,
            config.consensus,
            clock=self.clock,
            entropy=entropy,
            member=self.identity.member_id.hex(),
            metrics=self.metrics,
        )
        self._opened.append(("meta", self.meta.close))
        await self._open_segments(entropy, open_store)
        self.writer: WriterRecord = await self.meta.propose(
            SITE_TENANT, commands.RegisterWriter(self.identity.member_id.hex())
        )
        self.chunks = ChunkStore(self.segments, files, config.chunks, writer=self.writer.writer)
        self._opened.append(("chunks", self.chunks.close))
        self._opened.append(("site chunks", self.chunks.leave_site))

    def _open_objects(self, entropy: Entropy) -> None:
        config = self.config
        self.metrics.watch("chunks_pool_taken_bytes", lambda: float(self.chunks.pool.taken_bytes))
        pins = Pins(self.clock, config.chunks.pin_ttl_ms)
        self.objects = ObjectService(
            self.meta,
            self.chunks,
            pins,
            config.objects,
            clock=self.clock,
            entropy=entropy,
            region=config.s3.region,
            metrics=self.metrics,
        )
        self.tenants = TenantService(self.meta, self.clock, entropy)
        self.reclaimer = Reclaimer(
            MetaChunkCatalog(self.meta, self.writer.writer),
            self.segments,
            pins,
            config.chunks,
            config.disk,
            low_water=self.chunks.low_water,
            forget=self.chunks.forget,
            metrics=self.metrics,
        )

    @property
    def free_bytes(self) -> int:
        """What the disk still takes."""
        return self.files.free_bytes()

    @property
    def disk_health(self) -> dict[str, Any]:
        """What is known to be damaged, and when everything was last read (wall clock, 0: never)."""
        return {
            "damaged_fragments": len(self.segments.damaged),
            "quarantined_segments": len(self.segments.quarantined),
            "scrubbed_ms": self.scrubber.state.finished_ms,
        }

    def _fail(self, error: BaseException) -> None:
        """The disk failed: nothing more is acknowledged."""
        if self.failed is None:
            self.failed = error
            self.meta.fail(error)
            self.on_failure(error)

    async def _close_segments(self) -> None:
        if self.failed is None:
            await self.segments.close()
        else:
            self.segments.abandon()

    async def close(self) -> None:
        """Ends the housekeeping, answers what is under way, makes everything durable; also after half an `open`.

        A room that does not close well is logged and keeps no other one open: what was acknowledged is safe already.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._opened:
            name, close = self._opened.pop()
            try:
                closing = close()
                if closing is not None:
                    await closing
            except (EdgeStoreError, OSError) as error:
                log.warning("close-failed room=%s error=%s", name, error)


def _report_end(task: asyncio.Task[None]) -> None:
    """Housekeeping runs until it is cancelled; anything else is a fault that must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("housekeeping-ended error=%r", error, exc_info=error)


def root_keys_of_environment() -> RootKeys | None:
    """EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY. Raises ConfigError where only one of them is set."""
    access_key, secret_key = os.environ.get("EDGESTORE_ACCESS_KEY", ""), os.environ.get("EDGESTORE_SECRET_KEY", "")
    if bool(access_key) != bool(secret_key):
        raise ConfigError("EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY go together: set both, or neither")
    return RootKeys(access_key, secret_key) if access_key else None
