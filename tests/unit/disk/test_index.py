"""A damaged table of the ordered store is an error at every read of it, never fewer rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgestore.disk import RocksIndex, SystemFiles
from edgestore.disk.index import _translated
from edgestore.errors import Closing, StoreDamaged

ROWS = {b"key-%05d" % number: os.urandom(50) for number in range(5000)}


def open_store(folder: Path) -> RocksIndex:
    """The store of the tests."""
    return RocksIndex.open(SystemFiles(str(folder)), "store", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)


def damage(folder: Path) -> None:
    """One flipped bit in the middle of the largest table."""
    path = max(folder.glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.fixture
def damaged(tmp_path: Path) -> RocksIndex:
    """A store with a flipped bit."""
    store = open_store(tmp_path)
    store.write(list(ROWS.items()))
    store.flush()
    store.close()
    damage(tmp_path / "store")
    return open_store(tmp_path)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_scan_over_a_damaged_block_does_not_end_silently(damaged: RocksIndex, reverse: bool) -> None:
    found = []
    with pytest.raises(StoreDamaged, match="salvage"):
        for row in damaged.scan(b"key-", b"key.", reverse=reverse):
            found.append(row)  # noqa: PERF402
    assert found
    assert all(ROWS[key] == value for key, value in found)
    damaged.close()


def test_a_get_in_a_damaged_block_raises_and_elsewhere_answers(damaged: RocksIndex) -> None:
    answers = 0
    with pytest.raises(StoreDamaged):
        for key, value in ROWS.items():
            assert damaged.get(key) == value
            answers += 1
    assert answers
    assert damaged.get(max(ROWS)) == ROWS[max(ROWS)]
    damaged.close()


def test_a_store_that_does_not_open_is_damaged_and_a_closed_one_is_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write(list(ROWS.items()))
    store.flush()
    store.close()
    for use in (lambda: store.get(b"key"), lambda: list(store.scan(b"a", b"z")), lambda: store.write([(b"k", b"v")])):
        with pytest.raises(Closing):
            use()
    max((tmp_path / "store").glob("*.sst")).unlink()
    with pytest.raises(StoreDamaged):
        open_store(tmp_path)


@pytest.mark.parametrize("text", ["Already borrowed", "Already mutably borrowed"])
def test_a_store_that_a_thread_uses_while_it_closes_is_not_called_damaged(text: str) -> None:
    assert type(_translated(RuntimeError(text), "catalog")) is Closing


def test_a_checkpoint_is_nobody_elses(tmp_path: Path) -> None:
    """The catalog holds the key of the site's authority, and all secrets."""
    store = open_store(tmp_path)
    store.write([(b"key", b"secret")])
    store.checkpoint("sent")
    assert (tmp_path / "sent").stat().st_mode & 0o777 == 0o700
    store.close()


@pytest.mark.parametrize(("name", "mode"), [(None, 0o700), ("identity", 0o700), ("photo.jpg", 0o755)])
def test_a_folder_that_is_ours_is_closed_to_others(tmp_path: Path, name: str | None, mode: int) -> None:
    tmp_path.chmod(0o755)
    if name is not None:
        (tmp_path / name).write_bytes(b"x")
    SystemFiles(str(tmp_path))
    assert tmp_path.stat().st_mode & 0o777 == mode
