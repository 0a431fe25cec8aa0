"""The forced, loud way out when the quorum of a group is lost for good: other voters, by hand, on what one member has.

Rule: nobody calls this but an operator who was told what may be lost; everything that the survivor's log holds counts
as committed, and whoever had applied something else is refused for ever (DivergedError).
"""

from __future__ import annotations

import asyncio

from edgestore.consensus.applying import Applying, NotAppliedError
from edgestore.consensus.interface import Applies
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import StopSign, encode
from edgestore.consensus.recovery import STOP_KIND
from edgestore.disk import Journal
from edgestore.errors import Corrupt
from edgestore.records import Member


def log_end(journal: Journal, applied_index: int, *, group: int = 0) -> tuple[int, tuple[str, ...]]:
    """Index of the last entry of this member's log, and who votes as far as it knows."""
    found = RaftJournal(journal, group, applied_index)
    return found.last_index, tuple(member.member for member in found.members)


def apply_log(journal: Journal, machine: Applies, *, group: int = 0) -> None:
    """Applies all that this member's log holds to a copy of its machine, committed or not: as `force_members` would
    have it. The log stays as it is."""
    raft_journal = RaftJournal(journal, group, machine.applied_index)
    applying = Applying(raft_journal, machine)
    applying.on_stop_sign = lambda index, term, stop: None
    try:
        applying.run()
        while applying.commit(raft_journal.last_index):
            applying.run()
    except NotAppliedError as error:
        raise Corrupt(f"the log cannot be applied: {error}") from error


async def force_members(
    journal: Journal, applied_index: int, members: tuple[Member, ...], *, group: int = 0, skipped: int = 0
) -> tuple[int, int]:
    """Ends the incarnation of a group that is not running, on this member's journal, with a stop-sign that names
    `members`. Returns its index and the next incarnation, when both are synced: the next start goes on from there.
    `skipped` incarnations are left out: those that the lost may have begun meanwhile."""
    raft_journal = RaftJournal(journal, group, applied_index)
    stop = StopSign(raft_journal.incarnation + 1 + skipped, members)
    index, term = raft_journal.last_index + 1, max(raft_journal.term, raft_journal.entries[-1][2]) + 1
    raft_journal.add(STOP_KIND + encode(stop), index, term)
    raft_journal.begin_incarnation(index, term, stop)
    synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    raft_journal.sync(lambda: synced.set_result(None))
    await synced
    return index, stop.next_incarnation
