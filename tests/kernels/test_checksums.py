"""Every kernel that this machine can run gives what the reference gives, at any length and any alignment."""

from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgestore.kernels import active_kernel, reference
from edgestore.kernels.selection import KERNELS

_native = pytest.importorskip("edgestore.kernels._native")

NAMES = ("crc32", "crc32c", "crc64nvme")
LENGTHS = [*range(300), 511, 512, 513, 1023, 4095, 4096, 4097, 20_001]
GOLDEN = Path(__file__).parents[1] / "golden" / "checksums.json"


def runnable() -> list[str]:
    """Names of the kernels that this processor can run."""
    found = []
    for name in KERNELS[:-1]:
        try:
            _native.start(name)
        except RuntimeError:
            continue
        found.append(name)
    _native.start(None)
    return found


@pytest.fixture(params=runnable())
def kernel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The extension with one kernel forced."""
    _native.start(request.param)
    yield _native
    _native.start(None)


@pytest.mark.parametrize("name", NAMES)
def test_every_length_and_alignment_agrees_with_the_reference(kernel: Any, name: str) -> None:
    rng = random.Random(1)
    bits = 64 if name == "crc64nvme" else 32
    for length in LENGTHS:
        start = rng.randrange(64)
        buffer = rng.randbytes(length + start)
        data, value = memoryview(buffer)[start:], rng.getrandbits(bits)
        assert getattr(kernel, name)(data, value) == getattr(reference, name)(data, value), length


@pytest.mark.parametrize("name", NAMES)
def test_running_values_and_combine_agree(kernel: Any, name: str) -> None:
    rng = random.Random(2)
    checksum, combine = getattr(kernel, name), getattr(kernel, name + "_combine")
    for _ in range(50):
        a, b = rng.randbytes(rng.randrange(5000)), rng.randbytes(rng.randrange(5000))
        assert checksum(b, checksum(a)) == checksum(a + b)
        assert combine(checksum(a), checksum(b), len(b)) == checksum(a + b)
    assert combine(checksum(b"a"), checksum(b""), 0) == checksum(b"a")


def test_the_polynomials_are_the_published_ones(kernel: Any) -> None:
    assert kernel.crc32(b"123456789") == zlib.crc32(b"123456789") == 0xCBF43926
    assert kernel.crc32c(b"123456789") == 0xE3069283
    assert kernel.crc64nvme(b"123456789") == 0xAE8B14860A799888


def test_golden_vectors(kernel: Any) -> None:
    for row in json.loads(GOLDEN.read_text()):
        data = bytes(number * row["step"] & 0xFF for number in range(row["length"]))
        for name in NAMES:
            assert getattr(kernel, name)(data) == row[name]


@pytest.mark.parametrize("page_bytes", [1, 512, 65_536])
def test_page_checksums(kernel: Any, page_bytes: int) -> None:
    for length in (0, 1, 511, 512, 1500, 3000):
        data = os.urandom(length)
        assert kernel.page_crcs(data, page_bytes) == reference.page_crcs(data, page_bytes)


def test_nothing_outside_the_buffer_is_read(kernel: Any) -> None:
    """The buffer ends at the end of a file's last page: a read beyond it is SIGBUS."""
    with open("/proc/self/exe", "rb") as program:
        assert program.read(4) == b"\x7fELF"
    pages = 4 * mmap.PAGESIZE
    with mmap.mmap(-1, pages) as mapping:
        mapping[:] = os.urandom(pages)
        for length in (*range(1, 200), 255, 256, 257, 300, 4096):
            data = memoryview(mapping)[pages - length :]
            assert kernel.crc32c(data) == reference.crc32c(data)
            data.release()


@pytest.mark.parametrize(
    ("forced", "code", "text"),
    [("portable", 0, "portable"), ("reference", 0, "reference"), ("avx3", 1, "is no kernel")],
)
def test_a_forced_kernel_is_a_demand(forced: str, code: int, text: str) -> None:
    program = "from edgestore.kernels import active_kernel, crc32c; print(active_kernel, crc32c(b'123456789'))"
    environment = {**os.environ, "EDGESTORE_KERNEL": forced}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code
    assert text in result.stdout + result.stderr
    if not code:
        assert str(0xE3069283) in result.stdout


def test_arguments_are_checked(kernel: Any) -> None:
    with pytest.raises(TypeError):
        kernel.crc32c()
    with pytest.raises(TypeError):
        kernel.crc32c("text")
    with pytest.raises(OverflowError):
        kernel.crc32c(b"", -1)
    with pytest.raises(ValueError, match="at least one byte"):
        kernel.page_crcs(b"x", 0)
    with pytest.raises(ValueError, match="no kernel"):
        kernel.start("nothing")


def test_the_kernel_in_use_is_known() -> None:
    assert active_kernel in KERNELS
