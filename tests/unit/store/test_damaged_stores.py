"""A damaged segment index is made again; a damaged catalog is refused, never served in part."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import edgestore
from edgestore.config import Config
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.errors import Corrupt


def damage(folder: Path, at: str) -> None:
    """One flipped bit in the largest table, or the table gone."""
    path = max(folder.glob("*.sst"), key=lambda path: path.stat().st_size)
    if at == "missing":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[{"begin": 100, "middle": len(content) // 2, "end": len(content) - 3}[at]] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", ["begin", "middle", "end", "missing"])
def test_a_damaged_segment_index_is_made_again(tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture) -> None:
    bodies = {f"key-{number}": os.urandom(20_000) for number in range(100)}
    with edgestore.open(tmp_path) as store:
        bucket = store.create_bucket("bucket")
        for key, body in bodies.items():
            bucket.put(key, body)
    damage(tmp_path / "index", at)
    for _ in range(2):
        with edgestore.open(tmp_path) as store:
            bucket = store.bucket("bucket")
            assert {key: bucket.get(key).read() for key in bodies} == bodies
    assert caplog.text.count("index-rebuilt") == 1


@pytest.mark.parametrize("at", ["begin", "middle", "end", "missing"])
def test_a_damaged_catalog_is_refused_with_what_to_do(tmp_path: Path, at: str) -> None:
    with edgestore.open(tmp_path) as store:
        bucket = store.create_bucket("bucket")
        for number in range(300):
            bucket.put(f"key-{number:04d}", os.urandom(500))
    damage(tmp_path / "catalog", at)

    def list_all() -> None:
        with edgestore.open(tmp_path) as store:
            keys = [entry.key for entry in store.bucket("bucket").list()]
            for key in keys:
                store.bucket("bucket").get(key).read()
            assert len(keys) == 300

    with pytest.raises(Corrupt, match="salvage"):
        list_all()


async def test_the_core_scrubs_and_tells_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestore.disk.scrubber.AFTER_START_S", 0.0)
    core = await Core.open(SystemFiles(str(tmp_path)), Config())
    assert core.disk_health == {
        "damaged_fragments": 0,
        "quarantined_segments": 0,
        "unreadable_segments": 0,
        "scrubbed_ms": 0,
    }
    async with asyncio.timeout(10):
        while not core.disk_health["scrubbed_ms"]:
            await asyncio.sleep(0.005)
    await core.close()
