"""What one node believes of each other: which start, which incarnation, who accuses it, and whether it has failed.

Rule: only a node's own higher incarnation clears it; accusations are gossiped, the verdict is not. Each node comes to
its own, when it cannot reach the accused itself, enough others say the same, and the accused had its time to speak.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from edgestore.cluster.messages import Word
from edgestore.config import ClusterConfig

PAST_STARTS_MAX = 4
"""Earlier starts of a member that are remembered to notice one that comes back."""
ALONE_FACTOR = 0.75
"""More patience for each node that is missing to three others: at 30 % loss two nodes need 25 questions in a row."""
RETURNS_MAX = 3
"""A start that was replaced may return a few times while old news is about; two copies return without end."""


class Standing(IntEnum):
    """What a node makes of another. Only FAILED may become a layout command (`down`)."""

    ALIVE = 0
    SUSPECTED = 1
    FAILED = 2


@dataclass(slots=True)
class Entry:
    """One other member. `accusers` is of this incarnation. Times are of this node's boot clock."""

    member: str
    since_ms: float
    nonce: int = 0
    incarnation: int = -1
    standing: Standing = Standing.ALIVE
    accusers: set[str] = field(default_factory=set)
    suspected_ms: float = 0.0
    heard_ms: float = 0.0
    past_nonces: tuple[int, ...] = ()
    returns: int = 0


class Members:
    """The table. It changes by what `take` and `accuse` are told, and by `verdict`."""

    def __init__(self, config: ClusterConfig, own: str) -> None:
        self._config, self._own = config, own
        self.entries: dict[str, Entry] = {}
        self.suspects: dict[str, Entry] = {}
        self.contested: dict[str, int] = {}

    def set_members(self, members: Iterable[str], now_ms: float) -> None:
        """The catalog says who belongs to the site; this node itself may be among them."""
        wanted = {member for member in members if member != self._own}
        for member in list(self.entries):
            if member not in wanted:
                del self.entries[member]
                self.suspects.pop(member, None)
                self.contested.pop(member, None)
        for member in sorted(wanted)[: self._config.members_max]:
            if member not in self.entries:
                self.entries[member] = Entry(member, now_ms, heard_ms=now_ms)

    def knows_better(self, word: Word) -> bool:
        """Whether who says this should hear from here."""
        entry = self.entries.get(word.member)
        return entry is not None and (
            entry.incarnation > word.incarnation
            or (entry.incarnation == word.incarnation and len(entry.accusers) > len(word.accusers))
        )

    def take(self, word: Word, now_ms: float) -> bool:
        """Believes what is newer than what is known; says whether anything was."""
        entry = self.entries.get(word.member)
        if entry is None or word.incarnation < entry.incarnation:
            return False
        if word.incarnation == entry.incarnation:
            if word.nonce != entry.nonce or entry.accusers.issuperset(word.accusers):
                return False
            entry.accusers.update(word.accusers[: self._config.members_max])
        else:
            self._take_start(entry, word.nonce)
            entry.incarnation = word.incarnation
            entry.accusers = set(word.accusers)
        self._settle(entry, now_ms)
        return True

    def accuse(self, entry: Entry, now_ms: float) -> None:
        """This node could not reach it."""
        entry.accusers.add(self._own)
        self._settle(entry, now_ms)

    def _settle(self, entry: Entry, now_ms: float) -> None:
        if not entry.accusers:
            entry.standing = Standing.ALIVE
            self.suspects.pop(entry.member, None)
        elif entry.standing is Standing.ALIVE:
            entry.standing, entry.suspected_ms = Standing.SUSPECTED, now_ms
            self.suspects[entry.member] = entry

    def _take_start(self, entry: Entry, nonce: int) -> None:
        """A start replaces the one before; one that keeps coming back lives beside it: a copied identity."""
        if nonce == entry.nonce:
            return
        if nonce in entry.past_nonces:
            entry.returns += 1
            if entry.returns >= RETURNS_MAX:
                self.contested[entry.member] = nonce
        if entry.nonce and entry.nonce not in entry.past_nonces:
            entry.past_nonces = (*entry.past_nonces, entry.nonce)[-PAST_STARTS_MAX:]
        entry.nonce = nonce

    def word_of(self, entry: Entry) -> Word:
        """What this node tells of it."""
        return Word(entry.member, entry.nonce, entry.incarnation, tuple(sorted(entry.accusers)))

    def deadline_ms(self, entry: Entry, health: int) -> float:
        """When a suspect counts as failed: never, while too few accuse it or this node does not."""
        accusers = len(entry.accusers)
        standings = [other.standing for other in self.entries.values() if other is not entry]
        present = len(standings) - standings.count(Standing.FAILED)
        if self._own not in entry.accusers or accusers < min(self._config.accusers_min, present + 1):
            return math.inf
        patience_ms = self._patience_ms(accusers - 1, standings.count(Standing.ALIVE))
        return entry.suspected_ms + patience_ms * (1 + health)

    def _patience_ms(self, confirmations: int, others: int) -> float:
        """Lifeguard's: the more accuse it independently, the less time it has. Where few could, time stands in."""
        expected = min(self._config.accusers_full - 1, others)
        least = self._config.suspicion_min_ms * (1 + ALONE_FACTOR * max(0, 3 - others))
        most = self._config.suspicion_max_ms
        if confirmations >= expected:
            return least
        return most - (most - least) * math.log(confirmations + 1) / math.log(expected + 1)

    def verdict(self, now_ms: float, health: int) -> list[Entry]:
        """Those whose time has run out: they count as failed from here on."""
        failed = [entry for entry in self.suspects.values() if self.deadline_ms(entry, health) <= now_ms]
        for entry in failed:
            entry.standing = Standing.FAILED
            del self.suspects[entry.member]
        return failed

    def forgive_time(self, lost_ms: float) -> None:
        """This node was stalled: what it did not hear in the meantime speaks against nobody."""
        for entry in self.suspects.values():
            entry.suspected_ms += lost_ms
