"""Every kernel encodes and rebuilds as the reference does: all shapes, all losses, any length."""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgestore.errors import Corrupt
from edgestore.kernels import page_crcs, reference
from edgestore.kernels.erasure import encode_matrix, reconstruct_with
from tests.kernels.test_checksums import runnable

_native = pytest.importorskip("edgestore.kernels._native")

SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (10, 4), (20, 12))
DEDICATED = ((2, 1), (3, 2), (4, 1), (4, 2), (6, 3), (8, 1), (8, 2), (8, 3), (10, 1), (10, 2), (10, 4))
STREAMED_BYTES = 1 << 20
GOLDEN = Path(__file__).parents[1] / "golden" / "erasure.json"


@pytest.fixture(params=runnable())
def kernel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The extension with one kernel forced."""
    _native.start(request.param)
    yield _native
    _native.start(None)


def make_stripe(rng: random.Random, k: int, m: int, shard_bytes: int, stride: int) -> bytearray:
    """Random data, and rubbish where parity goes and between the shards."""
    return bytearray(rng.randbytes((k + m) * stride))


@pytest.mark.parametrize(("k", "m"), SHAPES)
def test_encoding_agrees_with_the_reference(kernel: Any, k: int, m: int) -> None:
    rng = random.Random(k * 100 + m)
    for shard_bytes in (0, 1, 63, 64, 65, 100, 4096, 4159, 65_536, 65_537, 70_001):
        if k > 10 and shard_bytes > 5000:
            continue
        stride = shard_bytes + rng.choice((0, 1, 64))
        mine = make_stripe(rng, k, m, shard_bytes, stride)
        theirs = bytearray(mine)
        assert kernel.encode(mine, k, m, shard_bytes, stride) == reference.encode(theirs, k, m, shard_bytes, stride)
        assert mine == theirs


@pytest.mark.parametrize(("k", "m"), [(2, 1), (4, 2), (5, 3), (10, 4)])
def test_every_pattern_of_losses_is_rebuilt(kernel: Any, k: int, m: int) -> None:
    rng = random.Random(7)
    shard_bytes = stride = 131
    whole = make_stripe(rng, k, m, shard_bytes, stride)
    crcs = kernel.encode(whole, k, m, shard_bytes, stride)
    for count in range(1, m + 1):
        for lost in itertools.combinations(range(k + m), count):
            damaged = bytearray(whole)
            for shard in lost:
                damaged[shard * stride : shard * stride + shard_bytes] = rng.randbytes(shard_bytes)
            found = reconstruct_with(kernel.transform, damaged, k, m, shard_bytes, stride, lost, crcs)
            assert damaged == whole
            assert found == b"".join(crcs[shard * 4 : shard * 4 + 4] for shard in lost)


def test_a_damaged_input_is_named_and_never_used(kernel: Any) -> None:
    rng = random.Random(8)
    stripe = make_stripe(rng, 4, 2, 70_000, 70_016)
    crcs = kernel.encode(stripe, 4, 2, 70_000, 70_016)
    stripe[2 * 70_016 + 66_000] ^= 1
    with pytest.raises(Corrupt) as refused:
        reconstruct_with(kernel.transform, stripe, 4, 2, 70_000, 70_016, (0,), crcs)
    assert refused.value.fields["shard"] == 2
    with pytest.raises(ValueError, match="at most 2"):
        reconstruct_with(kernel.transform, stripe, 4, 2, 70_000, 70_016, (0, 1, 2), crcs)


def test_large_stripes_are_streamed_and_the_same(kernel: Any) -> None:
    shard_bytes = 300_032
    stripe = mmap.mmap(-1, 6 * shard_bytes)
    stripe[: 4 * shard_bytes] = os.urandom(4 * shard_bytes)
    crcs = kernel.encode(stripe, 4, 2, shard_bytes, shard_bytes)
    content = memoryview(stripe)
    shards = [content[at * shard_bytes : (at + 1) * shard_bytes] for at in range(6)]
    assert crcs == b"".join(page_crcs(shard) for shard in shards)
    xor = 0
    for shard in shards[:4]:
        xor ^= int.from_bytes(shard, "little")
    assert bytes(shards[4]) == xor.to_bytes(shard_bytes, "little")
    for shard in shards:
        shard.release()
    content.release()
    stripe.close()


def test_the_shapes_tested_are_those_that_have_code_of_their_own() -> None:
    source = (Path(__file__).parents[2] / "cext" / "gf256.c").read_text()
    assert {(int(k), int(m)) for k, m in re.findall(r"^ +SHAPE\((\d+), (\d+)\)", source, re.MULTILINE)} == set(
        DEDICATED
    )


@pytest.mark.parametrize("tail", [0, 64, 4159], ids=lambda tail: f"{tail} over")
@pytest.mark.parametrize(("k", "m"), DEDICATED, ids=lambda number: str(number))
@pytest.mark.parametrize("name", [name for name in runnable() if name != "portable"])
def test_large_encodings_of_every_dedicated_shape_agree_with_portable(name: str, k: int, m: int, tail: int) -> None:
    """Non-temporal stores from 1 MiB on where parity is aligned; one byte further on it is not. The portable kernel,
    in its turn, is compared with the reference above."""
    shard_bytes = (STREAMED_BYTES // (k + m) // 65_536 + 1) * 65_536 + tail
    stride = (shard_bytes + 63) // 64 * 64
    data = random.Random(k * 16 + m).randbytes((k + m) * stride)
    expected = bytearray(data)
    _native.start("portable")
    crcs = _native.encode(expected, k, m, shard_bytes, stride)
    _native.start(name)
    for offset in (0, 1):
        stripe = mmap.mmap(-1, len(data) + 1)
        stripe[offset : offset + len(data)] = data
        with memoryview(stripe) as whole, whole[offset : offset + len(data)] as view:
            assert _native.encode(view, k, m, shard_bytes, stride) == crcs
            assert view == expected
        stripe.close()
    _native.start(None)


@pytest.mark.parametrize(("k", "m"), SHAPES)
def test_row_0_and_column_0_are_ones(k: int, m: int) -> None:
    matrix = encode_matrix(k, m)
    assert all(cell == 1 for cell in (matrix[0] if m else ()))
    assert all(row[0] == 1 for row in matrix)
    assert all(cell for row in matrix for cell in row)


def test_golden_stripes(kernel: Any) -> None:
    for row in json.loads(GOLDEN.read_text()):
        k, m, shard_bytes = row["k"], row["m"], row["shard_bytes"]
        stripe = bytearray((number * 7 + number // 251) & 0xFF for number in range((k + m) * shard_bytes))
        crcs = kernel.encode(stripe, k, m, shard_bytes, shard_bytes)
        assert hashlib.sha256(stripe + crcs).hexdigest() == row["sha256"]


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1, 8, 8),
        (33, 0, 8, 8),
        (30, 3, 8, 8),
        (4, -1, 8, 8),
        (4, 2, 8, 7),
        (4, 2, -1, 8),
        (4, 2, 200, 200),
        (2, 1, 8, 1 << 62),
        ((1 << 63) - 1, 1, 0, 0),
        (1, (1 << 63) - 1, 0, 0),
        (2, 1, (1 << 63) - 1, (1 << 63) - 1),
    ],
)
def test_a_stripe_that_does_not_fit_is_refused(kernel: Any, arguments: tuple[int, int, int, int]) -> None:
    for module in (kernel, reference):
        with pytest.raises(ValueError, match="stripe"):
            module.encode(bytearray(48), *arguments)
    with pytest.raises(BufferError):
        kernel.encode(bytes(48), 4, 2, 8, 8)
    with pytest.raises(ValueError, match="matrix"):
        kernel.transform(bytearray(48), 4, 2, 8, 8, b"\0\1", b"\2", b"\1")
    with pytest.raises(ValueError, match="no such shard"):
        kernel.transform(bytearray(48), 4, 2, 8, 8, b"\0\x09", b"\2", b"\1\1")
