"""What comes at the worst time: answers of another term, votes within a lease, a snapshot behind the log.

Rule: as in `scripts`; what a wire carries may also be kept back, and come when it hurts.
"""

from __future__ import annotations

import asyncio

from edgestore.consensus import ConsensusStatus
from tests.sim.site.faults import Faults
from tests.sim.site.linearizability import Kind
from tests.sim.site.machines import Machine
from tests.sim.site.register_clients import KEYS
from tests.sim.site.scripts import GivenUp, Script, play
from tests.sim.site.wires import Late

PAUSE_S = 0.04
"""Between one late answer and the next: a lease is longer."""


class _Timely(Script):
    """With the times that the site's voters are configured to."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self.lease_s = self.site.config.election_min_ms / 1000  # type: ignore[attr-defined]

    def others(self, machine: Machine) -> list[Machine]:
        """All but this one, in any order."""
        rest = [other for other in self.site.machines if other is not machine]
        self.rng.shuffle(rest)
        return rest

    async def lead(self) -> Machine:
        """The voter of the lowest name comes to lead: it is handed over to as soon as it has everything."""
        first = min(self.site.machines, key=lambda machine: machine.member)
        while (leader := await self.leader()) is not first:
            await self.yield_by(leader)
        return first

    async def yield_by(self, leader: Machine) -> None:
        """Another leads, or it was tried."""
        if leader.life is not None and leader.service is not None:
            leader.life.call(leader.service.consensus.yield_leadership)
        await asyncio.sleep(0.005)

    async def write_and_read(self, writer: Machine, reader: Machine) -> None:
        """One client: what it is told at the one it must read at the other, if that answers."""
        client, key = self.site.probe, self.rng.choice(KEYS)  # type: ignore[attr-defined]
        if await client.write(key, Kind.WRITE, writer):
            await client.read(key, reader)

    def ways(self, some: list[Machine], others: list[Machine]) -> set[tuple[str, str]]:
        """One way."""
        return {(one.member, other.member) for one in some for other in others if one is not other}


class LateAnswers(_Timely):
    """Answers to a leader are kept back while it leads in one term; it leads again in a later one, and is cut off. They
    come while another is elected: who takes them for answers of its own term goes on reading."""

    async def run(self) -> None:
        """See Script."""
        first = await self.lead()
        term, wires = self.seen[first.name].term, self.site.wires
        others = self.others(first)
        answers = self.ways(others, [first])
        wires.hold(answers)
        await asyncio.sleep(1.5 * self.lease_s)
        late = wires.take_held(answers)
        while (leader := await self.leader()) is first and self.seen[first.name].term == term:
            await self.yield_by(leader)
        if self.seen[(await self.lead()).name].term == term:
            raise GivenUp
        wires.sever(self.ways([first], others))
        wires.hold(answers)
        self.site.loop.later(0, self._bring, late)
        await self.until(lambda: any(self.seen[other.name].is_leader for other in others))
        for _ in range(3):
            await self.write_and_read(others[0], first)

    def _bring(self, late: list[Late]) -> None:
        """One after the other."""
        if late:
            self.site.wires.bring(late.pop(0))
            self.site.loop.later(PAUSE_S, self._bring, late)


class VoteInALease(_Timely):
    """A leader that reaches only one other, which the third asks for its vote. Who gives it before the leader's lease
    has ended is not heard any more by the leader, which goes on reading."""

    restarts = False
    """The one that is asked forgets, in front of that, that it has heard a leader."""

    async def run(self) -> None:
        """See Script."""
        first = await self.leader()
        asked, third = self.others(first)
        term = self.seen[first.name].term

        def react(name: str, status: ConsensusStatus) -> None:
            if name == asked.name and status.term > term:
                self.react = lambda name, status: None
                self.cut([asked], [first])

        self.react = react
        self.cut([first], [third])
        if self.restarts:
            await asyncio.sleep(1.8 * self.lease_s)
            self.stop(asked)
            self.cut([asked], [first])
            self.start(asked)
        await self.until(lambda: self.seen[third.name].is_leader)
        await self.write_and_read(third, first)


class VoteAfterARestart(VoteInALease):
    """The same, of one that was restarted."""

    restarts = True


class LateSnapshot(_Timely):
    """One that was away asks a leader with a short log for a snapshot, which is kept back. Another leader brings it up
    to date by its log, and counts on it. Then the snapshot comes, and the other leader goes."""

    async def run(self) -> None:
        """See Script."""
        first = await self.lead()
        second, last = self.others(first)
        wires, snapshots = self.site.wires, self.ways([first], [last])
        self.stop(last)
        await self.until(lambda: _first_index(first) > self.seen[last.name].last_index + 1)

        def react(name: str, status: ConsensusStatus) -> None:
            if name == last.name and last.service is not None and last.service.consensus._snapshots._installing:
                wires.hold(snapshots)

        self.react = react
        self.start(last)
        await self.until(lambda: bool(wires.held.get((first.member, last.member))))
        base = self.seen[first.name].last_index
        self.cut([first], [second])
        wires.sever(self.ways([last], [first]))
        await self.until(lambda: self.seen[second.name].is_leader)
        await self.until(lambda: self.seen[last.name].applied_index > base + 5)
        for late in wires.take_held(snapshots):
            wires.bring(late)
        self.react = lambda name, status: None
        await asyncio.sleep(self.lease_s / 4)
        self.stop(second)
        wires.mend()
        await self.until(lambda: self.seen[first.name].is_leader or self.seen[last.name].is_leader)
        await asyncio.sleep(self.lease_s)


def _first_index(machine: Machine) -> int:
    return 0 if machine.service is None else int(machine.service.consensus._raft_journal.first_index)


async def late_answers(faults: Faults) -> None:
    """See LateAnswers."""
    await play(faults, LateAnswers)


async def vote_in_a_lease(faults: Faults) -> None:
    """See VoteInALease."""
    await play(faults, VoteInALease)


async def vote_after_a_restart(faults: Faults) -> None:
    """See VoteAfterARestart."""
    await play(faults, VoteAfterARestart)


async def late_snapshot(faults: Faults) -> None:
    """See LateSnapshot."""
    await play(faults, LateSnapshot)
