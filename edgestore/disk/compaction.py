"""Gives space back: live fragments move out of mostly dead segments, at a bounded rate; and the scrub that reads
everything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from edgestore.config import DiskConfig
from edgestore.disk.fragments import FragmentInfo
from edgestore.disk.segments import Segments
from edgestore.errors import Corrupt, NotFound
from edgestore.observe import NO_METRICS, Metrics


@dataclass
class ScrubReport:
    """What a scrub found."""

    fragments: int = 0
    bytes_checked: int = 0
    corrupt: list[str] = field(default_factory=list)


async def compact(segments: Segments, config: DiskConfig, metrics: Metrics = NO_METRICS) -> int:
    """Empties and removes the segments that are mostly dead; returns how many went."""
    removed = 0
    segments.retire_active()
    for number in segments.sparse_segments():
        moves = []
        if segments.live_bytes(number) > 0:
            for info in await segments.fragments_of(number):
                moved = await _move(segments, info)
                moves += [(info, moved)] if moved is not None else []
                await asyncio.sleep(info.fragment.stored_bytes / config.compaction_bytes_per_s)
        await _synced(segments)
        for old, new in moves:
            segments.publish(old, new)
            metrics.count("disk_compacted_bytes_total", new.fragment.stored_bytes)
        if segments.live_bytes(number) <= 0 or not await segments.fragments_of(number):
            await segments.flush_index()
            segments.remove(number)
            removed += 1
    return removed


async def _move(segments: Segments, info: FragmentInfo) -> FragmentInfo | None:
    """A fragment whose bytes do not check out stays where it is."""
    try:
        data = await segments.read(info, 0, info.fragment.stored_bytes)
    except (Corrupt, NotFound):
        return None
    return segments.move(info, bytes(data))


async def _synced(segments: Segments) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    segments.sync(done)
    await future


async def scrub(segments: Segments, config: DiskConfig, metrics: Metrics = NO_METRICS) -> ScrubReport:
    """Reads and checks every live fragment once, at a bounded rate."""
    report = ScrubReport()
    for number in segments.numbers():
        for info in await segments.fragments_of(number):
            try:
                await segments.read(info, 0, info.fragment.stored_bytes)
            except Corrupt as error:
                report.corrupt.append(f"chunk {info.fragment.chunk_id.hex()}: {error}")
            except NotFound:
                continue
            report.fragments += 1
            report.bytes_checked += info.fragment.stored_bytes
            metrics.count("disk_scrubbed_bytes_total", info.fragment.stored_bytes)
            await asyncio.sleep(info.fragment.stored_bytes / config.scrub_bytes_per_s)
    return report
