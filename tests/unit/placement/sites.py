"""Layouts for tests, and how much moves between two of them."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from edgestore.placement import PARTITIONS, Placement
from edgestore.records import LayoutNode, LayoutRecord, NodeState


def site(*weights: int, zones: str = "") -> LayoutRecord:
    """Nodes 1, 2, ... joined one after another; `zones`: one letter a node."""
    nodes = [
        LayoutNode(number, weight, zones[number - 1 : number], NodeState.UP, joined_epoch=number, state_epoch=number)
        for number, weight in enumerate(weights, 1)
    ]
    return LayoutRecord(len(nodes), tuple(nodes), len(nodes))


def joined(layout: LayoutRecord, weight: int, zone: str = "") -> LayoutRecord:
    """One node more."""
    epoch, number = layout.epoch + 1, len(layout.nodes) + 1
    node = LayoutNode(number, weight, zone, NodeState.UP, joined_epoch=epoch, state_epoch=epoch)
    return LayoutRecord(epoch, (*layout.nodes, node), epoch)


def turned(layout: LayoutRecord, number: int, state: NodeState) -> LayoutRecord:
    """One node in another state."""
    epoch = layout.epoch + 1
    nodes = tuple(
        replace(node, state=state, state_epoch=epoch) if node.number == number else node for node in layout.nodes
    )
    return replace(layout, epoch=epoch, nodes=nodes)


def changed(layout: LayoutRecord, number: int, **fields: int) -> LayoutRecord:
    """One node with another weight or quality."""
    nodes = tuple(replace(node, **fields) if node.number == number else node for node in layout.nodes)
    return replace(layout, epoch=layout.epoch + 1, nodes=nodes)


@lru_cache(4)
def placement(layout: LayoutRecord) -> Placement:
    """One for all questions about a layout."""
    return Placement(layout)


def moved(before: LayoutRecord, after: LayoutRecord, count: int) -> float:
    """The share of all fragments whose node is another one."""
    old, new = placement(before), placement(after)
    pairs = (
        pair
        for partition in range(PARTITIONS)
        for pair in zip(old.owners_of(partition, count), new.owners_of(partition, count), strict=True)
    )
    return sum(one != other for one, other in pairs) / (PARTITIONS * count)


def least(before: LayoutRecord, after: LayoutRecord, count: int) -> float:
    """What must move, whatever shard goes where: fragments of nodes that own nothing of the chunk any more."""
    old, new = placement(before), placement(after)
    gone = (
        len(set(old.owners_of(partition, count)) - set(new.owners_of(partition, count)))
        for partition in range(PARTITIONS)
    )
    return sum(gone) / (PARTITIONS * count)
