"""How many data and parity fragments: from the number of nodes, and what the site or the bucket was promised.

Rule: the tolerance comes from the nodes that the site has, the scheme from those that are up: so a site that lost one
goes on at the same tolerance where enough are left, and refuses where not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgestore.errors import BadRequest, Unavailable
from edgestore.placement.owners import QUALITY_POOR, is_storage
from edgestore.records import BucketRecord, LayoutRecord, NodeState, SiteSettings

DATA_FRAGMENTS_MAX = 16
FRAGMENTS_MAX = 24
TOLERATE_MAX = 4
_DATA_FRAGMENTS = 4
"""More spread a small chunk thin: each read of a unit that is lost needs k others."""
_SCHEME = re.compile(r"([1-9][0-9]?)\+([0-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class Scheme:
    """k data and m parity fragments a chunk, acknowledged when k + t of them are durable."""

    k: int
    m: int
    t: int

    @property
    def count(self) -> int:
        """All fragments of a chunk."""
        return self.k + self.m

    @property
    def needed(self) -> int:
        """So many must be durable before the write is acknowledged (rule 1)."""
        return self.k + self.t

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"


def default_tolerance(storage_nodes: int) -> int:
    """How many deaths a site of so many storage nodes survives if nobody asks for another number."""
    return 0 if storage_nodes < 2 else 1 if storage_nodes < 5 else 2


def default_scheme(live_storage_nodes: int, tolerate: int | None = None) -> Scheme:
    """What so many live nodes can hold at a tolerance. Raises Unavailable where they are too few."""
    tolerate = default_tolerance(live_storage_nodes) if tolerate is None else tolerate
    if live_storage_nodes < tolerate + 1:
        raise Unavailable(
            f"{live_storage_nodes} storage nodes are up, and to tolerate the loss of {tolerate} it takes "
            f"{tolerate + 1}: bring one back, or lower what is tolerated",
            live=live_storage_nodes,
            tolerate=tolerate,
        )
    parity = max(tolerate, 2) if live_storage_nodes >= 4 and tolerate else tolerate
    parity = min(parity, live_storage_nodes - 1)
    data = min(_DATA_FRAGMENTS, live_storage_nodes - parity) if tolerate else 1
    return Scheme(data, parity, tolerate)


def copies_for(tolerate: int) -> Scheme:
    """For small bodies: whole copies at the same tolerance."""
    return Scheme(1, tolerate, tolerate)


def parse_scheme(text: str, tolerate: int | None = None) -> Scheme:
    """`k+m`. Raises BadRequest, also where it does not hold the tolerance (None: as much as m allows, at most 2)."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise BadRequest(f"a scheme is written k+m, as 4+2, and not {text!r}", scheme=text)
    k, m = int(match[1]), int(match[2])
    if k > DATA_FRAGMENTS_MAX or k + m > FRAGMENTS_MAX:
        raise BadRequest(f"a scheme has at most {DATA_FRAGMENTS_MAX} data fragments, and {FRAGMENTS_MAX} in all")
    tolerate = min(m, 2) if tolerate is None else tolerate
    if not 0 <= tolerate <= min(m, TOLERATE_MAX):
        raise BadRequest(f"{text} cannot tolerate the loss of {tolerate} nodes", scheme=text, tolerate=tolerate)
    return Scheme(k, m, tolerate)


def wanted_tolerance(bucket: BucketRecord | None, layout: LayoutRecord, settings: SiteSettings) -> int:
    """What a bucket is promised: its own wish, else the site's, else by the storage nodes that the site has."""
    if bucket is not None and bucket.tolerate is not None:
        return bucket.tolerate
    if settings.tolerate is not None:
        return settings.tolerate
    stays = (NodeState.UP, NodeState.DOWN)
    return default_tolerance(sum(node.state in stays and not node.witness for node in layout.nodes))


def scheme_for(bucket: BucketRecord | None, layout: LayoutRecord, settings: SiteSettings) -> Scheme:
    """The scheme of a new extent. Raises Unavailable where too few nodes are up for what was promised.

    A named scheme is used while so many nodes are up; with fewer, what they can hold at the same tolerance. Nodes of
    poor quality are passed over where the others suffice for the tolerance.
    """
    if not layout.nodes:
        return Scheme(1, 0, 0)
    tolerate = wanted_tolerance(bucket, layout, settings)
    live = [node for node in layout.nodes if is_storage(node)]
    good = sum(node.quality > QUALITY_POOR for node in live)
    usable = good if good > tolerate else len(live)
    named = (bucket.scheme if bucket is not None else "") or settings.scheme
    if named:
        limit = parse_scheme(named)
        scheme = parse_scheme(named, min(tolerate, limit.m))
        if scheme.count <= usable:
            return scheme
    return default_scheme(usable, tolerate)
