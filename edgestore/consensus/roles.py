"""Which role this member has in its group, and what makes it another: a start, a stop-sign, a snapshot, a missed end.

Rule: a member votes in the incarnation that its log is in, and only where its log says that it is a voter; whatever
changes its role ends in `_changed`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from edgestore.consensus.applying import Applying
from edgestore.consensus.context import GroupContext
from edgestore.consensus.interface import Role
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.learner import Fetches, Learner
from edgestore.consensus.messages import StopSign
from edgestore.consensus.snapshots import Snapshots
from edgestore.consensus.transport import RaftPort
from edgestore.consensus.voter import Voter
from edgestore.errors import Corrupt, RetryOperation, Unavailable

log = logging.getLogger("edgestore.consensus")


class Roles(ABC):
    """Of one group at one member: a voter, a learner, or none while a snapshot is switched to. `Running` is it."""

    _context: GroupContext
    _port: RaftPort | None
    _raft_journal: RaftJournal
    _applying: Applying
    _fetches: Fetches
    _snapshots: Snapshots
    _voter: Voter | None
    _learner: Learner | None

    @abstractmethod
    def _changed(self) -> None:
        """A turn is due."""

    @abstractmethod
    def _arm(self, at_s: float) -> None:
        """The timer goes off then at the latest."""

    @abstractmethod
    def broken(self, error: Exception) -> None:
        """The member stops."""

    def _begin_role(self, *, was_restarted: bool, source: str = "") -> None:
        """By what the log says of the members; `source` knows more."""
        names = [one.member for one in self._raft_journal.members if one.is_voter]
        self._voter = None
        if self._context.member in names and not source:
            if self._learner is not None:
                self._learner.stop()
                self._learner = None
            self._voter = Voter(self._context, was_restarted=was_restarted)
        elif self._port is None:
            raise Corrupt("the group has other members, and this node has no peers: serve it with --mesh")
        elif self._learner is None:
            self._learner = Learner(self._context, self._port, self._snapshots.install, self.broken, source)
        self._arm(self._context.loop.time())

    def _on_stop_sign(self, index: int, term: int, stop: StopSign) -> None:
        """The incarnation ends here; its leader, or else the first of the next members, stands at once."""
        if stop.next_incarnation <= self._raft_journal.incarnation:
            return  # at a start: it has begun already
        led = self.leader()
        if self._voter is not None and self._voter.replication is not None:
            self._voter.replication.wait_for(index)
            self._voter.replication.flush()  # the others hear that it is committed
        self._raft_journal.begin_incarnation(index, term, stop)
        self._applying.commit_index = min(self._applying.commit_index, self._raft_journal.last_index)
        log.info(
            "incarnation-begins group=%d incarnation=%d index=%d", self._context.group, stop.next_incarnation, index
        )
        self._context.outbox.drop()
        for proposed_term, done in self._applying.waiting.pop(index, ()):
            if proposed_term == term:
                done([], None)
            else:
                done(None, RetryOperation("another leader's stop-sign took its place: send it again"))
        for done in self._applying.discard(index):
            done(None, RetryOperation("the members of the group changed: send it again"))
        self._begin_role(was_restarted=False)
        if self._learner is not None:
            self._learner.go_on()
        names = [one.member for one in stop.members if one.is_voter]
        first = led if led in names else names[0]
        if self._voter is not None and self._voter.others and first == self._context.member:
            self._voter.elections.stand()
        self._fetches.advance()
        self._changed()

    def _catch_up(self, source: str) -> None:
        """Somebody is in a later incarnation: this one has ended, whatever this member thought."""
        if self._learner is None:
            log.info(
                "incarnation-missed group=%d member=%s source=%s", self._context.group, self._context.member, source
            )
            self._begin_role(was_restarted=False, source=source)
            self._changed()

    def leave_incarnation(self) -> None:
        """A snapshot of a later incarnation is in the log: this member has no vote until it is switched to."""
        self._voter = None
        self._context.outbox.drop()

    def switched(self, *, begins: bool) -> None:
        """The state machine is at a snapshot that was received."""
        for done in self._applying.discard(0):
            done(None, Unavailable("a snapshot came: whether it was applied is not known"))
        if begins:
            self._begin_role(was_restarted=True)
        elif self._voter is not None:
            self._voter.core.installed()
        self._fetches.advance()
        self._changed()

    @property
    def role(self) -> Role:
        """What this member is now."""
        return self._voter.role if self._voter is not None else Role.LEARNER

    def leader(self) -> str:
        """See `Consensus.leader`."""
        if self._voter is not None:
            return self._voter.leader
        return self._learner.leader if self._learner is not None else ""
