"""Memory between two pages that nobody may touch: a kernel that reads or writes outside its buffer dies on the spot."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

NOTHING = 0


@contextmanager
def guarded(length: int, *, before: bool) -> Iterator[memoryview]:
    """`length` random bytes: directly after the first forbidden page (`before`), or directly before the last."""
    page = mmap.PAGESIZE
    inner = max(1, -(-length // page)) * page
    mapping = mmap.mmap(-1, inner + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    handle = ctypes.c_char.from_buffer(mapping)
    start = ctypes.addressof(handle)
    del handle
    for forbidden in (start, start + page + inner):
        protect(forbidden, NOTHING)
    at = page if before else page + inner - length
    view = memoryview(mapping)[at : at + length]
    view[:] = os.urandom(length)
    try:
        yield view
    finally:
        view.release()
        mapping.close()


def protect(address: int, allowed: int) -> None:
    """mprotect of one page."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), allowed):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
