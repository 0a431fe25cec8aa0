"""The leader's side of the log: what goes to whom, who has it, and how long the lease runs.

Rule: entries leave once, in a bounded window, and again only where the follower says that it lacks them; an answer
counts only for the term that it names. A round is answered by whoever follows the leader at a time after it began. That
an entry is committed is told at once where somebody waits for it elsewhere, and else with what leaves next anyway.
"""

from __future__ import annotations

from collections import deque

from edgestore.consensus.context import GroupContext
from edgestore.consensus.core import Core
from edgestore.consensus.messages import Append, Appended, Behind

ROUNDS_MAX = 1024


class Progress:
    """One follower, as the leader knows it."""

    __slots__ = (
        "commit_sent",
        "heard_ms",
        "in_flight",
        "in_flight_bytes",
        "is_behind",
        "is_probed",
        "is_waiting",
        "next_index",
        "round",
        "round_sent",
    )

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.next_index = next_index
        self.in_flight: deque[tuple[int, int]] = deque()
        self.in_flight_bytes = 0
        self.is_probed = True
        """It is not known yet what it has: one message at a time."""
        self.is_waiting = False
        """For the answer to a probe; the next heartbeat asks again."""
        self.is_behind = False
        """What it lacks is not here any more: it needs a snapshot."""
        self.heard_ms = now_ms
        self.round = self.round_sent = self.commit_sent = 0

    def forget_in_flight(self) -> None:
        """It is lost, or answered."""
        self.in_flight.clear()
        self.in_flight_bytes = 0


class Replication:
    """See the module. Made anew for each term that this member leads."""

    def __init__(self, context: GroupContext, core: Core, others: tuple[str, ...]) -> None:
        self._context, self._core, self._config = context, core, context.config
        now_ms = context.now_ms()
        last_index = core.first_of_term - 1
        self.progress = {member: Progress(last_index + 1, now_ms) for member in others}
        self.round = 0
        self._round_ms: dict[int, int] = {}
        self._is_round_new = False
        self._confirmed_round = 0
        self._lease_until_ms = 0
        self._waited_index = 0
        self._newest: Append | None = None
        self._is_telling = False
        self.begin_round()

    # --- sending --------------------------------------------------------------------------------------

    def begin_round(self) -> int:
        """A round whose answers prove that this member still led after now; one is enough for a turn of the loop."""
        if not self._is_round_new:
            if len(self._round_ms) >= ROUNDS_MAX:  # nobody has answered for so long: the oldest prove no lease any more
                del self._round_ms[next(iter(self._round_ms))]
            self.round += 1
            self._round_ms[self.round] = self._context.now_ms()
            self._is_round_new = True
        return self.round

    def heartbeat(self) -> None:
        """To everybody, whether there is something to say or not: it finds out what was lost, too. Answers are asked
        for where the lease would not last until the next beat and half of the one after."""
        left_ms = self._lease_until_ms - self._context.now_ms()
        if 2 * left_ms < 3 * self._config.heartbeat_ms:
            self.begin_round()
        for progress in self.progress.values():
            progress.is_waiting = False
            progress.round_sent = min(progress.round_sent, self.round - 1)
        self.flush()

    def wait_for(self, index: int) -> None:
        """Somebody elsewhere waits for the entry: the others hear at once when it is committed."""
        self._waited_index = max(self._waited_index, index)

    def flush(self) -> None:
        """Sends what each follower lacks: entries, the round, the commit index."""
        self._is_round_new = False
        committed = self._core.raftCommitIndex
        wanted = min(committed, self._waited_index)
        is_told = True
        for member, progress in self.progress.items():
            if not self._send_entries(member, progress) and (
                progress.round_sent < self.round or progress.commit_sent < wanted
            ):
                self._send(member, progress, [])
            is_told = is_told and progress.commit_sent >= committed
        self._newest = None
        if not (is_told or self._is_telling):
            self._is_telling = True
            self._context.loop.call_later(self._config.commit_told_ms / 1000, self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        self.wait_for(self._core.raftCommitIndex)
        self._context.changed()

    @property
    def has_work(self) -> bool:
        """Whether somebody lacks entries, or has more than is known to be committed."""
        committed, last_index = self._core.raftCommitIndex, self._context.raft_journal.last_index
        return any(
            progress.next_index <= last_index or self._core.matched(member) > committed
            for member, progress in self.progress.items()
        )

    def _send_entries(self, member: str, progress: Progress) -> bool:
        """Whether something was sent."""
        raft_journal = self._context.raft_journal
        was_sent = False
        while progress.next_index <= raft_journal.last_index and not (progress.is_waiting or progress.is_behind):
            if progress.in_flight_bytes >= self._config.append_in_flight_bytes_max:
                break
            progress.next_index = max(progress.next_index, raft_journal.first_index)
            taken = raft_journal.after(progress.next_index - 1, self._config.append_bytes_max, raft_journal.last_index)
            if not self._send(member, progress, [(entry[2], entry[0]) for entry in taken]):
                return True
            was_sent = True
            size = sum(len(entry[0]) for entry in taken)
            progress.next_index = taken[-1][1] + 1
            progress.in_flight.append((taken[-1][1], size))
            progress.in_flight_bytes += size
            progress.is_waiting = progress.is_probed
        return was_sent

    def _send(self, member: str, progress: Progress, entries: list[tuple[int, bytes]]) -> bool:
        raft_journal = self._context.raft_journal
        progress.next_index = max(progress.next_index, raft_journal.first_index)
        previous = progress.next_index - 1
        term = raft_journal.term_at(previous)
        assert term is not None, f"{previous} is not in the log"
        progress.round_sent, progress.commit_sent = self.round, self._core.raftCommitIndex
        message = Append(*self._place(), previous, term, self._core.raftCommitIndex, self.round, tuple(entries))
        if message == self._newest:
            message = self._newest  # of two that are equal the port encodes one
        self._newest = message
        return self._context.outbox.send(member, message)

    def _place(self) -> tuple[int, int, int]:
        return self._context.group, self._context.incarnation, self._core.term

    # --- being answered -------------------------------------------------------------------------------

    def on_appended(self, sender: str, answer: Appended) -> None:
        """Of this term."""
        progress = self.progress[sender]
        progress.heard_ms = self._context.now_ms()
        if answer.round > progress.round:
            progress.round = min(answer.round, self.round)
            self._confirm()
        if not answer.is_accepted:
            self._refused(sender, progress, answer)
            return
        self._core.acknowledged(sender, answer.match_index)
        progress.next_index = max(progress.next_index, answer.match_index + 1)
        while progress.in_flight and progress.in_flight[0][0] <= answer.match_index:
            progress.in_flight_bytes -= progress.in_flight.popleft()[1]
        progress.is_probed = progress.is_waiting = progress.is_behind = False

    def _refused(self, sender: str, progress: Progress, answer: Appended) -> None:
        matched = self._core.matched(sender)
        if answer.previous_index <= matched or answer.previous_index >= progress.next_index:
            return  # late: it has more by now, or was asked again since
        progress.next_index = max(matched, min(answer.match_index, answer.previous_index - 1)) + 1
        progress.forget_in_flight()
        progress.is_probed, progress.is_waiting = True, False
        first_index = self._context.raft_journal.first_index
        if progress.next_index < first_index:
            progress.is_behind = True
            self._context.outbox.send(sender, Behind(*self._place(), first_index))

    def connected(self, member: str) -> None:
        """Whatever was on its way is lost."""
        progress = self.progress.get(member)
        if progress is not None:
            if matched := self._core.matched(member):
                progress.next_index = matched + 1
            progress.forget_in_flight()
            progress.is_probed, progress.is_waiting = True, False

    def lowest_matched(self, heard_since_ms: int) -> int:
        """What every follower that answers has; this leader's last index where none does."""
        alive = [name for name, progress in self.progress.items() if progress.heard_ms >= heard_since_ms]
        return min((self._core.matched(name) for name in alive), default=self._context.raft_journal.last_index)

    # --- leading --------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        rounds = sorted((progress.round for progress in self.progress.values()), reverse=True)
        confirmed = rounds[(len(rounds) + 1) // 2 - 1]
        if confirmed <= self._confirmed_round:
            return
        self._confirmed_round = confirmed
        began_ms = self._round_ms.get(confirmed)
        for number in [number for number in self._round_ms if number <= confirmed]:
            del self._round_ms[number]
        if began_ms is None:
            return
        # A tenth is for clocks that run apart, and what they are rounded to.
        lease_ms = self._config.election_min_ms * 9 // 10 - 2
        self._lease_until_ms = max(self._lease_until_ms, began_ms + lease_ms)

    @property
    def confirmed_round(self) -> int:
        """A majority followed this leader at a time after this round began; a lone one always does."""
        return self._confirmed_round if self.progress else self.round

    @property
    def has_lease(self) -> bool:
        """Whether no other can lead now (rule 10)."""
        return not self.progress or self._context.now_ms() < self._lease_until_ms

    @property
    def has_quorum(self) -> bool:
        """Whether a majority was heard lately."""
        since_ms = self._context.now_ms() - self._config.election_max_ms
        alive = 1 + sum(progress.heard_ms >= since_ms for progress in self.progress.values())
        return 2 * alive > len(self.progress) + 1
