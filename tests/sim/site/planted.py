"""Bugs planted on purpose in a replicated log: each breaks one safety rule, and the simulator must catch each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from edgestore.consensus import elections, group, reads, replication, snapshots, voter
from edgestore.consensus.applying import Applying
from edgestore.consensus.context import GroupContext
from edgestore.consensus.core import Core
from edgestore.consensus.interface import Snapshot
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import Append, Appended, Vote, VoteAnswer
from tests.sim.index import SimIndex
from tests.sim.model import Ahead, Diverged, Lost, NotLinearizable, Refused, Split, Stalled, Violation
from tests.sim.site import faults, late_scripts, scripts
from tests.sim.site.group_world import ANYTHING, PACES, SIZES, Aim

QUICK, TOGETHER, SLOW_TO_YIELD = PACES[1:]
ELECTIONS = Aim((faults.hunt_leaders, faults.crash_again_and_again), 5, (QUICK, TOGETHER), changes_members=False)
"""Leaders come and go, at about the same time, and leave what they began in the logs of a few."""
ALL_AT_ONCE = {"heartbeat_ms": 20, "election_min_ms": 100, "election_max_ms": 108}
"""Votes are split most of the time."""
FIGURE_EIGHT = replace(ELECTIONS, kinds=(scripts.figure_eight,), sizes=SIZES[1:2], paces=(QUICK,))
"""One entry a message."""
OLD_LEADERS = Aim(
    (faults.cut_off_one, faults.loose_contact, faults.stop_for_a_while, faults.cut_in_two, faults.cut_one_way),
    3,
    (SLOW_TO_YIELD,),
    changes_members=False,
)
"""Leaders that do not know yet that they were replaced."""
LATE = replace(
    ELECTIONS,
    kinds=(late_scripts.late_answers,),
    voters=3,
    paces=({"heartbeat_ms": 20, "election_min_ms": 100, "election_max_ms": 200},),
    sizes=SIZES[:1],
    changes_leaders=False,
    is_quiet=True,
)
"""What comes late, and nobody else that changes leaders."""
LEASES = replace(LATE, kinds=(late_scripts.vote_in_a_lease,), paces=(TOGETHER,))
RESTARTS = replace(LEASES, kinds=(late_scripts.vote_after_a_restart,))
SHORT_LOGS = replace(
    LATE,
    kinds=(late_scripts.late_snapshot,),
    paces=PACES[:1],
    sizes=({"log_kept_bytes": 32 * 1024},),
    is_quiet=False,
    has_a_short_log=True,
)
MEMBERS = Aim((faults.cut_off_one, faults.slow_wire, faults.crash_somewhere, faults.cut_in_two))

Plant = Callable[[], AbstractContextManager[None]]


@contextmanager
def acknowledged_before_the_sync() -> Iterator[None]:
    """Rule 1 and 2: what a member says that it has is not on its disk yet."""

    def planted(self: RaftJournal, done: Callable[[], None], *, at_once: bool = False) -> None:
        self.synced_index = self.entries[-1][1]
        self._hard_states_synced = self._hard_states
        self.is_dirty = False
        self._journal.sync(lambda: None)
        asyncio.get_running_loop().call_soon(done)

    with mock.patch.object(RaftJournal, "sync", planted):
        yield


@contextmanager
def term_and_vote_are_not_stored() -> Iterator[None]:
    """Rule 2: a restarted voter does not know whom it voted for."""

    def planted(self: RaftJournal, term: int, vote: str | None) -> None:
        self.term, self.vote = term, vote or ""

    with mock.patch.object(RaftJournal, "setCurrentTerm", planted), no_wait_after_a_restart():
        yield


@contextmanager
def no_wait_after_a_restart() -> Iterator[None]:
    """Rule 10: a restarted voter votes at once, although it may have heard a leader."""
    with mock.patch.object(elections.Elections, "wait_one_lease", lambda self: None):
        yield


@contextmanager
def reads_are_not_confirmed() -> Iterator[None]:
    """Rule 10: every member reads what it has."""
    with mock.patch.object(reads.Reads, "wait", lambda self, done: done(None)):
        yield


@contextmanager
def lease_never_ends() -> Iterator[None]:
    """Rule 10: a leader that was replaced goes on reading."""
    with mock.patch.object(replication.Replication, "has_lease", True):
        yield


@contextmanager
def reads_before_the_index_is_applied() -> Iterator[None]:
    """Rule 10: a follower reads at once when the leader has named the index."""

    def planted(self: reads.Reads) -> None:
        while self._applying:
            for reader in self._applying.popleft()[1]:
                self._waiting -= 1
                reader.done(None)

    with mock.patch.object(reads.Reads, "advance", planted):
        yield


@contextmanager
def trimmed_before_the_flush() -> Iterator[None]:
    """Rule 2: the journal goes although the rows were not flushed."""
    with mock.patch.object(SimIndex, "flush", lambda self: None):
        yield


@contextmanager
def cut_without_a_conflict() -> Iterator[None]:
    """Rule 3: whatever follows on the entries that came is cut, as PySyncObj does."""
    merge = RaftJournal.merge

    def planted(
        self: RaftJournal, previous: tuple[int, int], entries: Sequence[tuple[int, bytes]], committed_index: int
    ) -> int:
        if entries and self.first_index <= previous[0] + 1 <= self.last_index:
            self.cut(previous[0] + 1)
        return merge(self, previous, entries, 0)

    with mock.patch.object(RaftJournal, "merge", planted):
        yield


@contextmanager
def votes_for_a_shorter_log() -> Iterator[None]:
    """Rule 3: a vote does not look at the log."""
    with mock.patch.object(GroupContext, "is_up_to_date", lambda self, last_index, last_term: True):
        yield


@contextmanager
def stop_sign_is_ignored() -> Iterator[None]:
    """Rule 4: proposals are taken behind a stop-sign, and a member that finds some committed goes on with them."""
    stop = Applying._stop

    def planted(self: Applying, index: int, term: int, command: bytes) -> None:
        if self.commit_index <= index:
            stop(self, index, term, command)
            return
        self._machine.apply(index, term, b"")
        self.applied_index = index

    with (
        mock.patch.object(Applying, "_stop", planted),
        mock.patch.object(voter.Voter, "is_stopping", False),
    ):
        yield


@contextmanager
def votes_without_the_stop_sign() -> Iterator[None]:
    """Rule 4: a member votes and acknowledges in an incarnation whose stop-sign it does not hold."""
    take = group.RaftConsensus._take

    def planted(self: group.RaftConsensus, sender: str, message: Any) -> None:
        if message.incarnation > self._raft_journal.incarnation:
            place = (message.group, message.incarnation, message.term)
            if isinstance(message, Vote):
                self._context.outbox.send(sender, VoteAnswer(*place, True))
            elif isinstance(message, Append):
                index = message.previous_index + len(message.entries)
                self._context.outbox.send(sender, Appended(*place, index, index, message.round, True))
        take(self, sender, message)

    with mock.patch.object(group.RaftConsensus, "_take", planted):
        yield


@contextmanager
def applied_beyond_the_sync() -> Iterator[None]:
    """Rule 2: what is committed is applied, synced here or not."""
    run = Applying.run

    def planted(self: Applying) -> None:
        journal = self._raft_journal
        synced, journal.synced_index = journal.synced_index, journal.last_index
        try:
            run(self)
        finally:
            journal.synced_index = min(synced, journal.last_index)

    with mock.patch.object(Applying, "run", planted):
        yield


@contextmanager
def entries_of_an_older_term_are_committed() -> Iterator[None]:
    """Raft 5.4.2: a leader counts copies of what an earlier leader wrote."""

    def planted(self: Core) -> None:
        synced = [self._raft_journal.synced_index]
        synced += [self._SyncObj__raftMatchIndex[node] for node in self._SyncObj__otherNodes]  # type: ignore[attr-defined]
        self.commit(sorted(synced, reverse=True)[len(synced) // 2])

    with mock.patch.object(Core, "_advance_commit", planted):
        yield


@contextmanager
def one_vote_counts_twice() -> Iterator[None]:
    """A vote that comes twice is two votes, as PySyncObj counts."""

    class Counted(list):  # type: ignore[type-arg]
        add = list.append

    stand = elections.Elections.stand

    def planted(self: elections.Elections, **options: Any) -> None:
        stand(self, **options)
        self._votes = Counted(self._votes)  # type: ignore[assignment]

    with mock.patch.object(elections.Elections, "stand", planted):
        yield


@contextmanager
def answers_of_another_term_count() -> Iterator[None]:
    """Rule 3: an acknowledgement counts for whatever term its receiver leads in."""

    def planted(self: voter.Voter, sender: str, answer: Appended) -> None:
        if answer.term > self.core.term:
            self.core.follow(answer.term, "")
        elif self.core.is_leader and self.replication is not None:
            self.replication.on_appended(sender, answer)

    with mock.patch.object(voter.Voter, "_on_appended", planted):
        yield


@contextmanager
def late_snapshot_erases_what_is_newer() -> Iterator[None]:
    """Rule 3: a snapshot takes the place of whatever is there."""
    install, begin = RaftJournal.install, snapshots.Snapshots._install

    def installed(self: RaftJournal, snapshot: Snapshot) -> bool:
        with mock.patch.object(RaftJournal, "term_at", lambda self, index: None):
            return install(self, snapshot)

    async def planted(self: snapshots.Snapshots, source: str) -> None:
        context, receive = self._context, self._context.machine.receive

        async def received(member: str) -> Snapshot:
            snapshot = await receive(member)
            context.applying.applied_index = min(context.applying.applied_index, snapshot.index - 1)
            return snapshot

        with mock.patch.object(context.machine, "receive", received):
            await begin(self, source)

    with (
        mock.patch.object(RaftJournal, "install", installed),
        mock.patch.object(snapshots.Snapshots, "_install", planted),
    ):
        yield


@contextmanager
def voters_are_not_bound() -> Iterator[None]:
    """Rule 10: who has just heard a leader votes for another."""
    with mock.patch.object(elections.Elections, "is_bound", False):
        yield


@dataclass(frozen=True)
class Planted:
    """What a plant must be caught as: one that merely breaks the code is none."""

    plant: Plant
    kinds: tuple[type[Violation], ...]
    aim: Aim = ANYTHING


BUGS = {
    bug.plant.__name__: bug
    for bug in (
        Planted(acknowledged_before_the_sync, (Lost, NotLinearizable, Diverged, Refused)),
        Planted(term_and_vote_are_not_stored, (Split, Lost, Diverged), replace(ELECTIONS, voters=3)),
        Planted(reads_are_not_confirmed, (NotLinearizable,)),
        Planted(lease_never_ends, (NotLinearizable,), OLD_LEADERS),
        Planted(reads_before_the_index_is_applied, (NotLinearizable,)),
        Planted(trimmed_before_the_flush, (Lost, Refused)),
        Planted(cut_without_a_conflict, (Lost, Diverged, NotLinearizable, Ahead)),
        Planted(votes_for_a_shorter_log, (Lost, Diverged, NotLinearizable, Refused), replace(ELECTIONS, voters=3)),
        Planted(stop_sign_is_ignored, (Diverged, Split, Lost), MEMBERS),
        Planted(votes_without_the_stop_sign, (Split, Diverged, Lost, Refused, Stalled), MEMBERS),
        Planted(applied_beyond_the_sync, (Ahead,)),
        Planted(entries_of_an_older_term_are_committed, (Lost, Diverged, NotLinearizable, Refused), FIGURE_EIGHT),
        Planted(answers_of_another_term_count, (NotLinearizable,), LATE),
        Planted(late_snapshot_erases_what_is_newer, (Ahead, Lost, Diverged, NotLinearizable), SHORT_LOGS),
        Planted(voters_are_not_bound, (NotLinearizable,), LEASES),
        Planted(no_wait_after_a_restart, (NotLinearizable,), RESTARTS),
        Planted(
            one_vote_counts_twice,
            (Split, Diverged, Lost, Refused),
            replace(ELECTIONS, paces=(ALL_AT_ONCE,), doubled=0.9),
        ),
    )
}
