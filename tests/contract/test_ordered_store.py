"""What the catalog and the segment index may rely on, whichever ordered store stands below."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgestore.disk import Files, OrderedStore, RocksIndex, SystemFiles
from tests.sim.disk import Disk, SimFiles
from tests.sim.index import SimIndex
from tests.sim.loop import SimLoop

Reopen = Callable[[bool], OrderedStore]
"""Opens the store; True after a power cut, False after a close."""


@pytest.fixture(params=["rocks", "sim"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same store again and again."""
    opened: list[OrderedStore] = []
    if request.param == "sim":
        disk = Disk(random.Random(1))
        loop = SimLoop()

        def open_sim(lost_power: bool) -> OrderedStore:
            if lost_power:
                disk.lose_power()
            return SimIndex.open(SimFiles(disk, loop), "store")

        yield open_sim
        loop.close()
        return
    files = SystemFiles(str(tmp_path))

    def open_rocks(lost_power: bool) -> OrderedStore:
        if opened:
            opened.pop().close()
        opened.append(RocksIndex.open(files, "store", write_buffer_bytes=1 << 20, cache_bytes=1 << 20))
        return opened[-1]

    yield open_rocks
    for store in opened:
        store.close()


Checkpointed = tuple[Files, Callable[[str], OrderedStore]]


@pytest.fixture(params=["rocks", "sim"])
def checkpointed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Checkpointed]:
    """The files, and what opens a store in one of their folders."""
    if request.param == "rocks":
        files = SystemFiles(str(tmp_path))
        yield files, lambda folder: RocksIndex.open(files, folder, write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
        return
    loop = SimLoop()
    simulated = SimFiles(Disk(random.Random(1)), loop)
    yield simulated, lambda folder: SimIndex.open(simulated, folder)
    loop.close()


def test_scans_are_ordered_and_bounded(reopen: Reopen) -> None:
    store = reopen(False)
    keys = [bytes((number,)) * 3 for number in (5, 1, 200, 7, 0, 255)]
    store.write([(key, b"v" + key) for key in keys])
    inside = sorted(key for key in keys if b"\x01" <= key < b"\xc9")
    assert [key for key, _ in store.scan(b"\x01", b"\xc9")] == inside
    assert [key for key, _ in store.scan(b"\x01", b"\xc9", reverse=True)] == inside[::-1]
    assert list(store.scan(b"\x08", b"\x09")) == []
    assert dict(store.scan(b"\x05", b"\x06")) == {b"\x05" * 3: b"v" + b"\x05" * 3}


def test_a_scan_stops_at_its_bound_also_when_it_is_kept_for_long(reopen: Reopen) -> None:
    store = reopen(False)
    store.write([(b"a%03d" % number, b"x") for number in range(500)])
    store.write([(b"b", b"behind")])
    found = store.scan(b"a", b"a250")
    for number in range(50):
        list(store.scan(b"a", b"a%03d" % number))
    assert [key for key, _ in found] == [b"a%03d" % number for number in range(250)]


def test_a_batch_is_applied_in_order_and_deletes(reopen: Reopen) -> None:
    store = reopen(False)
    store.write([(b"k", b"1"), (b"k", b"2"), (b"gone", b"x"), (b"gone", None)])
    assert store.get(b"k") == b"2"
    assert store.get(b"gone") is None
    store.write([(b"k", None)])
    assert store.get(b"k") is None


def test_what_was_flushed_is_there_after_a_power_cut(reopen: Reopen) -> None:
    store = reopen(False)
    store.write([(b"flushed", b"1")])
    store.flush()
    for number in range(20):
        store.write([(b"later", b"%d" % number), (b"count-%02d" % number, b"x")])
    again = reopen(True)
    assert again.get(b"flushed") == b"1"
    last = again.get(b"later")
    present = [key for key, _ in again.scan(b"count-", b"count.")]
    expected = int(last) + 1 if last is not None else 0
    assert present == [b"count-%02d" % number for number in range(expected)]


def test_a_checkpoint_has_what_was_written_before_it(checkpointed: Checkpointed) -> None:
    files, open_store = checkpointed
    store = open_store("store")
    store.write([(b"%05d" % number, b"x" * 100) for number in range(5000)])
    store.flush()
    store.write([(b"a", b"not flushed"), (b"00000", None)])
    store.checkpoint("store.copy")
    store.write([(b"b", b"later")])
    copy = open_store("store.copy")
    assert (copy.get(b"a"), copy.get(b"b"), copy.get(b"00000")) == (b"not flushed", None, None)
    copy.write([(b"c", b"of the copy")])
    assert (store.get(b"b"), store.get(b"c")) == (b"later", None)
    store.close()
    copy.close()
    files.remove_folder("store.copy")
    assert not files.exists("store.copy")


def test_the_files_of_a_checkpoint_are_all_of_it(checkpointed: Checkpointed) -> None:
    files, open_store = checkpointed
    store = open_store("store")
    store.write([(b"%05d" % number, b"x" * 100) for number in range(5000)])
    store.checkpoint("store.copy")
    files.make_folder("moved")
    for name in files.list("store.copy"):
        content = files.read(f"store.copy/{name}")
        files.open(f"moved/{name}", create=True).write_at(0, content)
    files.remove_folder("store.copy")
    moved = open_store("moved")
    assert moved.get(b"04999") == b"x" * 100
    assert len(list(moved.scan(b"", b"\xff"))) == 5000
    store.close()
    moved.close()


def test_a_checkpoint_that_was_not_synced_goes_with_the_power() -> None:
    disk, loop = Disk(random.Random(3)), SimLoop()
    store = SimIndex.open(SimFiles(disk, loop), "store")
    store.write([(b"a", b"x")])
    store.checkpoint("copy")
    assert SimIndex.open(SimFiles(disk, loop), "copy").get(b"a") == b"x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk.rng, "random", lambda: 0.9)
        disk.lose_power()
    assert SimIndex.open(SimFiles(disk, loop), "copy").get(b"a") is None
    loop.close()
