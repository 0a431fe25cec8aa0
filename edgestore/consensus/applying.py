"""Applies committed entries to the state machine, whoever committed them.

Rule 2: at most min(committed, locally synced). Rule 4: nothing behind a stop-sign before the next incarnation begins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from edgestore.consensus.interface import Applies, Done
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import StopSign, decode
from edgestore.consensus.recovery import STOP_KIND
from edgestore.errors import RetryOperation

REGULAR = b"\x00"


class NotAppliedError(Exception):
    """A committed entry could not be applied: the cause says why. The member stops, and a start tries it again."""


class Applying:
    """The one caller of the state machine. `waiting`: who is answered when an index is applied."""

    def __init__(self, raft_journal: RaftJournal, machine: Applies) -> None:
        self._raft_journal, self._machine = raft_journal, machine
        self.applied_index = max(1, machine.applied_index)
        self.commit_index = raft_journal.committed_floor
        self.waiting: defaultdict[int, list[tuple[int, Done]]] = defaultdict(list)
        self.is_paused = False
        """A snapshot is being switched to."""
        self.on_stop_sign: Callable[[int, int, StopSign], None]
        """Called with index, term and content when a stop-sign of this incarnation was applied."""

    def commit(self, index: int) -> bool:
        """Everything up to `index` is committed, but for what lies behind a stop-sign. Whether that says more."""
        stops = self._raft_journal.stops
        if stops and stops[0] < index:
            index = stops[0]
        if index <= self.commit_index:
            return False
        self.commit_index = index
        return True

    def run(self) -> None:
        """Applies what may be; each entry's callbacks right after it. Raises NotAppliedError."""
        raft_journal, waiting = self._raft_journal, self.waiting
        while self.applied_index < min(self.commit_index, raft_journal.synced_index) and not self.is_paused:
            entries = raft_journal.entries
            command, index, term = entries[self.applied_index + 1 - entries[0][1]]
            if command[:1] == STOP_KIND:
                self._stop(index, term, command)
                continue
            payload = memoryview(command)[1:] if command[:1] == REGULAR else b""
            try:
                outcomes = self._machine.apply(index, term, payload)
            except Exception as error:
                raise NotAppliedError(f"log entry {index} of term {term}: {error}") from error
            self.applied_index = index
            for proposed_term, done in waiting.pop(index, ()):
                if proposed_term == term:
                    done(outcomes, None)
                else:
                    done(None, RetryOperation("another leader's entry took its place: send it again"))

    def _stop(self, index: int, term: int, command: bytes) -> None:
        try:
            stop = decode(memoryview(command)[1:], StopSign)
            self._machine.begin_incarnation(index, term, stop.next_incarnation)
            self.applied_index = index
            self._raft_journal.stops = [other for other in self._raft_journal.stops if other > index]
            self.on_stop_sign(index, term, stop)
        except Exception as error:
            raise NotAppliedError(f"stop-sign {index} of term {term}: {error}") from error

    def discard(self, index: int) -> list[Done]:
        """Who waits for an entry behind `index`, which is not applied here any more as it was proposed."""
        gone = sorted(waited for waited in self.waiting if waited > index)
        return [done for waited in gone for _, done in self.waiting.pop(waited)]
