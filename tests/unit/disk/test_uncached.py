"""What is written past the page cache is what was written, at any offset and of any memory."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

import pytest

from edgestore.disk import SystemFiles
from edgestore.disk.uncached import UNCACHED_MIN_BYTES, write_uncached

SIZES = [1, UNCACHED_MIN_BYTES, UNCACHED_MIN_BYTES + 3 * mmap.PAGESIZE, 1_000_003, 2 << 20]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 512, 1536, 4096, 70_000, 1])
@pytest.mark.parametrize("unaligned", [0, 16])
def test_all_of_it_is_there_and_nothing_beside_it(tmp_path: Path, size: int, offset: int, unaligned: int) -> None:
    memory = mmap.mmap(-1, size + unaligned, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data = random.Random(size).randbytes(size)
    memory[unaligned:] = data
    file = SystemFiles(str(tmp_path)).open("file", create=True)
    before, behind = b"\x11" * offset, b"\x22" * 5000
    file.write_at(0, before)
    file.write_at(offset + size, behind)
    write_uncached(file, offset, memoryview(memory)[unaligned:])
    file.sync()
    assert file.read_at(0, offset + size + len(behind)) == before + data + behind
    assert (tmp_path / "file").read_bytes() == before + data + behind
    file.close()


def test_neighbours_that_are_written_meanwhile_stay_as_they_are(tmp_path: Path) -> None:
    """A block before and behind each fragment goes through the page cache, within the same pages."""
    files = SystemFiles(str(tmp_path))
    file, chance, at = files.open("file", create=True), random.Random(1), 512
    expected = bytearray(512)
    file.write_at(0, bytes(512))
    for _ in range(20):
        size = chance.choice(SIZES[1:])
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:] = chance.randbytes(size)
        block = chance.randbytes(1024)
        write_uncached(file, at + 1024, memoryview(memory))
        file.write_at(at, block)
        expected += block + memory[:] + bytes(-size % 512)
        at += 1024 + size + -size % 512
    file.sync()
    found = file.read_at(0, len(expected))
    assert found.ljust(len(expected), b"\0") == bytes(expected)
    file.close()
