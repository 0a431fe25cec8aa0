"""Makes extents whole again, moves them to where they belong, and encodes anew what should have another scheme.

Rule: an extent has one coordinator at a time by agreement alone (a lot among the live nodes); commands name the
generation and revision that they were made for, so two of them do no harm. Nothing is remembered: a node that was
killed finds what is left, and what has been moved is where it is.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import xxhash

from edgestore.catalog import commands
from edgestore.chunks.assess import Assessor, Finding, Need, SiteFacts
from edgestore.chunks.facts import Source, sources_of
from edgestore.chunks.mover import Mover
from edgestore.chunks.reencode import Reencoder
from edgestore.chunks.removal import Loss, loss_without
from edgestore.chunks.site_store import SiteStore
from edgestore.chunks.survey import Progress, SiteCatalog, Survey
from edgestore.config import RepairConfig
from edgestore.errors import Corrupt, EdgeStoreError, NotFound, StaleExtent, Unavailable, is_refusal
from edgestore.observe import Metrics
from edgestore.placement import NOBODY
from edgestore.records import ExtentRecord

log = logging.getLogger("edgestore.chunks")

RETRY_MIN_S = 1.0
ASSESSOR_AGE_S = 0.2
LATER_A_TURN = 256
LAST_LOOKS = 4
"""So much oftener than else a node looks when hardly anything is left."""


_Name = tuple[int, bytes]
"""(tenant, extent id)"""


@dataclass(slots=True)
class _Later:
    """An extent that could not be mended."""

    at_s: float
    wait_s: float


class Repair:
    """One node's share of the work. `whole`: called when a survey found everything in its place."""

    def __init__(
        self,
        catalog: SiteCatalog,
        site: SiteStore,
        mover: Mover,
        config: RepairConfig,
        metrics: Metrics,
        *,
        copies_max_bytes: int,
    ) -> None:
        self._catalog, self._site, self._mover, self._config, self._metrics = catalog, site, mover, config, metrics
        self._copies_max_bytes = copies_max_bytes
        self._loop = asyncio.get_running_loop()
        self._reencoder = Reencoder(site, mover, config)
        self._fragments = asyncio.Semaphore(config.fragments_in_flight)
        self._line: list[tuple[int, int, int, _Name]] = []
        self._in_line: set[_Name] = set()
        self._later: dict[_Name, _Later] = {}
        self._wanted_back: set[_Name] = set()
        self._arrivals = self._workers = 0
        self._after = b""
        self._assessor: Assessor | None = None
        self._assessed_s = 0.0
        self._policies: dict[int, tuple[int | None, str]] = {}
        self._compares_policies = True
        self._survey = Survey(catalog, config, self._found)
        self._woken = asyncio.Event()
        self.whole: Callable[[], None] = lambda: None

    @property
    def progress(self) -> Progress:
        """How far the site is from whole, as this node knows."""
        return self._survey.report(self.assessor())

    async def loss_without(self, number: int) -> Loss:
        """What could not be read any more if the node were removed now."""
        assessor, sites = self.assessor(), self._site.sites
        silent = frozenset(node for node in assessor.counted if sites.is_suspected(node))
        return await loss_without(number, self._catalog, assessor, silent, self._config.page_extents)

    def buckets_changed(self) -> None:
        """What they promise may be another now: then a survey is due."""
        self._compares_policies = True
        self._assessor = None

    def layout_changed(self) -> None:
        """Something may have to be made anew: who waits for redundancy does not wait for the next interval too."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled: looks for work at intervals, while as many as may be mend what stands in line."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._look()
                except EdgeStoreError as error:
                    log.info("repair-postponed error=%s", error)
                except Exception:
                    self._metrics.count("repair_failures_total")
                    log.exception("repair-failed")
                while self._line and self._workers < self._config.extents_in_flight:
                    self._workers += 1
                    group.create_task(self._work())
                await self._pause()

    async def _pause(self) -> None:
        """Until there may be something to see."""
        if self._survey.is_under_way:
            await asyncio.sleep(0)
            return
        wait_s = self._config.interval_ms / (1000 * (LAST_LOOKS if self._survey.is_near_end else 1))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        self._woken.clear()

    async def _look(self) -> None:
        """For what is to be done, the most urgent first."""
        if self._site.is_lone:
            return
        self._assessor = None
        if self._compares_policies:
            self._compare_policies()
        self._look_at_degraded()
        self._look_at_later()
        await self._survey.look_at_left(self.assessor)
        if self._survey.needs(self.assessor()) or (self._survey.was_cut and not self._line):
            ended = await self._survey.advance(self.assessor)
            if ended and self._survey.progress.extents_left == 0:
                self.whole()

    def _compare_policies(self) -> None:
        """A bucket more or less is no reason to look at every extent."""
        self._compares_policies = False
        buckets = self._catalog.state.buckets()
        policies = {
            one.bucket_id: (one.tolerate, one.scheme) for one in buckets if one.scheme or one.tolerate is not None
        }
        if policies != self._policies:
            self._policies, self._survey.is_due = policies, True

    # --- finding work -------------------------------------------------------------------------------------

    def assessor(self) -> Assessor:
        """By the newest layout and the time; a fifth of a second old at most."""
        now_s = self._loop.time()
        layout = self._site.sites.layout()
        if self._assessor is None or self._assessor.layout is not layout or now_s - self._assessed_s > ASSESSOR_AGE_S:
            state = self._catalog.state
            facts = SiteFacts(state.nodes(), state.settings(), self._catalog.log_time_ms())
            sites, self._assessed_s = self._site.sites, now_s
            self._assessor = Assessor(
                layout, sites.placements, state.bucket_by_id, facts, self._config, self._copies_max_bytes
            )
        return self._assessor

    def _look_at_degraded(self) -> None:
        """The next page of what is known to be incomplete: found within a turn."""
        rows = self._catalog.state.degraded(self._config.page_extents, self._after)
        for tenant, extent in rows:
            self._found(tenant, extent, self.assessor().judge(extent))
        self._after = rows[-1][1].extent_id if len(rows) == self._config.page_extents else b""

    def _look_at_later(self) -> None:
        """Some of those whose time has come. What others have mended, or what is others' by now, is forgotten."""
        now_s = self._loop.time()
        due = (name for name, later in self._later.items() if later.at_s <= now_s and name not in self._in_line)
        for name in list(islice(due, LATER_A_TURN)):
            extent = self._catalog.state.extent(*name)
            if extent is None or not self._found(name[0], extent, self.assessor().judge(extent)):
                del self._later[name]

    def _found(self, tenant: int, extent: ExtentRecord, finding: Finding) -> bool:
        """Into the line, where it is this node's to do and can be done, as is returned; the most urgent first."""
        if finding.need not in (Need.PLACE, Need.ENCODE):
            return False
        if self.coordinator(extent.extent_id) != self._site.sites.own_number:
            return False
        self._line_up((tenant, extent.extent_id), finding)
        return True

    def claim(self, tenant: int, extent: ExtentRecord) -> None:
        """This node has what the record names nowhere, or on a node that does not count: it says so, whoever the
        coordinator is."""
        if self._line_up((tenant, extent.extent_id), self.assessor().judge(extent)):
            self._wanted_back.add((tenant, extent.extent_id))

    def take_back(self, tenant: int, extent: ExtentRecord) -> None:
        """This node has what others made anew while it was away, and it would be its own under the newest layout: where
        the extent is whole, it becomes so again, and hardly a byte moves."""
        finding = self.assessor().judge(extent)
        if finding.need is Need.NOTHING and self._line_up((tenant, extent.extent_id), finding):
            self._wanted_back.add((tenant, extent.extent_id))

    def _line_up(self, name: _Name, finding: Finding) -> bool:
        later = self._later.get(name)
        if name in self._in_line or (later is not None and later.at_s > self._loop.time()):
            return False
        if len(self._line) >= self._config.queue_max:
            self._survey.was_cut = True
            return False
        self._arrivals += 1
        self._in_line.add(name)
        # A loss that comes next first; what has come back last.
        heapq.heappush(self._line, (finding.margin, finding.need or len(Need), self._arrivals, name))
        return True

    def coordinator(self, name: bytes) -> int:
        """Whose it is: the live node with the lowest lot. Nodes that disagree only do the work twice."""
        sites = self._site.sites
        live = [node for node in self.assessor().live if not sites.is_suspected(node)]
        return min(live, key=lambda node: (_lot(name, node), node), default=NOBODY)

    # --- doing it --------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Until the line is empty."""
        try:
            while self._line:
                name = heapq.heappop(self._line)[-1]
                await self._attempt(name)
                self._in_line.discard(name)
                self._wanted_back.discard(name)
        finally:
            self._workers -= 1

    async def _attempt(self, name: _Name) -> None:
        try:
            await self._mend(name)
        except EdgeStoreError as error:
            self._put_off(name, error)
        except Exception as error:
            log.exception("repair-failed extent=%s", name[1].hex())
            self._put_off(name, error)
        else:
            self._later.pop(name, None)

    def _put_off(self, name: _Name, error: Exception) -> None:
        self._metrics.count("repair_failures_total")
        known = self._later.pop(name, None)
        wait_s = min(2 * known.wait_s, self._config.retry_max_s) if known is not None else RETRY_MIN_S
        level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        log.log(level, "extent-not-mended extent=%s error=%s again_s=%d", name[1].hex(), error, wait_s)
        if len(self._later) >= self._config.queue_max:
            self._survey.was_cut = True
            return
        self._later[name] = _Later(self._loop.time() + wait_s, wait_s)

    async def _mend(self, name: _Name) -> None:
        """As the extent is now."""
        tenant, extent_id = name
        extent = self._catalog.state.extent(tenant, extent_id)
        if extent is None:
            return
        assessor = self.assessor()
        finding = assessor.judge(extent)
        try:
            if finding.need is Need.ENCODE and finding.scheme is not None:
                await self._encode(tenant, extent, finding)
            elif finding.need is Need.PLACE:
                if not await self._place(tenant, extent, assessor):
                    return
            elif finding.need is Need.NOTHING and name in self._wanted_back:
                await self._place(tenant, extent, assessor)
                return
            else:
                if name in self._wanted_back:
                    await self._claim(tenant, extent, assessor)
                return
        except (StaleExtent, NotFound):
            return  # it went or was changed meanwhile, by an equal of this node: the next look sees how it is
        self._survey.mended(tenant, extent)
        self._metrics.count("repair_extents_total")

    async def _encode(self, tenant: int, extent: ExtentRecord, finding: Finding) -> None:
        assert finding.scheme is not None
        placed = await self._reencoder.write(extent, finding.scheme)
        try:
            await self._catalog.propose(tenant, self._reencoder.command(tenant, extent, placed))
        except EdgeStoreError as error:
            if is_refusal(error):
                self._reencoder.drop(placed)
            else:
                self._reencoder.settle(placed)
            raise
        self._reencoder.settle(placed)

    async def _place(self, tenant: int, extent: ExtentRecord, assessor: Assessor) -> bool:
        """Every fragment to its owner under the newest layout, and then says so; False where that is left to the next
        look. What could not be moved stays named where it was, also on a node that is down: it may come back with it.
        """
        if await self._claim(tenant, extent, assessor):
            return False  # the next look moves on, with what is named by then
        holders = assessor.holders(extent)
        moved, failures = await self._move(sources_of(extent), holders, assessor)
        now = self._catalog.state.extent(tenant, extent.extent_id)
        if now is None or (now.generation, now.revision) != (extent.generation, extent.revision):
            return False
        if moved or not failures:
            await self._publish(tenant, extent, holders, assessor)
        if failures:
            raise failures[0]
        return True

    async def _claim(self, tenant: int, extent: ExtentRecord, assessor: Assessor) -> bool:
        """Says what lies here and counts for nothing yet, if anything does: it may be what a move lacks."""
        own, found = self._site.sites.own_number, False
        if own not in assessor.counted:
            return False
        holders = assessor.holders(extent)
        for chunk, row in zip(extent.chunks, holders, strict=True):
            for shard in [shard for shard, holder in enumerate(row) if assessor.is_up_for_claim(holder)]:
                if await self._site.local.keeps(chunk.chunk_id, extent.k, extent.m, shard):
                    row[shard], found = own, True
        if found:
            await self._publish(tenant, extent, holders, assessor)
        return found

    async def _publish(self, tenant: int, extent: ExtentRecord, holders: list[list[int]], assessor: Assessor) -> None:
        """Where the fragments are, by the newest layout."""
        found = {
            (position, shard): node
            for position, row in enumerate(holders)
            for shard, node in enumerate(row)
            if node in assessor.holding
        }
        newest = assessor.newest
        places = newest.places([chunk.chunk_id for chunk in extent.chunks], extent.k + extent.m, found)
        exceptions, missing, epoch = places.exceptions, places.missing, newest.epoch
        if (extent.layout_epoch, extent.exceptions, extent.missing) != (epoch, exceptions, missing):
            command = commands.PlaceExtent(
                tenant, extent.extent_id, extent.generation, extent.revision, epoch, exceptions, missing
            )
            await self._catalog.propose(tenant, command)

    async def _move(
        self, sources: list[Source], holders: list[list[int]], assessor: Assessor
    ) -> tuple[int, list[EdgeStoreError]]:
        """Has owners fetch what they lack, and notes in `holders` what they have confirmed. Returns how many, and what
        failed."""
        moves = deque(
            (position, shard, owner)
            for position, row in enumerate(holders)
            for shard, owner in enumerate(assessor.newest.owners(sources[position].chunk.chunk_id, len(row)))
            if owner not in (NOBODY, row[shard]) or (owner != NOBODY and owner not in assessor.counted)
        )
        moved: list[int] = []
        failures: list[EdgeStoreError] = []
        given_up: set[int] = set()

        async def worker() -> None:
            while moves:
                position, shard, owner = moves.popleft()
                if owner in given_up:
                    continue
                try:
                    async with self._fragments:
                        await self._mover.bring(sources[position], shard, owner)
                except EdgeStoreError as error:
                    failures.append(error)
                    if not isinstance(error, Corrupt):
                        given_up.add(owner)
                else:
                    holders[position][shard] = owner
                    moved.append(owner)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(moves), self._config.fragments_in_flight)):
                group.create_task(worker())
        return len(moved), failures


def _lot(name: bytes, node: int) -> int:
    return xxhash.xxh3_64_intdigest(name + node.to_bytes(4, "big"))
