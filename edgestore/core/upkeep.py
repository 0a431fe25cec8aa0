"""What keeps the chunks of a site whole, on one of its nodes: repair, tidying, and reclaim in step with the others."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from edgestore.catalog import Table
from edgestore.chunks import UNKNOWN, Clients, Loss, Mover, Progress, Repair, SiteStore, Tidier
from edgestore.cluster import Detector
from edgestore.net import Peers
from edgestore.records import NodeState

if TYPE_CHECKING:
    from edgestore.core.opening import Core

_PRESENT = (NodeState.UP, NodeState.DRAINING)


class Upkeep:
    """Of one core, which has met the others."""

    def __init__(self, core: Core, site: SiteStore, peers: Peers, detector: Detector) -> None:
        self._core, self._detector = core, detector
        config, metrics, chunks = core.config.repair, core.metrics, core.chunks
        clients = Clients(lambda: chunks.pool.is_short or site.slabs.budget.is_short, detector.are_clients_served)
        mover = Mover(site, peers, config, metrics, clients)
        self._repair = repair = Repair(
            core.meta, site, mover, config, metrics, copies_max_bytes=core.config.chunks.copies_max_bytes
        )
        self._tidier = Tidier(core.meta, site, mover, core.segments, config, metrics, repair=repair, floor=self._floor)
        repair.whole = self._tidier.look_again
        core.reclaimer.join_site(self._floor, lambda name: repair.coordinator(name) == site.sites.own_number)
        core.meta.watch((Table.BUCKET_NAMES,), lambda _: repair.buckets_changed())
        core.meta.watch((Table.LAYOUTS,), lambda _: repair.layout_changed())
        metrics.watch("repair_extents_waiting", lambda: float(repair.progress.extents_left))
        metrics.watch("repair_left_bytes", lambda: float(repair.progress.bytes_left))

    @property
    def progress(self) -> Progress:
        """How far the site is from whole."""
        return self._repair.progress

    async def loss_without(self, number: int) -> Loss:
        """What the removal of a node would cost."""
        return await self._repair.loss_without(number)

    @property
    def margin(self) -> int:
        """How many more fragments the worst chunk of the site may lose; below 0 also while that is not known."""
        progress = self._repair.progress
        return progress.margin if progress.is_current else UNKNOWN

    def housekeeping(self) -> list[Coroutine[Any, Any, None]]:
        """What runs for as long as the node does."""
        return [self._repair.run(), self._tidier.run()]

    def _floor(self) -> int:
        """What was true at this index every reader of the site knows (rule 6): no pin of any node is older."""
        nodes = self._core.meta.state.nodes()
        return self._detector.pin_floor_index(node.member for node in nodes if node.state in _PRESENT)
