"""Systematic Reed-Solomon over GF(2^8) modulo 0x11D: the matrices, and reconstruction on top of one transform.

A stripe is one contiguous buffer of k data and m parity shards, `stride` bytes apart; the matrix is a disk format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from edgestore.errors import Corrupt

POLYNOMIAL = 0x11D
SHARDS_MAX = 32
DECODE_MATRICES_CACHED = 4096

Transform = Callable[..., bytes]


def multiply(a: int, b: int) -> int:
    """The product in the field."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (POLYNOMIAL if a & 0x80 else 0)
        b >>= 1
    return product


@lru_cache(maxsize=256)
def invert(a: int) -> int:
    """1 / a."""
    return next(b for b in range(256) if multiply(a, b) == 1)


@lru_cache(maxsize=1024)
def encode_matrix(k: int, m: int) -> tuple[tuple[int, ...], ...]:
    """a[i][j] = 1 / ((k + i) xor j); columns, then rows scaled until row 0 and column 0 are all ones."""
    rows = [[invert((k + i) ^ j) for j in range(k)] for i in range(m)]
    if m:
        scales = [invert(value) for value in rows[0]]
        rows = [[multiply(value, scale) for value, scale in zip(row, scales, strict=True)] for row in rows]
    return tuple(tuple(multiply(value, invert(row[0])) for value in row) for row in rows)


def generator_row(k: int, m: int, shard: int) -> tuple[int, ...]:
    """Shard = row * data."""
    if shard < k:
        return tuple(int(shard == j) for j in range(k))
    return encode_matrix(k, m)[shard - k]


def _inverse(rows: list[list[int]]) -> list[list[int]]:
    size = len(rows)
    work = [[*row, *(int(i == j) for j in range(size))] for i, row in enumerate(rows)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if work[i][column])
        work[column], work[pivot] = work[pivot], work[column]
        scale = invert(work[column][column])
        work[column] = [multiply(value, scale) for value in work[column]]
        for i in range(size):
            factor = work[i][column]
            if i != column and factor:
                work[i] = [a ^ multiply(factor, b) for a, b in zip(work[i], work[column], strict=True)]
    return [row[size:] for row in work]


@lru_cache(maxsize=DECODE_MATRICES_CACHED)
def decode_plan(k: int, m: int, lost: tuple[int, ...]) -> tuple[bytes, bytes, bytes]:
    """(inputs, outputs, matrix, row-major): lost shards from the first k that are left."""
    inputs = tuple(shard for shard in range(k + m) if shard not in lost)[:k]
    decoded = _inverse([list(generator_row(k, m, shard)) for shard in inputs])
    matrix = bytearray()
    for shard in lost:
        row = generator_row(k, m, shard)
        for column in range(k):
            cell = 0
            for j in range(k):
                cell ^= multiply(row[j], decoded[j][column])
            matrix.append(cell)
    return bytes(inputs), bytes(lost), bytes(matrix)


def reconstruct_with(  # the arguments are those of `encode`, and what is lost and known
    transform: Transform,
    stripe: bytearray | memoryview,
    k: int,
    m: int,
    shard_bytes: int,
    stride: int,
    lost: tuple[int, ...],
    crcs: bytes,
) -> bytes:
    """See `edgestore.kernels.reconstruct`."""
    if len(set(lost)) != len(lost) or any(not 0 <= shard < k + m for shard in lost):
        raise ValueError("lost shards are named once each, 0 to k + m - 1")
    if len(lost) > m:
        raise ValueError(f"{len(lost)} of {k} + {m} shards are lost: at most {m} can be rebuilt")
    page_bytes = (shard_bytes + 65_535) // 65_536 * 4
    if len(crcs) != page_bytes * (k + m):
        raise ValueError("crcs holds a CRC32C for every page of every shard, as encode returns them")
    inputs, outputs, matrix = decode_plan(k, m, tuple(sorted(lost)))
    found = transform(stripe, k, m, shard_bytes, stride, inputs, outputs, matrix)
    for position, shard in enumerate((*inputs, *outputs)):
        expected = crcs[shard * page_bytes : (shard + 1) * page_bytes]
        if found[position * page_bytes : (position + 1) * page_bytes] != expected:
            raise Corrupt(f"shard {shard} does not check out", shard=shard)
    return found[k * page_bytes :]


def decode_with(  # the arguments are those of `encode`, and what is there and wanted
    transform: Transform,
    stripe: bytearray | memoryview,
    k: int,
    m: int,
    shard_bytes: int,
    stride: int,
    present: tuple[int, ...],
    wanted: tuple[int, ...],
) -> bytes:
    """See `edgestore.kernels.decode`."""
    chosen = set(present)
    if len(chosen) != k or len(present) != k or chosen & set(wanted):
        raise ValueError("decoding takes k shards, named once each, to make others")
    lost = tuple(shard for shard in range(k + m) if shard not in chosen)
    if len(lost) != m or not set(wanted) <= set(lost):
        raise ValueError("shards are named from 0 to k + m - 1")
    inputs, outputs, matrix = decode_plan(k, m, lost)
    rows = b"".join(matrix[outputs.index(shard) * k :][:k] for shard in wanted)
    crcs = transform(stripe, k, m, shard_bytes, stride, inputs, bytes(wanted), rows)
    page_bytes = (shard_bytes + 65_535) // 65_536 * 4
    return crcs[k * page_bytes :]
