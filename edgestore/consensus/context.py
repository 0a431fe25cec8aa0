"""What the parts of one group share: its log, its clocks and limits, and how to say something.

Rule: whatever touches the log ends in `after`, which syncs what is new, once a turn of the loop for all that happened.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from edgestore.clock import Clock
from edgestore.config import ConsensusConfig
from edgestore.consensus.applying import Applying
from edgestore.consensus.interface import StateMachine
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.transport import Outbox


@dataclass(slots=True)
class GroupContext:
    """One group at one member."""

    group: int
    member: str
    config: ConsensusConfig
    clock: Clock
    rng: random.Random
    loop: asyncio.AbstractEventLoop
    raft_journal: RaftJournal
    machine: StateMachine
    applying: Applying
    outbox: Outbox
    is_lone: bool
    """The group never has another member."""
    changed: Callable[[], None]
    """Something was appended, heard or decided: sync, apply and tell whoever must hear of it."""

    def now_ms(self) -> int:
        """Boot time: it counts while the machine sleeps, as a lease must."""
        return self.clock.boot_ms()

    @property
    def incarnation(self) -> int:
        """That the log is in."""
        return self.raft_journal.incarnation

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so may lead this member."""
        _, index, term = self.raft_journal.entries[-1]
        return (last_term, last_index) >= (term, index)

    def last(self) -> tuple[int, int]:
        """Index and term of the last entry."""
        _, index, term = self.raft_journal.entries[-1]
        return index, term
