"""The fragments of one disk: found by the index, checked on every read, moved out of mostly dead segments.

Rule: every page is checked on every read; a segment goes only when no row of the index names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import Files
from edgestore.disk.fragments import FragmentInfo, decode_block, page_span
from edgestore.disk.index import OrderedStore
from edgestore.disk.segment_keeper import SegmentKeeper
from edgestore.disk.segment_recovery import Recovery
from edgestore.disk.segment_rows import CHUNK_ID_BYTES, FRAGMENTS, FRAGMENTS_END, PLACE, SHARD_MAX, row_key, row_shard
from edgestore.errors import Corrupt, DiskFailed, EdgeStoreError, NotFound
from edgestore.kernels import Buffers, page_crcs
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import PAGE_BYTES

log = logging.getLogger("edgestore.disk")


class Segments(SegmentKeeper):
    """The fragments of one disk. They are written as `SegmentWriter` says and kept as `SegmentKeeper` says."""

    def __init__(
        self, files: Files, folder: str, index: OrderedStore, config: DiskConfig, entropy: Entropy, metrics: Metrics
    ) -> None:
        super().__init__(files, folder, index, config, entropy, metrics)
        self.quarantined: set[int] = set()
        self._unproved = (0, 0), 0
        """From this place up to this segment a crash may have left rows and blocks without their bytes."""

    @classmethod
    async def open(
        cls,
        files: Files,
        folder: str,
        index: OrderedStore,
        config: DiskConfig,
        *,
        entropy: Entropy,
        metrics: Metrics = NO_METRICS,
    ) -> Segments:
        """Opens every segment and brings the index up to what they hold. Raises StoreDamaged where the index does not
        check out, UnknownFormat."""
        files.make_folder(folder)
        segments = cls(files, folder, index, config, entropy, metrics)
        recovery = Recovery(files, folder, index, segments._descriptors, entropy)
        try:
            found = await segments._readers.run(recovery.run)
        except EdgeStoreError:
            segments.abandon()
            raise
        segments._segments, segments.quarantined = found.segments, found.quarantined
        segments.unreadable = set(found.unreadable)
        metrics.count("disk_corrupt_pages_total", sum(found.unreadable.values()))
        segments._last_number, segments._ahead = found.last_number, found.ahead
        written = found.last_number if found.ahead is None else found.ahead.number - 1
        segments._unproved = found.checkpoint, written
        metrics.watch("disk_free_bytes", lambda: float(files.free_bytes()))
        return segments

    # --- reading ---------------------------------------------------------------------------------------

    def lookup(self, chunk_id: bytes, shard: int = 0) -> FragmentInfo | None:
        """Where a fragment lies; None where the index has none."""
        value = self._index.get(row_key(chunk_id, shard))
        if value is None:
            return None
        number, offset, _ = PLACE.unpack_from(value)
        segment = self._segments.get(number)
        # What `decode_row` does, without another call: every small GET comes through here.
        fragment = decode_block(memoryview(value)[PLACE.size :], number, offset, segment.salt) if segment else None
        if fragment is None:
            raise self._unreadable(chunk_id, number)
        return FragmentInfo(number, offset, fragment)

    def _unreadable(self, chunk_id: bytes, number: int) -> Corrupt:
        self._metrics.count("disk_corrupt_pages_total")
        if number in self._segments:
            reason = "its index row does not check out"
        elif number in self.quarantined:
            reason = f"the header of segment {number} cannot be read"
        else:
            reason = f"segment {number} is missing"
        return Corrupt(f"chunk {chunk_id.hex()} cannot be read: {reason}", chunk_id=chunk_id.hex(), segment=number)

    def read_cached(
        self, info: FragmentInfo, offset: int, length: int, buffers: Buffers | None = None
    ) -> memoryview | None:
        """Stored bytes [offset, offset + length) where the page cache has them, checked; None where it has not. They
        come into memory of `buffers`, where some are given."""
        if self._unwritten and (view := self._read_unwritten(info, offset, length)) is not None:
            return view
        segment = self._segments.get(info.segment)
        if segment is None:
            return None
        opened = segment.opened
        if opened is None:
            return None  # a reader thread opens it
        segment.used = True
        start, stop = page_span(offset, length, info.fragment.stored_bytes)
        data: bytes | memoryview | None
        if buffers is None:
            data = opened.file.read_cached(info.data_offset + start, stop - start)
        else:
            data = buffers.take(stop - start)
            data = data if opened.file.read_cached_into(info.data_offset + start, data) else None
        if data is None:
            return None
        self._check_pages(info, start, stop, data)
        return memoryview(data)[offset - start : offset - start + length]

    def read_blocking(self, info: FragmentInfo, offset: int, length: int) -> memoryview:
        """The same from the disk. Raises Corrupt; NotFound where compaction moved the fragment: look it up again."""
        if (view := self._read_unwritten(info, offset, length)) is not None:
            return view
        segment = self._segments.get(info.segment)
        if segment is None:
            raise NotFound("the fragment was moved", segment=info.segment)
        start, stop = page_span(offset, length, info.fragment.stored_bytes)
        file = self._descriptors.hold(segment).file
        try:
            data = file.read_at(info.data_offset + start, stop - start)
        except DiskFailed as error:  # sectors that nobody can read are no better than wrong ones
            raise self._corrupt(info, start, "cannot be read") from error
        self._check_pages(info, start, stop, data)
        return memoryview(data)[offset - start : offset - start + length]

    def _read_unwritten(self, info: FragmentInfo, offset: int, length: int) -> memoryview | None:
        """The same of a small fragment whose bytes are in memory still: other nodes may have confirmed theirs, so that
        it is asked for. A copy, for that memory has another use after the sync, which may end under a reader in another
        thread."""
        place = info.segment, info.offset
        start, stop = page_span(offset, length, info.fragment.stored_bytes)
        while (write := self._unwritten.get(place)) is not None and len(write.parts) > 1:
            data = bytes(memoryview(write.parts[1])[start:stop])
            if self._unwritten.get(place) is write:
                self._check_pages(info, start, stop, data)
                return memoryview(data)[offset - start : offset - start + length]
        return None

    async def read(self, info: FragmentInfo, offset: int, length: int) -> memoryview:
        """`read_blocking` in a reader thread."""
        return await self._readers.run(lambda: self.read_blocking(info, offset, length))

    async def is_whole(self, info: FragmentInfo) -> bool:
        """Whether all its bytes are there: read, where a crash may have left less than a row says. One that does not
        check out is known to be damaged from then on."""
        begin, last_number = self._unproved
        if (info.segment, info.offset) < begin or info.segment > last_number:
            return True
        try:
            await self.read(info, 0, info.fragment.stored_bytes)
        except (Corrupt, NotFound) as error:
            if isinstance(error, Corrupt):
                self.mark_damaged(info.fragment.chunk_id, info.fragment.shard, str(error))
            return False
        return True

    def _check_pages(self, info: FragmentInfo, start: int, stop: int, data: bytes | memoryview) -> None:
        first = start // PAGE_BYTES * 4
        found = page_crcs(data)
        if len(data) != stop - start or found != info.fragment.page_crcs[first : first + len(found)]:
            raise self._corrupt(info, start, "do not check out")

    def _corrupt(self, info: FragmentInfo, start: int, what: str) -> Corrupt:
        self._metrics.count("disk_corrupt_pages_total")
        offset = info.data_offset + start
        place = f"segment {info.segment} at offset {offset}"
        log.error("fragment-corrupt chunk=%s place=%s reason=%s", info.fragment.chunk_id.hex(), place, what)
        return Corrupt(f"stored bytes {what}: {place}", segment=info.segment, offset=offset)

    # --- deleting and listing ---------------------------------------------------------------------

    def delete(self, chunk_id: bytes, shard: int = 0) -> None:
        """Forgets a fragment. After a crash it may be back, as garbage that the sweep finds."""
        key = row_key(chunk_id, shard)
        value = self._index.get(key)
        if value is None:
            return
        self._write_rows([(key, None)])
        self.damaged.pop(key, None)
        number, _, reserved = PLACE.unpack_from(value)
        if number in self._segments:
            self._segments[number].live_bytes -= reserved

    def shards(self, chunk_id: bytes) -> list[int]:
        """The fragments of a chunk that are here, whatever their scheme; usually one at most."""
        start = row_key(chunk_id)
        return [row_shard(key) for key, _ in self._index.scan(start, row_key(chunk_id, SHARD_MAX) + b"\0")]

    def is_damaged(self, chunk_id: bytes, shard: int = 0) -> bool:
        """Whether scrub or compaction found the fragment damaged, and it was not deleted since."""
        return row_key(chunk_id, shard) in self.damaged

    def mark_damaged(self, chunk_id: bytes, shard: int, reason: str) -> None:
        """A reader found that the fragment does not check out."""
        self.report_damage(row_key(chunk_id, shard), reason)

    def damaged_fragments(self) -> list[tuple[bytes, int]]:
        """(chunk id, shard) of what is known to be damaged."""
        return [(key[len(FRAGMENTS) : len(FRAGMENTS) + CHUNK_ID_BYTES], row_shard(key)) for key in self.damaged]

    def numbers(self) -> list[int]:
        """All segments."""
        return sorted(self._segments)

    def chunk_ids(self, start: bytes = b"") -> Iterator[bytes]:
        """Ids of the chunks that have fragments here, from `start` on."""
        for key, _ in self._index.scan(FRAGMENTS + start, FRAGMENTS_END):
            yield key[1 : 1 + CHUNK_ID_BYTES]

    async def close(self) -> None:
        """Syncs what is pending, flushes the index, and ends threads and descriptors."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.sync(lambda error: None if future.done() else future.set_result(None))
        await future
        try:
            await self.flush_index()
        except EdgeStoreError as error:
            log.warning("index-flush-failed error=%s", error)
        while self._making is not None:
            await asyncio.sleep(0.001)
        self.abandon()

    def abandon(self) -> None:
        """Ends threads and descriptors without writing anything more: after a failure of the disk."""
        self._sync_worker.close()
        self._readers.close()
        self._descriptors.close()
