"""Opening the segments of a disk: brings the index up to what they hold. Blocking; runs in a worker.

Rule: what cannot be read is set aside loudly and never removed; a number that was ever begun is never begun again.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from edgestore.clock import Entropy
from edgestore.disk.files import Files
from edgestore.disk.fragments import SALT_BYTES, SEGMENT_HEADER_BYTES, FragmentInfo, encode_segment_header
from edgestore.disk.index import OrderedStore
from edgestore.disk.readable import ReadableFile
from edgestore.disk.segment_files import (
    UNFINISHED,
    Descriptors,
    Segment,
    read_salt,
    segment_numbers,
    segment_path,
)
from edgestore.disk.segment_rows import (
    CHECKPOINT,
    FRAGMENTS,
    FRAGMENTS_END,
    LAST_NUMBER,
    NUMBER,
    PLACE,
    POSITION,
    rescan_key,
    row_key,
    row_of,
)
from edgestore.disk.segment_scan import is_whole, scan_segment
from edgestore.errors import StorageFull

log = logging.getLogger("edgestore.disk")


@dataclass(slots=True)
class Recovered:
    """What was found. `unreadable`: how many pages of a segment the disk did not give. `ahead`: an empty segment for
    what is written first. `checkpoint`: what lies from there on may have a row, or a block, without its bytes."""

    segments: dict[int, Segment] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)
    unreadable: dict[int, int] = field(default_factory=dict)
    last_number: int = 0
    ahead: Segment | None = None
    checkpoint: tuple[int, int] = (0, 0)


class Recovery:
    """One start."""

    def __init__(
        self, files: Files, folder: str, index: OrderedStore, descriptors: Descriptors, entropy: Entropy
    ) -> None:
        self._files, self._folder, self._index = files, folder, index
        self._descriptors, self._entropy = descriptors, entropy
        self._found = Recovered()

    def run(self) -> Recovered:
        """Scans what was written since the checkpoint, counts what lives, and sees to an empty segment. Raises
        StoreDamaged where the index does not check out, UnknownFormat."""
        found = self._found
        data = self._index.get(CHECKPOINT)
        checkpoint = found.checkpoint = POSITION.unpack(data) if data is not None else (0, 0)
        data = self._index.get(LAST_NUMBER)
        numbers = segment_numbers(self._files, self._folder)
        found.last_number = max([NUMBER.unpack(data)[0] if data is not None else 0, *numbers])
        for name in self._files.list(self._folder):
            if name.endswith(UNFINISHED):
                self._files.remove(f"{self._folder}/{name}")
        for number in numbers:
            self._open(number, checkpoint)
        self._count()
        self._see_to_an_empty_one()
        self._index.flush()
        return found

    def _open(self, number: int, checkpoint: tuple[int, int]) -> None:
        segment = Segment(number, segment_path(self._folder, number), b"")
        file = self._descriptors.hold(segment).file
        salt, rescan = read_salt(file, number), rescan_key(number)
        if salt is None:
            self._descriptors.forget(segment)
            self._found.quarantined.add(number)
            self._index.write([(rescan, b"")])
            log.critical(
                "segment-quarantined path=%s reason=its header cannot be read: what it holds is not served; restore "
                "the file from a copy and start again, or save what is left with `edgestore doctor --salvage`",
                segment.path,
            )
            return
        segment.salt, segment.tail = salt, file.size()
        self._found.segments[number] = segment
        whole = self._index.get(rescan) is not None
        if number < checkpoint[0] and not whole:
            return
        start = checkpoint[1] if number == checkpoint[0] and not whole else SEGMENT_HEADER_BYTES
        self._found.checkpoint = min(self._found.checkpoint, (number, start))
        file.sync()
        file.forget_cached(start)
        readable = ReadableFile(file)
        for info in scan_segment(readable, number, salt, start):
            if self._counts(info):
                self._index.write([row_of(info, salt)])
        if readable.unreadable:
            self._note_unreadable(segment, readable.unreadable)
        elif whole:
            self._index.write([(rescan, None)])

    def _note_unreadable(self, segment: Segment, pages: list[int]) -> None:
        """Fragments may begin there that no row names: the segment stays, and the next start looks again."""
        self._found.unreadable[segment.number] = len(pages)
        self._index.write([(rescan_key(segment.number), b"")])
        log.error(
            "segment-unreadable path=%s offset=%d pages=%d reason=the disk cannot read them: a fragment that begins "
            "there and has no row is taken for lost, all others are served; check the disk",
            segment.path,
            pages[0],
            len(pages),
        )

    def _counts(self, info: FragmentInfo) -> bool:
        """Of a fragment that compaction was moving the later copy counts, if it is whole."""
        value = self._index.get(row_key(info.fragment.chunk_id, info.fragment.shard))
        if value is None:
            return True
        number, offset, _ = PLACE.unpack_from(value)
        if number == info.segment:
            return bool(offset <= info.offset)
        if number > info.segment:
            return False
        later = self._descriptors.hold(self._found.segments[info.segment])
        return number not in self._found.segments or is_whole(later.file, info)

    def _count(self) -> None:
        segments, missing = self._found.segments, Counter[int]()
        for _, value in self._index.scan(FRAGMENTS, FRAGMENTS_END):
            number, _, reserved = PLACE.unpack_from(value)
            segment = segments.get(number)
            if segment is None:
                missing[number] += 1
            else:
                segment.live_bytes += reserved
        for number, count in sorted(missing.items()):
            state = "quarantined" if number in self._found.quarantined else "missing"
            log.error("fragments-unreadable segment=%d state=%s fragments=%d", number, state, count)

    def _see_to_an_empty_one(self) -> None:
        """The last one where nothing was written to it, else a new one."""
        found = self._found
        last = found.segments.get(found.last_number)
        if last is not None and last.is_empty and last.live_bytes <= 0:
            found.ahead = last
            return
        try:
            number = found.last_number + 1
            self._index.write([(LAST_NUMBER, NUMBER.pack(number))])
            found.ahead = create_segment(self._files, self._folder, number, self._entropy(SALT_BYTES))
        except StorageFull as error:
            log.warning("segment-postponed error=%s", error)
            return
        found.last_number = number
        found.segments[number] = found.ahead


def create_segment(files: Files, folder: str, number: int, salt: bytes) -> Segment:
    """A new file with a header, durable. Raises StorageFull, DiskFailed."""
    path = segment_path(folder, number)
    files.replace(path, encode_segment_header(number, salt))
    return Segment(number, path, salt)
