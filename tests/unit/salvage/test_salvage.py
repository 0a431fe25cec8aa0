"""Salvage saves what checks out of catalog, journal and segments, and leaves the folder as it found it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from edgestore.chunks import bytes_body
from edgestore.config import Config, DiskConfig
from edgestore.core import Core
from edgestore.disk import FragmentUnit, Segments, SystemFiles
from edgestore.disk.index import RocksIndex
from edgestore.disk.journal_recovery import FrameReader, recover
from edgestore.errors import ConfigError, Corrupt
from edgestore.objects import PutRequest
from edgestore.records import Versioning
from edgestore.salvage import Salvage

CONFIG = Config(disk=DiskConfig(reserve_bytes=0))


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def put(core: Core, key: str, body: bytes) -> None:
    """One object in bucket `b`."""
    await core.objects.put(core.tenants.root(), PutRequest("bbb", key), bytes_body(core.chunks.pool, body))


async def killed(tmp_path: Path, bodies: dict[str, bytes], *, older: dict[str, bytes] | None = None) -> Path:
    """A folder as a kill leaves it, with the objects acknowledged and nothing of them flushed."""
    core = await Core.open(SystemFiles(str(tmp_path / "live")), CONFIG)
    root = core.tenants.root()
    await core.objects.create_bucket(root, "bbb")
    if older:
        await core.objects.set_versioning(root, "bbb", Versioning.ENABLED)
    for key, body in (older or {}).items():
        await put(core, key, body)
    for key, body in bodies.items():
        await put(core, key, body)
    await asyncio.sleep(CONFIG.disk.journal_idle_mark_ms / 1000 + 0.3)  # the mark: all of it counts as synced
    shutil.copytree(tmp_path / "live", tmp_path / "data")
    await core.close()
    return tmp_path / "data"


def damage_frame_of(folder: Path, needle: bytes) -> None:
    """Flips a bit in the frame that holds the bytes."""
    for path in sorted((folder / "journal").glob("*.journal")):
        content = bytearray(path.read_bytes())
        at = content.find(needle)
        if at >= 0:
            content[at] ^= 1
            path.write_bytes(content)
            return
    raise AssertionError("the bytes are not in the journal")


async def test_what_lies_before_and_behind_damage_in_the_journal_is_saved(tmp_path: Path) -> None:
    bodies = {f"key-{number:02d}": os.urandom(1000) for number in range(40)}
    bodies["large"] = os.urandom(300_000)
    folder = await killed(tmp_path, bodies)
    damage_frame_of(folder, bodies["key-20"])
    with pytest.raises(Corrupt, match="salvage"):
        recover(SystemFiles(str(folder)), "journal")
    before = contents(folder)
    report = Salvage(str(folder), tmp_path / "saved", CONFIG).run()
    assert contents(folder) == before
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved" / "bbb").iterdir()}
    del bodies["key-20"]
    assert saved == bodies
    assert report.objects == len(bodies)
    assert report.chunks == 0
    assert (report.missing_entries, report.damaged) == (1, 2)
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"bbb"}


async def test_damage_in_the_last_entry_that_was_synced_is_told(tmp_path: Path) -> None:
    bodies = {f"key-{number:02d}": os.urandom(1000) for number in range(20)}
    folder = await killed(tmp_path, bodies)
    damage_frame_of(folder, bodies["key-19"])
    report = Salvage(str(folder), tmp_path / "saved", CONFIG).run()
    assert report.objects == 19
    assert report.damaged > 0


async def test_of_a_folder_that_is_whole_nothing_is_damaged(tmp_path: Path) -> None:
    folder = await killed(tmp_path, {"key": b"body"})
    report = Salvage(str(folder), tmp_path / "saved", CONFIG).run()
    assert (report.objects, report.damaged, report.missing_entries) == (1, 0, 0)


async def test_the_target_lies_apart_from_the_data_folder(tmp_path: Path) -> None:
    folder = await killed(tmp_path, {"key": b"body"})
    for target in (folder, folder / "saved", folder / "journal", folder.parent):
        before = contents(folder)
        with pytest.raises(ConfigError, match="apart"):
            Salvage(str(folder), target, CONFIG).run()
        assert contents(folder) == before


async def test_a_bucket_and_a_writer_that_were_made_in_the_damage_are_stood_in_for(tmp_path: Path) -> None:
    bodies = {"small": os.urandom(1000), "large": os.urandom(300_000)}
    folder = await killed(tmp_path, bodies)
    files = SystemFiles(str(folder))
    (checked,) = recover(files, "journal").files
    file = files.open(checked.path)
    reader = FrameReader(file, checked.number, checked.salt)
    behind = next(frame for frame in reader.frames() if any(b"small" in record.payload for record in frame.records))
    index = next(record.index for record in behind.records if record.payload)
    content = bytearray((folder / checked.path).read_bytes())
    at = 64
    for frame in reader.frames():
        if any(record.index >= index for record in frame.records):
            break
        content[at + 50] ^= 1
        at = frame.end
    file.close()
    (folder / checked.path).write_bytes(content)
    shutil.rmtree(folder / "catalog")
    Salvage(str(folder), tmp_path / "saved", CONFIG).run()
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved" / "lost-bucket-1").iterdir()} == bodies


async def test_older_versions_are_saved(tmp_path: Path) -> None:
    older, bodies = {"a": b"first", "b": os.urandom(300_000)}, {"a": b"second", "b": b"third"}
    folder = await killed(tmp_path, bodies, older=older)
    report = Salvage(str(folder), tmp_path / "saved", CONFIG).run()
    assert (report.objects, report.versions, report.chunks) == (2, 2, 0)
    found = {path.parent.name: path.read_bytes() for path in (tmp_path / "saved" / "~versions" / "bbb").rglob("*/*")}
    assert found == older


async def test_of_two_copies_the_one_that_checks_out_is_taken(tmp_path: Path) -> None:
    """Compaction was killed between the copy and the end of the old one, and either of them is damaged."""
    for damaged in (0, 1):
        folder, body, chunk_id = tmp_path / f"data-{damaged}", os.urandom(50_000), (1).to_bytes(16, "big")
        files = SystemFiles(str(folder))
        index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
        segments = await Segments.open(files, "segments", index, CONFIG.disk, entropy=os.urandom)
        for _ in range(2):
            synced = asyncio.get_running_loop().create_future()
            segments.put(chunk_id, body, (FragmentUnit(len(body), len(body)),))
            segments.sync(lambda error, synced=synced: synced.set_result(error))
            assert await synced is None
        await segments.close()
        index.close()
        path = max((folder / "segments").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        places = [content.find(body[:64]), content.rfind(body[:64])]
        assert places[0] != places[1]
        content[places[damaged] + 100] ^= 1
        path.write_bytes(content)
        report = Salvage(str(folder), tmp_path / f"saved-{damaged}", CONFIG).run()
        assert (report.chunks, report.damaged) == (1, 1)  # there is no journal
