"""Memory that is used again: aligned buffers for what the kernels read and write (one mapping, huge pages advised,
bounded), and buffers of any size that come back by themselves.

Rule: memory is taken from the system once; a buffer that was never used costs address space only.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

ALIGNMENT_BYTES = 64
"""What the kernels ask of a stripe; the buffers of a pool begin on a multiple of it."""


class BufferPool:
    """`count` buffers of `buffer_bytes` each. Not thread-safe: one thread takes and gives back.

    Those given back last go out first, so an idle program touches few of them. Raises ValueError for sizes that are
    not positive or would break the alignment, MemoryError (OSError) where the system does not give the memory.
    """

    def __init__(self, count: int, buffer_bytes: int) -> None:
        if count < 1 or buffer_bytes < 1 or buffer_bytes % ALIGNMENT_BYTES:
            raise ValueError(f"{count} buffers of {buffer_bytes} bytes: use a multiple of {ALIGNMENT_BYTES}")
        self.count, self.buffer_bytes = count, buffer_bytes
        self._mapping = mmap.mmap(-1, count * buffer_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages: ordinary ones are only slower
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(self._mapping)
        self._free = [whole[at * buffer_bytes : (at + 1) * buffer_bytes] for at in range(count)]

    def __len__(self) -> int:
        """How many buffers are free."""
        return len(self._free)

    @property
    def taken_bytes(self) -> int:
        """Bytes of the buffers in use."""
        return (self.count - len(self._free)) * self.buffer_bytes

    def take(self) -> memoryview | None:
        """A buffer with whatever it held before; None where all are in use."""
        return self._free.pop() if self._free else None

    def give_back(self, buffer: memoryview) -> None:
        """A buffer that nobody looks at any more. Raises ValueError where more come back than went out."""
        if len(self._free) == self.count or buffer.nbytes != self.buffer_bytes:
            raise ValueError("the buffer does not belong to the pool, or was given back before")
        self._free.append(buffer)


class Buffers:
    """Memory for long frames and reads. A buffer comes back when the last view of it is gone: the pages of new ones,
    which the kernel clears first, cost more than all other work on a frame. Not thread-safe: one thread takes."""

    def __init__(self, kept_max_bytes: int) -> None:
        self._kept_max_bytes, self._kept_bytes = kept_max_bytes, 0
        self._kept: list[bytearray] = [bytearray()]
        self._unused_references = self._references(0)
        """To a buffer of which nobody has a view: how many there are is the interpreter's affair."""
        self._kept.clear()

    def take(self, size_bytes: int) -> memoryview:
        """What is in it is of no meaning."""
        for at in range(len(self._kept)):
            if size_bytes <= len(self._kept[at]) <= 2 * size_bytes and self._is_unused(at):
                return memoryview(self._kept[at])[:size_bytes]
        buffer = bytearray(size_bytes)
        self._make_room(size_bytes)
        if self._kept_bytes + size_bytes <= self._kept_max_bytes:
            self._kept.append(buffer)
            self._kept_bytes += size_bytes
        return memoryview(buffer)

    def rest(self) -> None:
        """What nobody uses goes back to the system."""
        self._kept = [self._kept[at] for at in range(len(self._kept)) if not self._is_unused(at)]
        self._kept_bytes = sum(map(len, self._kept))

    def _is_unused(self, at: int) -> bool:
        return self._references(at) == self._unused_references

    def _references(self, at: int) -> int:
        return sys.getrefcount(self._kept[at])

    def _make_room(self, size_bytes: int) -> None:
        """Those of other sizes go, where nobody uses them."""
        for at in reversed(range(len(self._kept))):
            if self._kept_bytes + size_bytes <= self._kept_max_bytes:
                return
            if self._is_unused(at):
                self._kept_bytes -= len(self._kept.pop(at))
