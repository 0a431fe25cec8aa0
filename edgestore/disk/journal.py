"""The node's write-ahead log: records of several groups, one sync thread, one fdatasync for all that wait.

Rule 5: a batch carries the place synced before it; a failed write or sync is fatal, nothing is acknowledged after it.
A record is taken only where its place on the disk is allocated already: in the current file, or in the spare that is
made ahead of need. So a full disk refuses records, and never fails half a batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import Files
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    HEADER_KINDS,
    JournalRecord,
    RecordKind,
    encode_record,
)
from edgestore.disk.journal_recovery import RecoveredFile, read_records, recover
from edgestore.disk.journal_writer import JournalWriter, Step
from edgestore.errors import DiskFailed, StorageFull, TooBusy
from edgestore.observe import NO_METRICS, Metrics

log = logging.getLogger("edgestore.disk")

MARGIN_BYTES = 64 * 1024
"""Kept in the last file that the disk has room for: a start, a flush and a stop write their records there. Small files
keep a sixteenth."""
CONTROL_PAYLOAD_MAX_BYTES = 16
"""Entries up to this size carry no operations: the first one of a leader."""
SPARE_AGAIN_S = 0.5


@dataclass
class _Batch:
    """What one job of the sync thread writes. `headers`: records that open a file, should one begin here."""

    records: list[bytes]
    headers: list[bytes]
    waiting: list[Callable[[], None]]
    sequence: int
    newest_index: dict[int, int]


@dataclass
class _OldFile:
    """A file behind the current one. `newest_index` by group: trimmed when no group needs it any more."""

    number: int
    path: str
    newest_index: dict[int, int] = field(default_factory=dict)


class Journal:
    """The journal of one node. All methods are called on the event loop."""

    def __init__(self, files: Files, folder: str, config: DiskConfig, entropy: Entropy, metrics: Metrics) -> None:
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.synced_sequence = 0
        self.failed: BaseException | None = None
        self._files, self._config = files, config
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._worker = files.worker("journal")
        self._recovered: list[RecoveredFile] = []
        self._headers: dict[tuple[int, RecordKind], bytes] = {}
        self._sequence = 0
        self._pending: list[bytes] = []
        self._pending_bytes = self._writing_bytes = 0
        self._pending_index: dict[int, int] = {}
        self._waiting: list[Callable[[], None]] = []
        self._scheduled = self._busy = self._closed = False
        self._trimmed: dict[int, int] = {}
        self._old: deque[_OldFile] = deque()
        self._current = _OldFile(0, "")
        self._idle: asyncio.TimerHandle | None = None
        self._margin_bytes = min(MARGIN_BYTES, config.journal_file_bytes // 16)
        self._room_bytes = 0
        """What the current file still takes, or the spare where there is one."""
        self._has_spare = self._making_spare = False
        self._is_full = False
        """The disk had no room for a spare."""
        self._spare_again_s = 0.0
        self._writer = JournalWriter(files, folder, config.journal_file_bytes, entropy)

    @classmethod
    def open(
        cls,
        files: Files,
        folder: str,
        config: DiskConfig,
        entropy: Entropy,
        *,
        metrics: Metrics = NO_METRICS,
    ) -> Journal:
        """Checks every file, cuts the torn tail, and begins a new file. Raises Corrupt (rule 5).

        Where the disk has no room for a new file, it goes on in the last one: what was acknowledged can be deleted.
        """
        journal = cls(files, folder, config, entropy, metrics)
        files.make_folder(folder)
        found = recover(files, folder)
        journal._recovered = found.files
        journal._headers = {place: encode_record(record) for place, record in found.headers.items()}
        for file in found.files:
            journal._old.append(_OldFile(file.number, file.path, file.newest_index))
        if found.files:
            journal._writer.cut(found.files[-1], found.synced.get(found.files[-1].number, FILE_HEADER_BYTES))
        try:
            journal._current = _OldFile(*journal._writer.begin_file(list(journal._headers.values())))
        except StorageFull:
            if not found.files:
                raise
            log.warning("journal-goes-on-in-its-last-file reason=the disk is full")
            journal._writer.go_on(found.files[-1])
            journal._current = journal._old.pop()
            journal._is_full = True
        journal._measure()
        journal._ask_for_spare()
        return journal

    def records(self, group: int) -> Iterator[JournalRecord]:
        """What recovery found for the group, in order, read again from the files: before anything is trimmed."""
        return read_records(self._files, self._recovered, group)

    def append(self, record: JournalRecord) -> int:
        """Buffers a record in the open batch and returns its sequence. Raises TooBusy, StorageFull or DiskFailed."""
        if self.failed is not None or self._closed:
            raise DiskFailed("the journal takes no more records: the disk failed or the node is closing")
        if self._pending_bytes > self._config.journal_pending_max_bytes:
            message = "the disk does not keep up: the journal's buffer is full (disk.journal_pending_max_bytes)"
            raise TooBusy(message)
        data = encode_record(record)
        if self._pending_bytes + self._writing_bytes + len(data) > self._room_bytes - self._margin_bytes:
            self._check_room(record, len(data))
        if record.kind in HEADER_KINDS:
            self._headers[record.group, record.kind] = data
        self._pending.append(data)
        self._pending_bytes += len(data)
        if record.index > self._pending_index.get(record.group, 0):
            self._pending_index[record.group] = record.index
        self._sequence += 1
        return self._sequence

    def _check_room(self, record: JournalRecord, size_bytes: int) -> None:
        """Raises StorageFull, or TooBusy while the spare is made; records that carry no operations use the margin."""
        is_control = record.kind is not RecordKind.ENTRY or len(record.payload) <= CONTROL_PAYLOAD_MAX_BYTES
        if is_control and self._pending_bytes + self._writing_bytes + 2 * size_bytes < self._room_bytes:
            return
        self._ask_for_spare()
        if self._is_full:
            raise StorageFull("no space left for the journal: free space or add a disk; reading goes on")
        raise TooBusy("the disk does not keep up: the next file of the journal is not there yet")

    def _measure(self) -> None:
        """How much a batch may take: a batch that crosses files is counted as if it lay in the spare whole."""
        left = self._writer.left_bytes
        spare = self._config.journal_file_bytes - FILE_HEADER_BYTES - FRAME_HEADER_BYTES
        spare -= sum(len(header) for header in self._headers.values())
        self._room_bytes = max(left, spare) if self._has_spare else left

    @property
    def is_short(self) -> bool:
        """Whether the disk has no room for the next file, and a flush and a trim would give one back."""
        return self._is_full and not self._has_spare and bool(self._old)

    def _ask_for_spare(self) -> None:
        if self._has_spare or self._making_spare or self._closed or self._loop.time() < self._spare_again_s:
            return
        self._making_spare = True
        self._worker.submit(self._writer.make_spare, self._made_spare)

    def _made_spare(self, _: object, error: BaseException | None) -> None:
        self._making_spare = False
        if isinstance(error, StorageFull):
            if not self._is_full:
                log.warning("journal-spare-missing reason=%s", error)
            self._is_full, self._spare_again_s = True, self._loop.time() + SPARE_AGAIN_S
        elif error is not None:
            self._retired(None, error)
        else:
            self._got_spare()

    def _got_spare(self) -> None:
        self._has_spare, self._is_full, self._spare_again_s = True, False, 0.0
        if not self._busy:
            self._measure()

    def sync(self, done: Callable[[], None], *, at_once: bool = False) -> None:
        """Calls `done` when all that was appended so far is on the disk; never after a failure. `at_once`: the caller
        is at the end of a turn itself, and nothing more goes with it."""
        self._waiting.append(done)
        if at_once:
            self._hand_over()
        elif not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._hand_over)  # what this turn of the loop still brings goes with it

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or self.failed is not None or not (self._pending or self._waiting):
            return
        batch = _Batch(self._pending, list(self._headers.values()), self._waiting, self._sequence, self._pending_index)
        self._writing_bytes = self._pending_bytes
        self._pending, self._pending_bytes, self._pending_index, self._waiting = [], 0, {}, []
        self._busy = True
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        step = self._writer.begin(batch.records)
        if step is None:
            self._worker.submit(lambda: self._write(batch), lambda began, error: self._written(batch, began, error))
        else:
            self._worker.write_synced(
                step.file, step.offset, step.frame, lambda error: self._stepped(batch, step, error)
            )

    def _stepped(self, batch: _Batch, step: Step, error: BaseException | None) -> None:
        if error is None:
            self._writer.ended(step)
        self._written(batch, [], error)

    def _written(self, batch: _Batch, began: list[_OldFile] | None, error: BaseException | None) -> None:
        self._busy, self._writing_bytes = False, 0
        if error is not None or began is None:
            self._fail(error or DiskFailed("the journal's thread ended"))
            return
        for file in (self._current, *began):  # a batch that crosses files pins all of them, which is safe and rare
            for group, index in batch.newest_index.items():
                file.newest_index[group] = max(index, file.newest_index.get(group, 0))
        for file in began:
            self._old.append(self._current)
            self._current = file
            self._has_spare = False
        self._measure()
        if not self._has_spare:
            self._ask_for_spare()
        self.synced_sequence = batch.sequence
        self._metrics.count("disk_journal_syncs_total")
        for done in batch.waiting:
            done()
        if self._pending or self._waiting:
            self._hand_over()
        elif batch.records and not self._closed:
            self._idle = self._loop.call_later(self._config.journal_idle_mark_ms / 1000, self._mark)

    def _mark(self) -> None:
        """A second without a batch: an empty one records the synced place (rule 5)."""
        self._idle = None
        self.sync(lambda: None)

    def _fail(self, error: BaseException) -> None:
        self.failed = error
        self._waiting.clear()
        self._pending.clear()
        log.critical("journal-failed error=%s", error)
        self.on_failure(error)

    def trim(self, group: int, index: int) -> None:
        """The group needs no entry up to and including `index`: files that nobody needs are reused or removed."""
        self._trimmed[group] = max(index, self._trimmed.get(group, 0))
        while self._old and self._is_free(self._old[0]):
            path = self._old.popleft().path
            self._worker.submit(lambda path=path: self._writer.retire(path), self._retired)  # type: ignore[misc]

    def _is_free(self, file: _OldFile) -> bool:
        return all(index <= self._trimmed.get(group, 0) for group, index in file.newest_index.items())

    def _retired(self, is_spare: object, error: BaseException | None) -> None:
        if error is not None and self.failed is None:
            self._fail(error)
        elif is_spare:
            self._got_spare()

    def old_bytes(self) -> int:
        """Bytes in files behind the current one: what a flush and a trim would give back."""
        return len(self._old) * self._config.journal_file_bytes

    def _write(self, batch: _Batch) -> list[_OldFile]:
        """In the sync thread. Returns the files that began."""
        return [_OldFile(*began) for began in self._writer.write(batch.records, batch.headers)]

    async def close(self) -> None:
        """Syncs what is pending, records that it is synced, and ends the thread."""
        if self._idle is not None:
            self._idle.cancel()
        for _ in range(2):  # the second, empty batch records that the first is synced
            if self.failed is None:
                future: asyncio.Future[None] = self._loop.create_future()
                failed = self.on_failure
                self.on_failure = lambda error, failed=failed, future=future: _end(failed, error, future)  # type: ignore[misc]
                self.sync(lambda future=future: future.done() or future.set_result(None))  # type: ignore[misc]
                try:
                    await future
                finally:
                    self.on_failure = failed
        self._closed = True
        self._worker.close()
        self._writer.close()


def _end(on_failure: Callable[[BaseException], None], error: BaseException, closing: asyncio.Future[None]) -> None:
    """The last sync failed: the node hears of it, and the close goes on."""
    if not closing.done():
        closing.set_result(None)
    on_failure(error)
