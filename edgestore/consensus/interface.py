"""What the rooms above know of consensus, whatever core carries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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

    async def snapshot(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Lets the log before what is applied now go: `flush` makes the state machine durable, then one synced record
        says so, then files go (rule 2). Raises what `flush` raises, and TooBusy or StorageFull: then nothing went."""
        ...

    def close(self) -> None:
        """Takes no more entries; those under way are not answered."""
        ...
