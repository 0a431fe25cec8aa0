"""A real node whose disk has sectors that cannot be read (EIO) when it starts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.process import NodeProcess, NodeRefusedError
from tests.faults.test_damage import metric, read_or_refused
from tests.faults.test_disk_faults import fill, newest_journal_file, read_all, used_bytes
from tests.faults.test_disk_faults import node as node

pytestmark = pytest.mark.needs_program("cc")

Spoil = Callable[[Path, int, int], None]


@pytest.fixture
def spoil(node: NodeProcess, tmp_path: Path) -> Spoil:
    """(file, offset, length) that cannot be read from the next start on, until `unreadable` is removed."""
    library, switch = tmp_path / "fail_read.so", tmp_path / "unreadable"
    source = Path(__file__).with_name("fail_sync.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    node.environment = {"LD_PRELOAD": str(library), "FAIL_READ": str(switch)}

    def choose(path: Path, offset: int, length: int) -> None:
        switch.write_text(f"{path.parent.name}/{path.name} {offset} {length}")

    return choose


def test_a_start_goes_round_bad_sectors_of_a_segment(node: NodeProcess, spoil: Spoil, tmp_path: Path) -> None:
    """A killed node has no rows of what it wrote last: the start scans it. The data come back with the sectors."""
    node.start()
    bodies = fill(node.client(), 20, 100_000)
    node.kill()
    (segment,) = [path for path in (node.data / "segments").iterdir() if path.stat().st_size > 500_000]
    at = segment.read_bytes().index(bodies["key-0005"][:32])
    spoil(segment, at - 1024, 1024)
    node.start()
    assert read_or_refused(node.client(), bodies) == ([], ["key-0005"])
    assert "segment-unreadable" in node.log.read_text()
    assert metric(node, "disk_corrupt_pages_total")
    node.client().put_object(Bucket="bucket", Key="afterwards", Body=b"x" * 100_000)
    assert node.stop() == 0
    (tmp_path / "unreadable").unlink()
    node.start()
    assert read_all(node.client(), {**bodies, "afterwards": b"x" * 100_000}) == []


def test_bad_sectors_of_the_journal_are_refused_with_what_to_do(
    node: NodeProcess, spoil: Spoil, tmp_path: Path
) -> None:
    node.start()
    bodies = fill(node.client(), 200)
    node.kill()
    path = newest_journal_file(node.data)
    spoil(path, used_bytes(path) // 2, 512)
    with pytest.raises(NodeRefusedError) as refused:
        node.start()
    assert refused.value.code == 1
    assert "cannot be read" in refused.value.log
    assert "salvage" in refused.value.log
    assert path.name in refused.value.log
    (tmp_path / "unreadable").unlink()
    node.start()
    assert read_all(node.client(), bodies) == []


def test_bad_sectors_of_the_index_have_it_made_again(node: NodeProcess, spoil: Spoil) -> None:
    node.start()
    bodies = fill(node.client(), 60, 20_000)
    assert node.stop() == 0
    table = max((node.data / "index").glob("*.sst"), key=lambda path: path.stat().st_size)
    spoil(table, 0, 1 << 30)
    node.start()
    assert "index-rebuilt" in node.log.read_text()
    assert read_all(node.client(), bodies) == []


def test_bad_sectors_of_the_catalog_are_refused_and_never_served(node: NodeProcess, spoil: Spoil) -> None:
    node.start()
    fill(node.client(), 200, 3000)
    assert node.stop() == 0
    table = max((node.data / "catalog").glob("*.sst"), key=lambda path: path.stat().st_size)
    spoil(table, 0, 1 << 30)
    with pytest.raises(NodeRefusedError) as refused:
        node.start()
    assert refused.value.code == 1
    assert "catalog" in refused.value.log
    assert "salvage" in refused.value.log
