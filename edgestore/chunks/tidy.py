"""Compares what this disk holds with what it should hold: damaged and missing fragments are made anew, others go.

Rule: a fragment goes only when its extent names another node that has it, no newer layout gives it back, no reader of
the site can have an older view, and nobody has asked for it since.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from edgestore.chunks.facts import Source, sources_of
from edgestore.chunks.mover import Mover
from edgestore.chunks.repair import Repair
from edgestore.chunks.shelf import Departure
from edgestore.chunks.site_store import SiteStore
from edgestore.chunks.survey import SiteCatalog
from edgestore.config import RepairConfig
from edgestore.disk import Segments
from edgestore.errors import Corrupt, EdgeStoreError
from edgestore.observe import Metrics
from edgestore.placement import NOBODY
from edgestore.records import ExtentRecord

log = logging.getLogger("edgestore.chunks")

EXTENTS_KEPT = 8
CHUNKS_A_STEP = 64
DAMAGED_AGAIN_S = 30.0
DAMAGED_A_TURN = 64
CLAIMS_A_TURN = 256

_Name = tuple[bytes, int]
"""(chunk id, shard)"""


@dataclass(frozen=True, slots=True)
class _Stray:
    """A fragment of an extent that lies here and should not. `is_ours`: it should, under the newest layout."""

    tenant: int
    extent: ExtentRecord
    is_ours: bool


class _Extents:
    """The last few extents by their chunks: chunks lie on the disk in the order of their ids, as in their extents."""

    def __init__(self, catalog: SiteCatalog) -> None:
        self._catalog = catalog
        self._kept: OrderedDict[bytes, tuple[int, ExtentRecord, dict[bytes, int]]] = OrderedDict()

    def of(self, chunk_id: bytes) -> tuple[int, ExtentRecord, int] | None:
        """(tenant, extent, position of the chunk); None where nothing names it."""
        for tenant, extent, positions in self._kept.values():
            if chunk_id in positions:
                return tenant, extent, positions[chunk_id]
        found = self._catalog.state.extent_of_chunk(chunk_id)
        if found is None:
            return None
        tenant, extent = found
        positions = {chunk.chunk_id: position for position, chunk in enumerate(extent.chunks)}
        self._kept[extent.extent_id] = tenant, extent, positions
        if len(self._kept) > EXTENTS_KEPT:
            self._kept.popitem(last=False)
        return (tenant, extent, positions[chunk_id]) if chunk_id in positions else None

    def forget(self) -> None:
        """The catalog may have changed."""
        self._kept.clear()


class Tidier:
    """Of one node. `floor`: what the site's readers see is at least so new (an index)."""

    def __init__(
        self,
        catalog: SiteCatalog,
        site: SiteStore,
        mover: Mover,
        segments: Segments,
        config: RepairConfig,
        metrics: Metrics,
        *,
        repair: Repair,
        floor: Callable[[], int],
    ) -> None:
        self._catalog, self._site, self._mover, self._segments = catalog, site, mover, segments
        self._config, self._metrics, self._repair, self._floor = config, metrics, repair, floor
        self._assessor = repair.assessor
        self._loop = asyncio.get_running_loop()
        self._extents = _Extents(catalog)
        self._tried: dict[_Name, float] = {}
        self._unclaimed: dict[_Name, None] = {}
        self._next_s = self._loop.time()
        self._seen: object = None

    @property
    def _departing(self) -> dict[_Name, Departure]:
        return self._site.local.departing

    def look_again(self) -> None:
        """Everything is in its place: what is left where it was may go. Once for each layout."""
        seen = self._site.sites.layout()
        if self._seen != seen:
            self._seen, self._next_s = seen, self._loop.time()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.turn()
            except EdgeStoreError as error:
                log.info("tidying-postponed error=%s", error)
            except Exception:
                self._metrics.count("repair_failures_total")
                log.exception("tidying-failed")
            await asyncio.sleep(self._config.interval_ms / 1000)

    async def turn(self) -> None:
        """What is due."""
        if self._site.is_lone:
            return
        await self.mend_damaged()
        if self._loop.time() >= self._next_s:
            await self._catalog.read_barrier()
            self._next_s = self._loop.time() + self._config.tidy_interval_s
            await self.look_for_strays()
            await self.look_for_gaps()
        if self._unclaimed:
            self.claim()
        if self._departing:
            await self.depart()

    # --- fragments that are not as they should be --------------------------------------------------------------

    async def mend_damaged(self) -> None:
        """What scrub and readers have found. No command: the extent says already that it is here."""
        names = [name for name in self._segments.damaged_fragments() if self._is_time(name)]
        for chunk_id, shard in names[:DAMAGED_A_TURN]:
            found = self._catalog.state.extent_of_chunk(chunk_id)
            if found is None:
                continue  # the sweep takes it
            extent = found[1]
            position = next(at for at, chunk in enumerate(extent.chunks) if chunk.chunk_id == chunk_id)
            if self._holder(extent, position, shard) == self._site.sites.own_number:
                await self._rebuild(sources_of(extent, position, position + 1)[0], shard)

    def _is_time(self, name: _Name) -> bool:
        now_s = self._loop.time()
        if len(self._tried) > self._config.queue_max:
            self._tried.clear()
        return self._tried.get(name, now_s) <= now_s

    async def _rebuild(self, source: Source, shard: int) -> None:
        name = (source.chunk.chunk_id, shard)
        if source.count == 1:
            self._tried[name] = self._loop.time() + self._config.tidy_interval_s
            return  # there are no others
        try:
            await self._mover.rebuild(source, shard)
        except EdgeStoreError as error:
            self._tried[name] = self._loop.time() + DAMAGED_AGAIN_S
            self._metrics.count("repair_failures_total")
            log.warning("fragment-not-rebuilt chunk=%s shard=%d error=%s", name[0].hex(), shard, error)
        else:
            self._tried.pop(name, None)
            log.info("fragment-rebuilt chunk=%s shard=%d", name[0].hex(), shard)

    def _holder(self, extent: ExtentRecord, position: int, shard: int) -> int:
        """Who has a fragment, as the extent says."""
        if not 0 <= shard < extent.k + extent.m:
            return NOBODY
        for at, one, node in extent.exceptions:
            if (at, one) == (position, shard):
                return node
        if (position, shard) in extent.missing:
            return NOBODY
        placement = self._assessor().placement_of(extent)
        return placement.owners(extent.chunks[position].chunk_id, extent.k + extent.m)[shard]

    async def look_for_gaps(self) -> None:
        """Fragments that should be here and are not: of a segment that was lost, say."""
        after = b""
        while True:
            page = self._catalog.state.all_extents(after, self._config.page_extents)
            for _, extent in page.extents:
                for position, shard in self._lacking(extent):
                    await self._rebuild(sources_of(extent, position, position + 1)[0], shard)
            after = page.after
            if not after:
                return
            await asyncio.sleep(0)

    def _lacking(self, extent: ExtentRecord) -> list[tuple[int, int]]:
        """(position, shard) of what is this node's and not here."""
        own, found = self._site.sites.own_number, []
        for position, row in enumerate(self._assessor().holders(extent)):
            if own in row:
                here = self._segments.shards(extent.chunks[position].chunk_id)
                found += [(position, shard) for shard, holder in enumerate(row) if holder == own and shard not in here]
        return found

    # --- fragments that belong elsewhere --------------------------------------------------------------------------

    async def look_for_strays(self) -> None:
        """Notes what belongs elsewhere; it goes later, if that stays so."""
        self._extents.forget()
        for turn, (chunk_id, shard) in enumerate(self._fragments()):
            if len(self._departing) >= self._config.departing_max:
                self._next_s = min(self._next_s, self._loop.time() + self._config.tidy_wait_s)
                return
            if (chunk_id, shard) not in self._departing:
                self._look_at(chunk_id, shard)
            if turn % CHUNKS_A_STEP == 0:
                self._extents.forget()
                await asyncio.sleep(0)

    def _look_at(self, chunk_id: bytes, shard: int) -> None:
        if self._claimable(chunk_id, shard) is not None and len(self._unclaimed) < self._config.departing_max:
            self._unclaimed[chunk_id, shard] = None
        stray = self._stray(chunk_id, shard)
        if stray is None:
            return
        if stray.is_ours:
            self._repair.take_back(stray.tenant, stray.extent)
        else:
            self._departing[chunk_id, shard] = Departure(self._catalog.applied_index, self._loop.time())

    def _fragments(self) -> Iterator[_Name]:
        last = b""
        for chunk_id in self._segments.chunk_ids():
            if chunk_id != last:
                last = chunk_id
                for shard in self._segments.shards(chunk_id):
                    yield chunk_id, shard

    def _stray(self, chunk_id: bytes, shard: int) -> _Stray | None:
        """A fragment that another node has in this one's place. None where nothing names the chunk: the sweep has it
        condemned."""
        found = self._extents.of(chunk_id)
        if found is None:
            return None
        tenant, extent, position = found
        own, assessor = self._site.sites.own_number, self._assessor()
        holder = self._holder(extent, position, shard)
        if holder in (own, NOBODY) or holder not in assessor.counted:
            return None
        return _Stray(tenant, extent, assessor.newest.owners(chunk_id, extent.k + extent.m)[shard] == own)

    def _claimable(self, chunk_id: bytes, shard: int) -> tuple[int, ExtentRecord] | None:
        """The extent of a fragment that its record names on no node that counts, and that is here and whole."""
        found = self._extents.of(chunk_id)
        if found is None or self._segments.is_damaged(chunk_id, shard):
            return None
        tenant, extent, position = found
        is_shard = 0 <= shard < extent.k + extent.m
        holder = self._holder(extent, position, shard)
        is_free = is_shard and holder != self._site.sites.own_number and self._assessor().is_up_for_claim(holder)
        return (tenant, extent) if is_free else None

    def claim(self) -> None:
        """What was found and would be lost: said as soon as this node counts, again until it is said or needless."""
        if self._site.sites.own_number not in self._assessor().counted:
            return
        self._extents.forget()
        for name in list(islice(self._unclaimed, CLAIMS_A_TURN)):
            del self._unclaimed[name]
            found = self._claimable(*name)
            if found is not None:
                self._repair.claim(*found)
                self._unclaimed[name] = None  # behind the others

    async def depart(self) -> None:
        """Deletes what has belonged elsewhere for long enough, and still does."""
        floor, before_s = self._floor(), self._loop.time() - self._config.tidy_wait_s
        ripe = [name for name, one in self._departing.items() if one.index <= floor and one.since_s <= before_s]
        if not ripe:
            return
        await self._catalog.read_barrier()
        for turn, name in enumerate(ripe):
            if turn % CHUNKS_A_STEP == 0:
                self._extents.forget()
                await asyncio.sleep(0)
            if self._departing.pop(name, None) is None:
                continue  # somebody has asked for it
            # Nothing is awaited between the look and the deed.
            try:
                stray = self._stray(*name)
            except Corrupt:
                continue
            if stray is not None and not stray.is_ours:
                self._segments.delete(*name)
                self._metrics.count("repair_departed_total")
