"""What goes wrong in one life of a node, drawn from the seed: the power, a sync, the space, the clocks; and between two
lives: a bit on the platter."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from edgestore.core import INDEX_FOLDER
from edgestore.disk.journal_recovery import ENDING
from edgestore.disk.segment_files import segment_path
from edgestore.disk.segment_rows import CHUNK_ID_BYTES, FRAGMENTS, FRAGMENTS_END, PLACE
from tests.sim.disk import UNLIMITED_BYTES, CrashAtSync, Disk
from tests.sim.loop import SimClock, SimLoop

DAY_MS = 86_400_000


def plan_crash(loop: SimLoop, disk: Disk) -> None:
    """At any step, at any call of the disk, or before a sync that has much to lose: of many writes to a segment, as
    compaction makes them, or of a large frame of the journal."""
    rng, kind = disk.rng, disk.rng.random()
    if kind < 0.25:
        loop.crash_at = rng.randint(1, 4000)
    elif kind < 0.45:
        disk.crash_at = disk.operations + rng.randint(1, 800)
    elif kind < 0.65:
        disk.crash_at_sync = CrashAtSync("segments/", 6, 0, rng.randint(1, 8))
    else:
        disk.crash_at_sync = CrashAtSync("journal/", 1, 4096, rng.randint(1, 60))


def plan_failed_sync(disk: Disk) -> None:
    """One of the next syncs fails, and every one after it until the node is started again."""
    left = disk.rng.randint(1, 120)

    def fails(path: str) -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    disk.sync_fails = fails


def clear(disk: Disk) -> None:
    """The next life begins without the plan of this one; what is full stays full."""
    disk.crash_at = disk.crash_at_sync = None
    disk.sync_fails = lambda path: False


async def fill_up(disk: Disk) -> None:
    """Others take the space at some time, and mostly give it back."""
    await asyncio.sleep(disk.rng.uniform(0, 0.2))
    disk.capacity_bytes = disk.used_bytes() + disk.rng.randint(0, 700_000)
    if disk.rng.random() < 0.6:
        await asyncio.sleep(disk.rng.uniform(0, 0.2))
        disk.capacity_bytes = UNLIMITED_BYTES


async def set_clock(clock: SimClock, rng: random.Random) -> None:
    """Somebody, or a time server, sets the wall clock now and then."""
    while True:
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        clock.wall_offset_ms += rng.randint(-DAY_MS, DAY_MS)


@dataclass(frozen=True)
class Flip:
    """One bit on the platter. `chunk_id`: whose fragment it lies in; empty in the journal."""

    path: str
    offset: int
    bit: int
    chunk_id: bytes = b""

    def apply(self, disk: Disk) -> None:
        """Turns the bit, or turns it back."""
        disk.flip_bit(self.path, self.offset, self.bit)

    turn_back = apply


def flip_in_the_journal(disk: Disk) -> Flip | None:
    """Anywhere in what was written to a file of it."""
    rng = disk.rng
    used = {path: len(disk.entries[path].durable.rstrip(b"\0")) for path in sorted(disk.entries)}
    paths = [path for path, length in used.items() if path.startswith("journal/") and path.endswith(ENDING) and length]
    if not paths:
        return None
    path = rng.choice(paths)
    return Flip(path, rng.randrange(used[path]), rng.randrange(8))


def flip_in_a_segment(disk: Disk) -> Flip | None:
    """In the block or the bytes of a fragment that the index names."""
    rng, rows = disk.rng, disk.stores[INDEX_FOLDER].flushed
    keys = list(rows.irange(FRAGMENTS, FRAGMENTS_END))
    if not keys:
        return None
    key = rng.choice(keys)
    number, offset, reserved = PLACE.unpack_from(rows[key])
    path = segment_path("segments", number)
    at = offset + rng.randrange(reserved)
    if path not in disk.entries or at >= len(disk.entries[path].durable):
        return None
    return Flip(path, at, rng.randrange(8), key[1 : 1 + CHUNK_ID_BYTES])
