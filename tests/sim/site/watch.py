"""What must hold after every step of every node: judged from outside, and blamed on the loop so that nothing of the
product can catch it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from edgestore.consensus import Consensus, ConsensusStatus
from tests.sim.model import Ahead, Diverged, Split, Violation
from tests.sim.site.lives import SiteLoop


def glance(consensus: Consensus) -> tuple[Any, ...]:
    """What `Watch.looks` judges by and scripts wait for, and no more: a whole status would cost as much as an average
    step, and most steps change none of it."""
    group: Any = consensus
    voter, raft_journal = group._voter, group._raft_journal
    core = voter.core if voter is not None else None
    return (
        core is not None and core.is_leader,
        core.term if core is not None else raft_journal.term,
        raft_journal.incarnation,
        raft_journal.last_index,
        raft_journal.synced_index,
        group._applying.commit_index,
        group._machine.applied_index,
        group._snapshots._installing is not None,
    )


class Watch:
    """One for a run: it remembers what the dead have said."""

    def __init__(self, loop: SiteLoop) -> None:
        self.loop = loop
        self.leaders: dict[tuple[int, int, int], str] = {}
        self.states: dict[tuple[int, int], tuple[bytes, str]] = {}
        self.elections = 0
        self.on_leader: Callable[[str], None] = lambda name: None
        self.on_look: Callable[[str, ConsensusStatus], None] = lambda name, status: None
        self.incarnations: set[tuple[int, int]] = set()

    def blame(self, violation: Violation) -> None:
        """Ends the run."""
        self.loop.blame(violation)

    def looks(self, name: str, status: ConsensusStatus, *, group: int = 0) -> None:
        """One leader per (incarnation, term), and nothing is applied that is not synced (rule 2)."""
        self.incarnations.add((group, status.incarnation))
        self.on_look(name, status)
        if status.is_leader:
            place = (group, status.incarnation, status.term)
            leader = self.leaders.get(place)
            if leader is None:
                self.leaders[place] = name
                self.elections += 1
                self.on_leader(name)
            elif leader != name:
                self.blame(Split(f"{leader} and {name} both lead in term {status.term} of incarnation {place[1]}"))
        if status.applied_index > max(1, status.synced_index):
            self.blame(Ahead(f"{name} has applied {status.applied_index} and synced {status.synced_index}"))

    def holds(self, name: str, index: int, state: bytes, *, group: int = 0) -> None:
        """Equal state at equal applied index."""
        known = self.states.setdefault((group, index), (state, name))
        if known[0] != state:
            self.blame(Diverged(f"{known[1]} and {name} hold different states at index {index} of group {group}"))

    def agree(self, states: Iterable[tuple[str, int, bytes]]) -> None:
        """When the faults have stopped: every member holds the same."""
        found = {(index, state) for _, index, state in states}
        if len(found) > 1:
            self.blame(Diverged(f"members end in {sorted((name, index) for name, index, _ in states)}"))
