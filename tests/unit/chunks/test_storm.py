"""Chunk stores over simulated machines, disks and wires: what a seed does to them costs no acknowledged byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from edgestore.chunks import ChunkStore, Digests, StoredBody, bytes_body
from edgestore.config import ChunksConfig, DiskConfig
from edgestore.disk import Segments
from edgestore.errors import Corrupt, Unavailable
from edgestore.net import Peers
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES, SiteSettings
from tests.sim.disk import Disk, SimFiles
from tests.sim.index import SimIndex
from tests.sim.loop import SimClock, SimLoop
from tests.sim.network import SimNetwork, Weather
from tests.unit.chunks.site import Site as Layouts
from tests.unit.chunks.site import View
from tests.unit.net.site import Site, introduce, member_of

CONFIG = ChunksConfig(fragment_timeout_s=3.0, write_timeout_s=6.0)
DISK = DiskConfig(segment_bytes=32 << 20, reserve_bytes=0)


class Machines:
    """A site, and what has been stored in it."""

    def __init__(self, loop: SimLoop, seed: int, count: int) -> None:
        self.loop, self.chance, self.count = loop, random.Random(seed), count
        self.network = SimNetwork(random.Random(seed + 1))
        self.layouts = Layouts(count, SiteSettings())
        self.disks: dict[int, Disk] = {}
        self.segments: dict[int, Segments] = {}
        self.stores: dict[int, ChunkStore] = {}
        self.peers: dict[int, Peers] = {}
        self.stored: list[tuple[StoredBody, bytes]] = []
        self.refused = 0

    async def open(self) -> None:
        site, members = Site(1), {}
        for number in range(1, self.count + 1):
            disk = self.disks[number] = Disk(random.Random(number))
            files = SimFiles(disk, self.loop)
            index = SimIndex.open(files, "index")
            self.segments[number] = await Segments.open(
                files, "segments", index, DISK, entropy=random.Random(number).randbytes
            )
            peers = site.peers(number, self.network.machine(member_of(number)), clock=SimClock(self.loop))
            members[member_of(number)] = (peers, await peers.start(f"10.0.0.{number}", 7000))
            store = ChunkStore(self.segments[number], files, CONFIG, writer=number)
            store.join_site(View(self.layouts, number), peers)
            self.stores[number], self.peers[number] = store, peers
        introduce(members)
        await asyncio.sleep(1)

    async def close(self) -> None:
        for number in self.stores:
            await self.stores[number].leave_site()
            await self.peers[number].close()
            self.stores[number].close()

    async def write(self, number: int, size: int) -> None:
        """What is acknowledged lies on k + t nodes, checked there and then."""
        data = self.chance.randbytes(size // 2) + bytes(size - size // 2)
        store = self.stores[number]
        try:
            stored = await store.write(bytes_body(store.pool, data), Digests())
        except Unavailable:
            self.refused += 1
            return
        for placed in stored.placed:
            whole = set()
            for shard, node in enumerate(placed.holders):
                info = self.segments[node].lookup(placed.chunk.chunk_id, shard) if node else None
                if info is not None:
                    self.segments[node].read_blocking(info, 0, info.fragment.stored_bytes)
                    whole.add(node)
            assert len(whole) >= placed.scheme.needed
        self.stored.append((stored, data))

    async def read(self, number: int, *, must: bool) -> bool:
        """The right bytes, or none. Whether all of them came."""
        stored, data = self.chance.choice(self.stored)
        offset = self.chance.randrange(len(data))
        length = self.chance.randint(1, len(data) - offset)
        got, at = bytearray(), offset
        try:
            async for view in self.stores[number].read(stored.extents(), offset, length):
                assert bytes(view) == data[at : at + len(view)]
                got += view
                at += len(view)
        except (Unavailable, Corrupt):
            assert not must
            return False
        assert len(got) == length
        return True


def simulate(seed: int, count: int, work: Callable[[Machines], Coroutine[Any, Any, None]]) -> Machines:
    loop = SimLoop()
    machines = Machines(loop, seed, count)

    async def main() -> None:
        await machines.open()
        await work(machines)
        await machines.close()

    loop.run(main())
    assert not loop.failures
    loop.close()
    return machines


def sizes(chance: random.Random) -> int:
    return chance.choice([1, 9_000, 130_000, UNIT_BYTES + 5, 2_000_000, CHUNK_MAX_BYTES + 77])


@pytest.mark.parametrize("seed", range(12))
def test_no_storm_costs_an_acknowledged_byte(seed: int) -> None:
    count = 2 + seed % 6

    async def storm(machines: Machines) -> None:
        chance, network = machines.chance, machines.network
        names = [member_of(number) for number in range(1, count + 1)]
        for _ in range(3):
            network.weather = Weather(
                lost=chance.choice([0, 0.02]), doubled=chance.choice([0, 0.1]), overtaken=chance.choice([0, 0.2])
            )
            cut = chance.choice(names)
            if chance.random() < 0.6:
                network.partition({cut}, set(names) - {cut})
            if chance.random() < 0.4:
                victim = chance.randint(1, count)
                machines.disks[victim].capacity_bytes = machines.disks[victim].used_bytes() + 1_000_000
            if chance.random() < 0.4:
                pair = (chance.choice(names), chance.choice(names))
                network.bytes_per_s[pair] = 500_000.0
            for _ in range(3):
                await machines.write(chance.randint(1, count), sizes(chance))
                if machines.stored:
                    await machines.read(chance.randint(1, count), must=False)
            network.heal()
            network.bytes_per_s.clear()
            network.weather = Weather()
            for disk in machines.disks.values():
                disk.capacity_bytes = 1 << 40
            await asyncio.sleep(30)
            refused = machines.refused
            await machines.write(chance.randint(1, count), sizes(chance))
            assert machines.refused == refused
            for _ in range(3):
                await machines.read(chance.randint(1, count), must=True)

    simulate(seed, count, storm)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_on_tolerated_disks_are_overcome(seed: int) -> None:
    async def storm(machines: Machines) -> None:
        for _ in range(4):
            await machines.write(machines.chance.randint(1, 6), sizes(machines.chance))
        for number in machines.chance.sample(range(1, 7), 2):
            disk = machines.disks[number]
            for path in sorted(path for path in disk.entries if path.startswith("segments/")):
                size = len(disk.entries[path].durable)
                for _ in range(40 if size > 512 else 0):
                    disk.flip_bit(path, machines.chance.randrange(512, size))
        for _ in range(20):
            assert await machines.read(machines.chance.randint(1, 6), must=True)

    simulate(seed, 6, storm)


def test_a_storm_replays() -> None:
    async def storm(machines: Machines) -> None:
        machines.network.weather = Weather(lost=0.05, doubled=0.1, overtaken=0.2)
        for _ in range(3):
            await machines.write(machines.chance.randint(1, 5), sizes(machines.chance))

    first, second = simulate(3, 5, storm), simulate(3, 5, storm)
    assert first.loop.steps == second.loop.steps
    assert [stored.extents() for stored, _ in first.stored] == [stored.extents() for stored, _ in second.stored]
