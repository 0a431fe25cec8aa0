"""The same over `net.Peers` with certificates and frames: members agree while the wires lose, double and overtake."""

from __future__ import annotations

import asyncio
import random

import pytest

from edgestore.errors import EdgeStoreError
from tests.sim.network import SimNetwork, Weather
from tests.unit.consensus.several import OneOf, Several
from tests.unit.net.site import Site, introduce, member_of


class OverNet(Several):
    """Members whose wires are real peers on simulated connections."""

    def __init__(self, seed: int, weather: Weather) -> None:
        super().__init__()
        self.network = SimNetwork(random.Random(seed), weather)
        self.site = Site(seed)

    async def begin(self, count: int, groups: int) -> None:
        """All of them vote."""
        names = [member_of(number) for number in range(count)]
        self.peers = {
            name: self.site.peers(number, self.network.machine(name), clock=self.clock)
            for number, name in enumerate(names)
        }
        addresses = {name: (peers, await peers.start(f"10.0.0.{name[-1]}", 0)) for name, peers in self.peers.items()}
        introduce(addresses)
        await self.add(*names, groups=groups)

    def wire_of(self, name: str) -> object:
        """See Several."""
        return self.peers[name]


@pytest.mark.parametrize("seed", range(5))
def test_four_groups_agree_over_bad_wires(seed: int) -> None:
    site = OverNet(seed, Weather(lost=0.05, doubled=0.05, overtaken=0.2))
    rng = random.Random(seed)

    async def write(group: int) -> list[bytes]:
        acknowledged = []
        for number in range(25):
            payload = b"%d/%d" % (group, number)
            try:
                async with asyncio.timeout(1):
                    await site.propose(await site.leader(group), payload, group)
                acknowledged.append(payload)
            except (EdgeStoreError, TimeoutError):
                pass
        return acknowledged

    async def cut() -> None:
        for _ in range(3):
            await asyncio.sleep(0.3)
            one = rng.choice(sorted(site.members))
            site.network.partition({one}, set(site.members) - {one})
            await asyncio.sleep(0.5)
            site.network.heal()

    async def main() -> None:
        await site.begin(3, groups=4)
        async with asyncio.TaskGroup() as tasks:
            writers = [tasks.create_task(write(group)) for group in range(4)]
            tasks.create_task(cut())
        for group, writer in enumerate(writers):
            await check(group, writer.result())
        for peers in site.peers.values():
            await peers.close()

    async def check(group: int, acknowledged: list[bytes]) -> None:
        assert acknowledged
        machines = [one.machines[group] for one in site.members.values()]
        await site.until(lambda: len({machine.applied_index for machine in machines}) == 1)
        assert len({tuple(machine.entries) for machine in machines}) == 1
        assert set(acknowledged) <= set(machines[0].payloads)
        for one in site.members.values():
            await read(one, group)

    async def read(one: OneOf, group: int) -> None:
        async with asyncio.timeout(5):
            while True:
                try:
                    await one.groups[group].read_barrier()
                except EdgeStoreError:
                    continue
                return

    site.run(main())
