"""What the rooms above know of consensus, whatever core carries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Done = Callable[[list[object] | None, BaseException | None], None]


class StateMachine(Protocol):
    """What committed entries are applied to."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that it contains."""
        ...

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """Applies one entry; an empty payload is a leader's first entry. Entries come once each, in order."""
        ...


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """Where a group stands."""

    is_leader: bool
    term: int
    last_index: int
    synced_index: int
    committed_index: int
    applied_index: int


class Consensus(Protocol):
    """One replicated log."""

    def propose(self, payload: bytes, done: Done) -> None:
        """Appends an entry. `done` gets what `apply` returned, after commit and apply; or the reason why not."""
        ...

    async def read_barrier(self) -> None:
        """Returns when a local read sees everything that was acknowledged before the call."""
        ...

    def can_read_now(self) -> bool:
        """Whether a local read is linearizable without waiting."""
        ...

    def status(self) -> ConsensusStatus:
        """Where this member stands."""
        ...

    def trim(self, index: int, term: int, done: Callable[[], None]) -> None:
        """The state machine has made everything up to `index` durable: the log before may go (rule 2)."""
        ...

    def close(self) -> None:
        """Takes no more entries; those under way are not answered."""
        ...
