"""What an extent lacks, judged from its record and the layout. Pure.

Rule: a short absence costs nothing: what lies on a node that is down is made anew only after the lazy waits; what lies
on one that leaves, or lies nowhere, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from msgspec.structs import replace

from edgestore.config import RepairConfig
from edgestore.errors import BadRequest, NoSuchBucket, Unavailable
from edgestore.placement import (
    NOBODY,
    QUALITY_POOR,
    Placement,
    Scheme,
    copies_for,
    is_counted,
    is_storage,
    may_hold,
    scheme_for,
)
from edgestore.records import BucketRecord, ExtentRecord, LayoutRecord, NodeRecord, NodeState, SiteSettings

_FULL_QUALITY = 100
_SCHEMES_KEPT = 4096


class Need(IntEnum):
    """What is to be done."""

    NOTHING = 0
    WAIT = 1
    """It is not whole, but nothing can or should be done yet."""
    PLACE = 2
    """Fragments are missing or in the wrong place."""
    ENCODE = 3
    """It should have another scheme."""
    LOST = 4
    """Fewer fragments are there than reading needs: it waits for a node that comes back."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`margin`: how many more fragments its worst chunk may lose; below 0 it cannot be read now."""

    need: Need
    margin: int
    scheme: Scheme | None = None
    """To encode it anew in."""


@dataclass(slots=True)
class _Seen:
    """`listed`: fragments that the record would still have to list, as missing or elsewhere, once all that can move has
    moved."""

    listed: int = 0
    waits: bool = False
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What the catalog says of the site. `now_ms`: log time."""

    nodes: Sequence[NodeRecord]
    settings: SiteSettings
    now_ms: int


class Assessor:
    """Judges extents under one layout at one time. `placements`: as `Sites.placements`."""

    def __init__(
        self,
        layout: LayoutRecord,
        placements: Callable[[int], Sequence[Placement]],
        bucket: Callable[[int], BucketRecord],
        facts: SiteFacts,
        config: RepairConfig,
        copies_max_bytes: int,
    ) -> None:
        self.layout, self._placements, self._bucket = layout, placements, bucket
        self._settings, self._copies_max_bytes = facts.settings, copies_max_bytes
        self.newest = placements(layout.epoch)[-1]
        self.live = frozenset(node.number for node in layout.nodes if is_storage(node))
        self._good = sum(node.quality > QUALITY_POOR for node in layout.nodes if is_storage(node))
        self.counted = frozenset(node.number for node in layout.nodes if is_counted(node))
        self.holding = frozenset(node.number for node in layout.nodes if may_hold(node))
        self.lazy, self.critical = _waited_for(facts, config)
        self.down = frozenset(node.number for node in facts.nodes if node.state is NodeState.DOWN and not node.drains)
        self._steady = _steady(layout, _long_gone(facts, config.reencode_wait_s))
        self._present = _steady(layout, self.lazy)
        self.grounds = layout, self.lazy, self.critical, self._steady, facts.settings
        """Where these are equal, so are the judgements on what has not changed itself."""
        self._of_epoch: dict[int, tuple[Placement, bool]] = {}
        self._schemes: dict[tuple[int, bool], Scheme | None] = {}

    # --- where fragments are -----------------------------------------------------------------------------

    def placement_of(self, extent: ExtentRecord) -> Placement:
        """The owners that the record was written under."""
        return self._epoch(extent.layout_epoch)[0]

    def _epoch(self, epoch: int) -> tuple[Placement, bool]:
        """The placement of an epoch, and whether all who could own anything under it are up now."""
        found = self._of_epoch.get(epoch)
        if found is None:
            placement = self._placements(epoch)[0]
            owners = {node.number for node in placement.layout.nodes if is_storage(node)}
            found = self._of_epoch[epoch] = placement, bool(owners) and owners <= self.live
        return found

    def holders(self, extent: ExtentRecord) -> list[list[int]]:
        """By chunk and shard who holds it, as the record says; NOBODY where it is missing."""
        placement, count = self.placement_of(extent), extent.k + extent.m
        found = [list(placement.owners(chunk.chunk_id, count)) for chunk in extent.chunks]
        for position, shard, node in extent.exceptions:
            found[position][shard] = node
        for position, shard in extent.missing:
            found[position][shard] = NOBODY
        return found

    def is_up_for_claim(self, holder: int) -> bool:
        """Whether a fragment that the record names there counts for nothing, and a node that has the same may say so.
        Who is away for a short while only is waited for."""
        return holder not in self.counted and (holder not in self.down or holder in self.lazy)

    def is_whole(self, extent: ExtentRecord) -> bool:
        """Whether all of it lies where it belongs, on nodes that are up: by the record alone, without its chunks."""
        placement, is_intact = self._epoch(extent.layout_epoch)
        is_home = not extent.exceptions and not extent.missing and placement.epoch >= self.layout.balance_epoch
        return is_home and is_intact and len(self.live) >= extent.k + extent.m

    # --- judging ---------------------------------------------------------------------------------------------

    def judge(self, extent: ExtentRecord) -> Finding:
        """What the extent needs now."""
        scheme = self._other_scheme(extent)
        if self.is_whole(extent):
            return Finding(Need.NOTHING if scheme is None else Need.ENCODE, extent.m, scheme)
        return self._judge_chunks(extent, scheme)

    def _judge_chunks(self, extent: ExtentRecord, scheme: Scheme | None) -> Finding:
        holders = self.holders(extent)
        margin = min(len(self.counted.intersection(row)) for row in holders) - extent.k
        if scheme is not None and margin >= 0:
            return Finding(Need.ENCODE, margin, scheme)
        seen = self._compare(extent, holders, self.critical if margin <= 0 else self.lazy)
        recorded = len(extent.exceptions) + len(extent.missing)
        is_closed = extent.layout_epoch < self.layout.balance_epoch
        is_due = is_closed or seen.listed < recorded
        if seen.is_urgent or (is_due and not seen.waits):
            return Finding(Need.PLACE, margin)  # also of a lost one: others of its chunks may not be lost
        if margin < 0:
            return Finding(Need.LOST, margin)
        if margin == 0 < extent.tolerate and seen.listed:
            # The next death loses data, and no node can take what lacks: a scheme for those that are there.
            scheme = self._other_scheme(extent, is_pressed=True)
            if scheme is not None:
                return Finding(Need.ENCODE, margin, scheme)
        return Finding(Need.WAIT if seen.waits or seen.listed else Need.NOTHING, margin)

    def _compare(self, extent: ExtentRecord, holders: list[list[int]], away: frozenset[int]) -> _Seen:
        """Where the fragments are with where they belong now."""
        seen = _Seen()
        for chunk, row in zip(extent.chunks, holders, strict=True):
            for holder, target in zip(row, self.newest.owners(chunk.chunk_id, len(row)), strict=True):
                if holder == target and holder in self.counted:
                    continue
                if target == NOBODY:
                    seen.listed += 1
                elif holder in self.down and holder not in away:
                    seen.waits = True
                elif holder not in self.live:
                    seen.is_urgent = True
        return seen

    def _other_scheme(self, extent: ExtentRecord, *, is_pressed: bool = False) -> Scheme | None:
        """The scheme it should have, where that is another and enough nodes are up for it, those of poor quality not
        counted: a full one would refuse its fragments. `is_pressed`: who has been away for the lazy wait, or does
        poorly, is not waited for."""
        key = (extent.bucket_id, is_pressed)
        if key not in self._schemes:
            if len(self._schemes) >= _SCHEMES_KEPT:
                self._schemes.clear()
            self._schemes[key] = self._wanted(extent.bucket_id, self._present if is_pressed else self._steady)
        wanted = self._schemes[key]
        if wanted is None:
            return None
        is_small = extent.size_bytes <= self._copies_max_bytes
        copies = copies_for(wanted.t)
        has = Scheme(extent.k, extent.m, extent.tolerate)
        if has == wanted or (is_small and has == copies):
            return None
        wanted = copies if is_small else wanted
        return wanted if wanted.count <= (len(self.live) if is_pressed else self._good) else None

    def _wanted(self, bucket_id: int, layout: LayoutRecord) -> Scheme | None:
        try:
            return scheme_for(self._bucket(bucket_id) if bucket_id else None, layout, self._settings)
        except (Unavailable, NoSuchBucket, BadRequest):
            return None


def _waited_for(facts: SiteFacts, config: RepairConfig) -> tuple[frozenset[int], frozenset[int]]:
    """Nodes that have been down for the lazy wait, and for the critical one."""
    return _long_gone(facts, config.lazy_wait_s), _long_gone(facts, config.critical_wait_s)


def _long_gone(facts: SiteFacts, wait_s: int) -> frozenset[int]:
    return frozenset(
        node.number
        for node in facts.nodes
        if node.state is NodeState.DOWN and (node.drains or facts.now_ms - node.down_since_ms >= wait_s * 1000)
    )


def _steady(layout: LayoutRecord, gone: frozenset[int]) -> LayoutRecord:
    """The layout as it is when those who are away for a while are back: short absences and poor days change no
    scheme of what is there."""
    nodes = tuple(
        replace(
            node,
            quality=_FULL_QUALITY,
            state=NodeState.UP if node.state is NodeState.DOWN and node.number not in gone else node.state,
        )
        for node in layout.nodes
    )
    return replace(layout, nodes=nodes)
