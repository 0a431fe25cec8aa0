"""The status of every node, as it travels with the probes: one's own to everybody, others' a few times each.

Rule: a status belongs to one start of its member; of the same start the higher version wins.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from edgestore.cluster.messages import StatusWord
from edgestore.config import ClusterConfig


class Statuses:
    """The newest status of each member. Nothing is decoded here."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._own: StatusWord | None = None
        self._sent: dict[str, int] = {}
        self._newest: dict[str, StatusWord] = {}
        self._relays: dict[str, int] = {}
        self._taken: list[StatusWord] = []

    def set_own(self, word: StatusWord) -> None:
        """What the next messages carry."""
        self._own = word

    def keep(self, members: Container[str]) -> None:
        """Forgets who does not belong to the site."""
        self._sent = {member: version for member, version in self._sent.items() if member in members}
        self._newest = {member: word for member, word in self._newest.items() if member in members}
        self._relays = {member: left for member, left in self._relays.items() if member in members}

    def newest(self, member: str) -> StatusWord | None:
        """What a member last said of itself, as far as it is known here."""
        return self._newest.get(member)

    def drain(self) -> list[StatusWord]:
        """What has come in since the last call."""
        taken, self._taken = self._taken, []
        return taken

    def take(self, words: tuple[StatusWord, ...], nonce_of: Callable[[str], int]) -> None:
        """`nonce_of`: the start of a member that is believed in; 0 for strangers."""
        for word in words:
            nonce = nonce_of(word.member)
            if not nonce or word.nonce != nonce or len(word.body) > self._config.status_bytes_max:
                continue
            known = self._newest.get(word.member)
            if known is not None and known.nonce == nonce and known.version >= word.version:
                continue
            self._newest[word.member] = word
            self._relays[word.member] = self._config.status_relays
            self._taken = [*self._taken[-self._config.members_max :], word]

    def for_peer(self, member: str) -> tuple[StatusWord, ...]:
        """One's own when this peer was not sent it yet, and a few of others."""
        own = self._own
        if own is None:
            return ()
        chosen: list[StatusWord] = []
        if self._sent.get(member) != own.version:
            self._sent[member] = own.version
            chosen.append(own)
        for other in list(self._relays)[: self._config.statuses_per_message_max]:
            left = self._relays.pop(other) - 1
            if left:
                self._relays[other] = left
            if other != member:
                chosen.append(self._newest[other])
        return tuple(chosen)
