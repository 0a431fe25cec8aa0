"""Reads and checks every fragment that a row of the index names, once an interval, at a bounded rate.

Rule: it goes by the rows, so a damaged block on the disk hides nothing; how far it came outlives a restart.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from dataclasses import dataclass, field

from edgestore.clock import Clock
from edgestore.config import DiskConfig
from edgestore.disk.fragments import FragmentInfo
from edgestore.disk.index import OrderedStore
from edgestore.disk.segment_rows import CHUNK_ID_BYTES, SCRUB
from edgestore.disk.segments import Segments
from edgestore.errors import Corrupt, DiskFailed, EdgeStoreError, NotFound
from edgestore.observe import NO_METRICS, Metrics

log = logging.getLogger("edgestore.disk")

ROWS_A_STEP = 64
REPORTED_MAX = 100
YIELD_S, YIELDS_MAX = 0.01, 10
"""A read waits this long, so often at most, while somebody waits for the disk."""
AFTER_START_S = 60.0
AFTER_FAILURE_S = 60.0

_STATE = struct.Struct(">QQ")


@dataclass
class ScrubReport:
    """What a scrub found. `corrupt` names the first of what is `damaged`."""

    fragments: int = 0
    bytes_checked: int = 0
    damaged: int = 0
    corrupt: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScrubState:
    """What is remembered. `finished_ms`: when the last whole pass ended (wall clock), 0 before the first; `damaged`:
    what it found; `after`: how far the pass under way has come."""

    finished_ms: int = 0
    damaged: int = 0
    after: bytes = b""


def read_state(index: OrderedStore) -> ScrubState:
    """As last written."""
    data = index.get(SCRUB)
    if data is None:
        return ScrubState()
    finished_ms, damaged = _STATE.unpack_from(data)
    return ScrubState(finished_ms, damaged, data[_STATE.size :])


def write_state(index: OrderedStore, state: ScrubState) -> None:
    """Durable with the next flush: a crash repeats a little."""
    index.write([(SCRUB, _STATE.pack(state.finished_ms, state.damaged) + state.after)])


async def scrub(segments: Segments, config: DiskConfig, metrics: Metrics = NO_METRICS) -> ScrubReport:
    """A whole pass."""
    report = ScrubReport()
    after: bytes | None = b""
    while after is not None:
        after = await scrub_step(segments, config, report, after, metrics)
    return report


async def scrub_step(
    segments: Segments, config: DiskConfig, report: ScrubReport, after: bytes, metrics: Metrics = NO_METRICS
) -> bytes | None:
    """The next few fragments behind a key; the key of the last, None where there are no more."""
    rows = await segments.some_rows(after, ROWS_A_STEP)
    for key, info in rows:
        await _let_others_go_first(segments)
        reason = await _check(segments, info)
        if reason is not None and segments.has_row(key):
            segments.report_damage(key, reason)
            report.damaged += 1
            if len(report.corrupt) < REPORTED_MAX:
                report.corrupt.append(f"chunk {key[1 : 1 + CHUNK_ID_BYTES].hex()}: {reason}")
        size_bytes = info.fragment.stored_bytes if info is not None else 0
        report.fragments += 1
        report.bytes_checked += size_bytes
        metrics.count("disk_scrubbed_bytes_total", size_bytes)
        await asyncio.sleep(size_bytes / config.scrub_bytes_per_s)
    return rows[-1][0] if rows else None


async def _let_others_go_first(segments: Segments) -> None:
    for _ in range(YIELDS_MAX):
        if not segments.is_syncing:
            return
        await asyncio.sleep(YIELD_S)


async def _check(segments: Segments, info: FragmentInfo | None) -> str | None:
    """What is wrong; None where all is well, or compaction moved the fragment and so has read it."""
    if info is None:
        return "its index row does not check out, or its segment is missing or quarantined"
    try:
        await segments.read(info, 0, info.fragment.stored_bytes)
        whole = await segments.read_block(info)
    except NotFound:
        return None
    except (Corrupt, DiskFailed) as error:
        return str(error)
    return None if whole else f"its block in segment {info.segment} at offset {info.offset} does not check out"


class Scrubber:
    """The passes of a node."""

    def __init__(
        self, segments: Segments, index: OrderedStore, config: DiskConfig, clock: Clock, metrics: Metrics = NO_METRICS
    ) -> None:
        self._segments, self._index, self._config = segments, index, config
        self._clock, self._metrics = clock, metrics
        self.state = read_state(index)

    async def run(self) -> None:
        """Until cancelled. The first look comes a while after the start, when the sweep has taken what a crash left."""
        await asyncio.sleep(min(AFTER_START_S, self._config.scrub_interval_ms / 1000))
        while True:
            wait_s = self._wait_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            try:
                await self._pass()
            except EdgeStoreError as error:
                log.warning("scrub-postponed error=%s", error)
                await asyncio.sleep(AFTER_FAILURE_S)

    def _wait_s(self) -> float:
        """An hour at most: a clock that is set may make a pass due. One that was set back does not put it off."""
        since_ms = self._clock.wall_ms() - self.state.finished_ms
        if self.state.after or since_ms < 0 or since_ms >= self._config.scrub_interval_ms:
            return 0.0
        return min(3600.0, (self._config.scrub_interval_ms - since_ms) / 1000)

    async def _pass(self) -> None:
        report, after = ScrubReport(), self.state.after
        log.info("scrub-began resumed=%s", bool(after))
        while (reached := await scrub_step(self._segments, self._config, report, after, self._metrics)) is not None:
            after = reached
            self._remember(ScrubState(self.state.finished_ms, self.state.damaged, after))
        self._remember(ScrubState(self._clock.wall_ms(), len(self._segments.damaged), b""))
        level = logging.ERROR if self._segments.damaged else logging.INFO
        log.log(
            level,
            "scrub-ended fragments=%d bytes=%d damaged=%d",
            report.fragments,
            report.bytes_checked,
            len(self._segments.damaged),
        )

    def _remember(self, state: ScrubState) -> None:
        self.state = state
        write_state(self._index, state)
