"""Linearizable reads on any role (rule 10): by the leader's lease, or by its word that it still leads (ReadIndex).

Rule: a question carries only reads that were asked for before it left, and is answered with an index that was committed
before the leader was confirmed by a round that began after the question came. One question is under way at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from edgestore.consensus.context import GroupContext
from edgestore.consensus.interface import Readable
from edgestore.consensus.messages import ReadAnswer, ReadAsk
from edgestore.consensus.voter import Voter
from edgestore.errors import TooBusy, Unavailable

ASK_AGAIN_BEATS = 2


class _Reader(NamedTuple):
    until_ms: int
    done: Readable


class LeaderReads:
    """What a leader answers, to itself and to others. `voter()`: None while this member has no vote."""

    def __init__(self, context: GroupContext, voter: Callable[[], Voter | None]) -> None:
        self._context, self._voter = context, voter
        self._asked: deque[tuple[Voter, int, int, int, Callable[[int], object]]] = deque()

    def ask(self, answer: Callable[[int], object]) -> None:
        """Calls `answer` with what must be applied; 0: this member does not lead, ask again."""
        voter = self._voter()
        if voter is None or voter.replication is None or not voter.knows_commit or voter.has_stopped:
            answer(0)
        elif voter.replication.has_lease:
            answer(self._context.applying.commit_index)
        elif len(self._asked) >= self._context.config.reads_waiting_max:
            answer(0)
        else:
            number = voter.replication.begin_round()
            place = (voter, voter.core.term, number, self._context.applying.commit_index)
            self._asked.append((*place, answer))
            self._context.changed()

    @property
    def is_waiting(self) -> bool:
        """Whether a question waits for its round."""
        return bool(self._asked)

    def advance(self) -> None:
        """A round may be confirmed, or this member may not lead any more."""
        while self._asked:
            voter, term, number, index, answer = self._asked[0]
            still = voter is self._voter() and voter.core.is_leader and voter.core.term == term
            if still and voter.replication is not None and voter.replication.confirmed_round < number:
                return
            self._asked.popleft()
            answer(index if still else 0)


class Reads:
    """The reads of one member that wait."""

    def __init__(self, context: GroupContext, leader_reads: LeaderReads, leader: Callable[[], str]) -> None:
        self._context, self._leader_reads, self._leader = context, leader_reads, leader
        self._fresh: list[_Reader] = []
        self._asking: list[_Reader] = []
        self._applying: deque[tuple[int, list[_Reader]]] = deque()
        self._number = context.rng.getrandbits(48)  # an answer to an earlier life is none
        self._asked_ms = 0
        self._waiting = 0

    def wait(self, done: Readable) -> None:
        """Joins the next question."""
        if self._waiting >= self._context.config.reads_waiting_max:
            done(TooBusy("too many reads wait for the leader (consensus.reads_waiting_max): slow down"))
            return
        self._waiting += 1
        self._fresh.append(_Reader(self._context.now_ms() + self._context.config.read_timeout_ms, done))
        if not self._asking:
            self._context.loop.call_soon(self._ask)  # what this turn of the loop still brings goes with it

    @property
    def is_waiting(self) -> bool:
        """Whether `tick` has something to do."""
        return self._waiting > 0

    def _ask(self) -> None:
        if self._asking or not self._fresh:
            return
        self._asking, self._fresh = self._fresh, []
        self._put()

    def _put(self) -> None:
        """To the leader. Without one, or where the question is lost, `tick` does it again."""
        self._number += 1
        self._asked_ms = self._context.now_ms()
        number, leader = self._number, self._leader()
        if leader == self._context.member:
            self._leader_reads.ask(lambda index: self.answered(number, index))
        elif leader:
            place = (self._context.group, self._context.incarnation, 0)
            self._context.outbox.send(leader, ReadAsk(*place, number))

    def on_answer(self, answer: ReadAnswer) -> None:
        """The leader's word."""
        self.answered(answer.number, answer.index)

    def answered(self, number: int, index: int) -> None:
        """An older question's answer says too little; 0 says that the leader is another."""
        if number != self._number or not self._asking or index == 0:
            return
        self._applying.append((index, self._asking))
        self._asking = []
        self.advance()
        if self._fresh:
            self._ask()

    def advance(self) -> None:
        """More is applied."""
        while self._applying and self._applying[0][0] <= self._context.applying.applied_index:
            readers = self._applying.popleft()[1]
            self._waiting -= len(readers)
            for reader in readers:
                reader.done(None)

    def tick(self) -> None:
        """Asks again where no answer came; those that have waited too long are told so."""
        now_ms = self._context.now_ms()
        again_ms = ASK_AGAIN_BEATS * self._context.config.heartbeat_ms
        self._expire(now_ms)
        if self._asking and now_ms >= self._asked_ms + again_ms:
            self._put()
        elif not self._asking:
            self._ask()

    def leader_changed(self) -> None:
        """Whoever was asked does not lead any more."""
        if self._asking:
            self._put()

    def _expire(self, now_ms: int) -> None:
        late: list[_Reader] = []

        def keep(readers: list[_Reader]) -> list[_Reader]:
            late.extend(reader for reader in readers if reader.until_ms <= now_ms)
            return [reader for reader in readers if reader.until_ms > now_ms]

        self._fresh, self._asking = keep(self._fresh), keep(self._asking)
        self._applying = deque((index, keep(readers)) for index, readers in self._applying)
        self._waiting -= len(late)
        self._fail(late, "no leader answered in time: try again")

    def _fail(self, readers: list[_Reader], why: str) -> None:
        for reader in readers:
            reader.done(Unavailable(why, retry_after_s=0.5))

    def close(self) -> None:
        """Nobody is answered any more."""
        self._fresh, self._asking, self._waiting = [], [], 0
        self._applying.clear()
