"""Reading one version: a pinned reader that yields checked bytes, and the small object that is at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from edgestore.chunks import ChunkStore, Pin
from edgestore.errors import Corrupt
from edgestore.records import ExtentRecord, VersionRecord


class SmallObject(msgspec.Struct, frozen=True, gc=False):
    """A version and all its bytes."""

    record: VersionRecord
    body: bytes | memoryview


class ColdObject(msgspec.Struct, frozen=True, gc=False):
    """A version whose bytes are one chunk that the page cache has not: a thread or another node must read it."""

    record: VersionRecord
    extent: ExtentRecord


class ObjectReader:
    """One version and its bytes, pinned until `close` (rule 6)."""

    def __init__(
        self,
        record: VersionRecord,
        inline: bytes,
        extents: list[ExtentRecord | None],
        chunks: ChunkStore,
        pin: Pin,
    ) -> None:
        self.record = record
        self._inline, self._extents, self._chunks, self._pin = inline, extents, chunks, pin

    @property
    def is_whole(self) -> bool:
        """False where a delete came between reading the version and opening it."""
        if self.record.inline:
            return len(self._inline) == self.record.size_bytes
        return None not in self._extents

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncIterator[memoryview]:
        """Bytes [offset, offset + length) as views, each checked before it is handed out."""
        if length is None:
            length = self.record.size_bytes - offset
        if self.record.inline:
            yield memoryview(self._inline)[offset : offset + length]
            return
        found, inner = self._extents_of(offset, length)
        async with aclosing(self._chunks.read(found, inner, length)) as views:
            async for view in views:
                self._pin.check()
                yield view

    def _extents_of(self, offset: int, length: int) -> tuple[list[ExtentRecord], int]:
        """The extents that hold the range, and where it begins in the first of them."""
        found: list[ExtentRecord] = []
        at = inner = 0
        for extent, span in zip(self._extents, self.record.extents, strict=True):
            if at >= offset + length:
                break
            if at + span.size_bytes > offset:
                if extent is None:
                    raise Corrupt("an extent of the version is missing", extent_id=span.extent_id.hex())
                inner = inner if found else offset - at
                found.append(extent)
            at += span.size_bytes
        return found, inner

    def close(self) -> None:
        """Lets reclaim go on."""
        self._pin.release()
