"""Sectors that a disk cannot read: where the seed puts them, and whose fragments they take.

Rule: only where every byte of the page belongs to fragments that are known, so that everybody knows what is lost.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgestore.disk.fragments import SEGMENT_HEADER_BYTES, decode_segment_header
from edgestore.disk.journal_recovery import ENDING as JOURNAL_ENDING
from edgestore.disk.readable import UNREADABLE_BYTES, ReadableFile
from edgestore.disk.segment_files import ENDING as SEGMENT_ENDING
from edgestore.disk.segment_scan import scan_segment
from tests.sim.disk import Disk
from tests.sim.platter import Content, overlaps

NEWEST = 3
"""Mostly it is one of the last segments: those are what a start scans."""


@dataclass(frozen=True)
class BadSector:
    """One. `chunk_ids`: whose fragments lie in its page; empty in the journal."""

    path: str
    page: int
    chunk_ids: frozenset[bytes] = frozenset()

    def apply(self, disk: Disk) -> None:
        """From now on the page cannot be read."""
        disk.entries[self.path].unreadable.add(self.page)

    def turn_back(self, disk: Disk) -> None:
        """The disk gives it again: a cable, or a heavy hour."""
        if self.path in disk.entries:
            disk.entries[self.path].unreadable.discard(self.page)


class _Platter:
    """What lies on the platter, for a reader of segments."""

    def __init__(self, path: str, content: Content) -> None:
        self.path, self.content = path, content

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.content.durable[offset : offset + length])

    def size(self) -> int:
        return len(self.content.durable)


def bad_sector_in_a_segment(disk: Disk, rng: random.Random) -> BadSector | None:
    """In the block of a sealed fragment, or in its bytes; behind the first page, and where others lie beside it."""
    paths = sorted(path for path in disk.entries if path.startswith("segments/") and path.endswith(SEGMENT_ENDING))
    if not paths:
        return None
    path = rng.choice(paths if rng.random() < 0.3 else paths[-NEWEST:])
    content, number = disk.entries[path], int(path.rpartition("/")[2].removesuffix(SEGMENT_ENDING))
    salt = decode_segment_header(bytes(content.durable[:SEGMENT_HEADER_BYTES]), number)
    if salt is None:
        return None
    file = ReadableFile(_Platter(path, content))  # type: ignore[arg-type]
    infos = list(scan_segment(file, number, salt, SEGMENT_HEADER_BYTES))
    if not infos:
        return None
    victim = rng.choice(infos)
    at = victim.offset + (rng.randrange(victim.fragment.reserved_bytes) if rng.random() < 0.4 else 0)
    page = at - at % UNREADABLE_BYTES
    hit = [info for info in infos if overlaps(page, info.offset, info.fragment.reserved_bytes)]
    ends = [(info.offset, info.offset + info.fragment.reserved_bytes) for info in hit]
    covered = sum(min(end, page + UNREADABLE_BYTES) - max(start, page) for start, end in ends)
    if page == 0 or covered < UNREADABLE_BYTES:
        return None
    return BadSector(path, page, frozenset(info.fragment.chunk_id for info in hit))


def bad_sector_in_the_journal(disk: Disk, rng: random.Random) -> BadSector | None:
    """Anywhere in a file of it."""
    paths = [path for path in sorted(disk.entries) if path.startswith("journal/") and path.endswith(JOURNAL_ENDING)]
    pages = [(path, page) for path in paths for page in range(0, len(disk.entries[path].durable), UNREADABLE_BYTES)]
    return BadSector(*rng.choice(pages)) if pages else None
