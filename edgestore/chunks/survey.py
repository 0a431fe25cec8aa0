"""Looks at every extent of the site: what is to be done, and how far the site is from whole and from losing data.

Rule: every node looks for itself, a page of rows a turn, so its figures need nobody's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from edgestore.catalog import State, commands
from edgestore.chunks.assess import Assessor, Finding, Need
from edgestore.config import RepairConfig
from edgestore.records import ExtentRecord

SHARE_OF_TIME = 50
"""A survey that worked for a second is not repeated for so many, unless something happens."""
LOOK_AGAIN_S = 2.0
PAGES_A_TURN = 32
"""Then more urgent things have their turn."""
LEFT_PAGES_A_TURN = 8
UNKNOWN = -2
AT_WORK = (Need.PLACE, Need.ENCODE)
"""Somebody can do it now; else it waits for a node."""


@dataclass(slots=True)
class Progress:
    """By the last survey, less what this node has mended since. `margin`: how many more fragments the worst chunk may
    lose: 0, and the next loss is one of data; -1: one cannot be read now; `UNKNOWN` before the first survey."""

    extents_left: int = 0
    """Not whole, or not where they belong; those that wait for a node to come back too."""
    bytes_left: int = 0
    lost: int = 0
    """Extents of which too few fragments are there now."""
    margin: int = UNKNOWN
    extents: int = 0
    is_current: bool = False
    """Nothing has happened since that another survey would look at."""


class SiteCatalog(Protocol):
    """What repair and its survey need of the catalog (`Meta`)."""

    @property
    def state(self) -> State:
        """The applied state."""
        ...

    @property
    def applied_index(self) -> int:
        """What `state` contains."""
        ...

    def log_time_ms(self) -> int:
        """Log time now."""
        ...

    async def read_barrier(self) -> None:
        """`state` contains everything that was acknowledged before."""
        ...

    async def propose(self, tenant: int, command: commands.Command) -> Any:
        """Applied, or an error."""
        ...


class Survey:
    """Of one node. `found`: told of each extent that is not well.

    Most of what is not well is others' to mend, and nobody tells of it: what the last survey found is looked at again
    and again, a few pages a turn, and when all of it is well another survey says whether everything is.
    """

    def __init__(
        self, catalog: SiteCatalog, config: RepairConfig, found: Callable[[int, ExtentRecord, Finding], object]
    ) -> None:
        self._catalog, self._config, self._found = catalog, config, found
        self._loop = asyncio.get_running_loop()
        self._next_s = self._left_next_s = self._took_s = 0.0
        self._seen: object = None
        self._grounds: object = None
        self._counted: Progress | None = None
        self._after = b""
        self._left: dict[tuple[int, bytes], int] = {}
        """Bytes by (tenant, extent id): what the last survey found, as far as it can be remembered."""
        self._finding: dict[tuple[int, bytes], int] = {}
        """The same of the survey that is under way."""
        self.progress = Progress()
        self._is_any_at_work = False
        """Of what was looked at last something is not there only to wait."""
        self.is_due = True
        self.was_cut = False
        """More was found than could be remembered."""

    @property
    def is_under_way(self) -> bool:
        """Whether one has begun."""
        return self._counted is not None

    def needs(self, assessor: Assessor) -> bool:
        """Whether there is something to look at: it is time, or things are not as they were."""
        return self.is_under_way or self.is_due or self._loop.time() >= self._next_s or self._seen != assessor.grounds

    async def advance(self, assessor: Callable[[], Assessor]) -> bool:
        """A few pages more; True when that was the last. Where the grounds change meanwhile it begins anew."""
        for _ in range(PAGES_A_TURN):
            begun_s, judge = self._loop.time(), assessor()
            if self._counted is None or self._grounds != judge.grounds:
                self._counted, self._grounds, self._after = Progress(), judge.grounds, b""
                self._took_s, self._finding, self.is_due, self.was_cut = 0.0, {}, False, False
                self._is_any_at_work = False
            page = self._catalog.state.all_extents(self._after, self._config.page_extents)
            for tenant, extent in page.extents:
                self._count(self._counted, tenant, extent, judge.judge(extent))
            self._after = page.after
            self._took_s += self._loop.time() - begun_s
            if not page.after:
                self._end(self._counted)
                return True
            await asyncio.sleep(0)
        return False

    def _end(self, counted: Progress) -> None:
        self.progress, self._counted, self._seen = counted, None, self._grounds
        self._left, self._finding = self._finding, {}
        # While something is left, most of it is others' to do: only another look tells how far they are.
        pause_s = self._config.survey_interval_s if not counted.extents_left else LOOK_AGAIN_S
        self._next_s = self._loop.time() + max(pause_s, SHARE_OF_TIME * self._took_s)

    async def look_at_left(self, assessor: Callable[[], Assessor]) -> None:
        """Some of what was not well."""
        if self.is_under_way or not self._left or self._loop.time() < self._left_next_s:
            return
        took_s, self._is_any_at_work = 0.0, False
        names = list(islice(self._left, LEFT_PAGES_A_TURN * self._config.page_extents))
        for at in range(0, len(names), self._config.page_extents):
            begun_s, judge = self._loop.time(), assessor()
            for name in names[at : at + self._config.page_extents]:
                extent = self._catalog.state.extent(*name)
                need = judge.judge(extent).need if extent is not None else Need.NOTHING
                self._is_any_at_work |= need in AT_WORK
                if need is Need.NOTHING:
                    self._one_less(name)
                elif name in self._left:
                    self._left[name] = self._left.pop(name)  # behind the others
            took_s += self._loop.time() - begun_s
            await asyncio.sleep(0)
        self._left_next_s = self._loop.time() + SHARE_OF_TIME * took_s

    @property
    def is_near_end(self) -> bool:
        """Whether the next look may find that nothing is left to mend."""
        return self._is_any_at_work and 0 < self.progress.extents_left <= self._config.page_extents

    def _count(self, counted: Progress, tenant: int, extent: ExtentRecord, finding: Finding) -> None:
        counted.extents += 1
        margin = max(finding.margin, -1)
        counted.margin = margin if counted.margin == UNKNOWN else min(counted.margin, margin)
        if finding.need is Need.NOTHING:
            return
        counted.extents_left += 1
        counted.bytes_left += extent.size_bytes
        counted.lost += finding.margin < 0
        self._is_any_at_work |= finding.need in AT_WORK
        if len(self._finding) < self._config.queue_max:
            self._finding[tenant, extent.extent_id] = extent.size_bytes
        self._found(tenant, extent, finding)

    def report(self, assessor: Assessor) -> Progress:
        """What is known now."""
        self.progress.is_current = self._seen == assessor.grounds and not self.is_due
        return self.progress

    def mended(self, tenant: int, extent: ExtentRecord) -> None:
        """By this node."""
        self._one_less((tenant, extent.extent_id))

    def _one_less(self, name: tuple[int, bytes]) -> None:
        size_bytes = self._left.pop(name, None)
        if size_bytes is None:
            return
        self.progress.extents_left -= 1
        self.progress.bytes_left -= size_bytes
        self.is_due |= not self.progress.extents_left
