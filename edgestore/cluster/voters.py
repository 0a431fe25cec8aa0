"""Who votes: as many as the tolerance asks, spread over zones, changed one step at a time. Pure.

Rule: a voter is dropped only when it can never come back (removed, in quarantine), or when somebody is ready to take
the place of one that drains or has been down for long; so a change never lowers what the site survives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgestore.placement import default_tolerance
from edgestore.records import NodeRecord, NodeState

VOTERS_MAX = 5
STEPS = (1, 2, 3, 5)


def voters_wanted(nodes: Sequence[NodeRecord], tolerate: int | None) -> int:
    """2t + 1, at least three where there are three, and never an even number above two."""
    staying = [node for node in nodes if _may_stay(node)]
    storage = sum(not node.witness for node in staying)
    wished = 2 * (default_tolerance(storage) if tolerate is None else tolerate) + 1
    wanted = min(VOTERS_MAX, max(3, wished), len(staying))
    return wanted if wanted <= 2 or wanted % 2 else wanted - 1


def next_voters(
    nodes: Sequence[NodeRecord],
    current: Sequence[str],
    *,
    tolerate: int | None,
    ready: Collection[str],
    lost: Collection[str],
) -> tuple[str, ...]:
    """The next step from `current`, which is returned where nothing is to be done.

    `ready`: members that have long been reachable and know the log; `lost`: voters that have been down for too long.
    """
    by_member = {node.member: node for node in nodes}
    wanted = voters_wanted(nodes, tolerate)
    gone = [member for member in current if not _may_stay(by_member.get(member))]
    staying = [by_member[member] for member in current if member not in gone]
    candidates = [node for node in nodes if node.member in ready and node.state is NodeState.UP]
    candidates = [node for node in candidates if node.member not in current]
    if gone:
        kept = _filled(staying, candidates, min(len(current), wanted))
        return tuple(current) if not kept else _named(kept)
    if len(staying) < wanted:
        size = next(step for step in STEPS if step > len(staying))
        grown = _filled(staying, candidates, min(size, wanted))
        return _named(grown) if len(grown) == min(size, wanted) else tuple(current)
    absent = [node for node in staying if node.member in lost or node.state is NodeState.DRAINING]
    if absent and candidates:
        return _named(_filled([node for node in staying if node is not absent[0]], candidates, len(staying)))
    if len(staying) > wanted > 0:
        return _named(_shrunk(staying, wanted))
    return tuple(current)


def _may_stay(node: NodeRecord | None) -> bool:
    return node is not None and node.state in (NodeState.UP, NodeState.DOWN, NodeState.DRAINING)


def _filled(staying: Sequence[NodeRecord], candidates: Sequence[NodeRecord], size: int) -> list[NodeRecord]:
    """Adds the best candidates: a witness first (it is there to vote), then new zones, then quality."""
    chosen, left = list(staying), list(candidates)
    if len(chosen) > size:
        return _shrunk(chosen, size)
    while left and len(chosen) < size:
        zones = {_zone(node) for node in chosen}
        best = min(left, key=lambda node: (not node.witness, _zone(node) in zones, -node.quality, node.number))
        chosen.append(best)
        left.remove(best)
    return chosen if len(chosen) % 2 or len(chosen) <= 2 else _shrunk(chosen, len(chosen) - 1)


def _shrunk(voters: Sequence[NodeRecord], size: int) -> list[NodeRecord]:
    """Drops the worst: those that are down, then those whose zone has another voter, then the youngest."""
    kept = list(voters)
    while len(kept) > size:
        zones = [_zone(node) for node in kept]
        worst = max(
            kept,
            key=lambda node: (
                node.state is not NodeState.UP,
                not node.witness,
                zones.count(_zone(node)),
                -node.quality,
                node.number,
            ),
        )
        kept.remove(worst)
    return kept


def _zone(node: NodeRecord) -> str:
    return node.zone or f"node {node.number}"


def _named(nodes: Sequence[NodeRecord]) -> tuple[str, ...]:
    return tuple(node.member for node in nodes)
