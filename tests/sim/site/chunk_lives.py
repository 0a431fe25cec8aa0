"""One life of a node that keeps chunks: real segments, chunk store and repair on a simulated disk and wires.

The catalog is one for all and applies at once, so that what is found here is the fault of these rooms; a proposer that
dies may or may not have been heard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgestore.catalog import State, commands
from edgestore.chunks import (
    Assessor,
    ChunkStore,
    Clients,
    Digests,
    Mover,
    Need,
    Pins,
    Reclaimer,
    Repair,
    Tidier,
    bytes_body,
)
from edgestore.config import ChunksConfig, DiskConfig, RepairConfig
from edgestore.core.chunk_catalog import MetaChunkCatalog
from edgestore.core.site_view import MetaSites
from edgestore.disk import Segments
from edgestore.errors import EdgeStoreError
from edgestore.observe import NO_METRICS
from edgestore.records import UNIT_BYTES, BucketRecord, NodeState
from tests.sim.disk import SimFiles
from tests.sim.index import SimIndex
from tests.sim.model import Violation
from tests.sim.site.lives import Life
from tests.sim.site.machines import Machine, Site
from tests.sim.site.net_wires import NetWires
from tests.sim.site.wires import Wires
from tests.unit.catalog.nodes import NodeSite, member, new_node

CHUNKS = ChunksConfig(
    pool_bytes=64 * UNIT_BYTES,
    pool_read_reserve_bytes=16 * UNIT_BYTES,
    confirm_ms=100,
    fragment_timeout_s=1.0,
    write_timeout_s=4.0,
    sweep_interval_ms=2000,
    reclaim_interval_ms=200,
)
REPAIR = RepairConfig(
    interval_ms=100,
    lazy_wait_s=30,
    critical_wait_s=10,
    fetch_timeout_s=2.0,
    survey_interval_s=2,
    retry_max_s=4,
    tidy_interval_s=20,
    tidy_wait_s=2,
    page_extents=4,
    bytes_per_s=0,
)


class SharedCatalog:
    """`Meta` as far as these rooms need it."""

    def __init__(self, site: ChunkSite, nodes: int) -> None:
        self.site, self.rows = site, NodeSite(nodes)
        self.proposed: Counter[str] = Counter()

    @property
    def state(self) -> State:
        return self.rows.state

    @property
    def applied_index(self) -> int:
        return len(self.rows.entries)

    def log_time_ms(self) -> int:
        return int(self.site.loop.now_s * 1000)

    async def read_barrier(self) -> None:
        await asyncio.sleep(0.001)

    async def propose(self, tenant: int, command: commands.Command) -> Any:
        """The proposer may die on either side of it."""
        await asyncio.sleep(0.002)
        outcome = self.do(command)
        await asyncio.sleep(0.002)
        if isinstance(outcome, EdgeStoreError):
            raise outcome
        return outcome

    def do(self, command: commands.Command) -> Any:
        """At once. Errors are returned."""
        self.rows.time_ms = self.log_time_ms()
        self.proposed[type(command).__name__] += 1
        outcome = self.rows.all(command)[0]
        self.site.check_claims()
        if isinstance(command, commands.SetBucketPolicy):
            for machine in self.site.serving():
                self.site.life(machine.number).repair.buckets_changed()
        return outcome

    def turn(self, number: int, state: NodeState) -> None:
        """As the leader decides it."""
        outcome = self.do(commands.SetNodeState(number, state, self.state.node(number).state))
        assert not isinstance(outcome, EdgeStoreError), outcome


@dataclass
class ChunkLife:
    """The rooms of one node."""

    segments: Segments
    store: ChunkStore
    repair: Repair
    tidier: Tidier
    reclaimer: Reclaimer
    mover: Mover

    def look(self) -> None:
        """See machines.Service."""
        assert self.mover.memory.taken_bytes <= self.mover.memory.limit_bytes


@dataclass
class Written:
    """An object that was acknowledged."""

    key: str
    data: bytes
    bucket: BucketRecord


class ChunkSite(Site):
    """Nodes 1 to `nodes` are the site; machines beyond join later."""

    def __init__(self, seed: int, nodes: int, *, spare: int = 0, wires: type[Wires] | type[NetWires] = Wires) -> None:
        super().__init__(seed, nodes + spare, wires=wires)
        for machine in self.machines:
            machine.member = member(machine.number)
        self.config = REPAIR
        self.catalog = SharedCatalog(self, nodes)
        self.bucket = self.catalog.rows.bucket()
        self.objects: dict[str, Written] = {}
        self.has_clients: Callable[[], bool] = lambda: self.rng.random() < 0.5
        self.is_spoilt = False
        """A test has damaged what was stored."""
        self.open_service = self._open

    async def _open(self, machine: Machine, life: Life, files: SimFiles) -> ChunkLife:
        disk = DiskConfig(segment_bytes=16 << 20, reserve_bytes=0)
        index = SimIndex.open(files, "index")
        segments = await Segments.open(files, "segments", index, disk, entropy=machine.rng.randbytes)
        segments.on_failure = lambda error: machine.stopped(life, error)
        assert machine.clock is not None
        peers = self.wires.peers(life, machine.member, machine.clock)
        await self.wires.begin(peers)
        catalog, config = self.catalog, self.config
        writer = (await catalog.propose(0, commands.RegisterWriter(machine.member))).writer
        store = ChunkStore(segments, files, CHUNKS, writer=writer)
        site = store.join_site(MetaSites(catalog, machine.member, lambda member: False), peers)  # type: ignore[arg-type]
        clients = Clients(lambda: store.pool.is_short, lambda: self.has_clients())
        mover = Mover(site, peers, config, NO_METRICS, clients)
        repair = Repair(catalog, site, mover, config, NO_METRICS, copies_max_bytes=CHUNKS.copies_max_bytes)
        tidier = Tidier(
            catalog,
            site,
            mover,
            segments,
            config,
            NO_METRICS,
            repair=repair,
            floor=lambda: catalog.applied_index,
        )
        repair.whole = tidier.look_again
        reclaimer = Reclaimer(
            MetaChunkCatalog(catalog, lambda: writer),  # type: ignore[arg-type]
            segments,
            Pins(machine.clock, 10_000),
            CHUNKS,
            disk,
            low_water=store.low_water,
            forget=store.forget,
        )
        reclaimer.join_site(
            lambda: catalog.applied_index, lambda name: repair.coordinator(name) == site.sites.own_number
        )
        for work in (repair.run(), tidier.run(), reclaimer.run()):
            life.start(work)
        self.loop.later(0.0, self.check_claims)
        return ChunkLife(segments, store, repair, tidier, reclaimer, mover)

    # --- what a test does ----------------------------------------------------------------------------------

    def life(self, number: int) -> ChunkLife:
        """Of a node that serves."""
        found = self.machines[number - 1].service
        assert isinstance(found, ChunkLife)
        return found

    async def put(self, number: int, key: str, data: bytes, bucket: BucketRecord | None = None) -> None:
        """Through a node; acknowledged when it returns."""
        machine, life = self.machines[number - 1], self.life(number)
        bucket = bucket or self.bucket

        async def put() -> None:
            store = life.store
            stored = await store.write(bytes_body(store.pool, data), Digests(), bucket)
            content = commands.Content(len(data), f"etag-{key}", (), b"", stored.extents())
            await self.catalog.propose(7, commands.PutObject(bucket.bucket_id, key, 7, 1, content))
            store.settle(stored)

        assert machine.life is not None
        await machine.life.ask(put())
        self.objects[key] = Written(key, data, bucket)

    async def get(self, number: int, key: str) -> bytes:
        """Through a node."""
        machine, life, written = self.machines[number - 1], self.life(number), self.objects[key]

        async def get() -> bytes:
            record = self.catalog.state.head(written.bucket, key)
            assert record is not None
            extents = [one for one in self.catalog.state.extents(written.bucket.owner, record.extents) if one]
            return b"".join([bytes(view) async for view in life.store.read(extents, 0, record.size_bytes)])

        assert machine.life is not None
        return await machine.life.ask(get())

    def delete(self, key: str) -> None:
        """Without a trace."""
        written = self.objects.pop(key)
        outcome = self.catalog.do(commands.DeleteObject(written.bucket.bucket_id, key, 7, 1, None, None))
        assert not isinstance(outcome, EdgeStoreError), outcome

    def join(self, number: int) -> None:
        """A machine becomes a node."""
        self.catalog.rows.time_ms = self.catalog.log_time_ms()
        self.catalog.rows.join(new_node(number))

    def finish_reclaim(self) -> None:
        """As the leader does when every node that is up has reclaimed."""
        up = [node.number for node in self.catalog.state.nodes() if node.state in (NodeState.UP, NodeState.DRAINING)]
        lives = [self.machines[number - 1].service for number in up]
        if any(life is None for life in lives):
            return
        floor = min(life.reclaimer.reclaimed_index for life in lives)
        gone = tuple(chunk for chunk, index in self.catalog.state.condemned(1000) if index <= floor)
        if gone:
            self.catalog.do(commands.ReclaimedChunks(gone))

    def fragments(self) -> Counter[tuple[int, bytes, int]]:
        """(node, chunk, shard) of all that lies on the disks of those that serve."""
        held: Counter[tuple[int, bytes, int]] = Counter()
        for machine in self.serving():
            segments = self.life(machine.number).segments
            for chunk_id in set(segments.chunk_ids()):
                for shard in segments.shards(chunk_id):
                    held[machine.number, chunk_id, shard] += 1
        return held

    def schemes(self) -> set[tuple[int, int]]:
        """Of all extents."""
        return {(extent.k, extent.m) for _, extent in self.catalog.state.all_extents(b"", 10_000).extents}

    # --- what must be true at any time -----------------------------------------------------------------------

    def claims(self) -> set[tuple[int, bytes, int]]:
        """(node, chunk, shard) of all that the catalog says is durable."""
        state = self.catalog.state
        found: set[tuple[int, bytes, int]] = set()
        for _, extent in state.all_extents(b"", 10_000).extents:
            placement = state.placement(extent.layout_epoch)
            elsewhere = {(at, shard): node for at, shard, node in extent.exceptions}
            for at, chunk in enumerate(extent.chunks):
                for shard, owner in enumerate(placement.owners(chunk.chunk_id, extent.k + extent.m)):
                    if (at, shard) not in extent.missing:
                        found.add((elsewhere.get((at, shard), owner), chunk.chunk_id, shard))
        return found

    def check_claims(self) -> None:
        """What the catalog says is on a node is there, also after a crash."""
        if self.is_spoilt:
            return
        held = self.fragments()
        serving = {machine.number for machine in self.serving()}
        for claim in self.claims():
            if claim[0] in serving and claim not in held:
                node, chunk_id, shard = claim
                self.loop.blame(Violation(f"node {node} has no shard {shard} of {chunk_id.hex()}, as is claimed"))

    # --- what must be true in the end --------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """What keeps the site from being whole, each fragment at its owner and nothing left over."""
        state, found = self.catalog.state, []
        nodes = {node.number: node for node in state.nodes()}
        expected: Counter[tuple[int, bytes, int]] = Counter()
        for _, extent in state.all_extents(b"", 10_000).extents:
            placement = state.placement(extent.layout_epoch)
            if extent.exceptions or extent.missing:
                found.append(f"extent {extent.extent_id.hex()} has exceptions or missing fragments")
            for chunk in extent.chunks:
                for shard, owner in enumerate(placement.owners(chunk.chunk_id, extent.k + extent.m)):
                    expected[owner, chunk.chunk_id, shard] += 1
                    if owner == 0 or nodes[owner].state is not NodeState.UP:
                        found.append(f"shard {shard} of {chunk.chunk_id.hex()} lies on no live node: {owner}")
        if state.condemned(1):
            found.append("something is still condemned")
        if needs := {need.name for need in self.needs() if need is not Need.NOTHING}:
            found.append(f"extents need {needs}")
        held = self.fragments()
        for number, chunk_id, shard in held:
            if self.life(number).segments.is_damaged(chunk_id, shard):
                found.append(f"shard {shard} of {chunk_id.hex()} on {number} is damaged")
        found += [f"missing: shard {shard} of {chunk.hex()} on {node}" for node, chunk, shard in expected - held]
        found += [f"left over: shard {shard} of {chunk.hex()} on {node}" for node, chunk, shard in held - expected]
        return found

    async def until_whole(self, limit_s: float = 120.0) -> None:
        """Waits for that, and that every node reads every object."""
        until_s = self.loop.now_s + limit_s
        while self.complaints():
            self.finish_reclaim()
            if self.loop.now_s > until_s:
                raise AssertionError("\n".join(self.complaints()[:10]))
            await asyncio.sleep(0.25)
        await self.check_reads()

    async def check_reads(self) -> None:
        """From every node that is up."""
        for node in self.catalog.state.nodes():
            if node.state is NodeState.UP:
                for key, written in self.objects.items():
                    assert await self.get(node.number, key) == written.data, f"{key} from node {node.number}"

    def needs(self) -> Counter[Need]:
        """What the extents need, as node 1 or the first that serves sees it."""
        life = next(machine.service for machine in self.machines if machine.service is not None)
        judge: Assessor = life.repair.assessor()
        return Counter(judge.judge(extent).need for _, extent in self.catalog.state.all_extents(b"", 10_000).extents)
