"""One simulated run: a real core on a simulated disk, clients, crashes at any step, and a model of what was
acknowledged.

Rule: everything follows from the seed; a run that fails prints it, and the same seed fails again in the same way.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections.abc import Coroutine, Iterator
from typing import Any

from edgestore.config import ChunksConfig, Config, ConsensusConfig, DiskConfig, MetaConfig, ObjectsConfig
from edgestore.consensus import NotAppliedError
from edgestore.core import Core
from edgestore.errors import Corrupt, DiskFailed, NoSuchBucket, Unavailable
from edgestore.records import Principal, Versioning
from tests.sim import plans
from tests.sim.checks import Check, check_chunks, check_damage_is_found, check_full_disk, check_room_again
from tests.sim.clients import BUCKETS, Bodies, Client
from tests.sim.disk import UNLIMITED_BYTES, Disk, SimFiles
from tests.sim.index import SimIndex
from tests.sim.loop import Crash, SimClock, SimLoop, silence
from tests.sim.model import Crashed, Damaged, Miscounted, Refused, Violation
from tests.sim.sectors import BadSector, bad_sector_in_a_segment, bad_sector_in_the_journal

CLIENTS = 4
ROUNDING_MS = 10
"""Of the clocks, a millisecond a life."""

BAD_SECTORS = 0.4
"""In how many pauses between two lives a sector goes bad."""

CONFIG = Config(
    disk=DiskConfig(
        reserve_bytes=256 * 1024,
        journal_file_bytes=256 * 1024,
        journal_idle_mark_ms=50,
        segment_bytes=512 * 1024,
        segment_dead_ratio=0.3,
        compaction_bytes_per_s=64 * 1024 * 1024,
        scrub_interval_ms=50,
        scrub_bytes_per_s=64 * 1024 * 1024,
        open_files_max=4,
    ),
    consensus=ConsensusConfig(entry_operations_max=8, entry_bytes_max=64 * 1024),
    meta=MetaConfig(flush_operations_max=40, flush_journal_bytes_max=512 * 1024),
    chunks=ChunksConfig(
        pool_bytes=4 * 1024 * 1024, pool_read_reserve_bytes=1024 * 1024, reclaim_interval_ms=20, sweep_interval_ms=30
    ),
    objects=ObjectsConfig(part_min_bytes=1000),
)


class World:
    """A seed's disk and clients, over several lives of the node."""

    def __init__(self, seed: int, *, lives: int | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.disk = Disk(self.rng)
        self.bodies = Bodies()
        self.clients = [
            Client(f"client-{number}", random.Random(seed * 31 + number), self.bodies) for number in range(CLIENTS)
        ]
        self.lives = lives if lives is not None else self.rng.randint(2, 4)
        self.now_s = 1000.0
        self.steps = 0
        self.trace = hashlib.sha256()
        self.wall_offset_ms = SimClock.FIRST_WALL_MS
        self.log_time_ms = 0
        self.failed: BaseException | None = None
        self.sync_may_fail = self.refused = self.damage_seen = False
        self.journal_damage: plans.Flip | BadSector | None = None
        self.flipped: set[bytes] = set()
        self.bad_sectors: list[BadSector] = []
        for client in self.clients:
            client.may_be_damaged = lambda error: bool(self.victims)

    def run(self) -> str:
        """All lives, the last one without a crash. Returns the digest of everything that happened."""
        for life in range(self.lives):
            self._live(last=life == self.lives - 1)
        return self.trace.hexdigest()

    @property
    def acknowledged(self) -> int:
        """Operations that were answered."""
        return sum(client.acknowledged for client in self.clients)

    def _live(self, *, last: bool) -> None:
        loop = SimLoop(start_s=self.now_s)
        self.clock = SimClock(loop, self.wall_offset_ms, boot_s=self.now_s - self.rng.uniform(0, 10_000))
        self.sync_may_fail = False
        if not last:
            self._plan(loop)
        files = SimFiles(self.disk, loop)
        try:
            loop.run(self._life(files, loop, last=last))
        except Crash:
            self.disk.lose_power()
            self._spoil()
        except (DiskFailed, Unavailable) as error:
            self.failed = error
            self._end_failed(loop)
        except Refused:
            self._turn_back(loop)
        else:
            if self.failed is not None:
                self._end_failed(loop)
            elif not last:
                self._check_failures(loop)
                self._damage()
                self._spoil()
            else:
                self._check_failures(loop)
        finally:
            self._bury(loop)
            plans.clear(self.disk)
        self.wall_offset_ms = self.clock.wall_offset_ms
        self.steps += loop.steps
        self.now_s = loop.now_s + 1
        self.trace.update(f"{loop.steps} {loop.now_s:.9f} {self.disk.operations}".encode())
        if last and self.refused:
            self.refused = False
            self._live(last=True)

    def _plan(self, loop: SimLoop) -> None:
        """How this life ends: by the power, by the disk, or well."""
        kind = self.rng.random()
        if kind < 0.65:
            plans.plan_crash(loop, self.disk)
        elif kind < 0.77:
            self.sync_may_fail = True
            plans.plan_failed_sync(self.disk)

    def _end_failed(self, loop: SimLoop) -> None:
        """The node was stopped by its disk: the machine goes on, or is switched off as well."""
        if not self.sync_may_fail:
            raise Crashed(f"the node stopped, and no sync was planned to fail: {self.failed!r}")
        if self.rng.random() < 0.5:
            self.disk.lose_power()

    def _damage(self) -> None:
        """After a life that ended well, which has put its mark behind everything in the journal."""
        kind = self.rng.random()
        damage: plans.Flip | BadSector | None
        if kind < 0.3 and (damage := plans.flip_in_the_journal(self.disk)) is not None:
            self.journal_damage = damage
            damage.apply(self.disk)
        elif kind < 0.6 and (damage := plans.flip_in_a_segment(self.disk)) is not None:
            self.flipped.add(damage.chunk_id)
            damage.apply(self.disk)
        elif kind < 0.7 and (damage := bad_sector_in_the_journal(self.disk, self.rng)) is not None:
            self.journal_damage = damage
            damage.apply(self.disk)

    def _spoil(self) -> None:
        """Also after a crash, when a start scans what was written last. Some sectors can be read again: then everything
        is there again."""
        while self.bad_sectors and self.rng.random() < 0.4:
            self.bad_sectors.pop(self.rng.randrange(len(self.bad_sectors))).turn_back(self.disk)
        if self.rng.random() < BAD_SECTORS and (bad := bad_sector_in_a_segment(self.disk, self.rng)) is not None:
            self.bad_sectors.append(bad)
            bad.apply(self.disk)

    @property
    def victims(self) -> set[bytes]:
        """The chunks that were damaged on purpose."""
        return self.flipped.union(*(bad.chunk_ids for bad in self.bad_sectors))

    def _turn_back(self, loop: SimLoop) -> None:
        """The node has refused a damaged journal, as it should: the operator brings the file back."""
        if self.journal_damage is None:
            raise
        self.journal_damage.turn_back(self.disk)
        self.journal_damage, self.refused = None, True

    @staticmethod
    def _bury(loop: SimLoop) -> None:
        """What was running never runs again: not even its clean-up may reach the disk."""
        loop.abandon()
        with silence():
            gc.collect()

    @staticmethod
    def _check_failures(loop: SimLoop) -> None:
        for context in loop.failures:
            raise Crashed(f"unhandled in a callback: {context}") from context.get("exception")

    async def _life(self, files: SimFiles, loop: SimLoop, *, last: bool) -> None:
        self.failed = None
        core = await self._open(files)
        if isinstance(self.journal_damage, BadSector):
            raise Damaged("the node went on without a part of its journal that it could not read")
        self.journal_damage = None
        root = core.tenants.root()
        faults = [loop.create_task(work) for work in self._faults()]
        try:
            await self._prepare(core, root)
            await self._check(core, root)
            await self._load(core, root)
            await asyncio.sleep(0.2)
            if core.failed is None:  # what a node that was stopped has not answered is not decided
                await self._check(core, root)
                await self._end(core, root, last=last)
        except (Unavailable, DiskFailed):
            await asyncio.sleep(0.1)
            if core.failed is None:
                raise
        finally:
            for task in faults:
                task.cancel()
        self.failed = core.failed
        await core.close()
        if last:
            self.trace.update(repr(sorted(self.disk.entries)).encode())

    def _faults(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes wrong beside the load."""
        if self.disk.capacity_bytes < UNLIMITED_BYTES or self.rng.random() < 0.2:
            yield plans.fill_up(self.disk)
        if self.rng.random() < 0.3:
            yield plans.set_clock(self.clock, self.rng)

    async def _load(self, core: Core, root: Principal) -> None:
        running = [asyncio.ensure_future(client.run(core, root)) for client in self.clients]
        wait_s = self.rng.uniform(0.05, 0.6)
        done, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for task in done:
            task.result()

    async def _end(self, core: Core, root: Principal, *, last: bool) -> None:
        """What must hold when nobody writes any more."""
        if self.disk.capacity_bytes < UNLIMITED_BYTES:
            await check_full_disk(core, root, self.clients)
            if last or self.rng.random() < 0.5:
                self.disk.capacity_bytes = UNLIMITED_BYTES
                await check_room_again(core, root, self.clients)
        log_time_ms = core.meta.state.site().log_time_ms
        if not self.log_time_ms <= log_time_ms <= self.log_time_max_ms():
            raise Miscounted(f"log time went from {self.log_time_ms} to {log_time_ms}")
        self.log_time_ms = log_time_ms
        if last:
            if self.damage_seen:
                await check_damage_is_found(core, self.victims)
            await check_chunks(core, self.victims)

    def log_time_max_ms(self) -> int:
        """It runs with the time that a node ran, whatever the wall clock says (rule 9)."""
        return SimClock.FIRST_WALL_MS + int(self.clock.loop.now_s * 1000) + ROUNDING_MS

    async def _open(self, files: SimFiles) -> Core:
        """Raises Refused where nobody damaged anything and the node does not start."""
        try:
            return await Core.open(
                files, CONFIG, clock=self.clock, entropy=self.rng.randbytes, open_store=SimIndex.open
            )
        except (Corrupt, NotAppliedError) as error:
            raise Refused(f"the node does not start: {error}") from error

    async def _prepare(self, core: Core, root: Principal) -> None:
        for name in BUCKETS:
            try:
                core.objects.bucket(root, name)
            except NoSuchBucket:
                await core.objects.create_bucket(root, name)
        await core.objects.set_versioning(root, "versioned", Versioning.ENABLED)

    async def _check(self, core: Core, root: Principal) -> None:
        check = Check(core, root, self.bodies, self.victims)
        await check.run(self.clients)
        self.damage_seen = check.damaged > 0


def run_seed(seed: int) -> World:
    """One run. Raises with the seed in the message."""
    world = World(seed)
    try:
        world.run()
    except Violation as error:
        raise type(error)(f"seed {seed}: {error}") from error
    except Corrupt as error:
        raise Damaged(f"seed {seed}: {error!r}") from error
    except Exception as error:
        raise Crashed(f"seed {seed}: {error!r}") from error
    return world
