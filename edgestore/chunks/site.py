"""What chunks know of the other nodes: who owns what, who is suspected, and who answered late a moment ago."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from edgestore.config import ChunksConfig
from edgestore.net import Outcome, Work
from edgestore.placement import Placement, Scheme
from edgestore.records import BucketRecord, LayoutRecord

LATENCIES_KEPT = 256
OVERTAKEN_MAX = 2
LATENCIES_A_LOOK = 16
"""The 95th percentile is taken anew after so many."""


class Sites(Protocol):
    """The site as its catalog and its failure detector know it; the node hands it in."""

    @property
    def own_number(self) -> int:
        """The number of this node."""
        ...

    def layout(self) -> LayoutRecord:
        """The newest layout that is applied here."""
        ...

    def placements(self, epoch: int) -> Sequence[Placement]:
        """Where fragments of an extent of this epoch are looked for, in this order, the newest last. That of the epoch
        itself may have retired; those between are not needed, for what is moved is published before it is dropped."""
        ...

    def scheme(self, bucket: BucketRecord | None) -> Scheme:
        """The scheme of a new extent under the newest layout. Raises Unavailable where too few nodes are up."""
        ...

    def member(self, number: int) -> str:
        """Whom to call for a node; empty where nobody knows it."""
        ...

    def is_suspected(self, number: int) -> bool:
        """Whether the failure detector doubts that the node answers."""
        ...

    def has_room(self) -> bool:
        """Whether a majority of the voters takes content: their journals hold every command."""
        ...

    def saw(self, number: int, work: Work, outcome: Outcome, seconds: float, size_bytes: int) -> None:
        """How a call to another node went: its quality is made of that."""
        ...


class Manners:
    """Which nodes are better not asked first, and after how long a read counts as late."""

    def __init__(self, sites: Sites, config: ChunksConfig) -> None:
        self._sites, self._config = sites, config
        self._loop = asyncio.get_running_loop()
        self._avoided: dict[int, float] = {}
        self._overtaken: dict[int, int] = {}
        self._slow: dict[int, float] = {}
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._since = 0
        self._late_s = config.hedge_max_ms / 1000
        self._hedges = 1.0

    def avoid(self, number: int) -> None:
        """The node did not do what it was asked in time."""
        if number != self._sites.own_number:
            self._avoided[number] = self._loop.time() + self._config.avoid_ms / 1000

    def trust(self, number: int) -> None:
        """The node answered in time."""
        self._avoided.pop(number, None)

    def avoids(self, number: int) -> bool:
        """Whether others are asked before this node."""
        if number in self._avoided and self._avoided[number] < self._loop.time():
            del self._avoided[number]
        return number in self._avoided or self._sites.is_suspected(number)

    def overtaken(self, number: int) -> None:
        """A read of the node was late, and the bytes came another way sooner. The second time in a row it is slow."""
        self._sites.saw(number, Work.READ, Outcome.FAILED, 0.0, 0)
        self._overtaken[number] = self._overtaken.get(number, 0) + 1
        if self._overtaken[number] >= OVERTAKEN_MAX:
            self._slow[number] = self._loop.time() + self._config.avoid_ms / 1000

    def is_slow(self, number: int) -> bool:
        """Whether reads go another way at once. It is tried again after `chunks.avoid_ms`."""
        if number in self._slow and self._slow[number] < self._loop.time():
            del self._slow[number]
        return number in self._slow or self.avoids(number)

    def answered(self, number: int, seconds: float) -> None:
        """A read of another node took so long."""
        self._overtaken.pop(number, None)
        self._slow.pop(number, None)
        self._latencies_s.append(seconds)
        self._since += 1
        if self._since >= LATENCIES_A_LOOK:
            self._since = 0
            ordered = sorted(self._latencies_s)
            late = ordered[len(ordered) * 19 // 20]
            self._late_s = min(max(late, self._config.hedge_min_ms / 1000), self._config.hedge_max_ms / 1000)

    @property
    def late_s(self) -> float:
        """Longer than 19 of 20 reads took lately."""
        return self._late_s

    @property
    def late_max_s(self) -> float:
        """After that long every read counts as late."""
        return self._config.hedge_max_ms / 1000

    def began(self) -> None:
        """A read begins: it earns its share of a hedge."""
        self._hedges = min(self._hedges + self._config.hedge_share, 16.0)

    def may_hedge(self) -> bool:
        """Takes one hedge of those that may be."""
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True
