"""Chunks fall into partitions, and each partition draws a lot for each node: the randomness of placement.

Rule: integers only. Replicas compare lots while they apply the log, and floating-point logarithms differ in their last
bit between processors and C libraries.
"""

from __future__ import annotations

import struct
from array import array

import xxhash

PARTITION_BITS = 12
PARTITIONS = 1 << PARTITION_BITS

_LOT = struct.Struct(">HI")
_FRACTION_BITS = 32
_DRAW_BITS = 64
NODES_KEPT_MAX = 128
"""Of whose lots are kept, 32 KiB each: a lot takes 6 us to draw, and every layout needs it again."""
_kept: dict[int, array[int]] = {}


def partition_of(chunk_id: bytes) -> int:
    """The partition of a chunk: the upper 12 bits of the xxh3 of its id."""
    return xxhash.xxh3_64_intdigest(chunk_id) >> (_DRAW_BITS - PARTITION_BITS)


def lot(partition: int, number: int) -> int:
    """-log2 of a uniform draw in (0, 1], in units of 2**-32: divided by the weight, the smallest wins.

    So a node wins with the probability of its share of the weight, and its lots change with its own weight only
    (weighted rendezvous hashing: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005).
    """
    lots = _kept.get(number)
    if lots is None:
        if len(_kept) >= NODES_KEPT_MAX:
            _kept.clear()
        lots = _kept[number] = array("Q", bytes(8 * PARTITIONS))
    if not lots[partition]:  # kept one higher, as 0 is a lot too
        draw = xxhash.xxh3_64_intdigest(_LOT.pack(partition, number)) + 1
        lots[partition] = (_DRAW_BITS << _FRACTION_BITS) - _log2(draw) + 1
    return lots[partition] - 1


def _log2(value: int) -> int:
    """The binary logarithm of 1..2**64, in units of 2**-32: one squaring a bit."""
    whole = value.bit_length() - 1
    mantissa = (value << 63) >> whole
    fraction = 0
    for _ in range(_FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 63
        carry = mantissa >> 64
        mantissa >>= carry
        fraction = fraction << 1 | carry
    return whole << _FRACTION_BITS | fraction
