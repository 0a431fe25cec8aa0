"""Which bytes of which chunks a range is made of, and how much of it is read ahead. Pure.

Rule: every reader may hold one unit; what is read ahead beyond it comes out of one budget that all readers share, so
slow readers cost a unit each and never wait for one another (rule 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgestore.chunks.facts import Source
from edgestore.disk import FragmentInfo


@dataclass(frozen=True, slots=True)
class Run:
    """Plain bytes [offset, offset + length) of one chunk: one read."""

    source: Source
    offset: int
    length: int


class RunCutter:
    """Cuts plain bytes [offset, offset + length) of chunks in order into runs."""

    def __init__(self, chunks: Sequence[Source], offset: int, length: int) -> None:
        self._chunks, self._offset, self._left = chunks, offset, length
        self._at = 0

    @property
    def source(self) -> Source | None:
        """The chunk of the next run; None where nothing is left."""
        while self._left > 0 and self._at < len(self._chunks):
            source = self._chunks[self._at]
            if self._offset < source.chunk.size_bytes:
                return source
            self._offset -= source.chunk.size_bytes
            self._at += 1
        return None

    def cut(self, most_bytes: int) -> Run | None:
        """The next run. It ends at a multiple of `most_bytes` in its chunk, so that no unit is unpacked twice."""
        source = self.source
        if source is None:
            return None
        aligned = most_bytes - self._offset % most_bytes
        length = min(aligned, self._left, source.chunk.size_bytes - self._offset)
        run = Run(source, self._offset, length)
        self._offset += length
        self._left -= length
        return run


def joined(views: Sequence[memoryview]) -> memoryview:
    """One view of all of them."""
    return views[0] if len(views) == 1 else memoryview(b"".join(views))


class ReadBudget:
    """Bytes that all readers together may have read ahead."""

    def __init__(self, limit_bytes: int) -> None:
        self.left_bytes = limit_bytes

    def take(self, count: int) -> bool:
        """False: there is not that much left."""
        if self.left_bytes < count:
            return False
        self.left_bytes -= count
        return True

    def give(self, count: int) -> None:
        """What was taken is not held any more."""
        self.left_bytes += count


@dataclass(frozen=True, slots=True)
class UnitSpan:
    """Units `first` to `last` of a fragment; where the first begins, stored and plain."""

    first: int
    last: int
    stored_offset: int
    plain_offset: int


def units_of(info: FragmentInfo, offset: int, length: int) -> UnitSpan:
    """The units that hold plain bytes [offset, offset + length)."""
    stored = plain = 0
    units = info.fragment.units
    first = 0
    while first < len(units) - 1 and plain + units[first].plain_bytes <= offset:
        plain += units[first].plain_bytes
        stored += units[first].stored_bytes
        first += 1
    last, reach = first, plain + units[first].plain_bytes
    while reach < offset + length and last < len(units) - 1:
        last += 1
        reach += units[last].plain_bytes
    return UnitSpan(first, last, stored, plain)
