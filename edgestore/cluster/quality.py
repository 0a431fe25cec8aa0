"""How well each node does: what one node sees of the others, and what the leader makes of all that is seen.

Rule: a node is compared with its peers as the same observer sees them, so a bad network or a busy observer condemns
nobody. Quality falls after seconds of bad answers and is earned back over minutes of good behaviour; who falls again
must behave for longer.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, median_low

from edgestore.cluster.messages import PeerView
from edgestore.config import ClusterConfig
from edgestore.net import Outcome, Work

FULL = 100
COST_UNIT_BYTES = 64 * 1024
"""An answer that carries this much may take twice as long as one that carries nothing."""
RELAPSES_MAX = 4
RELAPSE_MEMORY_MS = 3_600_000


@dataclass(slots=True)
class _Faded:
    """Sums in which what lies a half-life back counts half."""

    at_ms: float
    answers: float = 0.0
    failed: float = 0.0
    damaged: float = 0.0
    cost: float = 0.0
    took_us: float = 0.0

    def fade(self, now_ms: float, half_life_ms: float) -> None:
        """Brings the sums to now."""
        factor: float = 0.5 ** ((now_ms - self.at_ms) / half_life_ms)
        self.at_ms = now_ms
        self.answers *= factor
        self.failed *= factor
        self.damaged *= factor
        self.cost *= factor
        self.took_us *= factor


class Observer:
    """This node's side: every call to another node is reported here, cheaply."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._peers: dict[str, dict[int, _Faded]] = {}

    def saw(
        self,
        member: str,
        outcome: Outcome,
        took_us: float,
        now_ms: float,
        *,
        size_bytes: int = 0,
        work: Work = Work.PROBE,
    ) -> None:
        """`took_us` counts for good answers only; `size_bytes`: what went over the wire for it."""
        kinds = self._peers.get(member)
        if kinds is None:
            if len(self._peers) >= self._config.members_max:
                return
            kinds = self._peers[member] = {}
        sums = kinds.get(work)
        if sums is None:
            sums = kinds[work] = _Faded(now_ms)
        if now_ms > sums.at_ms:
            sums.fade(now_ms, self._config.observation_half_life_ms)
        sums.answers += 1
        if outcome is Outcome.GOOD:
            sums.cost += 1 + size_bytes / COST_UNIT_BYTES
            sums.took_us += took_us
        elif outcome is Outcome.FAILED:
            sums.failed += 1
        else:
            sums.damaged += 1

    def keep(self, members: Iterable[str]) -> None:
        """Forgets the others."""
        kept = set(members)
        self._peers = {member: kinds for member, kinds in self._peers.items() if member in kept}

    def forget(self, member: str) -> None:
        """It is dead: how it failed while it died says nothing of how it will do."""
        self._peers.pop(member, None)

    def views(self, now_ms: float) -> tuple[PeerView, ...]:
        """What the status of this node carries."""
        views = []
        for member, kinds in self._peers.items():
            for work, sums in kinds.items():
                sums.fade(max(now_ms, sums.at_ms), self._config.observation_half_life_ms)
                if sums.answers >= 1:
                    answer_us = sums.took_us / sums.cost if sums.cost else 0.0
                    views.append(PeerView(member, sums.answers, sums.failed, sums.damaged, answer_us, work))
        return tuple(views)


@dataclass(slots=True)
class _Score:
    """One node's standing with the leader. `published` is what the layout says."""

    value: float = FULL
    published: int = FULL
    bad_since_ms: float | None = None
    good_since_ms: float | None = None
    rose_ms: float = 0.0
    relapses: int = 0
    fell_ms: float = 0.0
    flaps_ms: list[float] = field(default_factory=list)


class Scores:
    """The leader's side. `judge` is called at each `quality_interval_ms` with what all observers say."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._scores: dict[str, _Score] = {}

    def went_down(self, member: str, now_ms: float) -> None:
        """Flapping counts by how often this happens."""
        score = self._scores.setdefault(member, _Score())
        score.flaps_ms = [*score.flaps_ms[-self._config.quality_flaps_max :], now_ms]

    def judge(
        self,
        published: Mapping[str, int],
        reports: Mapping[str, Sequence[PeerView]],
        now_ms: float,
        full: Container[str] = (),
    ) -> dict[str, int]:
        """`published`: what the layout says of each node that is to be judged; `reports`: by observer; `full`: whose
        disks take no content. Returns what it should say of those for whom it should change."""
        self._scores = {member: score for member, score in self._scores.items() if member in published}
        changes = {}
        for member, quality in published.items():
            score = self._scores.setdefault(member, _Score(value=quality, published=quality))
            if score.published != quality:
                score.value = score.published = quality
            target = min(self._by_views(member, reports), self._by_flaps(score, now_ms))
            if member in full:  # it says so itself: there is no doubt to wait for
                target, score.bad_since_ms = self._config.quality_floor, now_ms - self._config.quality_fall_ms
            self._move(score, target, now_ms)
            wanted = round(score.value)
            ends = wanted != quality and wanted in (FULL, self._config.quality_floor)
            if ends or abs(wanted - quality) >= self._config.quality_step:
                changes[member] = wanted
        return changes

    def _move(self, score: _Score, target: float, now_ms: float) -> None:
        if target >= score.value:
            score.bad_since_ms = None
        if target <= score.value:
            score.good_since_ms = None
        if target < score.value:
            score.bad_since_ms = now_ms if score.bad_since_ms is None else score.bad_since_ms
            if now_ms - score.bad_since_ms >= self._config.quality_fall_ms:
                self._fall(score, target, now_ms)
        elif target > score.value:
            if score.good_since_ms is None:
                score.good_since_ms = score.rose_ms = now_ms
            proof_ms = self._config.quality_proof_ms * 2**score.relapses
            if now_ms - score.good_since_ms >= proof_ms:
                minutes = (now_ms - max(score.rose_ms, score.good_since_ms + proof_ms)) / 60_000
                score.value = min(target, score.value + minutes * self._config.quality_rise_per_minute)
                score.rose_ms = now_ms

    def _fall(self, score: _Score, target: float, now_ms: float) -> None:
        """Only what comes after a recovery has begun is a relapse: several steps down are one fall."""
        if score.fell_ms and now_ms - score.fell_ms > RELAPSE_MEMORY_MS:
            score.relapses = 0
        elif score.fell_ms and score.rose_ms > score.fell_ms:
            score.relapses = min(RELAPSES_MAX, score.relapses + 1)
        score.fell_ms, score.value = now_ms, target

    def _by_flaps(self, score: _Score, now_ms: float) -> float:
        window_ms = self._config.quality_flap_window_ms
        recent = sum(now_ms - at_ms < window_ms for at_ms in score.flaps_ms)
        return self._config.quality_floor if recent >= self._config.quality_flaps_max else FULL

    def _by_views(self, member: str, reports: Mapping[str, Sequence[PeerView]]) -> float:
        """By the kind of work that it does worst."""
        worst = max(self._badness(member, work, reports) for work in Work)
        return FULL - (FULL - self._config.quality_floor) * min(1.0, max(0.0, worst - 1.0))

    def _badness(self, member: str, work: Work, reports: Mapping[str, Sequence[PeerView]]) -> float:
        """The milder of two halves of the observers, for speed and failures; all together, for damage, of which one
        case proves nothing."""
        config = self._config
        slow, failed = [], []
        answers = damaged = 0.0
        for observer, views in reports.items():
            known = [
                view
                for view in views
                if view.work == work and view.answers >= config.quality_answers_min and view.member != observer
            ]
            own = next((view for view in known if view.member == member), None)
            if own is None or observer == member:
                continue
            others = [view for view in known if view is not own]
            slow.append(_slowness(own, others, config.quality_slow_floor_us))
            failed.append(_failed_share(own) - (median(map(_failed_share, others)) if others else 0.0))
            answers, damaged = answers + own.answers, damaged + own.damaged
        if not slow:
            return 0.0
        return max(
            median_low(slow) / config.quality_slow_ratio,
            median_low(failed) / config.quality_failed_share,
            max(0.0, damaged - 1.0) / answers / config.quality_damaged_share,
        )


def _slowness(own: PeerView, others: Sequence[PeerView], floor_us: float) -> float:
    """How many times slower than the others; alone nobody is slow."""
    timed = [view.answer_us for view in others if view.answer_us]
    return own.answer_us / max(floor_us, median(timed)) if timed else 0.0


def _failed_share(view: PeerView) -> float:
    return view.failed / view.answers
