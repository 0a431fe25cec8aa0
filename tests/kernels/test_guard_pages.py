"""No kernel reads or writes outside its buffers: they lie directly beside pages that may not be touched."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edgestore.kernels import reference
from edgestore.kernels.erasure import reconstruct_with
from tests.kernels.guard import guarded
from tests.kernels.test_checksums import NAMES, runnable

_native = pytest.importorskip("edgestore.kernels._native")

BOTH_ENDS = pytest.mark.parametrize("before", [True, False], ids=["start", "end"])
TOUCHES = """
import ctypes
from tests.kernels.guard import guarded
with guarded(100, before={before}) as view:
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    print("alive", flush=True)
    ctypes.string_at(address + {offset}, 1)
"""


@pytest.fixture(params=runnable())
def kernel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The extension with one kernel forced."""
    _native.start(request.param)
    yield _native
    _native.start(None)


@pytest.mark.parametrize(("before", "offset"), [(True, -1), (False, 100)])
def test_the_guard_is_real(before: bool, offset: int) -> None:
    program = TOUCHES.format(before=before, offset=offset)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("alive\n", -signal.SIGSEGV)


@BOTH_ENDS
def test_checksums_stay_inside(kernel: Any, before: bool) -> None:
    for length in (*range(150), 255, 256, 257, 511, 512, 513, 575, 1023, 1024, 1087, 4095, 4096, 4097):
        with guarded(length, before=before) as data:
            for name in NAMES:
                assert getattr(kernel, name)(data) == getattr(reference, name)(data)
            assert kernel.page_crcs(data, 512) == reference.page_crcs(data, 512)


@BOTH_ENDS
def test_large_checksums_stay_inside(kernel: Any, before: bool) -> None:
    for length in (32_767, 32_768, 65_535, 65_536, 65_537, 100_001):
        with guarded(length, before=before) as data:
            for name in NAMES:
                assert getattr(kernel, name)(data) == getattr(reference, name)(data)


@BOTH_ENDS
@pytest.mark.parametrize(("k", "m"), [(1, 0), (1, 2), (2, 1), (4, 2), (5, 3), (8, 3), (10, 4), (20, 12)])
def test_erasure_coding_stays_inside(kernel: Any, before: bool, k: int, m: int) -> None:
    for shard_bytes in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1000, 4096, 4161):
        for stride in (shard_bytes, shard_bytes + 3):
            with guarded((k + m - 1) * stride + shard_bytes, before=before) as stripe:
                copy = bytearray(stripe)
                crcs = kernel.encode(stripe, k, m, shard_bytes, stride)
                assert crcs == reference.encode(copy, k, m, shard_bytes, stride)
                assert stripe == copy
                lost = tuple(range(0, k + m, 2))[:m]
                for shard in lost:
                    stripe[shard * stride : shard * stride + shard_bytes] = bytes(shard_bytes)
                reconstruct_with(kernel.transform, stripe, k, m, shard_bytes, stride, lost, crcs)
                assert stripe == copy


@BOTH_ENDS
def test_pages_that_are_streamed_stay_inside(kernel: Any, before: bool) -> None:
    shard_bytes = 3 * 65_536 + 4096
    with guarded(6 * shard_bytes, before=before) as stripe:
        crcs = kernel.encode(stripe, 4, 2, shard_bytes, shard_bytes)
        whole = bytes(stripe)
        for shard in (0, 5):
            stripe[shard * shard_bytes : (shard + 1) * shard_bytes] = bytes(shard_bytes)
        reconstruct_with(kernel.transform, stripe, 4, 2, shard_bytes, shard_bytes, (0, 5), crcs)
        assert stripe == whole
