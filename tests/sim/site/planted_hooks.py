"""Bugs planted in what PySyncObj itself decides: were a later version of it to do otherwise, the simulator must see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from edgestore.consensus.core import Core
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.library import syncobj
from tests.sim.model import Diverged, Lost, NotLinearizable, Refused, Split, Stalled
from tests.sim.site.planted import Planted


@contextmanager
def new_leader_trusts_everybody() -> Iterator[None]:
    """Raft figure 2: a new leader believes that all have what it has, and commits what nobody confirmed."""
    begin = Core._SyncObj__onBecomeLeader  # type: ignore[attr-defined]

    def planted(self: Any) -> None:
        begin(self)
        for node in self._SyncObj__otherNodes:
            self._SyncObj__raftMatchIndex[node] = self._raft_journal.last_index

    with mock.patch.object(Core, "_SyncObj__onBecomeLeader", planted):
        yield


@contextmanager
def new_leader_begins_with_nothing() -> Iterator[None]:
    """Raft 8: without an entry of its own term a leader does not know what is committed, and reads too early."""
    begin = Core._SyncObj__onBecomeLeader  # type: ignore[attr-defined]

    def planted(self: Any) -> None:
        with mock.patch.object(RaftJournal, "add", lambda *entry: None):
            begin(self)

    with mock.patch.object(Core, "_SyncObj__onBecomeLeader", planted):
        yield


@contextmanager
def leader_stays_in_a_newer_term() -> Iterator[None]:
    """Raft 5.1: who hears of a newer term does not step down."""
    become = Core._SyncObj__setState  # type: ignore[attr-defined]

    def planted(self: Any, state: int) -> None:
        if not (self.is_leader and state == syncobj._RAFT_STATE.FOLLOWER):
            become(self, state)

    with mock.patch.object(Core, "_SyncObj__setState", planted):
        yield


HOOK_BUGS = {
    bug.plant.__name__: bug
    for bug in (
        Planted(new_leader_trusts_everybody, (Diverged, Lost, NotLinearizable, Refused)),
        Planted(new_leader_begins_with_nothing, (Stalled, NotLinearizable)),
        Planted(leader_stays_in_a_newer_term, (Split,)),
    )
}
