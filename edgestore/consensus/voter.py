"""A voter of one incarnation: what it does with each message, and with time.

Rule 2: an acknowledgement says what is synced, and leaves after it. Rule 3: the log is cut at a term conflict only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from edgestore.consensus.applying import REGULAR
from edgestore.consensus.context import GroupContext
from edgestore.consensus.core import Core
from edgestore.consensus.elections import Elections
from edgestore.consensus.interface import Done, Role
from edgestore.consensus.messages import (
    Append,
    Appended,
    HandOver,
    Message,
    PreVote,
    PreVoteAnswer,
    StopSign,
    Vote,
    VoteAnswer,
    encode,
)
from edgestore.consensus.recovery import STOP_KIND
from edgestore.consensus.replication import Replication
from edgestore.errors import NotLeader, RetryOperation

log = logging.getLogger("edgestore.consensus")


def next_beat_s(now_s: float, period_ms: int) -> float:
    """A multiple of the period: heartbeats of all groups leave together. Exactly a whole millisecond: a loop whose
    clock counts these wakes too early for a time that is a bit beyond one, and goes round until the next."""
    return (round(now_s * 1000) // period_ms + 1) * period_ms / 1000


class Voter:
    """See the module. It ends with its incarnation."""

    def __init__(self, context: GroupContext, *, was_restarted: bool) -> None:
        self._context, self._config = context, context.config
        members = context.raft_journal.members
        self.others = tuple(sorted(one.member for one in members if one.is_voter and one.member != context.member))
        self.core = Core(context.raft_journal, context.member, self.others, context.applying)
        self.elections = Elections(context, self.core, self.others)
        self.replication: Replication | None = None
        if was_restarted:
            self.elections.wait_one_lease()
        self._next_heartbeat_s = 0.0
        self._matched_term = self._matched_index = 0
        self._answers: list[tuple[str, int]] = []
        self._said = ("", 0, 0, 0)
        """The last acknowledgement: leader, term, round, index. What says nothing more is not said again: each push of
        the commit index would cost an answer, and a lost one is made good by the next heartbeat's round."""
        self._handlers: dict[type, Any] = {
            PreVote: self.elections.on_pre_vote,
            PreVoteAnswer: self.elections.on_pre_vote_answer,
            Vote: self.elections.on_vote,
            VoteAnswer: self._on_vote_answer,
            Append: self._on_append,
            Appended: self._on_appended,
            HandOver: self._on_hand_over,
        }

    # --- what the group asks --------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What it is now."""
        if self.core.is_leader:
            return Role.LEADER
        return Role.CANDIDATE if self.core.is_candidate else Role.FOLLOWER

    @property
    def leader(self) -> str:
        """Whom it follows."""
        return self.core.leader

    def propose(self, payload: bytes, done: Done) -> None:
        """Appends an entry, as leader. Raises what the journal raises."""
        if not self.core.is_leader:
            done(None, NotLeader("another member leads the group", leader=self.core.leader))
        elif self.is_stopping:
            done(None, RetryOperation("the members of the group change just now: send it again"))
        else:
            self.core.propose(REGULAR + payload, done)

    def propose_stop(self, stop: StopSign, done: Done) -> None:
        """Appends a stop-sign, as leader."""
        self.core.propose(STOP_KIND + encode(stop), done)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop-sign is in the log and not applied yet."""
        return bool(self._context.raft_journal.stops)

    @property
    def has_stopped(self) -> bool:
        """A stop-sign is committed and not applied yet here: the next incarnation may have begun elsewhere, and
        acknowledged what this leader does not know of."""
        stops = self._context.raft_journal.stops
        return bool(stops) and stops[0] <= self._context.applying.commit_index

    @property
    def knows_commit(self) -> bool:
        """A leader has committed an entry of its own: what came before is committed, too."""
        return self.core.is_leader and 0 < self.core.first_of_term <= self.core.raftCommitIndex

    # --- time -----------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Does what is due. Returns the loop's time at which to come back."""
        now_s = self._context.loop.time()
        if not self.others:
            return now_s + 3600.0
        if (self.core.is_leader or self.core.is_candidate) and now_s >= self._next_heartbeat_s:
            self._next_heartbeat_s = next_beat_s(now_s, self._config.heartbeat_ms)
            self._beat()
        if not self.core.is_leader:
            self.elections.tick()
            left_s = max(1, self.elections.deadline_ms - self._context.now_ms()) / 1000
            if not self.core.is_candidate:
                return now_s + left_s
            return min(now_s + left_s, self._next_heartbeat_s)
        return self._next_heartbeat_s

    def _beat(self) -> None:
        if self.replication is None:
            self.elections.ask_again()
        elif self.replication.has_quorum:
            self.replication.heartbeat()
        else:
            log.warning("stepped-down group=%d term=%d reason=no majority", self._context.group, self.core.term)
            self.step_down()

    def step_down(self) -> None:
        """Leads no more, in the same term."""
        self.core.follow(self.core.term, "")
        self.elections.postpone()

    def begin_to_lead(self) -> None:
        """Called when the core became leader."""
        self.replication = Replication(self._context, self.core, self.others)
        log.info("leads group=%d member=%s term=%d", self._context.group, self._context.member, self.core.term)

    def settle(self) -> None:
        """After whatever happened: the leader's side exists exactly while it leads."""
        if self.core.is_leader and self.replication is None:
            self.begin_to_lead()
        elif not self.core.is_leader and self.replication is not None:
            self.replication = None

    def synced(self) -> bool:
        """A sync is done: what waited for it is acknowledged. Whether something was."""
        if not self._answers:
            return False
        answers, self._answers = self._answers, []
        newest = dict(answers)
        for leader, number in newest.items():
            if leader == self.core.leader and self._matched_term == self.core.term:
                self._acknowledge(leader, number)
        return True

    # --- messages -------------------------------------------------------------------------------------

    def on_message(self, sender: str, message: Message) -> None:
        """One of this incarnation, from another voter."""
        handler = self._handlers.get(type(message))
        if handler is not None and sender in self.others:
            handler(sender, message)

    def _on_vote_answer(self, sender: str, answer: VoteAnswer) -> None:
        self.elections.on_vote_answer(sender, answer)

    def hears(self, sender: str, term: int) -> bool:
        """A leader spoke; whether it is one of this term or a newer one."""
        if term < self.core.term:
            return False
        if self.core.is_leader and term == self.core.term:
            log.critical("two-leaders group=%d term=%d other=%s", self._context.group, term, sender)
            return False
        if term > self.core.term or self.core.leader != sender or self.core.is_candidate:
            self.core.follow(term, sender)
        if self._matched_term != term:
            self._matched_term, self._matched_index = term, 0
        self.elections.heard_leader()
        return True

    def _on_append(self, sender: str, asked: Append) -> None:
        raft_journal = self._context.raft_journal
        if not self.hears(sender, asked.term):
            self._answer(sender, asked, 0, is_accepted=False)
            return
        previous = (asked.previous_index, asked.previous_term)
        if asked.previous_index >= raft_journal.first_index - 1:
            known = raft_journal.term_at(asked.previous_index)
            if known != asked.previous_term:
                self._answer(sender, asked, self._may_match(asked.previous_index), is_accepted=False)
                return
        matched = raft_journal.merge(previous, asked.entries, self._context.applying.commit_index)
        self._matched_index = max(self._matched_index, matched)
        self.core.commit(min(asked.commit_index, matched, raft_journal.last_index))
        if raft_journal.synced_index >= min(matched, raft_journal.last_index) and raft_journal.is_hard_state_synced:
            if asked.entries or self._said != (sender, self.core.term, asked.round, self._match_index()):
                self._acknowledge(sender, asked.round)
        else:
            self._answers.append((sender, asked.round))

    def _may_match(self, previous_index: int) -> int:
        """Where the leader may go on: before the term that conflicts, and not before what is committed."""
        raft_journal = self._context.raft_journal
        index = min(previous_index, raft_journal.last_index)
        if index < previous_index:
            return index
        term = raft_journal.term_at(index)
        while index > self._context.applying.commit_index and raft_journal.term_at(index) == term:
            index -= 1
        return index

    def _match_index(self) -> int:
        """Up to where the log is as the leader's, and synced."""
        raft_journal = self._context.raft_journal
        return min(self._matched_index, raft_journal.synced_index, raft_journal.last_index)

    def _acknowledge(self, leader: str, number: int) -> None:
        match_index = self._match_index()
        self._said = leader, self.core.term, number, match_index
        place = (self._context.group, self._context.incarnation, self.core.term)
        self._context.outbox.send(leader, Appended(*place, match_index, match_index, number, True))

    def _answer(self, sender: str, asked: Append, match_index: int, *, is_accepted: bool) -> None:
        place = (self._context.group, self._context.incarnation, self.core.term)
        number = asked.round if asked.term == self.core.term else 0
        self._context.outbox.send(sender, Appended(*place, asked.previous_index, match_index, number, is_accepted))

    def _on_appended(self, sender: str, answer: Appended) -> None:
        if answer.term > self.core.term:
            self.core.follow(answer.term, "")
        elif answer.term == self.core.term and self.core.is_leader and self.replication is not None:
            self.replication.on_appended(sender, answer)

    # --- handing over ---------------------------------------------------------------------------------

    def hand_over(self, to: Collection[str] = ()) -> bool:
        """Stops leading, then asks the voter that has everything to stand: the lease ends before (rule 10). `to`: one
        of these, if any are named."""
        if not self.core.is_leader or not self.others or self.is_stopping:
            return False
        last_index = self._context.raft_journal.last_index
        able = [name for name in to or self.others if name in self.others and self.core.matched(name) == last_index]
        if not able:
            return False
        place = (self._context.group, self._context.incarnation, self.core.term)
        self.step_down()
        return self._context.outbox.send(able[0], HandOver(*place))

    def _on_hand_over(self, sender: str, message: HandOver) -> None:
        if message.term == self.core.term and sender == self.core.leader:
            self.elections.stand(is_handed_over=True)
