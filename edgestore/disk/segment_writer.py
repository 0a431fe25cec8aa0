"""The writing side of the segments: places, blocks, the group sync, and the next segment made ahead of its use.

Rule: a fragment is acknowledged after its data and its block are synced; a place is given out once, whatever becomes of
it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import Buffer, Files
from edgestore.disk.fragments import (
    BLOCK_BYTES,
    SALT_BYTES,
    SEGMENT_HEADER_BYTES,
    Fragment,
    Unit,
    encode_block,
    reserved_bytes,
)
from edgestore.disk.index import Change, OrderedStore
from edgestore.disk.segment_files import Descriptors, OpenFile, Segment
from edgestore.disk.segment_recovery import create_segment
from edgestore.disk.segment_rows import CHECKPOINT, LAST_NUMBER, NUMBER, POSITION, encode_row, names, row_key
from edgestore.errors import DiskFailed, EdgeStoreError, StorageFull
from edgestore.kernels import page_crcs
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.disk")

FREE_BYTES_TTL_S = 0.05
FLUSH_FRAGMENTS = 20_000

Done = Callable[[BaseException | None], None]


class Write(NamedTuple):
    """Bytes for the next sync, and the row that names their place. (Made a microsecond sooner than a frozen
    dataclass.)"""

    opened: OpenFile
    number: int
    offset: int
    key: bytes
    parts: tuple[Buffer, ...]
    """The block, and the bytes of a small fragment."""


class FragmentWriter:
    """One fragment in progress. `write` may run in any thread; the rest on the loop."""

    def __init__(self, segment: Segment, opened: OpenFile, offset: int, reserved: int, chunk_id: bytes) -> None:
        self.segment, self.opened, self.offset = segment, opened, offset
        self.reserved, self.chunk_id = reserved, chunk_id
        self.stored_bytes = 0

    def write(self, data: Buffer) -> None:
        """Appends stored bytes (blocking). ValueError where they would run into the next fragment."""
        if BLOCK_BYTES + self.stored_bytes + len(data) > self.reserved:
            raise ValueError("the fragment is longer than the place that was reserved for it")
        self.opened.file.write_at(self.offset + BLOCK_BYTES + self.stored_bytes, data)
        self.stored_bytes += len(data)


class SegmentWriter:
    """What `Segments` writes with. All methods run on the loop."""

    def __init__(
        self, files: Files, folder: str, index: OrderedStore, config: DiskConfig, entropy: Entropy, metrics: Metrics
    ) -> None:
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self._files, self._folder, self._index, self._config = files, folder, index, config
        self._entropy, self._metrics = entropy, metrics
        self._loop = asyncio.get_running_loop()
        self._sync_worker = files.worker("segment-sync")
        self._readers = files.worker("reader", config.reader_threads)
        self._descriptors = Descriptors(files, config.open_files_max)
        self._segments: dict[int, Segment] = {}
        self._last_number = 0
        self._active: Segment | None = None
        self._ahead: Segment | None = None
        self._making: int | None = None
        self._in_progress: set[FragmentWriter] = set()
        self._writes: list[Write] = []
        self._syncing: list[Write] = []
        self._unwritten: dict[tuple[int, int], Write] = {}
        """Both of them by segment and offset: rows name these places already."""
        self._dirty: dict[int, OpenFile] = {}
        self._waiting: list[Done] = []
        self._scheduled = self._busy = False
        self._unflushed = 0
        self._free_bytes, self._free_checked_s = 0, -1.0

    # --- places ----------------------------------------------------------------------------------------

    def check_room(self, size_bytes: int) -> None:
        """Raises StorageFull where content would eat into the reserve of journal, flushes and deletes."""
        self._check_room(size_bytes, self._config.reserve_bytes)

    def _check_room(self, size_bytes: int, reserve_bytes: int) -> None:
        now = self._loop.time()
        if now - self._free_checked_s > FREE_BYTES_TTL_S:
            self._free_bytes, self._free_checked_s = self._files.free_bytes(), now
        if self._free_bytes - size_bytes < reserve_bytes:
            raise StorageFull(
                f"{self._free_bytes} bytes are free, {self._config.reserve_bytes} are reserved (disk.reserve_bytes): "
                "delete something or add space; reading and deleting work",
                retry_after_s=30,
            )
        self._free_bytes -= size_bytes

    def begin(self, chunk_id: bytes, *, stored_max_bytes: int) -> FragmentWriter:
        """Reserves the place of a fragment that is written in pieces. Raises StorageFull."""
        self.check_room(stored_max_bytes)
        return self._begin(chunk_id, stored_max_bytes)

    def _begin(self, chunk_id: bytes, stored_max_bytes: int) -> FragmentWriter:
        reserved = reserved_bytes(stored_max_bytes)
        segment = self._room(reserved)
        writer = FragmentWriter(segment, self._descriptors.hold(segment), segment.tail, reserved, chunk_id)
        segment.tail += reserved
        self._in_progress.add(writer)
        return writer

    def abort(self, writer: FragmentWriter) -> None:
        """The fragment is not needed: its place is dead."""
        self._in_progress.discard(writer)

    def _room(self, reserved: int) -> Segment:
        """The segment where the next fragment goes. Another one is begun ahead when half of it is full."""
        active = self._active
        if active is not None and active.tail + reserved <= self._config.segment_bytes // 2:
            return active
        if active is None or not (active.tail + reserved <= self._config.segment_bytes or active.is_empty):
            active = self._next(active, reserved)
        if self._ahead is None and self._making is None:
            self._make_ahead()
        return active

    def _next(self, active: Segment | None, reserved: int) -> Segment:
        """The segment made ahead. Where that is not ready, the active one grows to twice its size; only then does a
        caller wait for a new file."""
        following, self._ahead = self._ahead, None
        if following is None:
            room = 2 * self._config.segment_bytes - reserved
            if active is not None and self._making is not None and active.tail <= room:
                return active
            number = self._take_number()
            try:
                following = create_segment(self._files, self._folder, number, self._entropy(SALT_BYTES))
            except DiskFailed as error:
                self.on_failure(error)
                raise
            self._segments[number] = following
        self._active = following
        return following

    def _make_ahead(self) -> None:
        """Two syncs, which no caller has to wait for."""
        try:
            number, salt = self._take_number(), self._entropy(SALT_BYTES)
        except StorageFull as error:
            log.warning("segment-postponed error=%s", error)
            return
        self._making = number

        def made(segment: Segment | None, error: BaseException | None) -> None:
            self._making = None
            if segment is not None:
                self._segments[number] = segment
                # Where a caller could not wait for it, its turn is over: copies go to higher numbers only.
                if self._active is None or self._active.number < number:
                    self._ahead = segment
            elif isinstance(error, StorageFull):
                log.warning("segment-postponed error=%s", error)
            elif error is not None:
                self.on_failure(error)

        self._readers.submit(lambda: create_segment(self._files, self._folder, number, salt), made)

    def _take_number(self) -> int:
        """A number that no segment ever had, also when its file is removed and the node is killed."""
        self._last_number += 1
        self._write_rows([(LAST_NUMBER, NUMBER.pack(self._last_number))])
        return self._last_number

    # --- blocks ----------------------------------------------------------------------------------------

    def seal(
        self,
        writer: FragmentWriter,
        units: tuple[Unit, ...],
        crcs: bytes,
        *,
        k: int = 1,
        m: int = 0,
        shard: int = 0,
    ) -> None:
        """All data is written: the block follows with the next sync."""
        self._in_progress.discard(writer)
        fragment = Fragment(writer.chunk_id, k, m, shard, 0, writer.reserved, writer.stored_bytes, units, crcs)
        self._put_block(writer.segment, writer.opened, writer.offset, fragment)

    def put(
        self, chunk_id: bytes, data: Buffer, units: tuple[Unit, ...], *, k: int = 1, m: int = 0, shard: int = 0
    ) -> None:
        """A whole small fragment; written and synced by the next `sync`. Raises StorageFull."""
        self.check_room(len(data))
        reserved = reserved_bytes(len(data))
        segment = self._room(reserved)
        opened, offset = segment.opened or self._descriptors.hold(segment), segment.tail
        segment.tail = offset + reserved
        self._put_block(
            segment,
            opened,
            offset,
            Fragment(chunk_id, k, m, shard, 0, reserved, len(data), units, page_crcs(data)),
            data,
        )

    def _put_block(self, segment: Segment, opened: OpenFile, offset: int, fragment: Fragment, *data: Buffer) -> None:
        """The row comes first: where the index refuses it, nothing was promised and the place is dead."""
        block = encode_block(segment.number, offset, segment.salt, fragment)
        key = row_key(fragment.chunk_id, fragment.shard)
        self._write_rows([(key, encode_row(segment.number, offset, fragment, block))])
        self._unflushed += 1
        segment.live_bytes += fragment.reserved_bytes
        self._add(Write(opened, segment.number, offset, key, (block, *data)))
        self._dirty.setdefault(segment.number, opened)

    def _add(self, write: Write) -> None:
        self._writes.append(write)
        self._unwritten[write.number, write.offset] = write

    def _forget(self, writes: list[Write]) -> None:
        for write in writes:
            del self._unwritten[write.number, write.offset]

    def _write_rows(self, changes: list[Change]) -> None:
        try:
            self._index.write(changes)
        except DiskFailed as error:
            self.on_failure(error)
            raise

    # --- the group sync --------------------------------------------------------------------------------

    def sync(self, done: Done) -> None:
        """`done(None)` when everything written, put and sealed so far is on the disk; else with what failed."""
        self._waiting.append(done)
        if not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def wrote(self, writer: FragmentWriter) -> None:
        """Pieces were written: the next sync includes their segment."""
        self._dirty.setdefault(writer.segment.number, writer.opened)

    @property
    def is_syncing(self) -> bool:
        """Whether somebody waits for the disk."""
        return self._busy or bool(self._waiting)

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or not self._waiting:
            return
        writes, dirty, waiting = self._writes, self._dirty, self._waiting
        self._writes, self._dirty, self._waiting = [], {}, []
        checkpoint = None
        if self._unflushed >= FLUSH_FRAGMENTS:
            self._unflushed, checkpoint = 0, self._checkpoint()
        self._busy, self._syncing = True, writes

        def work() -> None:
            for write in writes:
                write.opened.file.write_at(write.offset, *write.parts)
            for opened in dirty.values():
                opened.file.sync()
            if checkpoint is not None:
                self._index.write([checkpoint])
                self._index.flush()

        def done(_: object, error: BaseException | None) -> None:
            self._busy, self._syncing = False, []
            self._metrics.count("disk_segment_syncs_total")
            if error is not None and not isinstance(error, StorageFull):
                self.on_failure(error)
            kept = self._copies(writes) if isinstance(error, StorageFull) else []
            for one in waiting:
                one(error)
            if isinstance(error, StorageFull):
                self._keep(kept, dirty)
            else:
                self._forget(writes)
            if self._waiting:
                self._hand_over()

        self._sync_worker.submit(work, done)

    def _copies(self, writes: list[Write]) -> list[Write]:
        """The same in memory of their own: who hears that the sync failed uses its own for something else."""
        copies = [write._replace(parts=tuple(map(bytes, write.parts))) for write in writes]
        self._unwritten.update(((write.number, write.offset), write) for write in copies)
        return copies

    def _keep(self, writes: list[Write], dirty: dict[int, OpenFile]) -> None:
        """On a full disk the batch is tried again with the next sync, for others' blocks rode along; without what those
        who were told of the failure have dropped."""
        try:
            kept = [write for write in writes if names(self._index, write.key, write.number, write.offset)]
        except EdgeStoreError:
            kept = writes
        remain = {(write.number, write.offset) for write in kept}
        self._forget([write for write in writes if (write.number, write.offset) not in remain])
        self._writes = kept + self._writes
        self._dirty = {**dirty, **self._dirty}

    def _checkpoint(self) -> Change:
        """Everything before this place is in the index, for the rows were written before this one, and what a crash
        leaves of the index is a prefix; and it is synced, or will be in the batch that this is for."""
        places = [(writer.segment.number, writer.offset) for writer in self._in_progress]
        places += [(write.number, write.offset) for write in (*self._writes, *self._syncing)]
        coming = [self._last_number + 1, self._making, self._ahead.number if self._ahead is not None else None]
        places += [(number, SEGMENT_HEADER_BYTES) for number in coming if number is not None]
        if self._active is not None:
            places.append((self._active.number, self._active.tail))
        return CHECKPOINT, POSITION.pack(*min(places))
