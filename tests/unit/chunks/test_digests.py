"""Digests are those of the standard library, however the bytes come; compression keeps what pays and nothing else."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgestore.chunks import Compression, Digests, WholeDigests
from edgestore.chunks.compression import PLAIN, ZSTD
from edgestore.chunks.digests import ALGORITHMS
from edgestore.errors import Corrupt

CHECK = b"123456789"
CHECK_VALUES = {  # of the CRC catalogue (reveng), and of the standard library
    "CRC32": 0xCBF43926.to_bytes(4, "big"),
    "CRC32C": 0xE3069283.to_bytes(4, "big"),
    "CRC64NVME": 0xAE8B14860A799888.to_bytes(8, "big"),
    "SHA1": hashlib.sha1(CHECK).digest(),
    "SHA256": hashlib.sha256(CHECK).digest(),
}


@pytest.mark.parametrize("name", CHECK_VALUES)
def test_each_checksum_has_its_published_value(name: str) -> None:
    digests = Digests((name,))
    digests.update(CHECK)
    assert digests.value(name) == CHECK_VALUES[name]
    assert digests.md5 == hashlib.md5(CHECK).digest()


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_digests_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes]) -> None:
    whole, cut = Digests(tuple(CHECK_VALUES), sha256=True), Digests(tuple(CHECK_VALUES), sha256=True)
    whole.update(b"".join(pieces))
    for piece in pieces:
        cut.update(memoryview(piece))
    assert cut.md5 == whole.md5 == hashlib.md5(b"".join(pieces)).digest()
    assert [cut.value(name) for name in CHECK_VALUES] == [whole.value(name) for name in CHECK_VALUES]
    assert int.from_bytes(cut.value("CRC32"), "big") == zlib.crc32(b"".join(pieces))


def test_what_saves_a_tenth_is_packed_and_comes_back() -> None:
    compression = Compression(1, 0.10)
    data = b"edge storage " * 5000
    codec, stored = compression.pack(memoryview(data))
    assert codec == ZSTD
    assert len(stored) <= 0.9 * len(data)
    assert compression.unpack(stored, len(data)) == data


def test_what_saves_less_stays_as_it_is_without_a_copy() -> None:
    data = memoryview(os.urandom(95_000) + b"\0" * 5_000)
    codec, stored = Compression(1, 0.10).pack(data)
    assert codec == PLAIN
    assert stored is data


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"not zstd at all",
        zstandard.compress(b"x" * 1000)[:-3],
        zstandard.compress(b"x" * 1001),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000),
        zstandard.compress(b"\0" * (1 << 28)),
    ],
    ids=["empty", "foreign", "cut", "other size", "no size", "bomb"],
)
def test_a_unit_that_is_not_what_its_chunk_says_is_corrupt(stored: bytes) -> None:
    with pytest.raises(Corrupt):
        Compression(1, 0.10).unpack(stored, 1000)


def test_many_threads_may_pack_at_once() -> None:
    compression, data, wrong = Compression(1, 0.10), b"edge storage " * 500, []

    def work() -> None:
        for _ in range(200):
            _, stored = compression.pack(memoryview(data))
            if compression.unpack(stored, len(data)) != data:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("size", [0, 1, 4096, 70_000])
def test_digests_of_bytes_in_memory_are_those_of_a_stream(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    running = Digests(ALGORITHMS, sha256=True)
    running.update(data)
    whole = WholeDigests(data)
    assert whole.md5 == running.md5
    assert [whole.value(name) for name in ALGORITHMS] == [running.value(name) for name in ALGORITHMS]
