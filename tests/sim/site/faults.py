"""What goes wrong on a site, drawn from the seed: each fault begins, lasts a while beside others, and is mended.

Rule: a fault is what real machines and wires do. Nothing in here knows what the product does with it; some of them aim
at whoever leads, because that is where mistakes hide.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from tests.sim.disk import UNLIMITED_BYTES
from tests.sim.network import Weather
from tests.sim.site.machines import Machine, Site

DAY_MS = 86_400_000
Fault = Callable[["Faults"], Awaitable[None]]


class Faults:
    """The faults of one run. `leaders` tells who leads, as far as the machines know; `turns`: what the site itself can
    be asked for in between (other members, another leader)."""

    def __init__(
        self, site: Site, leaders: Callable[[], list[Machine]], turns: tuple[Callable[[], Awaitable[None]], ...] = ()
    ) -> None:
        self.site, self.leaders, self.turns = site, leaders, turns
        self.rng = random.Random(f"{site.seed} faults")
        kinds = list(KINDS)
        count = self.rng.randint(2, len(kinds))
        self.kinds = self.rng.sample(kinds, count)
        """Each seed mixes some of them, so that none hides behind the others for ever."""
        self.mean_wait_s = self.rng.choice((0.05, 0.2, 0.5))
        self.log: list[str] = []

    def victim(self) -> Machine:
        """Mostly anybody, often a leader."""
        leaders = self.leaders()
        return self.rng.choice(leaders if leaders and self.rng.random() < 0.5 else self.site.machines)

    async def run(self, for_s: float) -> None:
        """Faults for so long, then all is mended and everybody started."""
        running: set[asyncio.Task[None]] = set()
        ends_s = self.site.loop.now_s + for_s
        while self.site.loop.now_s < ends_s:
            await asyncio.sleep(self.rng.expovariate(1 / self.mean_wait_s))
            if self.turns and self.rng.random() < 0.25:
                work = self.rng.choice(self.turns)
            else:
                fault = self.rng.choice(self.kinds)
                self.log.append(f"{self.site.loop.now_s:.4f} {fault.__name__}")
                work = partial(fault, self)
            task = asyncio.ensure_future(self._carry_out(work))
            running.add(task)
            task.add_done_callback(running.discard)
        for task in list(running):
            task.cancel()
        for task in list(running):
            with suppress(asyncio.CancelledError):
                await task
        await self.mend()

    async def _carry_out(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            self.site.loop.blame(error)

    async def mend(self) -> None:
        """No fault is left, and what was planned does not strike any more."""
        site = self.site
        site.wires.mend()
        site.wires.slow.clear()
        site.wires.weather = replace(site.wires.usual)
        site.watch.on_leader = lambda name: None
        for machine in site.machines:
            machine.disk.slowness = 1.0
            machine.disk.capacity_bytes = UNLIMITED_BYTES
            machine.forget_plans()
        for machine in site.machines:
            machine.start()

    def lasting_s(self) -> float:
        """How long a fault lasts: mostly shorter than an election takes to heal it, sometimes much longer."""
        return self.rng.choice((0.02, 0.1, 0.4, 1.5)) * self.rng.uniform(0.5, 2)


# --- machines ------------------------------------------------------------------------------------------


async def kill_one(faults: Faults) -> None:
    """kill -9: the page cache goes on."""
    faults.victim().kill(power=False)


async def cut_power_of_one(faults: Faults) -> None:
    """At once."""
    faults.victim().kill(power=True)


async def crash_somewhere(faults: Faults) -> None:
    """At a step, a call of the disk or a sync that is still to come."""
    faults.victim().plan_death()


async def cut_power_of_all(faults: Faults) -> None:
    """The whole site, at one instant."""
    for machine in faults.site.machines:
        machine.kill(power=True)


async def crash_many(faults: Faults) -> None:
    """Several at about the same time, each at a place of its own."""
    machines = faults.site.machines
    for machine in faults.rng.sample(machines, faults.rng.randint(1, len(machines))):
        machine.plan_death()


async def hunt_leaders(faults: Faults) -> None:
    """Whoever becomes leader is struck soon after: what it has begun is left in the logs of a few."""
    site, rng = faults.site, faults.rng
    blow = rng.choice((_kill, _kill, _die_somewhere, _isolate))
    most_s = rng.choice((0.001, 0.003, 0.01, 0.05))

    def strike(name: str) -> None:
        machine = next(machine for machine in site.machines if machine.name == name)
        site.loop.later(rng.uniform(0, most_s), blow, faults, machine)

    site.watch.on_leader = strike
    try:
        await asyncio.sleep(2 * faults.lasting_s() + 0.5)
    finally:
        site.watch.on_leader = lambda name: None


def _kill(faults: Faults, machine: Machine) -> None:
    machine.kill(power=faults.rng.random() < 0.5)


def _die_somewhere(faults: Faults, machine: Machine) -> None:
    machine.plan_death()


def _isolate(faults: Faults, machine: Machine) -> None:
    pairs = _between([machine], faults.site.machines)
    faults.site.wires.sever(pairs)
    faults.site.loop.later(faults.lasting_s(), faults.site.wires.mend, pairs)


async def crash_again_and_again(faults: Faults) -> None:
    """One machine that does not stay up."""
    victim = faults.victim()
    for _ in range(faults.rng.randint(2, 8)):
        victim.kill(power=faults.rng.random() < 0.5)
        await asyncio.sleep(faults.rng.uniform(0.005, 0.2))


async def stop_for_a_while(faults: Faults) -> None:
    """SIGSTOP: longer than a lease, while its clocks go on."""
    machine = faults.victim()
    if machine.life is not None:
        machine.life.hold(faults.lasting_s())
        await asyncio.sleep(0)


# --- disks ---------------------------------------------------------------------------------------------


async def slow_disk(faults: Faults) -> None:
    """Each call takes many times as long."""
    disk = faults.victim().disk
    disk.slowness = faults.rng.choice((10.0, 100.0, 400.0))
    try:
        await asyncio.sleep(faults.lasting_s())
    finally:
        disk.slowness = 1.0


async def fail_a_sync(faults: Faults) -> None:
    """The node stops, for what a failed sync left nobody knows."""
    faults.victim().plan_failed_sync()


async def full_disk(faults: Faults) -> None:
    """Others take the space."""
    disk = faults.victim().disk
    disk.capacity_bytes = disk.used_bytes() + faults.rng.randint(0, 100_000)
    try:
        await asyncio.sleep(faults.lasting_s())
    finally:
        disk.capacity_bytes = UNLIMITED_BYTES


# --- clocks --------------------------------------------------------------------------------------------


async def set_a_clock(faults: Faults) -> None:
    """Somebody, or a time server, sets a wall clock."""
    faults.victim().set_clock(faults.rng.randint(-30 * DAY_MS, 30 * DAY_MS))


# --- wires ---------------------------------------------------------------------------------------------


async def bad_weather(faults: Faults) -> None:
    """Loss, doubles, overtaking and delay, on all wires."""
    rng, wires = faults.rng, faults.site.wires
    wires.weather = Weather(
        delay_s=rng.choice((0.0004, 0.002, 0.02, 0.08)),
        lost=rng.choice((0.0, 0.02, 0.3)),
        doubled=rng.choice((0.0, 0.05, 0.3)),
        overtaken=rng.choice((0.0, 0.1, 0.9)),
    )
    try:
        await asyncio.sleep(faults.lasting_s())
    finally:
        wires.weather = replace(wires.usual)


async def _sever(faults: Faults, pairs: set[tuple[str, str]]) -> None:
    faults.site.wires.sever(pairs)
    try:
        await asyncio.sleep(faults.lasting_s())
    finally:
        faults.site.wires.mend(pairs)


def _between(some: list[Machine], others: list[Machine], *, both: bool = True) -> set[tuple[str, str]]:
    pairs = {(one.member, other.member) for one in some for other in others if one is not other}
    return pairs | {(target, source) for source, target in pairs} if both else pairs


async def cut_off_one(faults: Faults) -> None:
    """From all others: it hears its clients, and nobody else."""
    victim = faults.victim()
    await _sever(faults, _between([victim], faults.site.machines))


async def cut_one_way(faults: Faults) -> None:
    """It hears and is not heard, or the other way round."""
    victim, pairs = faults.victim(), set()
    pairs = _between([victim], faults.site.machines, both=False)
    if faults.rng.random() < 0.5:
        pairs = {(target, source) for source, target in pairs}
    await _sever(faults, pairs)


async def cut_one_pair(faults: Faults) -> None:
    """Two that do not reach each other, and all others do."""
    victim, other = faults.victim(), faults.rng.choice(faults.site.machines)
    await _sever(faults, _between([victim], [other]))


async def loose_contact(faults: Faults) -> None:
    """One machine is cut off, reached, cut off, at the pace of elections."""
    victim, wires = faults.victim(), faults.site.wires
    for _ in range(faults.rng.randint(2, 10)):
        pairs = _between([victim], faults.site.machines, both=faults.rng.random() < 0.6)
        wires.sever(pairs)
        await asyncio.sleep(faults.rng.uniform(0.01, 0.5))
        wires.mend(pairs)
        await asyncio.sleep(faults.rng.uniform(0.005, 0.3))


async def cut_in_two(faults: Faults) -> None:
    """Two sides."""
    machines = list(faults.site.machines)
    faults.rng.shuffle(machines)
    size = faults.rng.randint(1, max(1, len(machines) - 1))
    await _sever(faults, _between(machines[:size], machines[size:]))


async def cut_to_a_bridge(faults: Faults) -> None:
    """Two sides that only one machine reaches both of."""
    machines = list(faults.site.machines)
    faults.rng.shuffle(machines)
    middle = (len(machines) + 1) // 2
    await _sever(faults, _between(machines[1:middle], machines[middle:]))


async def slow_wire(faults: Faults) -> None:
    """One machine behind a slow line, one way."""
    victim, wires = faults.victim(), faults.site.wires
    pairs = sorted(_between([victim], faults.site.machines, both=False))
    for pair in pairs:
        wires.slow[pair] = faults.rng.choice((0.01, 0.06, 0.25))
    try:
        await asyncio.sleep(faults.lasting_s())
    finally:
        for pair in pairs:
            wires.slow.pop(pair, None)


KINDS: tuple[Fault, ...] = (
    kill_one,
    cut_power_of_one,
    crash_somewhere,
    cut_power_of_all,
    crash_many,
    hunt_leaders,
    hunt_leaders,
    crash_again_and_again,
    stop_for_a_while,
    slow_disk,
    fail_a_sync,
    full_disk,
    set_a_clock,
    bad_weather,
    cut_off_one,
    cut_one_way,
    cut_one_pair,
    loose_contact,
    cut_in_two,
    cut_to_a_bridge,
    slow_wire,
)
