"""What the rooms above know of consensus, whatever core carries it.

Rule: whatever is called back (`done`, `on_role_changed`) is called on the event loop, once, and never after `close`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from edgestore.records import Member

Done = Callable[[list[object] | None, BaseException | None], None]
Readable = Callable[[BaseException | None], None]


class Role(IntEnum):
    """What this member is in its group."""

    LEARNER = 0
    """No voter: it fetches what is committed."""
    FOLLOWER = 1
    CANDIDATE = 2
    LEADER = 3

    @property
    def is_voter(self) -> bool:
        """Whether it has a vote in this incarnation."""
        return self is not Role.LEARNER


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state machine that was received whole: `folder` contains every entry up to `index`, and is synced."""

    folder: str
    index: int
    term: int
    incarnation: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SnapshotBase:
    """Where a checkpoint stands that is taken in this turn of the loop: its receiver's `Snapshot` says the same."""

    index: int
    term: int
    incarnation: int
    members: tuple[Member, ...]


class Applies(Protocol):
    """What entries are applied to."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that it contains."""
        ...

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """Applies one entry; an empty payload is a leader's first entry. Entries come once each, in order."""
        ...

    def begin_incarnation(self, index: int, term: int, incarnation: int) -> None:
        """The entry at `index` is a stop-sign: what comes behind it belongs to `incarnation`. It counts as applied, in
        the same batch (rule 4)."""
        ...


class StateMachine(Applies, Protocol):
    """What committed entries are applied to, and what a snapshot replaces."""

    async def receive(self, member: str) -> Snapshot:
        """Pulls a snapshot from `member` into a folder of its own and syncs it; what was begun before may be resumed.
        Raises Unavailable where that member cannot. Entries go on being applied meanwhile."""
        ...

    async def switch(self, snapshot: Snapshot) -> None:
        """The journal names the folder from now on: it is opened, `applied_index` is its index, the old one is deleted.
        Nothing is applied meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """Where a group stands. `matched`: at the leader, the last index that each other voter has synced; `fetched`: the
    last index that each learner had when it last asked this member."""

    is_leader: bool
    term: int
    last_index: int
    synced_index: int
    committed_index: int
    applied_index: int
    role: Role = Role.LEADER
    leader: str = ""
    incarnation: int = 0
    voters: tuple[str, ...] = ()
    matched: Mapping[str, int] = field(default_factory=dict)
    fetched: Mapping[str, int] = field(default_factory=dict)


class Consensus(Protocol):
    """One replicated log."""

    on_failure: Callable[[BaseException], None]
    """The member stopped: an entry could not be applied, or its log contradicts what is committed."""
    on_role_changed: Callable[[ConsensusStatus], None]
    """Role, leader, term or incarnation is another than at the last call; called in a later turn of the loop."""

    def propose(self, payload: bytes, done: Done, *, is_waited_elsewhere: bool = False) -> None:
        """Appends an entry. `done` gets what `apply` returned, after commit and apply; or the reason why not.
        `is_waited_elsewhere`: another member answers somebody once it has applied the entry.

        NotLeader (its field `leader` says who, empty where nobody is known) and TooBusy: it is in nobody's log.
        RetryOperation: it never applies, send its operations again with the same ids. Unavailable: not known.
        """
        ...

    def leader(self) -> str:
        """Who leads, as this member knows; empty where it knows nobody."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows."""
        ...

    @property
    def incarnation(self) -> int:
        """What an entry that is proposed in this turn of the loop belongs to."""
        ...

    def can_read_now(self) -> bool:
        """Whether a local read is linearizable without waiting: this member leads and its lease runs (rule 10)."""
        ...

    def when_readable(self, done: Readable) -> None:
        """Calls `done(None)` when a local read sees everything acknowledged before this call; on any role. At once
        where that is so already. `done(Unavailable)`: no leader was found in time. Raises nothing."""
        ...

    async def read_barrier(self) -> None:
        """`when_readable` as a coroutine."""
        ...

    def status(self) -> ConsensusStatus:
        """Where this member stands."""
        ...

    async def change_members(self, members: tuple[Member, ...]) -> None:
        """Ends the incarnation by a stop-sign that names the voters of the next one; returns when it has begun here.

        Raises NotLeader; Conflict where a change is under way or the members are the same; TooBusy where no majority of
        the next has caught up; Unavailable where the outcome is not known.
        """
        ...

    def yield_leadership(self, to: Collection[str] = ()) -> bool:
        """Hands the leadership to a voter that has caught up, one of `to` if any are named; False where there is
        none."""
        ...

    async def snapshot(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Lets the log before what is applied now go: `flush` makes the state machine durable, then one synced record
        says so, then files go (rule 2). Raises what `flush` raises, and TooBusy or StorageFull: then nothing went."""
        ...

    def snapshot_base(self) -> SnapshotBase:
        """What a checkpoint of the state machine contains that is taken in this turn of the loop."""
        ...

    def hold_log(self) -> Callable[[], None]:
        """Keeps every entry from now on, for whoever receives a snapshot; call what is returned when it has it. Beyond
        `consensus.log_behind_max_bytes` proposals get TooBusy."""
        ...

    def close(self) -> None:
        """Takes no more entries; those under way are not answered."""
        ...
