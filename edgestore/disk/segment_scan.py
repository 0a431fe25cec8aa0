"""Finding the fragments of a segment without the index: for recovery, compaction, scrub and salvage. Blocking."""

from __future__ import annotations

from collections.abc import Iterator

from edgestore.disk.files import File, Files
from edgestore.disk.fragments import (
    ALIGNMENT_BYTES,
    BLOCK_BYTES,
    BLOCK_MAGIC,
    SEGMENT_HEADER_BYTES,
    FragmentInfo,
    decode_block,
)
from edgestore.disk.readable import ReadableFile
from edgestore.disk.segment_files import read_salt, segment_numbers, segment_path
from edgestore.errors import Corrupt, DiskFailed
from edgestore.kernels import page_crcs

WINDOW_BYTES = 1 << 20


def scan_segment(file: ReadableFile, number: int, salt: bytes, start: int) -> Iterator[FragmentInfo]:
    """Every fragment with a valid block from `start` on. A place without one (an upload that never ended) is passed
    over, and so is one that cannot be read."""
    at, end = start, file.size()
    while at + BLOCK_BYTES <= end:
        fragment = decode_block(file.read_at(at, BLOCK_BYTES), number, at, salt)
        if fragment is not None:
            yield FragmentInfo(number, at, fragment)
            at += fragment.reserved_bytes
        else:
            at = _next_magic(file, at + ALIGNMENT_BYTES, end)


def _next_magic(file: ReadableFile, at: int, end: int) -> int:
    """The next aligned offset where a block may begin."""
    while at < end:
        window = file.read_at(at, WINDOW_BYTES)
        found = window.find(BLOCK_MAGIC)
        while found >= 0 and (at + found) % ALIGNMENT_BYTES:
            found = window.find(BLOCK_MAGIC, found + 1)
        if found >= 0:
            return at + found
        at += len(window) - len(window) % ALIGNMENT_BYTES or ALIGNMENT_BYTES
    return end


def is_whole(file: File, info: FragmentInfo) -> bool:
    """Whether all stored bytes of a fragment are there and check out."""
    try:
        data = file.read_at(info.data_offset, info.fragment.stored_bytes)
    except DiskFailed:
        return False
    return len(data) == info.fragment.stored_bytes and page_crcs(data) == info.fragment.page_crcs


class SegmentFile:
    """One segment opened without the index: for salvage."""

    def __init__(self, file: File, number: int, salt: bytes) -> None:
        self._file, self._number, self._salt = file, number, salt

    def scan(self) -> Iterator[FragmentInfo]:
        """Its fragments."""
        return scan_segment(ReadableFile(self._file), self._number, self._salt, SEGMENT_HEADER_BYTES)

    def read(self, info: FragmentInfo) -> memoryview:
        """All stored bytes of a fragment, checked. Raises Corrupt."""
        data = self._file.read_at(info.data_offset, info.fragment.stored_bytes)
        if page_crcs(data) != info.fragment.page_crcs or len(data) != info.fragment.stored_bytes:
            raise Corrupt(f"segment {self._number} at offset {info.data_offset} does not check out")
        return memoryview(data)


def open_segments(files: Files, folder: str) -> Iterator[SegmentFile]:
    """Every segment whose header checks out. Raises UnknownFormat."""
    for number in segment_numbers(files, folder):
        file = files.open(segment_path(folder, number))
        salt = read_salt(file, number)
        if salt is None:
            file.close()
        else:
            yield SegmentFile(file, number, salt)
