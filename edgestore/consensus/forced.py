"""Recovery by hand where the majority of the voters is gone for good: one survivor is the only voter from now on.

Rule: nothing here is decided by a machine. What the lost majority acknowledged and this member never received is lost
with it, and none of the lost may ever come back: the next incarnation is far beyond any that they can have begun.
"""

from __future__ import annotations

import asyncio

from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import StopSign, encode
from edgestore.consensus.recovery import STOP_KIND
from edgestore.disk import Journal
from edgestore.records import Member

FENCE = 1 << 16
"""Incarnations that are left out: as many changes of members nobody has made meanwhile."""


def log_end(journal: Journal, applied_index: int, group: int = 0) -> tuple[int, tuple[str, ...]]:
    """Index of the last entry of this member's log, and who votes as far as it knows."""
    found = RaftJournal(journal, group, applied_index)
    return found.last_index, tuple(member.member for member in found.members)


async def make_sole_voter(journal: Journal, member: str, applied_index: int, group: int = 0) -> int:
    """Ends the incarnation by a stop-sign that names this member alone, synced. Everything in its log counts as
    committed. Returns the index of the stop-sign."""
    raft_journal = RaftJournal(journal, group, applied_index)
    stop = StopSign(raft_journal.incarnation + FENCE, (Member(member),))
    # A new term: the last leader may have had another entry at this index in its own.
    index, term = raft_journal.last_index + 1, max(raft_journal.term, raft_journal.entries[-1][2]) + 1
    raft_journal.add(STOP_KIND + encode(stop), index, term)
    raft_journal.begin_incarnation(index, term, stop)
    synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    raft_journal.sync(lambda: None if synced.done() else synced.set_result(None))
    await synced
    return index
