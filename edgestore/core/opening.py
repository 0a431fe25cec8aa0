"""Opens the rooms of one data folder, from the disk up to the object service, and closes them.

Rule: a lone node is whole when `open` returns; a node of several serves what it can before it has found a quorum, and
has *arrived* when it can read and write.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from edgestore.catalog import commands
from edgestore.chunks import ChunkStore, Pins, Reclaimer
from edgestore.clock import Clock, Entropy, SystemClock, system_entropy
from edgestore.config import Config
from edgestore.consensus import machine_folder
from edgestore.core.chunk_catalog import MetaChunkCatalog
from edgestore.core.membership import read_site
from edgestore.disk import Files, Journal, Lock, OrderedStore, RocksIndex, Scrubber, Segments, open_identity
from edgestore.errors import AlreadyApplied, ConfigError, EdgeStoreError, InUse, StoreDamaged, Unavailable
from edgestore.meta import GroupSetup, Meta
from edgestore.objects import ObjectService
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import CHUNK_MAX_BYTES, SITE_TENANT, WriterRecord
from edgestore.tenants import RootKeys, TenantService

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.cluster import Site
    from edgestore.core.mesh import Mesh

log = logging.getLogger("edgestore.node")

INDEX_FOLDER = "index"
ARRIVE_AGAIN_S = 0.2
WAITING_TOLD_S = 5.0


class OpenStore(Protocol):
    """Opens an ordered store in a folder (`RocksIndex.open`; the simulator has its own)."""

    def __call__(self, files: Files, folder: str, *, write_buffer_bytes: int, cache_bytes: int) -> OrderedStore:
        """See `RocksIndex.open`."""
        ...


class Core:
    """All rooms of one data folder. `open` and `close`; `on_failure` is called when the disk failed for good."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics) -> None:
        self.config, self.clock, self.metrics = config, clock, metrics
        self.failed: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.arrived = asyncio.Event()
        """Set when this node can read and write; at once on a lone node."""
        self.mesh: Mesh | None = None
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
        make_mesh: Callable[[Core], Mesh] | None = None,
    ) -> Core:
        """Opens the folder and recovers it. Raises InUse, Corrupt, ConfigError, DiskFailed.

        With `make_mesh` it is a node of a site of several, or founds one (`open_in_site`).
        """
        core = cls(config, clock or SystemClock(), metrics)
        core.files = files
        core.lock = files.lock("lock")
        core._opened.append(("lock", core.lock.release))
        try:
            if make_mesh is None:
                _check_lone(files)
            else:
                core.mesh = make_mesh(core)
            await core._open(entropy, open_store, root_keys)
        except (Exception, asyncio.CancelledError):
            await core.close()
            raise
        return core

    async def _open(self, entropy: Entropy, open_store: OpenStore, root_keys: RootKeys | None) -> None:
        self._open_disk(entropy, open_store)
        if self.mesh is not None:
            await self.mesh.begin()
            self._opened.append(("mesh", self.mesh.close))
        await self._open_rooms(entropy, open_store)
        self._open_objects(entropy)
        if self.mesh is None:
            await self._arrive(root_keys)
        else:
            await self.mesh.meet()
            for lookout in self.mesh.lookouts():
                self._keep(lookout)
            self._keep(self._arrive_in_time(root_keys))

    async def _arrive(self, root_keys: RootKeys | None) -> None:
        """Takes its place: a writer for this start, the root keys, housekeeping. Needs a quorum; may be repeated."""
        await self.renew_writer()
        self.root_keys = await self.tenants.start(self.files, root_keys)
        self._keep(self.reclaimer.run())
        self._keep(self.scrubber.run())
        self.arrived.set()

    async def _arrive_in_time(self, root_keys: RootKeys | None) -> None:
        """Whatever passes is waited for; what does not stops the node."""
        assert self.mesh is not None
        while True:
            try:
                await self._ready()
                await self.mesh.arrive()
                await self._arrive(root_keys)
                break
            except (AlreadyApplied, Unavailable, TimeoutError) as error:
                # A start takes the time of the last entry for now. Where the site has rested since for longer than
                # operations are remembered, the first one is too old, and its entry tells the time.
                log.info("arrival-postponed reason=%s", error)
                await asyncio.sleep(ARRIVE_AGAIN_S)
            except EdgeStoreError as error:
                self._fail(error)
                return
        for housekeeping in self.mesh.housekeeping():
            self._keep(housekeeping)

    async def _ready(self) -> None:
        """A start that waits for long says for whom."""
        telling = asyncio.get_running_loop().call_later(WAITING_TOLD_S, self._tell_waiting)
        try:
            await self.meta.ready()
        finally:
            telling.cancel()

    def _tell_waiting(self) -> None:
        assert self.mesh is not None
        voters = self.meta.status().voters
        answering = sum(self.mesh.is_reached(voter) for voter in voters)
        if 2 * answering > len(voters):
            log.warning("waiting for the state of the site: %d of %d voters answer", answering, len(voters))
        else:
            log.warning("waiting for a majority of the voters: %d of %d answer", answering, len(voters))

    async def renew_writer(self) -> None:
        """A writer of its own for what is written from now on; the earlier ones of this node are closed (rule 6)."""
        command = commands.RegisterWriter(self.identity.member_id.hex())
        self.writer: WriterRecord = await self.meta.propose(SITE_TENANT, command)
        self.chunks.begin_writer(self.writer.writer)

    def _keep(self, housekeeping: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(housekeeping)
        task.add_done_callback(_report_end)
        self._tasks.append(task)

    def _open_disk(self, entropy: Entropy, open_store: OpenStore) -> None:
        config, files = self.config, self.files
        self.identity = open_identity(files, entropy)
        self.journal = Journal.open(files, "journal", config.disk, entropy, metrics=self.metrics)
        self._opened.append(("journal", self.journal.close))
        self.catalog_store = self._open_catalog(open_store, machine_folder(self.journal))
        self._opened.append(("catalog", self._close_catalog))
        self.journal.on_failure = self._fail

    def _open_catalog(self, open_store: OpenStore, folder: str) -> OrderedStore:
        meta = self.config.meta
        return open_store(
            self.files,
            folder,
            write_buffer_bytes=meta.catalog_write_buffer_bytes,
            cache_bytes=meta.catalog_cache_bytes,
        )

    def _setup(self, open_store: OpenStore) -> GroupSetup:
        """With whom the catalog is kept."""
        if self.mesh is None:
            return GroupSetup()
        return GroupSetup(
            peers=self.mesh.peers,
            founders=self.mesh.founders,
            open_folder=lambda folder: self._open_catalog(open_store, folder),
        )

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
            setup=self._setup(open_store),
        )
        self._opened.append(("meta", self.meta.close))
        await self._open_segments(entropy, open_store)
        self.chunks = ChunkStore(self.segments, files, config.chunks)
        self._opened.append(("chunks", self.chunks.close))
        self._opened.append(("site chunks", self.chunks.leave_site))

    def _open_objects(self, entropy: Entropy) -> None:
        config = self.config
        self.metrics.watch("chunks_pool_taken_bytes", lambda: float(self.chunks.pool.taken_bytes))
        pins = self.pins = Pins(self.clock, config.chunks.pin_ttl_ms)
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
        self.scrubber = Scrubber(self.segments, self.index_store, config.disk, self.clock, self.metrics)
        self.reclaimer = Reclaimer(
            MetaChunkCatalog(self.meta, lambda: self.writer.writer),
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
    def is_full(self) -> bool:
        """Whether the disk has no room for every fragment beside its reserve."""
        return self.free_bytes - CHUNK_MAX_BYTES < self.config.disk.reserve_bytes

    @property
    def disk_health(self) -> dict[str, Any]:
        """What is known to be damaged, and when everything was last read (wall clock, 0: never)."""
        return {
            "damaged_fragments": len(self.segments.damaged),
            "quarantined_segments": len(self.segments.quarantined),
            "unreadable_segments": len(self.segments.unreadable),
            "scrubbed_ms": self.scrubber.state.finished_ms,
        }

    def site_time_ms(self) -> int | None:
        """What the clocks of a majority of the voters show, where they agree; a lone node knows its own only. Raises
        Unavailable where the others were not heard yet and the own contradicts the log's."""
        if self.mesh is None or len(self.meta.status().voters) < 2:
            return None
        agreed_ms = self.mesh.time_ms()
        apart_ms = abs(self.meta.log_time_ms() - self.clock.wall_ms())
        if agreed_ms is None and apart_ms > self.config.s3.clock_skew_max_s * 1000:
            raise Unavailable("this node does not know the time yet: its clock is not that of the site; try again")
        return agreed_ms

    @property
    def s3_listen(self) -> str:
        """Where S3 listens as the site remembers it; empty on a lone node."""
        return self.mesh.s3_listen if self.mesh is not None else ""

    @property
    def site(self) -> Site | None:
        """What operators see and do of a site; None on a lone node."""
        return self.mesh.site if self.mesh is not None else None

    def stop(self, error: EdgeStoreError) -> None:
        """The node may not go on: it was removed, or another runs under its identity."""
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The disk failed: nothing more is acknowledged."""
        if self.failed is None:
            self.failed = error
            self.meta.fail(error)
            self.on_failure(error)

    def _close_catalog(self) -> None:
        """A snapshot may have put another in the place of the one that was opened."""
        (self.meta.store if hasattr(self, "meta") else self.catalog_store).close()

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


def _check_lone(files: Files) -> None:
    """A member's folder that is opened alone could never agree with the others again."""
    if read_site(files) is not None:
        raise InUse("the folder belongs to a site of several nodes: start it with `edgestore serve`")


def _report_end(task: asyncio.Task[None]) -> None:
    """Housekeeping runs until it is cancelled; an error that ends it is a fault that must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("housekeeping-ended error=%r", error, exc_info=error)


def root_keys_of_environment() -> RootKeys | None:
    """EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY. Raises ConfigError where only one of them is set."""
    access_key, secret_key = os.environ.get("EDGESTORE_ACCESS_KEY", ""), os.environ.get("EDGESTORE_SECRET_KEY", "")
    if bool(access_key) != bool(secret_key):
        raise ConfigError("EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY go together: set both, or neither")
    return RootKeys(access_key, secret_key) if access_key else None
