"""What everything above the disk may rely on, whichever files stand below."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgestore.disk import Files, SystemFiles
from edgestore.errors import DiskFailed, InUse
from tests.sim.disk import Disk, SimFiles
from tests.sim.loop import SimLoop

Restart = Callable[[], Files]
"""The files of the next life of the node, without a power cut."""


@pytest.fixture(params=["system", "sim"])
def restart(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restart]:
    """One data folder, opened again and again."""
    if request.param == "system":
        yield lambda: SystemFiles(str(tmp_path))
        return
    disk, loop = Disk(random.Random(1)), SimLoop()
    yield lambda: SimFiles(disk, loop)
    loop.close()


def test_parts_are_written_one_behind_the_other_and_read_back(restart: Restart) -> None:
    file = restart().open("content", create=True)
    file.write_at(10, b"abc", memoryview(b"def"), b"")
    file.write_at(11, b"X")
    assert file.read_at(0, 100) == bytes(10) + b"aXcdef"
    assert file.read_at(12, 2) == b"cd"
    assert file.read_at(100, 5) == b""
    buffer = bytearray(8)
    assert file.read_into(12, memoryview(buffer)) == 4
    assert bytes(buffer) == b"cdef" + bytes(4)
    assert file.size() == 16
    file.truncate(12)
    assert (file.size(), file.read_at(10, 9)) == (12, b"aX")
    file.close()


def test_what_is_written_and_synced_at_once_survives_a_power_cut() -> None:
    disk, loop = Disk(random.Random(1)), SimLoop()
    files = SimFiles(disk, loop)
    file = files.open("content", create=True)
    file.write_synced(3, b"abc", memoryview(b"def"))
    files.sync_folder("")
    disk.lose_power()
    assert SimFiles(disk, loop).read("content") == bytes(3) + b"abcdef"
    loop.close()


def test_written_and_synced_at_once_is_written(restart: Restart) -> None:
    file = restart().open("content", create=True)
    file.write_synced(3, b"abc", memoryview(b"def"), b"")
    file.write_synced(1000, *([b"many"] * 1000))
    assert file.read_at(0, 9) == bytes(3) + b"abcdef"
    assert file.read_at(1000, 4000) == b"many" * 1000
    file.close()


def test_a_cached_read_is_whole_or_none(restart: Restart) -> None:
    file = restart().open("content", create=True)
    file.write_at(0, b"0123456789")
    assert file.read_cached(2, 5) in (None, b"23456")
    assert file.read_cached(8, 5) is None
    buffer = bytearray(5)
    assert not file.read_cached_into(2, memoryview(buffer)) or buffer == b"23456"
    assert not file.read_cached_into(8, memoryview(buffer))
    file.close()


def test_allocated_bytes_read_as_zeroes_and_keep_what_was_there(restart: Restart) -> None:
    file = restart().open("content", create=True)
    file.write_at(0, b"kept")
    file.allocate(8192)
    assert file.size() == 8192
    assert file.read_at(0, 8192) == b"kept" + bytes(8188)
    file.close()


def test_a_missing_file_is_not_created_by_accident(restart: Restart) -> None:
    files = restart()
    with pytest.raises(FileNotFoundError):
        files.open("missing")
    assert not files.exists("missing")
    assert files.list("no-such-folder") == []


def test_names_are_listed_sorted_and_can_be_changed(restart: Restart) -> None:
    files = restart()
    files.make_folder("folder")
    for name in ("b", "c", "a"):
        file = files.open(f"folder/{name}", create=True)
        file.write_at(0, name.encode())
        file.close()
    assert files.list("folder") == ["a", "b", "c"]
    files.rename("folder/a", "folder/c")
    files.remove("folder/b")
    files.sync_folder("folder")
    assert restart().list("folder") == ["c"]
    assert restart().read("folder/c") == b"a"


def test_a_replaced_file_is_whole_after_a_restart(restart: Restart) -> None:
    files = restart()
    files.replace("content", b"a long first content")
    files.replace("content", b"second")
    assert restart().read("content") == b"second"
    assert restart().list("") == ["content"]


def test_a_lock_has_one_holder(restart: Restart) -> None:
    files = restart()
    lock = files.lock("lock")
    with pytest.raises(InUse):
        files.lock("lock")
    lock.release()
    files.lock("lock").release()


@pytest.mark.parametrize("call", ["remove", "rename", "make_folder", "list", "sync_folder", "read"])
def test_what_the_system_refuses_leaves_as_an_error_of_the_tree(tmp_path: Path, call: str) -> None:
    files = SystemFiles(str(tmp_path))
    files.replace("file", b"content")
    asks = {
        "remove": lambda: files.remove("file/inside"),
        "rename": lambda: files.rename("file/inside", "other"),
        "make_folder": lambda: files.make_folder("file/inside"),
        "list": lambda: files.list("file"),
        "sync_folder": lambda: files.sync_folder("file"),
        "read": lambda: files.read("file/inside"),
    }
    with pytest.raises(DiskFailed, match=errno.errorcode[errno.ENOTDIR]):
        asks[call]()


def test_a_missing_file_is_told_apart_from_a_failing_disk(restart: Restart) -> None:
    files = restart()
    for ask in (lambda: files.remove("missing"), lambda: files.read("missing"), lambda: files.rename("missing", "x")):
        with pytest.raises(FileNotFoundError):
            ask()
