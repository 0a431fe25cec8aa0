"""Who is alive: SWIM with Lifeguard's local health, as a state machine that is told the time and returns what to send.

Rule: a node is probed directly, then through others; only an answer counts as a sign of life. Who is accused says so
itself by a higher incarnation. A node that was stalled, or hears nobody, doubts itself before it doubts others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgestore.cluster.members import Entry, Members, Standing
from edgestore.cluster.messages import FORMAT_VERSION, Kind, StatusWord, SwimMessage, Word
from edgestore.cluster.statuses import Statuses
from edgestore.config import ClusterConfig

Sends = list[tuple[str, SwimMessage]]
RETURNS_MAX = 3
"""So often a node may meet a foreign start of itself while old news of its last life is about."""


@dataclass(slots=True)
class _Round:
    """A probe of one member that is not answered yet."""

    sequence: int
    due_ms: float
    begun_ms: float
    tries: int = 1


class Swim:
    """One node's part. Call `tick` at `due_ms`, `handle` for each message; both return what to send."""

    def __init__(self, config: ClusterConfig, member: str, nonce: int, below: Callable[[int], int]) -> None:
        self.member, self.nonce, self.incarnation = member, nonce, 0
        self.health = 0
        self.due_ms = math.inf
        self.own_returns = 0
        self.answered: Callable[[str, float], None] = lambda _member, _ms: None
        self.members = Members(config, member)
        self.statuses = Statuses(config)
        self._config = config
        self._below = below
        self._ring: list[str] = []
        self._position = 0
        self._probe_ms = math.inf
        self._rounds: dict[str, _Round] = {}
        self._relays: dict[int, tuple[str, int]] = {}
        self._hot: dict[str, int] = {}
        self._sequence = 0
        self._heard_ms = -math.inf
        self._changes: list[tuple[str, Standing]] = []
        self._known: dict[str, Standing] = {}

    # -- what others ask --------------------------------------------------------------------------------------

    def standing(self, member: str) -> Standing:
        """What this node makes of a member; itself and strangers are alive."""
        entry = self.members.entries.get(member)
        return Standing.ALIVE if entry is None else entry.standing

    def take_changes(self) -> list[tuple[str, Standing]]:
        """Members whose standing has changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def contested(self) -> set[str]:
        """Members of whom two starts live at the same time: a copied identity."""
        own = {self.member} if self.own_returns >= RETURNS_MAX else set()
        return own | set(self.members.contested)

    def set_members(self, members: Iterable[str], now_ms: float) -> None:
        """Who belongs to the site."""
        self.members.set_members(members, now_ms)
        entries = self.members.entries
        self.statuses.keep(entries)
        self._rounds = {member: probe for member, probe in self._rounds.items() if member in entries}
        self._hot = {member: left for member, left in self._hot.items() if member in entries}
        self._known = {member: self._known.get(member, Standing.ALIVE) for member in entries}
        self._ring = [member for member in self._ring if member in entries]
        for member in entries:
            if member not in self._ring:
                self._ring.insert(self._below(len(self._ring) + 1), member)
        if self._probe_ms == math.inf and self._ring:
            self._probe_ms = now_ms + self._below(self._config.probe_interval_ms)
        self._plan()

    def set_status(self, body: bytes, version: int) -> None:
        """What this node says of itself from here on."""
        self.statuses.set_own(StatusWord(self.member, self.nonce, version, body))

    # -- what happens -----------------------------------------------------------------------------------------

    def tick(self, now_ms: float) -> Sends:
        """Does what is due."""
        sends: Sends = []
        if now_ms - self.due_ms > self._config.stall_ms:
            self._wake(now_ms, sends)
        if now_ms >= self._probe_ms and self._ring:
            self._probe_ms = now_ms + self._interval_ms(now_ms) * (1 + self.health)
            self._probe_next(now_ms, sends)
        if self._rounds:
            for member in [member for member, probe in self._rounds.items() if now_ms >= probe.due_ms]:
                self._unanswered(self.members.entries[member], self._rounds[member], now_ms, sends)
        if self.members.suspects:
            for entry in self.members.verdict(now_ms, self.health):
                self._rounds.pop(entry.member, None)
                self._note(entry)
        self._plan()
        return sends

    def handle(self, sender: str, message: SwimMessage, now_ms: float) -> Sends:
        """Takes a message of a member that its certificate names."""
        sends: Sends = []
        if now_ms - self.due_ms > self._config.stall_ms:
            self._wake(now_ms, sends)
        entry = self.members.entries.get(sender)
        if entry is None:
            return sends
        entry.heard_ms = self._heard_ms = now_ms
        if message.incarnation > entry.incarnation:
            self._believe(Word(sender, message.nonce, message.incarnation), now_ms, sends)
        elif message.nonce != entry.nonce and entry.nonce:
            # It has started anew, and so fast that nobody accused it: what is believed of the start before must reach
            # it, or it is never believed in, and what it says of itself is thrown away.
            sends.append((sender, self._message(Kind.NEWS, 0, sender, word=self.members.word_of(entry))))
        for word in message.words[: self._config.words_per_message_max]:
            self._believe(word, now_ms, sends)
        if message.statuses:
            self.statuses.take(message.statuses[: self._config.statuses_per_message_max + 1], self._nonce_of)
        kind = message.kind
        if kind is Kind.PING:
            sends.append((sender, self._message(Kind.ACK, message.sequence, sender)))
        elif kind is Kind.ACK:
            self._acknowledged(sender, message, now_ms, sends)
        elif kind is Kind.PING_FOR:
            self._probe_for(sender, message, sends)
        return sends

    def hint(self, member: str, now_ms: float) -> Sends:
        """Something speaks against a member (its connection broke): probes it at once."""
        sends: Sends = []
        if member in self.members.entries and member not in self._rounds:
            self._begin(member, now_ms, sends)
        return sends

    # -- probing ----------------------------------------------------------------------------------------------

    def _interval_ms(self, now_ms: float) -> int:
        """Deaths come in groups: when somebody has come under suspicion the others are looked at faster."""
        since_ms = now_ms - self._config.suspicion_max_ms
        is_urgent = any(entry.suspected_ms > since_ms for entry in self.members.suspects.values())
        return self._config.probe_timeout_ms if is_urgent else self._config.probe_interval_ms

    def _probe_next(self, now_ms: float, sends: Sends) -> None:
        for _ in range(len(self._ring)):
            if self._position >= len(self._ring):
                self._position = 0
                self._shuffle()
            member = self._ring[self._position]
            self._position += 1
            if member not in self._rounds:
                self._begin(member, now_ms, sends)
                return

    def _begin(self, member: str, now_ms: float, sends: Sends) -> None:
        self._sequence += 1
        due_ms = now_ms + self._config.probe_timeout_ms * (1 + self.health)
        self._rounds[member] = _Round(self._sequence, due_ms, now_ms)
        self.due_ms = min(self.due_ms, due_ms)
        sends.append((member, self._message(Kind.PING, self._sequence, member)))

    def _unanswered(self, entry: Entry, probe: _Round, now_ms: float, sends: Sends) -> None:
        """Asks again, also through others; accuses when all tries are used up; goes on while it is suspected."""
        if entry.standing is Standing.FAILED:
            del self._rounds[entry.member]
            return
        accuses = self.member in entry.accusers
        tries = self._config.probe_tries if entry.standing is Standing.ALIVE else self._config.confirm_tries
        if probe.tries >= tries and not accuses:
            if self._heard_ms < probe.begun_ms and len(self._ring) > 1:
                self.health = min(self._config.health_max, self.health + 1)
            accuses = True
            self.members.accuse(entry, now_ms)
            self._note(entry)
            self._tell(entry.member, sends)
        probe.tries += 1
        wait_ms = self._config.probe_timeout_ms
        if accuses:
            is_fresh = now_ms - entry.suspected_ms < self._config.suspicion_max_ms
            wait_ms = self._config.suspicion_retry_ms if is_fresh else self._config.probe_interval_ms
        probe.due_ms = now_ms + wait_ms * (1 + self.health)
        sends.append((entry.member, self._message(Kind.PING, probe.sequence, entry.member)))
        if not accuses:
            for helper in self._helpers(entry.member):
                message = self._message(Kind.PING_FOR, probe.sequence, helper, target=entry.member)
                sends.append((helper, message))

    def _helpers(self, target: str) -> list[str]:
        """Others that are well, beginning anywhere in the ring."""
        count = len(self._ring)
        first = self._below(count)
        ring = (self._ring[(first + step) % count] for step in range(count))
        well = [member for member in ring if member != target and member not in self._rounds]
        return well[: self._config.indirect_probes]

    def _probe_for(self, sender: str, message: SwimMessage, sends: Sends) -> None:
        if message.target not in self.members.entries:
            return
        self._sequence += 1
        self._relays[self._sequence] = (sender, message.sequence)
        if len(self._relays) > self._config.relayed_probes_max:
            del self._relays[next(iter(self._relays))]
        sends.append((message.target, self._message(Kind.PING, self._sequence, message.target)))

    def _acknowledged(self, sender: str, message: SwimMessage, now_ms: float, sends: Sends) -> None:
        asked = self._relays.pop(message.sequence, None)
        if asked is not None:
            if asked[0] not in self.members.entries:
                return
            entry = self.members.entries[sender]
            relayed = Word(sender, entry.nonce, entry.incarnation)
            sends.append((asked[0], self._message(Kind.ACK, asked[1], asked[0], target=sender, word=relayed)))
            return
        target = message.target or sender
        probe = self._rounds.get(target)
        if probe is None or probe.sequence != message.sequence:
            return
        if probe.tries == 1:
            self.answered(target, now_ms - probe.begun_ms)
        if self.members.entries[target].standing is not Standing.SUSPECTED:
            del self._rounds[target]
            self.health = max(0, self.health - 1)
            self._plan()  # nobody waits for this answer any more

    # -- news -------------------------------------------------------------------------------------------------

    def _believe(self, word: Word, now_ms: float, sends: Sends) -> None:
        if word.member == self.member:
            self._answer_for_myself(word, sends)
            return
        if not self.members.take(word, now_ms):
            if self.members.knows_better(word):
                self._hot.setdefault(word.member, 2)
            return
        entry = self.members.entries[word.member]
        self._hot[word.member] = self._config.word_relays
        self._note(entry)
        if entry.standing is Standing.SUSPECTED and word.member not in self._rounds:
            self._begin(word.member, now_ms, sends)
        elif entry.standing is Standing.ALIVE:
            self._rounds.pop(word.member, None)
        self._plan()

    def _answer_for_myself(self, word: Word, sends: Sends) -> None:
        foreign = word.nonce != self.nonce and word.incarnation >= self.incarnation
        accused = bool(word.accusers) and word.incarnation >= self.incarnation
        if not foreign and not accused:
            return
        self.own_returns += foreign
        if accused:
            self.health = min(self._config.health_max, self.health + 1)
        self.incarnation = word.incarnation + 1
        self._tell(self.member, sends)

    def _tell(self, about: str, sends: Sends) -> None:
        """Tells everybody at once, up to a bound, and then with every message for a while."""
        if about != self.member:
            self._hot[about] = self._config.word_relays
        for member in self._ring[: self._config.broadcast_max]:
            if member != about:
                sends.append((member, self._message(Kind.NEWS, 0, member)))

    def _note(self, entry: Entry) -> None:
        if self._known.get(entry.member) is not entry.standing:
            self._known[entry.member] = entry.standing
            self._changes.append((entry.member, entry.standing))

    def _nonce_of(self, member: str) -> int:
        entry = self.members.entries.get(member)
        return 0 if entry is None else entry.nonce

    def _message(
        self, kind: Kind, sequence: int, to: str, *, target: str = "", word: Word | None = None
    ) -> SwimMessage:
        words = self._words(to) if self._hot or self.members.entries[to].accusers else ()
        if word is not None:
            words = (*words[: self._config.words_per_message_max - 1], word)
        statuses = self.statuses.for_peer(to)
        return SwimMessage(FORMAT_VERSION, kind, sequence, self.nonce, self.incarnation, target, words, statuses)

    def _words(self, to: str) -> tuple[Word, ...]:
        """News that few have heard, and always what the receiver is accused of: it must be able to answer."""
        entries = self.members.entries
        chosen = [entries[to]] if entries[to].accusers else []
        freshest = sorted(self._hot, key=self._hot.__getitem__, reverse=True)
        for member in freshest[: self._config.words_per_message_max - len(chosen)]:
            if member == to:
                continue
            chosen.append(entries[member])
            if entries[to].standing is not Standing.ALIVE:
                continue  # it may never hear it
            self._hot[member] -= 1
            if not self._hot[member]:
                del self._hot[member]
        return tuple(self.members.word_of(entry) for entry in chosen)

    # -- time -------------------------------------------------------------------------------------------------

    def _wake(self, now_ms: float, sends: Sends) -> None:
        """Lost time is nobody else's fault: probes begin anew, suspects get their time again, and the others hear that
        this node is back."""
        lost_ms = now_ms - self.due_ms
        self._rounds.clear()
        self.members.forgive_time(lost_ms)
        self.health = min(self._config.health_max, self.health + 1)
        self._probe_ms = now_ms + self._config.probe_interval_ms
        for member in list(self.members.suspects):
            self._begin(member, now_ms, sends)
        self.incarnation += 1
        self._tell(self.member, sends)
        self._plan()

    def _plan(self) -> None:
        due_ms = self._probe_ms
        for probe in self._rounds.values():
            due_ms = min(due_ms, probe.due_ms)
        for entry in self.members.suspects.values():
            due_ms = min(due_ms, self.members.deadline_ms(entry, self.health))
        self.due_ms = due_ms

    def _shuffle(self) -> None:
        ring = self._ring
        for last in range(len(ring) - 1, 0, -1):
            other = self._below(last + 1)
            ring[last], ring[other] = ring[other], ring[last]
