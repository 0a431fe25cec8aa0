"""Damage, full disks, failing syncs and second processes: found, reported, never served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.faults.disks import free_bytes
from tests.faults.process import NodeProcess, NodeRefusedError


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node that is not started yet."""
    process = NodeProcess(tmp_path / "data")
    yield process
    if process.process is not None and process.process.poll() is None:
        process.kill()


def fill(s3: Any, count: int, size_bytes: int = 1000) -> dict[str, bytes]:
    """Puts objects, each with other bytes."""
    s3.create_bucket(Bucket="bucket")
    bodies = {f"key-{number:04d}": os.urandom(size_bytes) for number in range(count)}
    for key, body in bodies.items():
        s3.put_object(Bucket="bucket", Key=key, Body=body)
    return bodies


def read_all(s3: Any, bodies: dict[str, bytes]) -> list[str]:
    """Names of the keys that do not come back as they went in."""
    return [key for key, body in bodies.items() if s3.get_object(Bucket="bucket", Key=key)["Body"].read() != body]


def newest_journal_file(data: Path) -> Path:
    """The file with the largest frame count lies last by modification time."""
    return max((data / "journal").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def used_bytes(path: Path) -> int:
    """Offset behind the last byte that is not zero."""
    return len(path.read_bytes().rstrip(b"\0"))


@pytest.mark.parametrize("tail", [b"\xff" * 512, os.urandom(4096)], ids=["ones", "noise"])
def test_a_torn_unsynced_tail_is_cut_and_serving_goes_on(node: NodeProcess, tail: bytes) -> None:
    node.start()
    bodies = fill(node.client(), 50)
    node.kill()
    path = newest_journal_file(node.data)
    end = used_bytes(path)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(tail)
    node.start()
    assert read_all(node.client(), bodies) == []
    node.client().put_object(Bucket="bucket", Key="afterwards", Body=b"x")


def test_damage_in_the_synced_part_of_the_journal_is_refused_with_what_to_do(node: NodeProcess) -> None:
    node.start()
    fill(node.client(), 200)
    node.kill()
    path = newest_journal_file(node.data)
    middle = used_bytes(path) // 2
    with path.open("r+b") as file:
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 0x10]))
    with pytest.raises(NodeRefusedError) as refused:
        node.start()
    assert refused.value.code == 1
    assert "salvage" in refused.value.log
    assert path.name in refused.value.log


def test_a_flipped_bit_in_a_segment_is_never_served(node: NodeProcess) -> None:
    node.start()
    bodies = fill(node.client(), 10, 100_000)
    assert node.stop() == 0
    (segment,) = [path for path in (node.data / "segments").iterdir() if path.stat().st_size > 500_000]
    content = segment.read_bytes()
    victim = "key-0005"
    at = content.index(bodies[victim][50_000:50_032])
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    node.start()
    s3 = node.client()
    with pytest.raises((ClientError, BotoCoreError)):
        s3.get_object(Bucket="bucket", Key=victim)["Body"].read()
    del bodies[victim]
    assert read_all(s3, bodies) == []


@pytest.mark.needs_program("cc")
def test_a_failed_sync_stops_the_node_and_loses_nothing_acknowledged(node: NodeProcess, tmp_path: Path) -> None:
    library, switch = tmp_path / "fail_sync.so", tmp_path / "failing"
    source = Path(__file__).with_name("fail_sync.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    os.environ.update(LD_PRELOAD=str(library), EDGESTORE_FAIL_SYNC=str(switch))
    try:
        node.start()
    finally:
        del os.environ["LD_PRELOAD"], os.environ["EDGESTORE_FAIL_SYNC"]
    bodies = fill(node.client(), 20)
    switch.touch()
    with pytest.raises((ClientError, BotoCoreError)):
        node.client().put_object(Bucket="bucket", Key="refused", Body=b"x" * 100)
    assert node.process is not None
    assert node.process.wait(10) == 1
    assert "fdatasync" in node.log.read_text()
    node.process.stdout.close()  # type: ignore[union-attr]
    switch.unlink()
    node.start()
    assert read_all(node.client(), bodies) == []


def test_a_second_process_on_the_same_folder_refuses(node: NodeProcess) -> None:
    node.start()
    command = [sys.executable, "-m", "edgestore", "serve", "--data", str(node.data), "--s3", "127.0.0.1:0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "in use" in second.stderr
    node.client().list_buckets()


def test_sigterm_drains_and_stops_within_10_seconds(node: NodeProcess) -> None:
    node.start()
    fill(node.client(), 5)
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(10) == 0
    node.process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.needs_root
def test_a_full_disk_refuses_writes_and_still_reads_and_deletes(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(mount)], check=True)
    node = NodeProcess(mount / "data", configuration="[disk]\nreserve_bytes = 67108864\njournal_file_bytes = 8388608\n")
    node.log = tmp_path / "node.log"
    try:
        node.start()
        s3 = node.client()
        s3.create_bucket(Bucket="bucket")
        s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        kept: dict[str, bytes] = {}
        refusal: ClientError | None = None
        for number in range(400):
            body = os.urandom(1_000_000)
            try:
                s3.put_object(Bucket="bucket", Key=f"key-{number:04d}", Body=body)
            except ClientError as error:
                refusal = error
                break
            kept[f"key-{number:04d}"] = body
        assert refusal is not None
        assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 507
        assert len(kept) > 50
        assert read_all(s3, kept) == []
        s3.delete_object(Bucket="bucket", Key="key-0000")
        for row in s3.list_object_versions(Bucket="bucket")["Versions"]:
            s3.delete_object(Bucket="bucket", Key=row["Key"], VersionId=row["VersionId"])
        _put_when_there_is_room(s3)
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.needs_root
def test_a_disk_that_others_filled_starts_reads_and_deletes(tmp_path: Path) -> None:
    """Less is left than one file of the journal, and no spare: the node starts none the less, again and again."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(mount)], check=True)
    node = NodeProcess(mount / "data", configuration="[disk]\nreserve_bytes = 67108864\njournal_file_bytes = 8388608\n")
    node.log = tmp_path / "node.log"
    try:
        node.start()
        bodies = fill(node.client(), 100)
        node.kill()
        (mount / "data" / "journal" / "spare").unlink(missing_ok=True)
        (mount / "others").write_bytes(bytes(free_bytes(mount) - 4 * 1024 * 1024))
        for turn in range(3):
            node.start()
            s3 = node.client()
            with pytest.raises(ClientError) as refusal:
                s3.put_object(Bucket="bucket", Key="more", Body=b"x" * 1000)
            assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
            s3.delete_object(Bucket="bucket", Key=f"key-{turn:04d}")
            del bodies[f"key-{turn:04d}"]
            assert read_all(s3, bodies) == []
            node.kill()
        (mount / "others").unlink()
        node.start()
        assert read_all(node.client(), bodies) == []
        node.client().put_object(Bucket="bucket", Key="again", Body=b"x")
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
        subprocess.run(["umount", str(mount)], check=True)


def _put_when_there_is_room(s3: Any) -> None:
    """Space returns when the deleted chunks are reclaimed: within a minute."""
    import time

    deadline = time.monotonic() + 60
    while True:
        try:
            s3.put_object(Bucket="bucket", Key="again", Body=os.urandom(1_000_000))
        except ClientError:
            assert time.monotonic() < deadline, "no space came back"
            time.sleep(0.5)
        else:
            return
