"""Owners: which node holds which shard of a chunk, by weighted rendezvous over zones, moving as little as it can.

Rule: a pure function of the layout record and the chunk's partition; nothing here is remembered elsewhere, and every
member comes to the same answer. docs/internals/placement.md has the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgestore.placement.partitions import lot, partition_of
from edgestore.records import LayoutNode, LayoutRecord, NodeState

NOBODY = 0
"""In place of an owner: the layout has fewer nodes than the chunk has shards. Numbers of nodes begin at 1."""
FULL_QUALITY = 100
QUALITY_POOR = 10
"""A node of this quality or less takes new data only where no other node can."""
_SCALE_BITS = 40


def is_storage(node: LayoutNode) -> bool:
    """Whether the node may be given new data."""
    return node.state is NodeState.UP and not node.witness


def is_counted(node: LayoutNode) -> bool:
    """Whether a fragment on the node counts for an acknowledgement (rule 1)."""
    return node.state in (NodeState.UP, NodeState.DRAINING) and not node.witness


def may_hold(node: LayoutNode) -> bool:
    """Whether what was put on the node may still be there: one that is down may come back with it."""
    return node.state in (NodeState.UP, NodeState.DRAINING, NodeState.DOWN) and not node.witness


@dataclass(frozen=True, slots=True)
class Places:
    """Where the fragments of an extent are, as an extent records it beside its layout epoch."""

    exceptions: tuple[tuple[int, int, int], ...] = ()
    """(chunk position, shard, node)"""
    missing: tuple[tuple[int, int], ...] = ()
    """(chunk position, shard)"""


@dataclass(frozen=True, slots=True)
class _Step:
    """The nodes that were there after one change of the layout's history, and how many a zone may give (0: all)."""

    present: frozenset[int]
    zone_max: int


class Placement:
    """The owners of every chunk under one layout. Answers are kept by partition (4,096 of them)."""

    def __init__(self, layout: LayoutRecord) -> None:
        self.layout = layout
        self.epoch = layout.epoch
        self._nodes = {node.number: node for node in layout.nodes if not node.witness}
        self._live = frozenset(node.number for node in layout.nodes if is_storage(node))
        self._zones = {number: node.zone or f"\0{number}" for number, node in self._nodes.items()}
        self._history = _history(self._nodes.values())
        self._steps: dict[int, list[_Step]] = {}
        self._orders: dict[int, tuple[int, ...]] = {}
        self._is_even = all(node.quality == FULL_QUALITY for node in self._nodes.values())
        self._owners: dict[int, dict[int, tuple[int, ...]]] = {}

    def ranking(self, chunk_id: bytes) -> tuple[int, ...]:
        """All nodes that may take new data, best first: where a fragment goes that its owner did not take."""
        return tuple(number for number in self._order(partition_of(chunk_id)) if number in self._live)

    def owners(self, chunk_id: bytes, count: int) -> tuple[int, ...]:
        """Shard i of a chunk of `count` shards belongs to the i-th of these; NOBODY where there are too few nodes."""
        return self.owners_of(partition_of(chunk_id), count)

    def owners_of(self, partition: int, count: int) -> tuple[int, ...]:
        """`owners` for all chunks of a partition."""
        kept = self._owners.setdefault(count, {})
        found = kept.get(partition)
        if found is None:
            found = kept[partition] = self._place(partition, count)
        return found

    def places(self, chunk_ids: Sequence[bytes], count: int, holders: Mapping[tuple[int, int], int]) -> Places:
        """How to record that shard s of the chunk at position p is held by `holders[p, s]`, under this layout."""
        exceptions, missing = [], []
        for position, chunk_id in enumerate(chunk_ids):
            for shard, owner in enumerate(self.owners(chunk_id, count)):
                holder = holders.get((position, shard), NOBODY)
                if holder == NOBODY:
                    missing.append((position, shard))
                elif holder != owner:
                    exceptions.append((position, shard, holder))
        return Places(tuple(exceptions), tuple(missing))

    def _order(self, partition: int) -> tuple[int, ...]:
        """All nodes that ever stored, in rendezvous order, the poor ones behind the others."""
        found = self._orders.get(partition)
        if found is None:
            nodes = sorted(self._nodes.values(), key=lambda node: _rank(partition, node, node.quality))
            found = self._orders[partition] = tuple(node.number for node in nodes)
        return found

    def _order_by_weight(self, partition: int) -> tuple[int, ...]:
        if self._is_even:
            return self._order(partition)
        nodes = sorted(self._nodes.values(), key=lambda node: _rank(partition, node, FULL_QUALITY))
        return tuple(node.number for node in nodes)

    def _place(self, partition: int, count: int) -> tuple[int, ...]:
        """Plays the history of the layout: who enters takes the shard of who leaves, so all others keep theirs.

        Quality comes and goes without a place in that history: it counts in one last step.
        """
        steps = self._steps.get(count)
        if steps is None:
            steps = self._steps[count] = [_step(present, self._zones, count) for present in self._history]
        order = self._order_by_weight(partition)
        shards = [NOBODY] * count
        for step in steps:
            _replace(shards, self._choose(order, step, count))
        if not self._is_even:
            _replace(shards, self._choose(self._order(partition), steps[-1], count))
        turn = partition % count  # or the oldest nodes would hold the data shards of every chunk
        return tuple(shards[turn:] + shards[:turn])

    def _choose(self, order: tuple[int, ...], step: _Step, count: int) -> list[int]:
        """The first `count` of the nodes that are there, none from a zone that has given its share."""
        if not step.zone_max:
            return [number for number in order if number in step.present][:count]
        chosen: list[int] = []
        taken: Counter[str] = Counter()
        for number in order:
            if number in step.present and taken[self._zones[number]] < step.zone_max:
                taken[self._zones[number]] += 1
                chosen.append(number)
                if len(chosen) == count:
                    break
        return chosen


def _replace(shards: list[int], chosen: list[int]) -> None:
    """Those who were chosen newly take the shards of those who were not chosen again."""
    entering = [number for number in chosen if number not in shards]
    for shard, number in enumerate(shards):
        if number not in chosen:
            shards[shard] = entering.pop(0) if entering else NOBODY


def _rank(partition: int, node: LayoutNode, quality: int) -> tuple[bool, int, int]:
    weight = max(node.weight, 1) * max(quality, 1)
    return quality <= QUALITY_POOR, (lot(partition, node.number) << _SCALE_BITS) // weight, node.number


def _history(nodes: Iterable[LayoutNode]) -> list[frozenset[int]]:
    """Who could take data after each change: every node joins, then those leave that cannot take data now.

    A node that went and came back has never been away, so its shards are its own again.
    """
    changes = [(node.joined_epoch, 0, node.number) for node in nodes]
    changes += [(max(node.state_epoch, node.joined_epoch), 1, node.number) for node in nodes if not is_storage(node)]
    present: set[int] = set()
    history = []
    for _, leaves, number in sorted(changes):
        if leaves:
            present.discard(number)
        else:
            present.add(number)
        history.append(frozenset(present))
    return history


def _step(present: frozenset[int], zones: Mapping[int, str], count: int) -> _Step:
    """The smallest share with which the zones together give `count`: `ceil(count / zones)` where they can."""
    sizes = Counter(zones[number] for number in present)
    wanted = min(count, len(present))
    share = 1
    while sum(min(size, share) for size in sizes.values()) < wanted:
        share += 1
    return _Step(present, share if max(sizes.values(), default=0) > share else 0)
