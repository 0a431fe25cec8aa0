"""Hours of a whole site on bad lines, as a command: `python -m tests.sim.site.hours --hours 24 --stall-every-s 120`.

Rule: waits of repair and membership are those that a site has by default. Nothing is written after the site was
filled, so a fragment that is made anew is one that was taken for lost. Messages are lost for good, and calls come late;
that what comes behind a late frame of a stream waits for it is not in this model. Prints what happened, and fails when
anything was made anew or, without stalls, anybody went down.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from dataclasses import dataclass, replace

from edgestore.config import ChunksConfig, ClusterConfig, DiskConfig, NetConfig, RepairConfig
from edgestore.records import NodeState
from tests.sim.network import Weather
from tests.sim.site.core_clients import CoreClient
from tests.sim.site.core_world import BACK_WITHIN_S, CoreAim, CoreWorld
from tests.sim.site.cores import CONFIG
from tests.sim.site.machines import Machine

HOUR_S = 3600.0
STALL_S = 10.0
AFTER_STALL_S = 20.0
LOOK_S = 0.5
"""Nobody is up again sooner."""
OBJECT_BYTES = (20_000, 900_000)
"""Copies, which leave a node to spare, and what is encoded."""
OBJECTS = 12
STEPS_OF_A_SECOND_MAX = 20_000

AS_DELIVERED = replace(
    CONFIG,
    disk=replace(
        CONFIG.disk,
        scrub_interval_ms=DiskConfig().scrub_interval_ms,
        scrub_bytes_per_s=DiskConfig().scrub_bytes_per_s,
        journal_idle_mark_ms=DiskConfig().journal_idle_mark_ms,
    ),
    net=NetConfig(),
    chunks=ChunksConfig(),
    repair=RepairConfig(),
    cluster=ClusterConfig(),
)
"""What decides when something is taken for lost is the product's default; buffers and files are small."""


@dataclass(frozen=True)
class Weathered:
    """What a site lives through. `stall_every_s`: mean time between stalls of 10 s, 0: none; `away_s`: at the end one
    node is gone for so long."""

    hours: float
    loss: float = 0.3
    stall_every_s: float = 0.0
    away_s: float = 0.0


class LongWorld(CoreWorld):
    """One site without deaths, but for the one that `away_s` asks for."""

    def __init__(self, seed: int, nodes: int, weathered: Weathered) -> None:
        super().__init__(seed, CoreAim(nodes=nodes, config=AS_DELIVERED))
        self.weathered = weathered
        self.stalls = self.downs = 0
        self.made_anew = 0.0
        self.site.loop.steps_max = int((weathered.hours * HOUR_S + weathered.away_s + 600) * STEPS_OF_A_SECOND_MAX)

    async def _main(self) -> None:
        site, asked = self.site, self.weathered
        await self._gather()
        await self._prepare()
        filler = CoreClient(site, 1, self.ledger)
        for number in range(OBJECTS):
            assert await filler.put_large(
                site.machines[number % len(site.machines)], OBJECT_BYTES[number % len(OBJECT_BYTES)]
            )
        await self._check_whole()
        before = self._made()
        watching = asyncio.ensure_future(self._watch())
        site.wires.weather = Weather(lost=asked.loss, resent_s=0.2)
        await (self._stall() if asked.stall_every_s else asyncio.sleep(asked.hours * HOUR_S))
        site.wires.weather = Weather()
        self.made_anew = self._made() - before
        if asked.away_s:
            self.made_anew = await self._go_away(asked.away_s)
        watching.cancel()
        await self._until(self._all_arrived, BACK_WITHIN_S)
        await self._check_reads()

    async def _stall(self) -> None:
        site = self.site
        end_s = site.loop.now_s + self.weathered.hours * HOUR_S
        while site.loop.now_s < end_s:
            await asyncio.sleep(self.rng.expovariate(1 / self.weathered.stall_every_s))
            life = self.rng.choice(site.machines).life
            assert life is not None
            life.hold(STALL_S)
            self.stalls += 1
            await asyncio.sleep(STALL_S + AFTER_STALL_S)

    async def _go_away(self, away_s: float) -> float:
        """Returns how many fragments the others have made anew by its return."""
        site = self.site
        victim = next(machine for machine in site.machines if machine not in site.leaders())
        others = [machine for machine in site.machines if machine is not victim]
        before = self._made(others)
        victim.stays_down = True
        victim.kill(power=True)
        await asyncio.sleep(away_s)
        made = self._made(others) - before
        victim.stays_down = False
        victim.start()
        return made

    def _made(self, machines: list[Machine] | None = None) -> float:
        """Fragments that were brought or made anew by now."""
        return sum(
            machine.service.core.metrics.value("repair_fragments_total") for machine in machines or self.site.machines
        )

    async def _watch(self) -> None:
        """Counts who goes down."""
        was_down: set[int] = set()
        while True:
            await asyncio.sleep(LOOK_S)
            metas = [machine.service.core.meta for machine in self.site.serving()]
            rows = max(metas, key=lambda meta: meta.applied_index).state.nodes()  # who is stalled knows less
            is_down = {row.number for row in rows if row.state is NodeState.DOWN}
            self.downs += len(is_down - was_down)
            was_down = is_down


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--loss", type=float, default=0.3)
    parser.add_argument("--stall-every-s", type=float, default=0.0, help="mean time between stalls of 10 s; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.disable()
    world = LongWorld(asked.seed, asked.nodes, Weathered(asked.hours, asked.loss, asked.stall_every_s))
    world.run()
    print(
        f"{asked.nodes} nodes, {asked.hours:g} h at {asked.loss:.0%} loss: {world.steps} steps, {world.stalls} stalls, "
        f"{world.downs} times down, {world.made_anew:g} fragments made anew"
    )
    return 1 if world.made_anew or (world.downs and not world.stalls) else 0


if __name__ == "__main__":
    sys.exit(main())
