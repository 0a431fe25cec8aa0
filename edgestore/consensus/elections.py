"""Who leads: pre-vote, votes, and when to stand. Raft section 3.4 and 5.2, with the pre-vote of section 9.6.

Rule: a voter that has heard a leader within `election_min_ms` of boot time helps nobody else to lead, and one that was
restarted waits as long, for it may have heard one: that is what the leader's lease rests on (rule 10). A vote counts
once a sender, and leaves when it is synced.
"""

from __future__ import annotations

import logging

from edgestore.consensus.context import GroupContext
from edgestore.consensus.core import Core
from edgestore.consensus.messages import PreVote, PreVoteAnswer, Vote, VoteAnswer

log = logging.getLogger("edgestore.consensus")


class Elections:
    """The election side of one voter."""

    def __init__(self, context: GroupContext, core: Core, others: tuple[str, ...]) -> None:
        self._context, self._core, self._others = context, core, others
        self._config = context.config
        self._attempt = 0
        self._agreed: set[str] = set()
        self._votes: set[str] = set()
        self._is_handed_over = False
        self._bound_until_ms = 0
        self.deadline_ms = 0
        self.postpone()

    def wait_one_lease(self) -> None:
        """After a restart."""
        self._bound_until_ms = self._context.now_ms() + self._config.election_min_ms

    def heard_leader(self) -> None:
        """A message of the leader's came."""
        self._bound_until_ms = self._context.now_ms() + self._config.election_min_ms
        self._attempt += 1  # whoever agreed before does not count any more
        self.postpone()

    @property
    def is_bound(self) -> bool:
        """Whether a leader may rely on this member not to help another."""
        return self._context.now_ms() < self._bound_until_ms

    def postpone(self) -> None:
        """Waits for a leader a random time, anew."""
        least, most = self._config.election_min_ms, self._config.election_max_ms
        self.deadline_ms = self._context.now_ms() + self._context.rng.randint(least, max(least, most))

    # --- standing -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """No leader was heard until the deadline: none is known any more, and it asks whether it could win, without a
        new term."""
        if self._context.now_ms() < self.deadline_ms:
            return
        self.postpone()
        if self.is_bound:
            return
        if self._core.leader:
            self._core.follow(self._core.term, "")
        self._attempt += 1
        self._agreed = {self._context.member}
        index, term = self._context.last()
        for member in self._others:
            self._context.outbox.send(
                member,
                PreVote(*self._place(), self._core.term + 1, self._attempt, index, term),
            )

    def stand(self, *, is_handed_over: bool = False) -> None:
        """Asks for votes in the next term; they leave when its own is synced."""
        self._core.stand()
        self._is_handed_over = is_handed_over
        self._votes = {self._context.member}
        self._agreed.clear()
        self.postpone()
        self.ask_again()

    def ask_again(self) -> None:
        """Of those that have not answered yet: any message may be lost."""
        index, term = self._context.last()
        for member in self._others:
            if member not in self._votes:
                self._context.outbox.send(member, Vote(*self._place(), index, term, self._is_handed_over))

    def on_pre_vote_answer(self, sender: str, answer: PreVoteAnswer) -> None:
        """Stands when a majority would vote for it."""
        if answer.term > self._core.term:
            self._core.follow(answer.term, "")
            return
        if answer.attempt != self._attempt or not answer.is_granted or not self._agreed or self._core.is_leader:
            return
        self._agreed.add(sender)
        if 2 * len(self._agreed) > len(self._others) + 1:
            self.stand()

    def on_vote_answer(self, sender: str, answer: VoteAnswer) -> bool:
        """Whether it leads now."""
        if answer.term > self._core.term:
            self._core.follow(answer.term, "")
            return False
        if answer.term != self._core.term or not answer.is_granted or not self._core.is_candidate:
            return False
        self._votes.add(sender)
        return self._core.count_votes(len(self._votes))

    # --- being asked ----------------------------------------------------------------------------------

    def on_pre_vote(self, sender: str, asked: PreVote) -> None:
        """Nothing changes here by it."""
        would = (
            asked.next_term > self._core.term
            and not self._core.is_leader
            and not self.is_bound
            and self._context.is_up_to_date(asked.last_index, asked.last_term)
        )
        self._context.outbox.send(sender, PreVoteAnswer(*self._place(), asked.attempt, would))

    def on_vote(self, sender: str, asked: Vote) -> None:
        """One vote a term, for a log that is not behind."""
        if asked.term < self._core.term:
            self._context.outbox.send(sender, VoteAnswer(*self._place(), False))
            return
        if self.is_bound and not asked.is_handed_over:
            return
        if asked.term > self._core.term:
            self._core.follow(asked.term, "")
        may = not (self._core.is_leader or self._core.is_candidate) and self._core.vote in ("", sender)
        if may and self._context.is_up_to_date(asked.last_index, asked.last_term):
            if not self._core.vote:
                self._core.grant(sender)
            self.postpone()
            self._context.outbox.send(sender, VoteAnswer(*self._place(), True))
        else:
            self._context.outbox.send(sender, VoteAnswer(*self._place(), False))

    def _place(self) -> tuple[int, int, int]:
        return self._context.group, self._context.incarnation, self._core.term
