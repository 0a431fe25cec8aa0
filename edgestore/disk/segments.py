"""Append-only files that hold fragments, and the index that finds them.

Rule: a fragment is acknowledged after its data and its block are synced; every page is checked on every read; the
index can
be rebuilt from the segments, and after a crash what was written since its last checkpoint is.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import Buffer, File, Files
from edgestore.disk.fragments import (
    BLOCK_BYTES,
    SALT_BYTES,
    SEGMENT_HEADER_BYTES,
    Fragment,
    FragmentInfo,
    Unit,
    decode_block,
    encode_block,
    encode_segment_header,
    page_span,
    reserved_bytes,
    short_block,
)
from edgestore.disk.index import OrderedStore
from edgestore.disk.segment_scan import ENDING, is_whole, open_segment, scan_segment
from edgestore.errors import Corrupt, DiskFailed, NotFound, StorageFull
from edgestore.kernels import page_crcs
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import PAGE_BYTES

log = logging.getLogger("edgestore.disk")

ROW = b"f"
CHECKPOINT = b"checkpoint"
FREE_BYTES_TTL_S = 0.05
FLUSH_FRAGMENTS = 20_000

_PLACE = struct.Struct(">QQQ")
Done = Callable[[BaseException | None], None]
_Write = tuple[File, int, tuple[Buffer, ...]]


@dataclass(slots=True)
class _Segment:
    """One file. `tail`: where the next fragment goes; `live_bytes`: reserved bytes of fragments that the index
    names."""

    number: int
    file: File
    salt: bytes
    tail: int = SEGMENT_HEADER_BYTES
    live_bytes: int = 0


class FragmentWriter:
    """One fragment in progress. `write` may run in any thread; the rest on the loop."""

    def __init__(self, segment: _Segment, offset: int, reserved: int, chunk_id: bytes) -> None:
        self.segment, self.offset, self.reserved, self.chunk_id = segment, offset, reserved, chunk_id
        self.stored_bytes = 0

    def write(self, data: Buffer) -> None:
        """Appends stored bytes (blocking). ValueError where they would run into the next fragment."""
        if BLOCK_BYTES + self.stored_bytes + len(data) > self.reserved:
            raise ValueError("the fragment is longer than the place that was reserved for it")
        self.segment.file.write_at(self.offset + BLOCK_BYTES + self.stored_bytes, data)
        self.stored_bytes += len(data)


class Segments:
    """The fragments of one disk."""

    def __init__(
        self, files: Files, folder: str, index: OrderedStore, config: DiskConfig, entropy: Entropy, metrics: Metrics
    ) -> None:
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self._files, self._folder, self._index, self._config = files, folder, index, config
        self._entropy, self._metrics = entropy, metrics
        self._loop = asyncio.get_running_loop()
        self._sync_worker = files.worker("segment-sync")
        self._readers = files.worker("reader", config.reader_threads)
        self._segments: dict[int, _Segment] = {}
        self._active: _Segment | None = None
        self._in_progress: set[FragmentWriter] = set()
        self._writes: list[_Write] = []
        self._dirty: dict[int, File] = {}
        self._waiting: list[Done] = []
        self._scheduled = self._busy = False
        self._unflushed = 0
        self._free_bytes, self._free_checked_s = 0, -1.0
        metrics.watch("disk_free_bytes", lambda: float(files.free_bytes()))

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
        """Opens every segment and brings the index up to what they hold."""
        segments = cls(files, folder, index, config, entropy, metrics)
        files.make_folder(folder)
        await segments._readers.run(segments._recover)
        return segments

    def _recover(self) -> None:
        """Scans what was written since the index's last checkpoint, then counts what is live."""
        data = self._index.get(CHECKPOINT)
        checkpoint = struct.unpack(">QQ", data) if data is not None else (0, 0)
        for name in self._files.list(self._folder):
            stem = name.removesuffix(ENDING)
            if name == stem or not stem.isdigit():
                continue
            number = int(stem)
            file, salt = open_segment(self._files, f"{self._folder}/{name}", number)
            segment = _Segment(number, file, salt, tail=file.size())
            self._segments[number] = segment
            if number >= checkpoint[0]:
                start = checkpoint[1] if number == checkpoint[0] else SEGMENT_HEADER_BYTES
                for info in scan_segment(file, number, salt, start):
                    if self._counts(info, file):
                        self._index.write(
                            [(_row(info.fragment.chunk_id, info.fragment.shard), _encode_row(info, self))]
                        )
                file.sync()
        for _, value in self._index.scan(ROW, ROW + b"\xff" * 32):
            number, _, reserved = _PLACE.unpack_from(value)
            if number in self._segments:
                self._segments[number].live_bytes += reserved
        self._index.flush()

    def _counts(self, info: FragmentInfo, file: File) -> bool:
        """Of a fragment that compaction was moving the later copy counts, if it is whole: its block is written with
        its data, so a crash may have left the block alone."""
        value = self._index.get(_row(info.fragment.chunk_id, info.fragment.shard))
        if value is None:
            return True
        number, offset, _ = _PLACE.unpack_from(value)
        if number == info.segment:
            return bool(offset <= info.offset)
        return number < info.segment and (number not in self._segments or is_whole(file, info))

    # --- writing ---------------------------------------------------------------------------------------

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull where content would eat into the reserve of journal, flushes and deletes."""
        now = self._loop.time()
        if now - self._free_checked_s > FREE_BYTES_TTL_S:
            self._free_bytes, self._free_checked_s = self._files.free_bytes(), now
        if self._free_bytes - size_bytes < self._config.reserve_bytes:
            raise StorageFull(
                f"{self._free_bytes} bytes are free, {self._config.reserve_bytes} are reserved (disk.reserve_bytes): "
                "delete something or add space; reading and deleting work",
                retry_after_s=30,
            )
        self._free_bytes -= size_bytes

    def begin(self, chunk_id: bytes, *, stored_max_bytes: int) -> FragmentWriter:
        """Reserves the place of a fragment that is written in pieces. Raises StorageFull."""
        self.check_room(stored_max_bytes)
        reserved = reserved_bytes(stored_max_bytes)
        segment = self._room(reserved)
        writer = FragmentWriter(segment, segment.tail, reserved, chunk_id)
        segment.tail += reserved
        self._in_progress.add(writer)
        return writer

    def abort(self, writer: FragmentWriter) -> None:
        """The fragment is not needed: its place is dead."""
        self._in_progress.discard(writer)

    def seal(self, writer: FragmentWriter, units: tuple[Unit, ...], crcs: bytes, *, k: int = 1, m: int = 0) -> None:
        """All data is written: the block follows with the next sync."""
        self._in_progress.discard(writer)
        fragment = Fragment(writer.chunk_id, k, m, 0, 0, writer.reserved, writer.stored_bytes, units, crcs)
        self._put_block(writer.segment, writer.offset, fragment)

    def put(self, chunk_id: bytes, data: Buffer, units: tuple[Unit, ...]) -> None:
        """A whole small fragment; written and synced by the next `sync`. Raises StorageFull."""
        self.check_room(len(data))
        reserved = reserved_bytes(len(data))
        segment = self._room(reserved)
        fragment = Fragment(chunk_id, 1, 0, 0, 0, reserved, len(data), units, page_crcs(data))
        self._put_block(segment, segment.tail, fragment, data)
        segment.tail += reserved

    def _put_block(self, segment: _Segment, offset: int, fragment: Fragment, *data: Buffer) -> None:
        block = encode_block(segment.number, offset, segment.salt, fragment)
        self._writes.append((segment.file, offset, (block, *data)))
        self._dirty[segment.number] = segment.file
        segment.live_bytes += fragment.reserved_bytes
        row = _row(fragment.chunk_id, fragment.shard)
        self._index.write([(row, _PLACE.pack(segment.number, offset, fragment.reserved_bytes) + short_block(block))])
        self._unflushed += 1

    def _room(self, reserved: int) -> _Segment:
        """The active segment, or a new one where the fragment does not fit."""
        active = self._active
        if active is not None and active.tail + reserved <= self._config.segment_bytes:
            return active
        number = max(self._segments, default=0) + 1
        salt, path = self._entropy(SALT_BYTES), f"{self._folder}/{number:016d}{ENDING}"
        self._files.replace(path, encode_segment_header(number, salt))
        self._active = self._segments[number] = _Segment(number, self._files.open(path), salt)
        return self._active

    def sync(self, done: Done) -> None:
        """`done(None)` when everything written, put and sealed so far is on the disk; else with what failed."""
        self._waiting.append(done)
        if not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def wrote(self, writer: FragmentWriter) -> None:
        """Pieces were written: the next sync includes their segment."""
        self._dirty[writer.segment.number] = writer.segment.file

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or not self._waiting:
            return
        writes, dirty, waiting = self._writes, self._dirty, self._waiting
        self._writes, self._dirty, self._waiting = [], {}, []
        checkpoint = None
        if self._unflushed >= FLUSH_FRAGMENTS:
            self._unflushed, checkpoint = 0, self._checkpoint()
        self._busy = True

        def work() -> None:
            for file, offset, parts in writes:
                file.write_at(offset, *parts)
            for file in dirty.values():
                file.sync()
            if checkpoint is not None:
                self._index.flush()

        def done(_: object, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._failed(error, writes, dirty)
            if checkpoint is not None and error is None:
                self._index.write([(CHECKPOINT, checkpoint)])
            self._metrics.count("disk_segment_syncs_total")
            for one in waiting:
                one(error)
            if self._waiting:
                self._hand_over()

        self._sync_worker.submit(work, done)

    def _failed(self, error: BaseException, writes: list[_Write], dirty: dict[int, File]) -> None:
        """On a full disk the batch is kept, for others' blocks rode along: the next sync tries them again."""
        if isinstance(error, StorageFull):
            self._writes, self._dirty = writes + self._writes, {**dirty, **self._dirty}
            self._forget_removed()
        else:
            self.on_failure(error)

    def _forget_removed(self) -> None:
        """Nothing is written to a segment that compaction removed: its descriptor may be another file's by now."""
        kept = {segment.file for segment in self._segments.values()}
        self._writes = [write for write in self._writes if write[0] in kept]
        self._dirty = {number: file for number, file in self._dirty.items() if file in kept}

    def _checkpoint(self) -> bytes:
        """Everything before this place is in the index once it is flushed."""
        segment = self._active
        if segment is None:
            return struct.pack(">QQ", max(self._segments, default=0), SEGMENT_HEADER_BYTES)
        places = [(writer.segment.number, writer.offset) for writer in self._in_progress]
        return struct.pack(">QQ", *min([*places, (segment.number, segment.tail)]))

    # --- reading ---------------------------------------------------------------------------------------

    def lookup(self, chunk_id: bytes, shard: int = 0) -> FragmentInfo | None:
        """Where a fragment lies; None where the index has none."""
        value = self._index.get(_row(chunk_id, shard))
        if value is None:
            return None
        number, offset, _ = _PLACE.unpack_from(value)
        segment = self._segments.get(number)
        fragment = decode_block(memoryview(value)[_PLACE.size :], number, offset, segment.salt) if segment else None
        if fragment is None:
            self._metrics.count("disk_corrupt_pages_total")
            raise Corrupt(f"the index row of chunk {chunk_id.hex()} does not check out", chunk_id=chunk_id.hex())
        return FragmentInfo(number, offset, fragment)

    def read_cached(self, info: FragmentInfo, offset: int, length: int) -> memoryview | None:
        """Stored bytes [offset, offset + length) where the page cache has them, checked; None where it has not."""
        segment = self._segments.get(info.segment)
        if segment is None:
            return None
        start, stop = page_span(offset, length, info.fragment.stored_bytes)
        data = segment.file.read_cached(info.data_offset + start, stop - start)
        if data is None:
            return None
        self._check_pages(info, start, stop, data)
        return memoryview(data)[offset - start : offset - start + length]

    def read_blocking(self, info: FragmentInfo, offset: int, length: int) -> memoryview:
        """The same from the disk. Raises Corrupt; NotFound where compaction moved the fragment: look it up again."""
        segment = self._segments.get(info.segment)
        if segment is None:
            raise NotFound("the fragment was moved", segment=info.segment)
        start, stop = page_span(offset, length, info.fragment.stored_bytes)
        data = segment.file.read_at(info.data_offset + start, stop - start)
        self._check_pages(info, start, stop, data)
        return memoryview(data)[offset - start : offset - start + length]

    async def read(self, info: FragmentInfo, offset: int, length: int) -> memoryview:
        """`read_blocking` in a reader thread."""
        return await self._readers.run(lambda: self.read_blocking(info, offset, length))

    def _check_pages(self, info: FragmentInfo, start: int, stop: int, data: bytes) -> None:
        first = start // PAGE_BYTES * 4
        found = page_crcs(data)
        if len(data) != stop - start or found != info.fragment.page_crcs[first : first + len(found)]:
            self._metrics.count("disk_corrupt_pages_total")
            place = f"segment {info.segment} at offset {info.data_offset + start}"
            log.error("fragment-corrupt chunk=%s place=%s", info.fragment.chunk_id.hex(), place)
            raise Corrupt(
                f"stored bytes do not check out: {place}", segment=info.segment, offset=info.data_offset + start
            )

    # --- deleting and housekeeping ---------------------------------------------------------------------

    def delete(self, chunk_id: bytes, shard: int = 0) -> None:
        """Forgets a fragment. After a crash it may be back, as garbage that the sweep finds."""
        row = _row(chunk_id, shard)
        value = self._index.get(row)
        if value is None:
            return
        self._index.write([(row, None)])
        number, _, reserved = _PLACE.unpack_from(value)
        if number in self._segments:
            self._segments[number].live_bytes -= reserved

    def move(self, info: FragmentInfo, data: Buffer) -> FragmentInfo:
        """Compaction: writes a fragment again at the tail. It counts after the next sync and `publish`."""
        reserved = reserved_bytes(len(data))
        segment = self._room(reserved)
        fragment = msgspec.structs.replace(info.fragment, reserved_bytes=reserved)
        moved = FragmentInfo(segment.number, segment.tail, fragment)
        block = encode_block(segment.number, segment.tail, segment.salt, fragment)
        self._writes.append((segment.file, segment.tail, (block, data)))
        self._dirty[segment.number] = segment.file
        segment.tail += reserved
        return moved

    def publish(self, old: FragmentInfo, moved: FragmentInfo) -> None:
        """The copy is on the disk: from now on it is read, unless the fragment was deleted meanwhile."""
        if self._names(old):
            row = _row(old.fragment.chunk_id, old.fragment.shard)
            self._index.write([(row, _encode_row(moved, self))])
            self._segments[old.segment].live_bytes -= old.fragment.reserved_bytes
            self._segments[moved.segment].live_bytes += moved.fragment.reserved_bytes

    def sparse_segments(self) -> list[int]:
        """Numbers of sealed segments that are mostly dead, the emptiest first."""
        busy = {writer.segment.number for writer in self._in_progress}
        found = []
        for segment in self._segments.values():
            if segment is self._active or segment.number in busy:
                continue
            share = segment.live_bytes / max(1, segment.tail - SEGMENT_HEADER_BYTES)
            if share <= 1 - self._config.segment_dead_ratio:
                found.append((share, segment.number))
        return [number for _, number in sorted(found)]

    def retire_active(self) -> None:
        """The next fragment begins a new segment, so that this one can be compacted when it is mostly dead."""
        if self._active is not None and self._active.live_bytes <= 0 and not self._in_progress:
            self._active = None

    def live_bytes(self, number: int) -> int:
        """Reserved bytes of the fragments of a segment that the index names."""
        return self._segments[number].live_bytes

    async def fragments_of(self, number: int) -> list[FragmentInfo]:
        """The fragments of a segment that the index still finds there."""
        segment = self._segments[number]
        scanned = await self._readers.run(
            lambda: list(scan_segment(segment.file, number, segment.salt, SEGMENT_HEADER_BYTES))
        )
        return [info for info in scanned if self._names(info)]

    def _names(self, info: FragmentInfo) -> bool:
        value = self._index.get(_row(info.fragment.chunk_id, info.fragment.shard))
        return value is not None and _PLACE.unpack_from(value)[:2] == (info.segment, info.offset)

    async def flush_index(self) -> None:
        """Makes the index durable: before the file of a moved or deleted fragment goes."""
        checkpoint = self._checkpoint()
        await self._readers.run(self._index.flush)
        self._index.write([(CHECKPOINT, checkpoint)])

    def remove(self, number: int) -> None:
        """Removes the file of a segment that nothing names. Readers that still hold it look up again."""
        segment = self._segments.pop(number)
        self._forget_removed()
        self._files.remove(f"{self._folder}/{number:016d}{ENDING}")
        self._files.sync_folder(self._folder)
        self._loop.call_later(1.0, segment.file.close)
        self._free_checked_s = -1.0

    def numbers(self) -> list[int]:
        """All segments."""
        return sorted(self._segments)

    def chunk_ids(self, start: bytes = b"") -> Iterator[bytes]:
        """Ids of the chunks that have fragments here, from `start` on."""
        for key, _ in self._index.scan(ROW + start, ROW + b"\xff" * 32):
            yield key[1:17]

    async def close(self) -> None:
        """Syncs what is pending, flushes the index, and ends the threads."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.sync(lambda error: None if future.done() else future.set_result(None))
        await future
        try:
            await self.flush_index()
            await self._readers.run(self._index.flush)
        except DiskFailed as error:
            log.warning("index-flush-failed error=%s", error)
        self._sync_worker.close()
        self._readers.close()


def _row(chunk_id: bytes, shard: int) -> bytes:
    return ROW + chunk_id + shard.to_bytes(2, "big")


def _encode_row(info: FragmentInfo, segments: Segments) -> bytes:
    salt = segments._segments[info.segment].salt
    block = encode_block(info.segment, info.offset, salt, info.fragment)
    return _PLACE.pack(info.segment, info.offset, info.fragment.reserved_bytes) + short_block(block)
