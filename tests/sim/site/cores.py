"""One life of a node that is a whole core, and the site that such nodes make by joining each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xxhash

from edgestore.catalog import State, Table, rows
from edgestore.catalog.keys import row
from edgestore.cluster import parse_token
from edgestore.config import (
    ChunksConfig,
    ClusterConfig,
    Config,
    ConsensusConfig,
    DiskConfig,
    MetaConfig,
    NetConfig,
    ObjectsConfig,
    RepairConfig,
)
from edgestore.core import Core, Joining, read_site
from edgestore.core.joining import request_papers
from edgestore.core.membership import SiteFile, write_site
from edgestore.core.mesh import Mesh
from edgestore.disk import open_identity
from edgestore.errors import Denied, EdgeStoreError, StorageFull, Unavailable
from edgestore.observe import Metrics
from edgestore.records import NodeState
from tests.sim.disk import SimFiles
from tests.sim.index import SimIndex
from tests.sim.model import Crashed, Miscounted, Thin
from tests.sim.site.bounds import of_core, overfull
from tests.sim.site.lives import Life, NodeDied
from tests.sim.site.machines import Machine, Site
from tests.sim.site.net_wires import NetWires
from tests.sim.site.watch import glance

PORT = 7000
TOKEN_TTL_MS = 3_600_000
LOOK_AT_TASKS_STEPS = 64
EXTENTS = row(0, Table.EXTENTS, 0)[:3]

CONFIG = Config(
    disk=DiskConfig(
        reserve_bytes=256 * 1024,
        journal_file_bytes=256 * 1024,
        journal_idle_mark_ms=50,
        segment_bytes=4 * 1024 * 1024,
        segment_dead_ratio=0.3,
        compaction_bytes_per_s=64 * 1024 * 1024,
        scrub_interval_ms=2000,
        scrub_bytes_per_s=64 * 1024 * 1024,
        open_files_max=4,
    ),
    net=NetConfig(ping_interval_ms=500, silence_max_s=2.0, dial_timeout_s=0.5, dial_backoff_max_ms=300),
    consensus=ConsensusConfig(
        entry_operations_max=8,
        entry_bytes_max=64 * 1024,
        log_kept_bytes=16 * 1024,
        log_behind_max_bytes=256 * 1024,
        catch_up_entries=16,
        fetch_wait_ms=500,
        read_timeout_ms=1000,
    ),
    meta=MetaConfig(
        propose_timeout_s=5.0,
        flush_operations_max=60,
        flush_journal_bytes_max=512 * 1024,
        resend_after_ms=300,
        snapshot_piece_bytes=16 * 1024,
        snapshot_open_timeout_s=1.0,
        snapshot_piece_timeout_s=0.5,
        snapshot_idle_s=3.0,
    ),
    chunks=ChunksConfig(
        pool_bytes=16 * 1024 * 1024,
        pool_read_reserve_bytes=4 * 1024 * 1024,
        confirm_ms=100,
        fragment_timeout_s=1.0,
        write_timeout_s=4.0,
        avoid_ms=500,
        reclaim_interval_ms=200,
        sweep_interval_ms=1000,
        pin_ttl_ms=20_000,
    ),
    repair=RepairConfig(
        interval_ms=200,
        lazy_wait_s=4,
        critical_wait_s=2,
        fetch_timeout_s=2.0,
        survey_interval_s=2,
        retry_max_s=4,
        tidy_interval_s=5,
        tidy_wait_s=2,
        bytes_per_s=0,
    ),
    cluster=ClusterConfig(
        voter_stable_ms=1000,
        voter_change_pause_ms=500,
        ask_timeout_s=2.0,
        quality_flaps_max=1000,
        writer_check_ms=300,
    ),
    objects=ObjectsConfig(part_min_bytes=1000, commit_timeout_s=6.0),
)


TIGHT = replace(
    CONFIG,
    consensus=replace(
        CONFIG.consensus,
        append_bytes_max=8 * 1024,
        append_in_flight_bytes_max=16 * 1024,
        fetches_max=4,
        reads_waiting_max=4,
    ),
    meta=replace(CONFIG.meta, proposals_max=8, forwarded_max=16, snapshots_max=1),
    chunks=replace(
        CONFIG.chunks,
        pool_bytes=4 * 1024 * 1024,
        pool_read_reserve_bytes=2 * 1024 * 1024,
        slab_bytes=3 * 1024 * 1024,
        intake_bytes=512 * 1024,
        decode_bytes=1024 * 1024,
        drops_max=4,
    ),
    repair=replace(
        CONFIG.repair,
        memory_bytes=4 * 1024 * 1024,
        extents_in_flight=2,
        fragments_in_flight=2,
        served_max=2,
        queue_max=8,
        departing_max=8,
    ),
    net=replace(CONFIG.net, calls_max=16, served_max=8, bulk_connections=1),
)
"""As small as works: every line is long, and whoever may be refused is."""


class WatchedIndex(SimIndex):
    """An ordered store that knows the digest of its rows, whatever the order in which they came about."""

    def __init__(self, files: SimFiles, folder: str) -> None:
        super().__init__(files, folder)
        self.digest = 0
        self.fresh: list[bytes] = []
        """Rows of extents that have come about since somebody looked."""
        for key, value in self.rows.items():
            self.digest ^= _digest(key, value)

    def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """See SimIndex."""
        before: dict[bytes, bytes | None] = {key: self.rows.get(key) for key, _ in changes}
        super().write(changes)
        for key, old in before.items():
            new = self.rows.get(key)
            if old is None and new is not None and key[:3] == EXTENTS:
                self.fresh.append(new)
            if old is not None:
                self.digest ^= _digest(key, old)
            if new is not None:
                self.digest ^= _digest(key, new)


def _digest(key: bytes, value: bytes) -> int:
    return int(xxhash.xxh3_64_intdigest(key + b"=" + value))


class CoreWires(NetWires):
    """The simulated network under the peers that each core makes for itself."""

    def name(self, member: str, machine: str) -> None:
        """On which machine a member lives from now on."""
        self._names[member] = machine

    def unplug(self, member: str, *, told: bool = False) -> None:
        """See NetWires."""
        self.network.kill(self._names[member], told=told)


@dataclass
class CoreLife:
    """See machines.Service."""

    machine: Machine
    core: Core
    _seen: tuple[Any, ...] = ()
    _seen_index: int = -1
    _log_time_ms: int = 0
    _steps: int = 0

    def look(self) -> None:
        """Tells the watch: who leads, what is applied, that log time does not go back, that nothing has ended."""
        self._steps += 1
        if self._steps % LOOK_AT_TASKS_STEPS == 0:
            self._look_at_tasks()
            if (violation := overfull(self.machine.name, of_core(self.core))) is not None:
                self.machine.site.watch.blame(violation)
        seen = glance(self.core.meta._consensus)
        if seen == self._seen:
            return
        self._seen = seen
        core, watch = self.core, self.machine.site.watch
        status = core.meta.status()
        watch.looks(self.machine.name, status)
        if status.applied_index == self._seen_index:
            return
        store = core.meta.store
        assert isinstance(store, WatchedIndex)
        fresh, store.fresh = store.fresh, []
        if status.applied_index == self._seen_index + 1:  # else the nodes may have changed meanwhile
            for data in fresh:
                self._look_at_extent(core.meta.state, data)
        self._seen_index = status.applied_index
        site = core.meta.state.site()
        watch.holds(self.machine.name, site.index, store.digest.to_bytes(8, "big"))
        if site.log_time_ms < self._log_time_ms:
            watch.blame(Miscounted(f"log time goes back from {self._log_time_ms} to {site.log_time_ms}"))
        self._log_time_ms = site.log_time_ms

    def _look_at_extent(self, state: State, data: bytes) -> None:
        """Rule 1: what is named has k + t fragments on distinct nodes that count, where the site has several."""
        nodes = {node.number for node in state.nodes() if node.state in (NodeState.UP, NodeState.DRAINING)}
        extent = rows.extent(data)
        if len(state.nodes()) < 2:
            return
        placement = state.placement(extent.layout_epoch)
        elsewhere = {(position, shard): node for position, shard, node in extent.exceptions}
        for position, chunk in enumerate(extent.chunks):
            held = {
                elsewhere.get((position, shard), owner)
                for shard, owner in enumerate(placement.owners(chunk.chunk_id, extent.k + extent.m))
                if (position, shard) not in extent.missing
            }
            if len(held & nodes) < extent.k + extent.tolerate:
                text = f"{len(held & nodes)} fragments of {extent.k}+{extent.m}, and {extent.tolerate} may be lost"
                self.machine.site.watch.blame(Thin(f"extent {extent.extent_id.hex()} is named with {text}"))

    def _look_at_tasks(self) -> None:
        for task in self.core._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                violation = Crashed(f"housekeeping of {self.machine.name} ended: {error!r}")
                violation.__cause__ = error
                self.machine.site.watch.blame(violation)


@dataclass
class Fate:
    """What becomes of a machine beyond single lives."""

    token: str = ""
    is_removed: bool = False
    """The site was asked to remove its member: it may stop by itself."""
    is_drained: bool = False
    """... to empty it: it holds nothing in the end."""
    members: list[str] = field(default_factory=list)


class CoreSite(Site):
    """Machine 1 founds the site, and the others join it with tokens that the world hands them."""

    wires: CoreWires

    def __init__(self, seed: int, nodes: int, config: Config = CONFIG) -> None:
        super().__init__(seed, nodes, wires=CoreWires)
        self.config = config
        self.fates = {machine.number: Fate() for machine in self.machines}
        for machine in self.machines:
            self.wires.name(machine.member, machine.name)
        self.open_service = self._open

    def place(self, machine: Machine) -> str:
        """Its address in the mesh."""
        return f"10.0.0.{machine.number}:{PORT}"

    async def _open(self, machine: Machine, life: Life, files: SimFiles) -> CoreLife:
        settings = read_site(files)
        if settings is None and machine.number == 1 and not self.fates[1].token:
            settings = SiteFile("", "", self.place(machine), self.place(machine), f"10.0.0.1:{PORT + 1}")
        elif settings is None:
            settings = await self._join(machine, files)
        network = self.wires.network.machine(machine.name)
        named = settings
        core = await Core.open(
            files,
            self.config,
            clock=machine.clock,
            entropy=machine.rng.randbytes,
            open_store=WatchedIndex.open,
            metrics=Metrics(),
            make_mesh=lambda core: Mesh(core, named, network, machine.rng.randbytes),  # type: ignore[arg-type]
        )
        self._name(machine, core.identity.member_id.hex())
        core.on_failure = lambda error: self._failed(machine, life, error)
        if core.failed is not None:
            self._failed(machine, life, core.failed)
        return CoreLife(machine, core)

    def _name(self, machine: Machine, member: str) -> None:
        machine.member = member
        self.wires.name(member, machine.name)
        if member not in self.fates[machine.number].members:
            self.fates[machine.number].members.append(member)

    def _failed(self, machine: Machine, life: Life, error: BaseException) -> None:
        """The node stops by itself."""
        fate = self.fates[machine.number]
        if isinstance(error, Denied) and fate.is_removed:
            machine.stays_down = True
            life.power_off()
            return
        machine.stopped(life, error)

    async def _join(self, machine: Machine, files: SimFiles) -> SiteFile:
        """As an operator does: again, until it is in."""
        fate, place = self.fates[machine.number], self.place(machine)
        member = open_identity(files, machine.rng.randbytes).member_id.hex()
        self._name(machine, member)
        while True:
            others = tuple(self.place(other) for other in self.machines if other is not machine)
            asked = SiteFile("", member, place, place, f"10.0.0.{machine.number}:{PORT + 1}")
            if not fate.token:
                await asyncio.sleep(0.1)
                continue
            try:
                settings = await request_papers(
                    files,
                    self.config,
                    Joining(parse_token(fate.token), others),
                    self.wires.network.machine(machine.name),  # type: ignore[arg-type]
                    asked,
                    clock=machine.clock,
                    entropy=machine.rng.randbytes,
                )
            except StorageFull:
                raise
            except Unavailable:
                await asyncio.sleep(0.2)
            else:
                write_site(files, settings)
                return settings

    # --- what operators do -------------------------------------------------------------------------------

    def arrived(self) -> list[Machine]:
        """Those that read and write."""
        return [machine for machine in self.serving() if machine.service.core.arrived.is_set()]

    def leaders(self) -> list[Machine]:
        """Who thinks that it leads."""
        return [machine for machine in self.serving() if machine.service.core.meta.status().is_leader]

    async def ask_somebody(self, work: Callable[[Core], Any], but: Machine | None = None) -> Any:
        """Through any node that has arrived. Raises what it raises; Unavailable where there is none."""
        machines = [machine for machine in self.arrived() if machine is not but]
        if not machines:
            raise Unavailable("no node has arrived")
        machine = self.rng.choice(machines)
        assert machine.life is not None
        async with asyncio.timeout(10):
            return await machine.life.ask(work(machine.service.core))

    async def give_token(self, machine: Machine) -> None:
        """For one machine to join with. Again, until there is one."""
        while True:
            try:
                answer = await self.ask_somebody(lambda core: core.site.create_token(TOKEN_TTL_MS), machine)
            except (EdgeStoreError, NodeDied, TimeoutError, AssertionError):
                await asyncio.sleep(0.1)
            else:
                self.fates[machine.number].token = answer["token"]
                return

    def number_of(self, member: str) -> int:
        """Its node number, as anybody that serves knows it; 0: nobody does."""
        for machine in self.serving():
            row = machine.service.core.meta.state.node_of(member)
            if row is not None:
                return int(row.number)
        return 0

    def wipe(self, machine: Machine) -> None:
        """Its disk is replaced, and it will join anew."""
        machine.kill(power=True)
        machine.wipe()
        self.fates[machine.number].token = ""
        self.wires.name(machine.member, machine.name)
        self.fates[machine.number].is_removed = self.fates[machine.number].is_drained = False
