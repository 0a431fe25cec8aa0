"""The files of the journal as its sync thread writes them: frames into the current one, the next one, the spare.

Rule: whoever calls is the sync thread, or the loop while nothing is handed over to it. What `write` has returned from
is on the disk, and what `begin` gave is when `ended` is told.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from edgestore.clock import Entropy
from edgestore.disk.files import File, Files
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    FRAME_ALIGNMENT_BYTES,
    FRAME_HEADER_BYTES,
    SALT_BYTES,
    Place,
    encode_file_header,
    encode_frame,
)
from edgestore.disk.journal_recovery import SPARE, RecoveredFile, file_path
from edgestore.errors import StorageFull

log = logging.getLogger("edgestore.disk")

FRAME_PAYLOAD_MAX_BYTES = 4 * 1024 * 1024
STEP_MAX_BYTES = 256 * 1024
"""A longer batch is put together, and its checksum made, in the thread: it would hold up the loop."""
ZEROES = bytes(256 * 1024)


class Began(NamedTuple):
    """A file that was begun."""

    number: int
    path: str


class Step(NamedTuple):
    """A batch that is one frame of the current file."""

    file: File
    offset: int
    frame: bytes


class JournalWriter:
    """See the module. A failed write or sync is the caller's to take as the end: nothing here is tried again."""

    def __init__(self, files: Files, folder: str, file_bytes: int, entropy: Entropy) -> None:
        self._files, self._folder, self._new_file_bytes, self._entropy = files, folder, file_bytes, entropy
        self._file: File | None = None
        self._salt = b""
        self._place = Place(0, 0)
        self._synced = Place(0, 0)
        self._file_bytes = 0

    @property
    def left_bytes(self) -> int:
        """What the current file still takes; read by the loop while nothing is being written."""
        return self._file_bytes - self._place.offset

    def begin(self, batch: list[bytes]) -> Step | None:
        """What is to be written and synced for these records; None where only `write` can."""
        size = FRAME_HEADER_BYTES + sum(len(record) for record in batch)
        if self._file is None or size > min(STEP_MAX_BYTES, self.left_bytes - FRAME_ALIGNMENT_BYTES):
            return None
        return Step(self._file, self._place.offset, encode_frame(self._place, self._salt, self._synced, batch))

    def ended(self, step: Step) -> None:
        """It is on the disk."""
        self._place = self._synced = Place(self._place.file, step.offset + len(step.frame))

    def write(self, batch: list[bytes], headers: list[bytes]) -> list[Began]:
        """Writes records in frames and syncs. `headers` open a file, should one begin; returns those that did."""
        began: list[Began] = []
        assert self._file is not None
        runs = _frames_of(batch, min(FRAME_PAYLOAD_MAX_BYTES, self._new_file_bytes // 4))
        for records in runs:
            frame = encode_frame(self._place, self._salt, self._synced, records)
            if self._place.offset + len(frame) > self._file_bytes:
                self._file.sync()
                self._synced = self._place
                try:
                    began.append(self.begin_file(headers))
                except StorageFull:
                    if records:
                        raise
                    return began  # a frame that only tells what is synced may be left out
                frame = encode_frame(self._place, self._salt, self._synced, records)
            write = self._file.write_at if len(runs) > 1 else self._file.write_synced
            write(self._place.offset, frame)
            self._place = Place(self._place.file, self._place.offset + len(frame))
        if len(runs) > 1:
            self._file.sync()
        self._synced = self._place
        return began

    def begin_file(self, headers: list[bytes]) -> Began:
        """Makes the next file: header first, synced under another name, so that a named file always has one."""
        number = self._place.file + 1
        path, spare = file_path(self._folder, number), f"{self._folder}/{SPARE}"
        salt = self._entropy(SALT_BYTES)
        first = Place(number, FILE_HEADER_BYTES)
        frame = encode_frame(first, salt, self._synced, headers)
        file = self._files.open(spare, create=True)
        try:
            self._allocate(file)
            file.write_at(0, encode_file_header(number, salt), frame)
            file.sync()
        finally:
            file.close()
        self._files.rename(spare, path)
        self._files.sync_folder(self._folder)
        if self._file is not None:
            self._file.close()
        self._file, self._salt = self._files.open(path), salt
        self._file_bytes = self._new_file_bytes
        self._place = self._synced = Place(number, FILE_HEADER_BYTES + len(frame))
        return Began(number, path)

    def _allocate(self, file: File) -> None:
        """The whole file, or nothing of it. Raises StorageFull."""
        before = file.size()
        if before < self._new_file_bytes:
            try:
                file.allocate(self._new_file_bytes)
            except StorageFull:
                file.truncate(before)
                raise

    def make_spare(self) -> None:
        """Allocates the next file ahead of need. Raises StorageFull."""
        file = self._files.open(f"{self._folder}/{SPARE}", create=True)
        try:
            self._allocate(file)
        finally:
            file.close()

    def go_on(self, last: RecoveredFile) -> None:
        """In the last file, behind what counts there. Its salt stays, so nothing stale may be left behind: the rest
        of the file is zeroed and synced before the first frame (rule 5)."""
        self._file, self._salt = self._files.open(last.path), last.salt
        self._file_bytes = self._file.size()
        for offset in range(last.end, self._file_bytes, len(ZEROES)):
            self._file.write_at(offset, ZEROES[: self._file_bytes - offset])
        self._file.sync()
        self._place = self._synced = Place(last.number, last.end)

    def cut(self, file: RecoveredFile, synced: int) -> None:
        """Voids the torn tail of the last file and syncs what counts: only then may it be served.

        What no frame calls synced is written again: after a failed sync the page cache holds it and takes it for
        written, so a sync alone would do nothing.
        """
        last = self._files.open(file.path)
        for offset in range(synced, file.end, len(ZEROES)):
            last.write_at(offset, last.read_at(offset, min(len(ZEROES), file.end - offset)))
        if last.read_at(file.end, FRAME_HEADER_BYTES).strip(b"\0"):
            log.info("journal-tail-cut path=%s offset=%d", file.path, file.end)
            last.write_at(file.end, bytes(FRAME_HEADER_BYTES))
        last.sync()
        last.close()
        self._place = self._synced = Place(file.number, file.end)

    def retire(self, path: str) -> bool:
        """The file becomes the spare: one that was written before costs a sync less than a new one. Whether it did."""
        file = self._files.open(path, write=False)
        is_whole = file.size() >= self._new_file_bytes
        file.close()
        if is_whole:
            self._files.rename(path, f"{self._folder}/{SPARE}")
        else:
            self._files.remove(path)
        self._files.sync_folder(self._folder)
        return is_whole

    def close(self) -> None:
        """Closes the current file."""
        if self._file is not None:
            self._file.close()


def _frames_of(records: list[bytes], payload_max_bytes: int) -> list[list[bytes]]:
    """The records of a batch in runs of at most `payload_max_bytes` (a longer record has a frame of its own)."""
    runs: list[list[bytes]] = [[]]
    size = 0
    for record in records:
        if runs[-1] and size + len(record) > payload_max_bytes:
            runs.append([])
            size = 0
        runs[-1].append(record)
        size += len(record)
    return runs
