"""Kernels on one pinned core, called from Python: encode + CRC of cold stripes, CRC32 in L2, the overhead of a call.

Rule: what is compared was measured in the same run, in turn; cold is random order over an arena far beyond the caches.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import time
import zlib
from collections.abc import Callable

from benchmarks import report
from edgestore.kernels import _native, crc32, encode

ARENA_BYTES = 1 << 30
SHARD_BYTES = 256 * 1024
SHAPES = ((4, 2), (8, 3), (10, 4))
ROUNDS = 5


def arena() -> memoryview:
    """Huge pages, every page touched, every byte random enough."""
    mapping = mmap.mmap(-1, ARENA_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    piece = os.urandom(1 << 24)
    for at in range(0, ARENA_BYTES, len(piece)):
        mapping[at : at + len(piece)] = piece
    return memoryview(mapping)


def rate(work: Callable[[int], object], places: list[int], data_bytes: int) -> float:
    """GB of data a second over all places."""
    started = time.thread_time()
    for place in places:
        work(place)
    return len(places) * data_bytes / (time.thread_time() - started) / 1e9


def cold_rows(memory: memoryview) -> list[report.Row]:
    """Encode + CRC against reading, and against ISA-L followed by google-crc32c."""
    import google_crc32c
    from pyeclib.ec_iface import ECDriver

    rows = []
    for k, m in SHAPES:
        stripe = (k + m) * SHARD_BYTES
        places = list(range(0, ARENA_BYTES - stripe, stripe))
        driver = ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy")

        def ours(place: int, k: int = k, m: int = m, stripe: int = stripe) -> None:
            encode(memory[place : place + stripe], k, m, SHARD_BYTES, SHARD_BYTES)

        def read(place: int, k: int = k) -> None:
            _native.probe_read(memory[place : place + k * SHARD_BYTES])

        def peer(place: int, k: int = k, driver: ECDriver = driver) -> None:
            for fragment in driver.encode(bytes(memory[place : place + k * SHARD_BYTES])):
                google_crc32c.value(fragment)

        figures: dict[str, list[float]] = {"ours": [], "read": [], "peer": []}
        for _ in range(ROUNDS):
            for name, work, share in (("ours", ours, 1), ("read", read, 1), ("peer", peer, 8)):
                random.shuffle(places)
                figures[name].append(rate(work, places[:: share or 1], k * SHARD_BYTES))
        own, dram, other = (statistics.median(figures[name]) for name in ("ours", "read", "peer"))
        name = f"encode + CRC {k}+{m}, cold, 256 KiB shards"
        rows.append(report.Row(f"{name}: of DRAM read", own / dram, "x", ">= 0.85", "DRAM read GB/s", dram))
        rows.append(report.Row(f"{name}: of ISA-L + crc32c", own / other, "x", ">= 2.3", "pyeclib GB/s", other))
    return rows


def crc_row() -> report.Row:
    """CRC32 of 64 KiB that stay in L2."""
    data = os.urandom(65_536)
    own, other = [], []
    for _ in range(ROUNDS):
        own.append(rate(lambda _: crc32(data), [0] * 4000, len(data)))
        other.append(rate(lambda _: zlib.crc32(data), [0] * 400, len(data)))
    peer = statistics.median(other)
    return report.Row("CRC32 of 64 KiB in L2", statistics.median(own) / peer, "x", ">= 15", "zlib GB/s", peer)


def overhead_row() -> report.Row:
    """An empty stripe costs what the call costs; 4 KiB shards are the work."""
    stripe = bytearray(14 * 4096)
    calls = 20_000
    figures = {}
    for size in (0, 4096):
        times = []
        for _ in range(ROUNDS):
            started = time.thread_time()
            for _ in range(calls):
                encode(stripe, 10, 4, size, 4096)
            times.append((time.thread_time() - started) / calls)
        figures[size] = statistics.median(times)
    share = figures[0] / figures[4096] * 100
    return report.Row(
        "Python call overhead, 10+4 at 4 KiB shards", share, "%", "<= 3", "us a call", figures[4096] * 1e6
    )


def measure() -> list[report.Row]:
    """One core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return [*cold_rows(arena()), crc_row(), overhead_row()]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
