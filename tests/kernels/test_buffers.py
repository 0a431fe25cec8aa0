"""The pool of aligned buffers: alignment, bounds, and what comes back comes out again."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import pytest

from edgestore.kernels import ALIGNMENT_BYTES, BufferPool, encode


def address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_buffers_are_aligned_and_do_not_overlap() -> None:
    pool = BufferPool(5, 3 * ALIGNMENT_BYTES)
    places = sorted(address(buffer) for buffer in (pool.take() for _ in range(5)) if buffer is not None)
    assert len(places) == 5
    assert all(place % ALIGNMENT_BYTES == 0 for place in places)
    assert all(later - earlier >= pool.buffer_bytes for earlier, later in pairwise(places))


def test_the_pool_is_bounded_and_hands_out_again_what_came_back_last() -> None:
    pool = BufferPool(2, 4096)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert (pool.take(), len(pool), pool.taken_bytes) == (None, 0, 8192)
    pool.give_back(first)
    assert pool.take() is first
    pool.give_back(first)
    pool.give_back(second)
    with pytest.raises(ValueError, match="given back before"):
        pool.give_back(second)
    with pytest.raises(ValueError, match="does not belong"):
        pool.give_back(memoryview(bytearray(1)))


@pytest.mark.parametrize(("count", "size"), [(0, 64), (-1, 64), (1, 0), (1, 63), (1, -64)])
def test_sizes_that_would_break_the_alignment_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        BufferPool(count, size)


def test_kernels_take_a_buffer_of_the_pool() -> None:
    pool = BufferPool(1, 6 * 65536)
    buffer = pool.take()
    assert buffer is not None
    buffer[: 4 * 65536] = bytes(range(256)) * 1024
    assert encode(buffer, 4, 2, 65536, 65536) == encode(bytearray(buffer), 4, 2, 65536, 65536)
