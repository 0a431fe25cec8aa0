"""The machines of a site and the lives of their nodes: disk and clocks go on, everything else ends with a life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from edgestore.errors import EdgeStoreError
from tests.sim.disk import CrashAtSync, Disk, SimFiles
from tests.sim.model import Crashed, Refused
from tests.sim.site.lives import Life, NodeClock, SiteLoop
from tests.sim.site.net_wires import NetWires
from tests.sim.site.watch import Watch
from tests.sim.site.wires import Wires

BACK_AFTER_S = (0.003, 0.05, 0.3, 1.5)
RATE_SPREAD = 5e-4
"""How far apart the clocks of cheap boards run, generously."""


class Service(Protocol):
    """What one life of a node offers the world, once it is open."""

    def look(self) -> None:
        """Called after each step of the life: tells the watch."""
        ...


class Machine:
    """One of the site: a disk, clocks, and one life of a node at a time."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number, self.name = site, number, f"node-{number}"
        self.rng = random.Random(f"{site.seed} {number}")
        self.member = self.rng.randbytes(16).hex()
        self.disk = Disk(random.Random(f"{site.seed} {number} disk"))
        self.rate = self.rng.uniform(1 - RATE_SPREAD, 1 + RATE_SPREAD)
        self.boot_s = site.loop.now_s - self.rng.uniform(0, 10_000)
        self.wall_offset_ms = 0
        self.life: Life | None = None
        self.files: SimFiles
        self.service: Any = None
        self.lives = 0
        self.stays_down = False
        self.dies_by_power = True
        self.clock: NodeClock | None = None

    def __repr__(self) -> str:
        return self.name

    @property
    def is_up(self) -> bool:
        """Whether a life of it runs; whether it serves yet is another question."""
        return self.life is not None and not self.life.crashed

    def start(self) -> None:
        """A new life on what the last one left."""
        if self.is_up or self.stays_down:
            return
        self.lives += 1
        life = self.life = Life(self.site.loop, self.name, self.number, rate=self.rate, boot_s=self.boot_s)
        life.on_death = self._died
        self.clock = NodeClock(life, self.wall_offset_ms)
        self.files = SimFiles(self.disk, self.site.loop, life)  # type: ignore[arg-type]
        life.start(self._live(life, self.files))

    async def _live(self, life: Life, files: SimFiles) -> None:
        try:
            service = await self.site.open_service(self, life, files)
        except (EdgeStoreError, AssertionError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self.stopped(life, error, "does not start")
            return
        self.service = service
        life.watch = service.look

    def stopped(self, life: Life, error: BaseException, what: str = "stopped") -> None:
        """Its node ends by itself: a process that exits, and is started again."""
        if life.crashed:
            return
        if not isinstance(error, tuple(self.files.troubles)):
            kind = Refused if isinstance(error, EdgeStoreError) else Crashed
            violation = kind(f"{self.name} {what}: {error!r}")
            violation.__cause__ = error
            self.site.loop.blame(violation)
            return
        self.dies_by_power = self.rng.random() < 0.5
        life.power_off()

    def kill(self, *, power: bool) -> None:
        """Now. `power`: the machine loses what was not synced; otherwise only the process ends (kill -9)."""
        if self.life is not None and not self.life.crashed:
            self.dies_by_power = power
            self.life.kill()

    def wipe(self) -> None:
        """Its disk is replaced by an empty one: whoever starts on it is a new member (rule 4)."""
        self.kill(power=True)
        self.disk = Disk(random.Random(self.rng.random()))
        self.member = self.rng.randbytes(16).hex()

    def plan_death(self) -> None:
        """At a step, a call of the disk or a sync of the journal that is still to come."""
        if self.life is None or self.life.crashed:
            return
        kind = self.rng.random()
        self.dies_by_power = kind > 0.3
        if kind < 0.45:
            self.life.crash_at = self.life.steps + self.rng.randint(1, 400)
        elif kind < 0.75:
            self.disk.crash_at = self.disk.operations + self.rng.randint(1, 60)
        else:
            self.disk.crash_at_sync = CrashAtSync("journal/", 1, 0, self.rng.randint(1, 8))

    def plan_failed_sync(self, among: int = 20) -> None:
        """One of the next `among` syncs fails, and every one after it until the node is started again."""
        left = self.rng.randint(1, among)

        def fails(path: str) -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        self.disk.sync_fails = fails

    def set_clock(self, by_ms: int) -> None:
        """Somebody sets its wall clock."""
        self.wall_offset_ms += by_ms
        if self.clock is not None:
            self.clock.wall_offset_ms = self.wall_offset_ms

    def forget_plans(self) -> None:
        """What has not struck yet does not any more."""
        self.disk.crash_at = self.disk.crash_at_sync = None
        self.disk.sync_fails = lambda path: False
        if self.life is not None:
            self.life.crash_at = None

    def _died(self) -> None:
        self.service = None
        self.forget_plans()
        if self.dies_by_power:
            self.disk.lose_power()
            self.boot_s = self.site.loop.now_s - self.rng.uniform(1, 60)
        else:
            self.disk.lose_process()
        self.site.deaths += 1
        self.site.wires.unplug(self.member, told=not self.dies_by_power)
        self.dies_by_power = True
        self.site.loop.later(self.rng.choice(BACK_AFTER_S) * self.rng.uniform(0.5, 1.5), self.start)


class Site:
    """The machines, the wires and the watch of one run. `open_service` builds a node, inside its life."""

    def __init__(self, seed: int, nodes: int, *, wires: type[Wires] | type[NetWires] = Wires) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed} site")
        self.loop = SiteLoop()
        self.wires = wires(self.loop, random.Random(f"{seed} wires"))
        self.watch = Watch(self.loop)
        self.deaths = 0
        self.machines = [Machine(self, number) for number in range(1, nodes + 1)]
        self.open_service: Callable[[Machine, Life, SimFiles], Awaitable[Service]]

    def by_member(self, member: str) -> Machine | None:
        """Whose member id that is."""
        return next((machine for machine in self.machines if machine.member == member), None)

    def serving(self) -> list[Machine]:
        """Those that answer, as far as anybody can tell."""
        return [machine for machine in self.machines if machine.is_up and machine.service is not None]

    async def serve_all(self, limit_s: float = 30.0) -> None:
        """Waits until every machine serves."""
        async with asyncio.timeout(limit_s):
            while len(self.serving()) < len(self.machines):
                await asyncio.sleep(0.01)
