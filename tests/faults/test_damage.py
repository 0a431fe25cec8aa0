"""Bits that flip in a segment, the index or the catalog of a real node, and a last batch that tore: found, reported,
never served."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from edgestore.disk import JournalRecord, RecordKind
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    Place,
    decode_file_header,
    decode_frame,
    encode_frame,
    encode_record,
)
from tests.faults.process import NodeProcess, NodeRefusedError
from tests.faults.test_disk_faults import fill, newest_journal_file, read_all
from tests.faults.test_disk_faults import node as node

SECTOR_BYTES = 512
SCRUB_OFTEN = "[disk]\nscrub_interval_ms = 200\nscrub_bytes_per_s = 1073741824\n"


def flip(path: Path, at: int) -> None:
    """One bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def metric(node: NodeProcess, name: str) -> float:
    """The value that the node shows; 0 where it shows none."""
    with urllib.request.urlopen(f"{node.endpoint}/-/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = [line.split() for line in lines if not line.startswith("#")]
    return sum(float(value) for key, value in found if key.endswith(name))


def read_or_refused(s3: Any, bodies: dict[str, bytes]) -> tuple[list[str], list[str]]:
    """Keys that came back as something else, and keys that were refused."""
    wrong, refused = [], []
    for key, body in bodies.items():
        try:
            if s3.get_object(Bucket="bucket", Key=key)["Body"].read() != body:
                wrong.append(key)
        except (ClientError, BotoCoreError):
            refused.append(key)
    return wrong, refused


@pytest.mark.parametrize("lost", ["the last sectors", "a sector in the middle", "all but the first"])
def test_a_last_batch_that_tore_is_cut_and_what_was_acknowledged_stays(node: NodeProcess, lost: str) -> None:
    """The frame that the power cut caught: real, at its place, and nobody was told of it."""
    node.start()
    bodies = fill(node.client(), 50)
    node.kill()
    path = newest_journal_file(node.data)
    content = path.read_bytes()
    number = int(path.stem)
    salt = decode_file_header(content[:FILE_HEADER_BYTES], number)
    assert salt is not None
    end, index, term = FILE_HEADER_BYTES, 0, 0
    while (frame := decode_frame(memoryview(content), Place(number, end), salt)) is not None:
        end = frame.end
        for record in frame.records:
            index, term = max(index, record.index), max(term, record.term)
    record = encode_record(JournalRecord(0, 0, RecordKind.ENTRY, index + 1, term, b"edge" * 1500))
    torn = bytearray(encode_frame(Place(number, end), salt, Place(number, end), [record]))
    lost_from, lost_to = {
        "the last sectors": (len(torn) - 2 * SECTOR_BYTES, len(torn)),
        "a sector in the middle": (4 * SECTOR_BYTES, 5 * SECTOR_BYTES),
        "all but the first": (SECTOR_BYTES, len(torn)),
    }[lost]
    torn[lost_from:lost_to] = bytes(lost_to - lost_from)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(torn)
    node.start()
    assert read_all(node.client(), bodies) == []
    node.client().put_object(Bucket="bucket", Key="afterwards", Body=b"x")
    node.kill()
    node.start()
    assert read_all(node.client(), {**bodies, "afterwards": b"x"}) == []


def test_a_scrub_finds_and_reports_a_flipped_bit_that_nobody_reads(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data", configuration=SCRUB_OFTEN)
    node.start()
    try:
        bodies = fill(node.client(), 10, 100_000)
        assert node.stop() == 0
        (segment,) = [path for path in (node.data / "segments").iterdir() if path.stat().st_size > 500_000]
        flip(segment, segment.read_bytes().index(bodies["key-0005"][50_000:50_032]))
        node.start()
        deadline = time.monotonic() + 30
        while not metric(node, "disk_damaged_fragments_total"):
            assert time.monotonic() < deadline, "no scrub has found it"
            time.sleep(0.1)
        assert "fragment-damaged" in node.log.read_text()
        assert read_or_refused(node.client(), bodies) == ([], ["key-0005"])
    finally:
        node.kill()


def test_a_flipped_bit_in_the_index_is_found_and_the_index_made_again(node: NodeProcess) -> None:
    node.start()
    bodies = fill(node.client(), 60, 20_000)
    assert node.stop() == 0
    table = max((node.data / "index").glob("*.sst"), key=lambda path: path.stat().st_size)
    flip(table, table.stat().st_size // 3)
    node.start()
    wrong, _ = read_or_refused(node.client(), bodies)
    assert wrong == []
    assert node.stop() == 0
    node.start()
    assert read_all(node.client(), bodies) == []


def test_a_flipped_bit_in_the_catalog_is_refused_and_never_served(node: NodeProcess) -> None:
    node.start()
    bodies = fill(node.client(), 200, 3000)
    assert node.stop() == 0
    table = max((node.data / "catalog").glob("*.sst"), key=lambda path: path.stat().st_size)
    flip(table, table.stat().st_size // 3)
    refusal: NodeRefusedError | None = None
    try:
        node.start()
    except NodeRefusedError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code == 1
        assert "Restore" in refusal.log or "salvage" in refusal.log
        return
    wrong, refused = read_or_refused(node.client(), bodies)
    assert wrong == []
    assert refused
    assert "does not check out" in node.log.read_text() or "Corrupt" in node.log.read_text()
