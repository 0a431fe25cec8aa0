"""What the leader does about its site: a function of (layout, observations, now), plus the memory of since when.

Rule: only FAILED makes a node `down`, and only a leader that hears a majority of the voters declares anything; each
decision names the state it expects, so one that comes late changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgestore.catalog import commands
from edgestore.cluster.members import Standing
from edgestore.cluster.messages import NodeStatus
from edgestore.cluster.quality import Scores
from edgestore.cluster.voters import next_voters
from edgestore.config import ClusterConfig
from edgestore.records import SHUT_OUT, NodeRecord, NodeState, SiteSettings

STATUS_AGE_MAX_MS = 10_000
"""An older status tells nothing about now."""
VOTER_LAG_MAX = 10_000
"""Entries that a node may lack and still be named a voter; the change itself waits until it has caught up."""


@dataclass(frozen=True, slots=True)
class SeenStatus:
    """A status, and when it came in by this node's boot clock."""

    status: NodeStatus
    received_ms: float


@dataclass(frozen=True, slots=True)
class SiteView:
    """All that the leader knows. `standings` and `statuses` by member; `layouts`: (epoch, extents under it);
    `condemned`: (chunk id, index at which it was condemned); both may be left out while nothing is to be done.
    `margin`: how many more fragments the worst chunk may lose; below 0 while that is not known."""

    own: str
    nodes: Sequence[NodeRecord]
    settings: SiteSettings
    standings: Mapping[str, Standing]
    statuses: Mapping[str, SeenStatus]
    voters: Sequence[str]
    applied_index: int
    feature_level: int
    log_time_ms: int
    epoch: int
    balance_epoch: int
    layouts: Sequence[tuple[int, int]] = ()
    condemned: Sequence[tuple[bytes, int]] = ()
    contested: frozenset[str] = frozenset()
    margin: int = -1


@dataclass(frozen=True, slots=True)
class ChangeVoters:
    """A stop-sign that names these members (rule 4)."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepLogTime:
    """The clocks of a majority of the voters agree that it is later than log time says (rule 9)."""

    to_ms: int


@dataclass(frozen=True, slots=True)
class HandOver:
    """The disk of the leader is full, and each of these voters has room."""

    to: tuple[str, ...]


Decision = (
    commands.SetNodeState
    | commands.SetNodeQuality
    | commands.QuarantineMember
    | commands.RaiseFeatureLevel
    | commands.RetireLayouts
    | commands.ReclaimedChunks
    | ChangeVoters
    | StepLogTime
    | HandOver
)


class Control:
    """One term of a leader: a new one begins with a new Control."""

    def __init__(self, config: ClusterConfig, now_ms: float) -> None:
        self._config = config
        self._scores = Scores(config)
        self._reachable: dict[str, float] = {}
        self._absent: dict[str, float] = {}
        self._states: dict[str, NodeState] = {}
        self._settled_ms = now_ms + config.control_settle_ms
        self._judged_ms = now_ms
        self._voters_changed_ms = -math.inf
        self._removed_ms = -math.inf

    def was_stalled(self, now_ms: float) -> None:
        """This node was not there for a while: what it believes of others is old."""
        self._settled_ms = now_ms + self._config.control_settle_ms

    def decide(self, view: SiteView, now_ms: float) -> list[Decision]:
        """What is to be done now. It is said again until the view shows that it was done."""
        self._follow(view, now_ms)
        if not self._hears_majority(view):
            return []
        decisions: list[Decision] = []
        decisions += self._states_to_set(view, now_ms)
        decisions += [
            commands.QuarantineMember(node.member)
            for node in view.nodes
            if node.member in view.contested and node.state not in SHUT_OUT
        ]
        decisions += self._quality(view, now_ms)
        decisions += self._voters(view, now_ms)
        decisions += self._feature_level(view)
        decisions += self._log_time(view, now_ms)
        decisions += self._reclaimed(view)
        decisions += self._layouts(view)
        decisions += self._hand_over(view, now_ms)
        return decisions

    def _follow(self, view: SiteView, now_ms: float) -> None:
        """Since when each node is reachable, or not; and who went down."""
        for node in view.nodes:
            alive = self._standing(view, node) is Standing.ALIVE
            since, other = (self._reachable, self._absent) if alive else (self._absent, self._reachable)
            since.setdefault(node.member, now_ms)
            other.pop(node.member, None)
            if node.state is NodeState.DOWN and self._states.get(node.member, NodeState.DOWN) is not NodeState.DOWN:
                self._scores.went_down(node.member, now_ms)
            self._states[node.member] = node.state

    def _standing(self, view: SiteView, node: NodeRecord) -> Standing:
        return Standing.ALIVE if node.member == view.own else view.standings.get(node.member, Standing.ALIVE)

    def _hears_majority(self, view: SiteView) -> bool:
        heard = sum(
            member == view.own or view.standings.get(member, Standing.FAILED) is Standing.ALIVE
            for member in view.voters
        )
        return 2 * heard > len(view.voters)

    def _states_to_set(self, view: SiteView, now_ms: float) -> list[Decision]:
        found: list[Decision] = []
        for node in view.nodes:
            if node.state in (NodeState.UP, NodeState.DRAINING):
                if self._standing(view, node) is Standing.FAILED and now_ms >= self._settled_ms:
                    found.append(commands.SetNodeState(node.number, NodeState.DOWN, node.state))
            elif node.state is NodeState.DOWN:
                since_ms = self._reachable.get(node.member, math.inf)
                knows_it = node.member == view.own or self._status(view, node.member, now_ms) is not None
                if now_ms - since_ms >= self._config.up_after_ms and knows_it:
                    found.append(commands.SetNodeState(node.number, NodeState.UP, NodeState.DOWN))
                elif self._is_over(view, node, now_ms):
                    self._removed_ms = now_ms
                    found.append(commands.SetNodeState(node.number, NodeState.REMOVED, NodeState.DOWN))
        return found

    def _is_over(self, view: SiteView, node: NodeRecord, now_ms: float) -> bool:
        """Removed after a setting: never one that answers, one at a time, only while most of the site is there, and
        never the one whose return may be what content waits for."""
        after_ms = view.settings.remove_after_ms
        present = [other for other in view.nodes if other.state is NodeState.UP]
        counted = [other for other in view.nodes if other.state in (NodeState.UP, NodeState.DOWN)]
        return (
            after_ms > 0
            and node.down_since_ms > 0
            and view.log_time_ms - node.down_since_ms >= after_ms
            and self._standing(view, node) is Standing.FAILED
            and now_ms - self._removed_ms >= self._config.remove_pause_s * 1000
            and 2 * len(present) > len(counted)
            and (node.witness or view.margin > 0)
        )

    def _status(self, view: SiteView, member: str, now_ms: float) -> NodeStatus | None:
        seen = view.statuses.get(member)
        return seen.status if seen is not None and now_ms - seen.received_ms <= STATUS_AGE_MAX_MS else None

    def _quality(self, view: SiteView, now_ms: float) -> list[Decision]:
        if now_ms - self._judged_ms < self._config.quality_interval_ms:
            return []
        self._judged_ms = now_ms
        judged = {
            node.member: node
            for node in view.nodes
            if node.state in (NodeState.UP, NodeState.DOWN, NodeState.DRAINING) and not node.witness
        }
        is_up = {member for member, node in judged.items() if node.state is not NodeState.DOWN}
        reports = {
            member: [seen for seen in status.views if seen.member in is_up]
            for member in view.statuses
            if (status := self._status(view, member, now_ms)) is not None
        }
        full = {member for member in is_up if self._is_full(view, member, now_ms)}
        qualities = {member: node.quality for member, node in judged.items()}
        changes = self._scores.judge(qualities, reports, now_ms, full)
        return [commands.SetNodeQuality(judged[member].number, quality) for member, quality in changes.items()]

    def _is_full(self, view: SiteView, member: str, now_ms: float) -> bool:
        status = self._status(view, member, now_ms)
        return status is not None and status.is_full

    def _hand_over(self, view: SiteView, now_ms: float) -> list[Decision]:
        """Before the journal of the leader takes no more: then nobody could delete, though a majority has room."""
        if now_ms < self._settled_ms or not self._is_full(view, view.own, now_ms):
            return []
        able = tuple(
            member
            for member in view.voters
            if member != view.own
            and view.standings.get(member) is Standing.ALIVE
            and (status := self._status(view, member, now_ms)) is not None
            and not status.is_full
        )
        return [HandOver(able)] if able else []

    def _voters(self, view: SiteView, now_ms: float) -> list[Decision]:
        if now_ms - self._voters_changed_ms < self._config.voter_change_pause_ms or not view.nodes:
            return []
        ready = {
            node.member
            for node in view.nodes
            if now_ms - self._reachable.get(node.member, math.inf) >= self._wait_ms(view)
            and self._is_close(view, node, now_ms)
        }
        lost = {
            member
            for member in view.voters
            if now_ms - self._absent.get(member, math.inf) >= self._config.voter_down_ms
        }
        wanted = next_voters(view.nodes, view.voters, tolerate=view.settings.tolerate, ready=ready, lost=lost)
        if set(wanted) == set(view.voters):
            return []
        self._voters_changed_ms = now_ms
        return [ChangeVoters(wanted)]

    def _wait_ms(self, view: SiteView) -> float:
        """A site that one death would stop does not wait long for a second and third voter."""
        return self._config.voter_stable_ms if len(view.voters) >= 3 else self._config.up_after_ms

    def _is_close(self, view: SiteView, node: NodeRecord, now_ms: float) -> bool:
        if node.member == view.own:
            return True
        status = self._status(view, node.member, now_ms)
        return status is not None and view.applied_index - status.applied_index <= VOTER_LAG_MAX

    def _feature_level(self, view: SiteView) -> list[Decision]:
        levels = [node.feature_level for node in view.nodes if node.state not in SHUT_OUT]
        if levels and min(levels) > view.feature_level:
            return [commands.RaiseFeatureLevel(min(levels))]
        return []

    def _log_time(self, view: SiteView, now_ms: float) -> list[Decision]:
        if len(view.voters) < 2:
            return []
        agreed_ms = time_of(view.voters, view.statuses, now_ms, self._config.clock_agreement_ms)
        if agreed_ms is not None and agreed_ms - view.log_time_ms >= self._config.log_time_step_min_ms:
            return [StepLogTime(agreed_ms)]
        return []

    def _reclaimed(self, view: SiteView) -> list[Decision]:
        """The rows go when no node that is there has a fragment left; one that is down sweeps when it is back."""
        if not view.condemned:
            return []
        floor = math.inf
        for node in view.nodes:
            if node.state in (NodeState.UP, NodeState.DRAINING) and not node.witness:
                seen = view.statuses.get(node.member)
                floor = min(floor, seen.status.reclaimed_index if seen is not None else -1)
        gone = tuple(chunk_id for chunk_id, index in view.condemned if index <= floor)
        return [commands.ReclaimedChunks(gone)] if gone and floor != math.inf else []

    def _layouts(self, view: SiteView) -> list[Decision]:
        before = min(view.balance_epoch, view.epoch - self._config.layouts_kept)
        if any(1 < epoch < before and not extents for epoch, extents in view.layouts):
            return [commands.RetireLayouts(before)]
        return []


def time_of(voters: Sequence[str], statuses: Mapping[str, SeenStatus], now_ms: float, agreement_ms: int) -> int | None:
    """What the clocks of a majority of the voters show; None where they do not agree, or not enough were heard."""
    clocks = sorted(
        seen.status.wall_ms + int(now_ms - seen.received_ms)
        for member in voters
        if (seen := statuses.get(member)) is not None and now_ms - seen.received_ms <= STATUS_AGE_MAX_MS
    )
    return agreed_time_ms(clocks, len(voters) // 2 + 1, agreement_ms)


def agreed_time_ms(clocks: Sequence[int], needed: int, agreement_ms: int) -> int | None:
    """The earliest of the latest `needed` clocks (sorted) that lie close together; None where no so many do."""
    for first in range(len(clocks) - needed, -1, -1):
        if clocks[first + needed - 1] - clocks[first] <= agreement_ms:
            return clocks[first]
    return None
