"""Who votes next: what a stop-sign may name (rule 4).

Rule: an incarnation ends only when a majority of the next one has caught up, so that it can go on at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgestore.consensus.context import GroupContext
from edgestore.consensus.messages import StopSign
from edgestore.consensus.voter import Voter
from edgestore.errors import BadRequest, Conflict, TooBusy
from edgestore.records import Member

VOTERS_MAX = 5


def check_next(
    context: GroupContext, voter: Voter, fetched: Mapping[str, tuple[int, int]], members: tuple[Member, ...]
) -> None:
    """Raises BadRequest, Conflict, or TooBusy where no majority of the next has caught up and was heard lately."""
    names = sorted(one.member for one in members if one.is_voter)
    if not 1 <= len(names) <= VOTERS_MAX or len(set(names)) != len(names):
        raise BadRequest(f"a group has 1 to {VOTERS_MAX} voters, each of them once", voters=names)
    if names == sorted(one.member for one in context.raft_journal.members if one.is_voter):
        raise Conflict("the group has these voters already", voters=names)
    behind = [name for name in names if _is_behind(context, voter, fetched, name)]
    if 2 * (len(names) - len(behind)) <= len(names):
        raise TooBusy("no majority of the next voters has caught up: try again later", behind=behind)


def _is_behind(context: GroupContext, voter: Voter, fetched: Mapping[str, tuple[int, int]], name: str) -> bool:
    least = context.raft_journal.last_index - context.config.catch_up_entries
    now_ms = context.now_ms()
    if name == context.member:
        return False
    if name in voter.others:
        since_ms = now_ms - context.config.election_max_ms
        progress = voter.replication.progress[name] if voter.replication is not None else None
        return progress is None or progress.heard_ms < since_ms or voter.core.matched(name) < least
    index, asked_ms = fetched.get(name, (0, 0))
    return index < least or asked_ms < now_ms - 2 * context.config.fetch_wait_ms


def next_members(context: GroupContext, members: tuple[Member, ...]) -> StopSign:
    """The stop-sign that names them."""
    return StopSign(context.incarnation + 1, members)
