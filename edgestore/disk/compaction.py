"""Gives space back: live fragments move out of a mostly dead segment, at a bounded rate; dead segments go.

Rule: a fragment that cannot be read or does not check out stays where it is, and so does its segment.
"""

from __future__ import annotations

import asyncio

from edgestore.config import DiskConfig
from edgestore.disk.fragments import FragmentInfo
from edgestore.disk.segment_keeper import SegmentRows
from edgestore.disk.segment_rows import row_key
from edgestore.disk.segment_writer import FragmentWriter
from edgestore.disk.segments import Segments
from edgestore.errors import Corrupt, DiskFailed, NotFound
from edgestore.observe import NO_METRICS, Metrics

BATCH_BYTES = 4 * 1024 * 1024
"""Copied between two syncs of compaction."""

_Copies = list[tuple[FragmentInfo, FragmentWriter]]


async def compact(segments: Segments, config: DiskConfig, metrics: Metrics = NO_METRICS) -> int:
    """One turn: removes the dead segments, then empties one that is mostly dead. Returns how many went."""
    dead, sparse = segments.dead_and_sparse()
    if not dead and sparse is None:
        return 0
    rows = await segments.rows_of(dead if sparse is None else [*dead, sparse])
    for number in dead:
        if rows[number].live_bytes:
            segments.recount(number, rows[number])
    removed = [number for number in dead if not rows[number].live_bytes]
    if removed:
        await segments.remove(removed)
    if sparse is not None and await _empty(segments, sparse, rows[sparse], config, metrics):
        await segments.remove([sparse])
        return len(removed) + 1
    return len(removed)


async def _empty(segments: Segments, number: int, rows: SegmentRows, config: DiskConfig, metrics: Metrics) -> bool:
    """Moves what lives; True where nothing is left. Not tried again where something had to stay."""
    copies: _Copies = []
    copied = 0
    try:
        for info in rows.infos:
            data = await _readable(segments, info)
            if data is None:
                continue
            copies.append((info, await segments.copy(info, data)))
            copied += len(data)
            if copied >= BATCH_BYTES:
                await segments.publish(copies)
                copies, copied = [], 0
            metrics.count("disk_compacted_bytes_total", len(data))
            await asyncio.sleep(len(data) / config.compaction_bytes_per_s)
        if copies:
            await segments.publish(copies)
            copies = []
    finally:
        for _, writer in copies:
            segments.abort(writer)
    if segments.live_bytes(number) == 0 and not any(segments.names(info) for info in rows.infos):
        return True
    segments.leave_alone(number)
    return False


async def _readable(segments: Segments, info: FragmentInfo) -> memoryview | None:
    """The bytes of a fragment that still lives; None where it does not, or has to stay."""
    if not segments.names(info):
        return None
    try:
        return await segments.read(info, 0, info.fragment.stored_bytes)
    except NotFound:
        return None
    except (Corrupt, DiskFailed) as error:
        segments.report_damage(row_key(info.fragment.chunk_id, info.fragment.shard), str(error))
        return None
