"""What compaction and scrub do to the segments: count, copy, remove.

Rule: a segment goes only when no row of the index names it and its count agrees; a copy counts after its data and its
block are synced, in this order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import Buffer, Files
from edgestore.disk.fragments import BLOCK_BYTES, SEGMENT_HEADER_BYTES, FragmentInfo, decode_block, encode_block
from edgestore.disk.index import OrderedStore
from edgestore.disk.segment_files import OpenFile
from edgestore.disk.segment_rows import (
    CHUNK_ID_BYTES,
    FRAGMENTS,
    FRAGMENTS_END,
    NUMBER,
    PLACE,
    decode_row,
    names,
    row_key,
    row_of,
)
from edgestore.disk.segment_writer import FragmentWriter, SegmentWriter, Write
from edgestore.errors import DiskFailed, EdgeStoreError, NotFound
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.disk")

ROWS_A_STEP = 1000
"""Rows of the index that a thread looks at before the loop has its turn: 0.5 ms."""


@dataclass(slots=True)
class SegmentRows:
    """The fragments that rows name in a segment, and the reserved bytes of all of them, also of those that do not check
    out."""

    infos: list[FragmentInfo] = field(default_factory=list)
    live_bytes: int = 0


class SegmentKeeper(SegmentWriter):
    """The part of `Segments` that housekeeping uses. `damaged`: what was found and is not deleted yet, by row key.
    `unreadable`: segments that may hold fragments which the start could not read and no row names."""

    def __init__(
        self, files: Files, folder: str, index: OrderedStore, config: DiskConfig, entropy: Entropy, metrics: Metrics
    ) -> None:
        super().__init__(files, folder, index, config, entropy, metrics)
        self.damaged: dict[bytes, str] = {}
        self.unreadable: set[int] = set()
        self._left_alone: dict[int, int] = {}

    def names(self, info: FragmentInfo) -> bool:
        """Whether the index still finds the fragment there."""
        return names(self._index, row_key(info.fragment.chunk_id, info.fragment.shard), info.segment, info.offset)

    def dead_and_sparse(self) -> tuple[list[int], int | None]:
        """Sealed segments where nothing seems to live, and of those that are mostly dead the emptiest. The active one
        is retired where it is dead."""
        self._retire_active()
        busy = self.unreadable | {writer.segment.number for writer in self._in_progress}
        dead, sparse = [], []
        for segment in self._segments.values():
            if segment is self._active or segment is self._ahead or segment.number in busy:
                continue
            if self._left_alone.get(segment.number) == segment.live_bytes:
                continue
            share = segment.live_bytes / max(1, segment.tail - SEGMENT_HEADER_BYTES)
            if segment.live_bytes <= 0:
                dead.append(segment.number)
            elif share <= 1 - self._config.segment_dead_ratio:
                sparse.append((share, segment.number))
        return dead, min(sparse)[1] if sparse else None

    def _retire_active(self) -> None:
        """The next fragment begins a new segment, so that this one can go."""
        active = self._active
        if active is not None and active.live_bytes <= 0 and not active.is_empty and not self._in_progress:
            self._active = None

    async def rows_of(self, numbers: Collection[int]) -> dict[int, SegmentRows]:
        """What the rows of the index name in these segments, whatever the blocks on the disk look like."""
        wanted = {NUMBER.pack(number): number for number in numbers}
        found = {number: SegmentRows() for number in numbers}
        after = FRAGMENTS

        def step() -> tuple[bytes, list[tuple[bytes, bytes]]]:
            last, matching = b"", []
            for key, value in islice(self._index.scan(after + b"\0", FRAGMENTS_END), ROWS_A_STEP):
                last = key
                if value[: NUMBER.size] in wanted:
                    matching.append((key, value))
            return last, matching

        while after:
            after, matching = await self._readers.run(step)
            for key, value in matching:
                number, offset, reserved = PLACE.unpack_from(value)
                fragment = decode_row(value, number, offset, self._segments[number].salt)
                found[number].live_bytes += reserved
                if fragment is not None:
                    found[number].infos.append(FragmentInfo(number, offset, fragment))
                else:
                    self.report_damage(key, f"its index row in segment {number} does not check out")
        for rows in found.values():
            rows.infos.sort(key=lambda info: info.offset)
        return found

    def recount(self, number: int, rows: SegmentRows) -> None:
        """The counter said that nothing lives there, and rows say otherwise."""
        log.error("segment-miscounted segment=%d live_bytes=%d", number, rows.live_bytes)
        self._segments[number].live_bytes = rows.live_bytes

    def live_bytes(self, number: int) -> int:
        """Reserved bytes of the fragments of a segment that the index names, as counted."""
        return self._segments[number].live_bytes

    async def some_rows(self, after: bytes, limit: int) -> list[tuple[bytes, FragmentInfo | None]]:
        """Keys behind `after` and what they name; None where the row does not check out or its segment is missing."""

        def step() -> list[tuple[bytes, FragmentInfo | None]]:
            found: list[tuple[bytes, FragmentInfo | None]] = []
            for key, value in islice(self._index.scan(max(after + b"\0", FRAGMENTS), FRAGMENTS_END), limit):
                number, offset, _ = PLACE.unpack_from(value)
                segment = self._segments.get(number)
                fragment = decode_row(value, number, offset, segment.salt) if segment is not None else None
                found.append((key, FragmentInfo(number, offset, fragment) if fragment is not None else None))
            return found

        return await self._readers.run(step)

    def has_row(self, key: bytes) -> bool:
        """Whether the fragment is still there."""
        return self._index.get(key) is not None

    async def read_block(self, info: FragmentInfo) -> bool:
        """Whether the block on the disk says what the index says, or will."""
        if (info.segment, info.offset) in self._unwritten:
            return True
        segment = self._segments.get(info.segment)
        if segment is None:
            raise NotFound("the fragment was moved", segment=info.segment)

        def step() -> bool:
            data = self._descriptors.hold(segment).file.read_at(info.offset, BLOCK_BYTES)
            return decode_block(data, info.segment, info.offset, segment.salt) == info.fragment

        return await self._readers.run(step)

    def report_damage(self, key: bytes, reason: str) -> None:
        """A fragment that does not check out: told once, remembered until it is deleted."""
        if key not in self.damaged:
            self.damaged[key] = reason
            self._metrics.count("disk_damaged_fragments_total")
            log.error("fragment-damaged chunk=%s reason=%s", key[1 : 1 + CHUNK_ID_BYTES].hex(), reason)

    def leave_alone(self, number: int) -> None:
        """Compaction cannot empty the segment: not again before something more of it is deleted."""
        self._left_alone[number] = self._segments[number].live_bytes

    # --- the copies of compaction ----------------------------------------------------------------------

    async def copy(self, info: FragmentInfo, data: Buffer) -> FragmentWriter:
        """Writes the bytes of a fragment again, without a block: they count for nothing yet. Half the reserve may be
        used, for the copies are what lets space come back; the other half is the journal's. Raises StorageFull."""
        self._check_room(len(data), self._config.reserve_bytes // 2)
        writer = self._begin(info.fragment.chunk_id, len(data))
        try:
            await self._readers.run(lambda: writer.write(data))
        except BaseException as error:
            self.abort(writer)
            self._fail_for_good(error)
            raise
        return writer

    async def publish(self, copies: list[tuple[FragmentInfo, FragmentWriter]]) -> None:
        """Copies are read from now on, unless their fragment was deleted meanwhile. No block is written before the data
        it seals is synced, so a crash leaves no copy that counts and is not whole."""
        await self._sync_data({writer.opened for _, writer in copies})
        moved = [(info, self._seal_copy(info, writer)) for info, writer in copies]
        future: asyncio.Future[None] = self._loop.create_future()
        self.sync(lambda error: _answer(future, error))
        await future
        moved = [(old, new) for old, new in moved if self.names(old)]
        self._write_rows([row_of(new, self._segments[new.segment].salt) for _, new in moved])
        for old, new in moved:
            self._segments[old.segment].live_bytes -= old.fragment.reserved_bytes
            self._segments[new.segment].live_bytes += new.fragment.reserved_bytes

    async def _sync_data(self, opened: Collection[OpenFile]) -> None:
        """In the thread of all syncs: Linux tells of a failed write once, and it must not be missed by another sync."""

        def work() -> None:
            for one in opened:
                one.file.sync()

        try:
            await self._sync_worker.run(work)
        except EdgeStoreError as error:
            self._fail_for_good(error)
            raise

    def _seal_copy(self, old: FragmentInfo, writer: FragmentWriter) -> FragmentInfo:
        """The block of a copy, for the next sync. The row follows when that has returned."""
        self.abort(writer)
        segment, key = writer.segment, row_key(old.fragment.chunk_id, old.fragment.shard)
        fragment = msgspec.structs.replace(old.fragment, reserved_bytes=writer.reserved)
        block = encode_block(segment.number, writer.offset, segment.salt, fragment)
        self._add(Write(writer.opened, segment.number, writer.offset, key, (block,)))
        self._dirty.setdefault(segment.number, writer.opened)
        return FragmentInfo(segment.number, writer.offset, fragment)

    def _fail_for_good(self, error: BaseException) -> None:
        if isinstance(error, DiskFailed):
            self.on_failure(error)

    async def flush_index(self) -> None:
        """Makes the index and its checkpoint durable."""
        self._write_rows([self._checkpoint()])
        try:
            await self._readers.run(self._index.flush)
        except EdgeStoreError as error:
            self._fail_for_good(error)
            raise

    async def remove(self, numbers: Collection[int]) -> None:
        """Removes the files of segments that no row names. Readers that still hold them look up again."""
        await self.flush_index()
        paths = []
        for number in numbers:
            segment = self._segments.pop(number)
            self._descriptors.forget(segment)
            self._left_alone.pop(number, None)
            paths.append(segment.path)

        def work() -> None:
            for path in paths:
                self._files.remove(path)
            self._files.sync_folder(self._folder)

        try:
            await self._readers.run(work)
        except EdgeStoreError as error:
            self._fail_for_good(error)
            raise
        self._free_checked_s = -1.0


def _answer(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
