"""Deaths in the order of the Raft paper's figure 8, which chance hardly ever finds.

Rule: a script only cuts, kills and starts. Where the site does not do what the figure needs it is given up, and tried
again from the beginning.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from edgestore.consensus import ConsensusStatus
from tests.sim.site.faults import Faults
from tests.sim.site.machines import Machine

STEP_S = 2.0
"""How long the site has for each step of the figure."""


class GivenUp(Exception):
    """The site went another way."""


class Script(ABC):
    """What a script may look at and do. `react` is called after each step of each node."""

    def __init__(self, faults: Faults) -> None:
        self.site, self.rng = faults.site, faults.rng
        self.seen: dict[str, ConsensusStatus] = {}
        self.react: Callable[[str, ConsensusStatus], None] = lambda name, status: None

    def look(self, name: str, status: ConsensusStatus) -> None:
        """After each step of each node."""
        self.seen[name] = status
        self.react(name, status)

    @abstractmethod
    async def run(self) -> None:
        """All of it. Raises GivenUp."""

    async def leader(self) -> Machine:
        """One that all others follow. Raises GivenUp."""
        machines = self.site.machines

        def leads() -> list[Machine]:
            statuses = [self.seen.get(machine.name) for machine in machines]
            return [
                machine
                for machine in machines
                if machine.is_up and all(status and status.leader == machine.member for status in statuses)
            ]

        await self.until(lambda: bool(leads()))
        return leads()[0]

    def cut(self, some: list[Machine], others: list[Machine]) -> None:
        """Both ways."""
        pairs = {(one.member, other.member) for one in some for other in others if one is not other}
        self.site.wires.sever(pairs | {(target, source) for source, target in pairs})

    def stop(self, machine: Machine) -> None:
        """kill -9, and it stays down."""
        machine.stays_down = True
        machine.kill(power=False)

    def start(self, machine: Machine) -> None:
        """Again."""
        machine.stays_down = False
        machine.start()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Raises GivenUp."""
        deadline_s = self.site.loop.now_s + STEP_S
        while not condition():
            if self.site.loop.now_s > deadline_s:
                raise GivenUp
            await asyncio.sleep(0.001)


class FigureEight(Script):
    """Five voters. `first` leads, and only `second` gets what it appends; `last` leads next and tells nobody; `first`
    comes back and hands its old entry to one more, which makes a majority of copies; and then `last` comes back."""

    async def run(self) -> None:
        """See Script."""
        first = await self.leader()
        others = [machine for machine in self.site.machines if machine is not first]
        self.rng.shuffle(others)
        second, rest = others[0], others[1:]
        base = self.seen[first.name].last_index
        self.cut([first], rest)
        await self.until(lambda: self.seen[second.name].last_index > base)
        self.stop(first)
        self.cut([second], self.site.machines)
        last = await self._next_leader(rest, base)
        self.site.wires.mend()
        self.start(first)
        again = await self._give_to_one_more([first, second], [one for one in rest if one is not last], base)
        await self.until(lambda: not again.is_up)
        self.react = lambda name, status: None
        self.site.wires.mend()
        self.cut([second if again is first else first], self.site.machines)
        self.start(last)
        await self.until(lambda: self.seen[last.name].committed_index > base + 1)

    async def _next_leader(self, rest: list[Machine], base: int) -> Machine:
        """Cut off in the moment in which it leads, and stopped when it has written that down."""
        leaders: list[Machine] = []

        def react(name: str, status: ConsensusStatus) -> None:
            machine = next((one for one in rest if one.name == name), None)
            if machine is None or not status.is_leader:
                return
            if not leaders:
                leaders.append(machine)
                self.cut([machine], self.site.machines)
            if leaders[0] is machine and base < status.last_index == status.synced_index:
                self.stop(machine)

        self.react = react
        await self.until(lambda: bool(leaders) and not leaders[0].is_up)
        return leaders[0]

    async def _give_to_one_more(self, holders: list[Machine], rest: list[Machine], base: int) -> Machine:
        """One of the holders leads again. Nothing more is heard of it when a third copy is made, and it ends when it
        has counted that, or a while later."""
        leaders: list[Machine] = []
        copied: list[str] = []

        def react(name: str, status: ConsensusStatus) -> None:
            machine = next((one for one in holders if one.name == name), None)
            if machine is not None and status.is_leader and not leaders:
                leaders.append(machine)
            elif machine is not None and machine in leaders and status.committed_index > base:
                self.stop(machine)
            elif leaders and not copied and any(name == one.name for one in rest) and status.last_index > base:
                copied.append(name)
                self.site.wires.sever({(leaders[0].member, other.member) for other in self.site.machines})
                self.site.loop.later(STEP_S / 8, self.stop, leaders[0])

        self.react = react
        await self.until(lambda: bool(copied))
        return leaders[0]


async def play(faults: Faults, make: Callable[[Faults], Script]) -> None:
    """One script at a time; where the site went another way it ends, and all is mended."""
    site = faults.site
    if getattr(site, "is_scripted", False):
        return
    site.is_scripted = True  # type: ignore[attr-defined]
    script = make(faults)
    site.watch.on_look = script.look
    try:
        await script.run()
    except GivenUp:
        pass
    finally:
        site.is_scripted = False  # type: ignore[attr-defined]
        site.watch.on_look = lambda name, status: None
        site.wires.mend()
        for machine in site.machines:
            machine.stays_down = False
            machine.start()


async def figure_eight(faults: Faults) -> None:
    """See FigureEight."""
    await play(faults, FigureEight)
