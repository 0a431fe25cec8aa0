"""Every kernel that this machine can run gives what the reference gives, at any length and any alignment."""

from __future__ import annotations

import json
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


def test_a_forced_kernel_that_is_not_built_or_cannot_run_is_told_apart() -> None:
    not_built = "import sys; sys.modules['edgestore.kernels._native'] = None; import edgestore.kernels"
    forced = {**os.environ, "EDGESTORE_KERNEL": "portable"}
    result = subprocess.run([sys.executable, "-c", not_built], env=forced, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "is not built" in result.stderr
    for name in set(KERNELS[:-1]) - set(runnable()):
        with pytest.raises(RuntimeError, match="cannot run"):
            _native.start(name)


def test_without_the_extension_the_reference_serves_and_is_named() -> None:
    program = (
        "import sys; sys.modules['edgestore.kernels._native'] = None; "
        "from edgestore.kernels import active_kernel, crc32c; print(active_kernel, crc32c(b'123456789'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "EDGESTORE_KERNEL"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["reference", str(0xE3069283)]


def test_a_running_value_wider_than_the_checksum_is_cut(kernel: Any) -> None:
    for name in ("crc32", "crc32c"):
        for data in (b"", b"abc", bytes(1000)):
            wide = getattr(kernel, name)(data, 0xFFFF_1234_5678)
            assert wide == getattr(reference, name)(data, 0xFFFF_1234_5678) == getattr(kernel, name)(data, 0x12345678)


def test_combine_takes_any_length(kernel: Any) -> None:
    for length in (0, 1, 1 << 40, (1 << 61) + 1, (1 << 64) - 1):
        for name in NAMES:
            combine = getattr(kernel, name + "_combine")
            assert combine(0x1234567, 0x89, length) == getattr(reference, name + "_combine")(0x1234567, 0x89, length)


def test_a_page_may_be_of_any_size(kernel: Any) -> None:
    for page_bytes in (2**63 - 1, 2**63 - 2, 2**62, 6, 5):
        assert kernel.page_crcs(b"x" * 5, page_bytes) == kernel.page_crcs(b"x" * 5)


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
