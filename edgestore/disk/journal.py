"""The node's write-ahead log: records of several groups, one sync thread, one fdatasync for all that wait.

Rule 5: a batch carries the place synced before it; a failed write or sync is fatal, nothing is acknowledged after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgestore.clock import Entropy
from edgestore.config import DiskConfig
from edgestore.disk.files import File, Files
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    HEADER_KINDS,
    SALT_BYTES,
    JournalRecord,
    Place,
    RecordKind,
    encode_file_header,
    encode_frame,
    encode_record,
)
from edgestore.disk.journal_recovery import SPARE, RecoveredFile, file_path, recover
from edgestore.errors import DiskFailed, TooBusy
from edgestore.observe import NO_METRICS, Metrics

log = logging.getLogger("edgestore.disk")

FRAME_PAYLOAD_MAX_BYTES = 4 * 1024 * 1024


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
        self._files, self._folder, self._config, self._entropy = files, folder, config, entropy
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._worker = files.worker("journal")
        self._recovered: dict[int, list[JournalRecord]] = {}
        self._headers: dict[tuple[int, RecordKind], bytes] = {}
        self._sequence = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pending_index: dict[int, int] = {}
        self._waiting: list[Callable[[], None]] = []
        self._scheduled = self._busy = self._closed = False
        self._trimmed: dict[int, int] = {}
        self._old: deque[_OldFile] = deque()
        self._current = _OldFile(0, "")
        self._idle: asyncio.TimerHandle | None = None
        # From here on: touched by the sync thread only.
        self._file: File | None = None
        self._salt = b""
        self._place = Place(0, 0)
        self._synced = Place(0, 0)

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
        """Reads and checks every file, cuts the torn tail, and begins a new file. Raises Corrupt (rule 5)."""
        journal = cls(files, folder, config, entropy, metrics)
        files.make_folder(folder)
        found = recover(files, folder)
        journal._recovered = found.records
        for group, records in found.records.items():
            for record in records:
                if record.kind in HEADER_KINDS:
                    journal._headers[group, record.kind] = encode_record(record)
        for file in found.files:
            journal._old.append(_OldFile(file.number, file.path, file.newest_index))
        if found.files:
            journal._cut(found.files[-1])
        journal._begin_file(list(journal._headers.values()))
        return journal

    def records(self, group: int) -> list[JournalRecord]:
        """What recovery found for the group, in order; handed out once, so that it does not stay in memory."""
        return self._recovered.pop(group, [])

    def append(self, record: JournalRecord) -> int:
        """Buffers a record in the open batch and returns its sequence. Raises TooBusy or DiskFailed."""
        if self.failed is not None or self._closed:
            raise DiskFailed("the journal takes no more records: the disk failed or the node is closing")
        if self._pending_bytes > self._config.journal_pending_max_bytes:
            message = "the disk does not keep up: the journal's buffer is full (disk.journal_pending_max_bytes)"
            raise TooBusy(message)
        data = encode_record(record)
        if record.kind in HEADER_KINDS:
            self._headers[record.group, record.kind] = data
        self._pending.append(data)
        self._pending_bytes += len(data)
        if record.index > self._pending_index.get(record.group, 0):
            self._pending_index[record.group] = record.index
        self._sequence += 1
        return self._sequence

    def sync(self, done: Callable[[], None]) -> None:
        """Calls `done` when all that was appended so far is on the disk; never after a failure."""
        self._waiting.append(done)
        if not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._hand_over)  # what this turn of the loop still brings goes with it

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or self.failed is not None or not (self._pending or self._waiting):
            return
        batch = _Batch(self._pending, list(self._headers.values()), self._waiting, self._sequence, self._pending_index)
        self._pending, self._pending_bytes, self._pending_index, self._waiting = [], 0, {}, []
        self._busy = True
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._worker.submit(lambda: self._write(batch), lambda began, error: self._written(batch, began, error))

    def _written(self, batch: _Batch, began: list[_OldFile] | None, error: BaseException | None) -> None:
        self._busy = False
        if error is not None or began is None:
            self._fail(error or DiskFailed("the journal's thread ended"))
            return
        for file in (self._current, *began):  # a batch that crosses files pins all of them, which is safe and rare
            for group, index in batch.newest_index.items():
                file.newest_index[group] = max(index, file.newest_index.get(group, 0))
        for file in began:
            self._old.append(self._current)
            self._current = file
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
            self._worker.submit(lambda path=path: self._retire(path), self._retired)  # type: ignore[misc]

    def _is_free(self, file: _OldFile) -> bool:
        return all(index <= self._trimmed.get(group, 0) for group, index in file.newest_index.items())

    def _retired(self, _: object, error: BaseException | None) -> None:
        if error is not None and self.failed is None:
            self._fail(error)

    def old_bytes(self) -> int:
        """Bytes in files behind the current one: what a flush and a trim would give back."""
        return len(self._old) * self._config.journal_file_bytes

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
        if self._file is not None:
            self._file.close()

    # --- the sync thread (at open: the loop's, before anything is handed over) ---------------------

    def _write(self, batch: _Batch) -> list[_OldFile]:
        """Writes the batch in frames and syncs. Returns the files that began."""
        began: list[_OldFile] = []
        assert self._file is not None
        for records in _frames_of(batch.records):
            frame = encode_frame(self._place, self._salt, self._synced, records)
            if self._place.offset + len(frame) > self._config.journal_file_bytes:
                self._file.sync()
                self._synced = self._place
                began.append(self._begin_file(batch.headers))
                frame = encode_frame(self._place, self._salt, self._synced, records)
            self._file.write_at(self._place.offset, frame)
            self._place = Place(self._place.file, self._place.offset + len(frame))
        self._file.sync()
        self._synced = self._place
        return began

    def _begin_file(self, headers: list[bytes]) -> _OldFile:
        """Makes the next file: header first, synced under another name, so that a named file always has one."""
        number = self._place.file + 1
        path, spare = file_path(self._folder, number), f"{self._folder}/{SPARE}"
        self._salt = self._entropy(SALT_BYTES)
        if self._file is not None:
            self._file.close()
        file = self._files.open(spare, create=True)
        if file.size() < self._config.journal_file_bytes:
            file.allocate(self._config.journal_file_bytes)
        first = Place(number, FILE_HEADER_BYTES)
        frame = encode_frame(first, self._salt, self._synced, headers)
        file.write_at(0, encode_file_header(number, self._salt), frame)
        file.sync()
        file.close()
        self._files.rename(spare, path)
        self._files.sync_folder(self._folder)
        self._file = self._files.open(path)
        self._place = self._synced = Place(number, FILE_HEADER_BYTES + len(frame))
        began = _OldFile(number, path)
        if self._current.number == 0:
            self._current = began
        return began

    def _cut(self, file: RecoveredFile) -> None:
        """Voids the torn tail of the last file and syncs what counts: only then may it be served."""
        last = self._files.open(file.path)
        if file.used > file.end:
            log.info("journal-tail-cut path=%s offset=%d", file.path, file.end)
            last.write_at(file.end, bytes(FRAME_HEADER_BYTES))
        last.sync()
        last.close()
        self._place = self._synced = Place(file.number, file.end)

    def _retire(self, path: str) -> None:
        spare = f"{self._folder}/{SPARE}"
        if self._files.exists(spare):
            self._files.remove(path)
        else:
            self._files.rename(path, spare)
        self._files.sync_folder(self._folder)


def _end(on_failure: Callable[[BaseException], None], error: BaseException, closing: asyncio.Future[None]) -> None:
    """The last sync failed: the node hears of it, and the close goes on."""
    if not closing.done():
        closing.set_result(None)
    on_failure(error)


def _frames_of(records: list[bytes]) -> list[list[bytes]]:
    """The records of a batch in runs of at most `FRAME_PAYLOAD_MAX_BYTES` (a longer record has a frame of its own)."""
    runs: list[list[bytes]] = [[]]
    size = 0
    for record in records:
        if runs[-1] and size + len(record) > FRAME_PAYLOAD_MAX_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(record)
        size += len(record)
    return runs
