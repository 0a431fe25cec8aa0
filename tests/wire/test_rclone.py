"""rclone against a live node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.environments import environment, run
from tests.wire.trees import make_tree, read_tree


class Rclone:
    """`rclone ...` with a remote called `edge`."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.program = environment("rclone") / "rclone"
        settings = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": endpoint,
            "ACCESS_KEY_ID": ACCESS_KEY,
            "SECRET_ACCESS_KEY": SECRET_KEY,
            "REGION": "us-east-1",
            "UPLOAD_CUTOFF": "8M",
            "CHUNK_SIZE": "5M",
        }
        self.variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "RCLONE_CONFIG": str(folder / "none.conf")}
        self.variables.update({f"RCLONE_CONFIG_EDGE_{name}": value for name, value in settings.items()})

    def __call__(self, *words: str | Path) -> str:
        return run([self.program, "--retries", "1", *words], variables=self.variables).decode()


@pytest.fixture
def rclone(node: NodeProcess, tmp_path: Path) -> Rclone:
    return Rclone(node.endpoint, tmp_path)


def test_tree_is_copied_checked_and_purged(rclone: Rclone, bucket: str, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "source")
    rclone("copy", tmp_path / "source", f"edge:{bucket}/tree")
    rclone("check", tmp_path / "source", f"edge:{bucket}/tree", "--download")
    rclone("check", tmp_path / "source", f"edge:{bucket}/tree")
    rclone("copy", f"edge:{bucket}/tree", tmp_path / "back")
    assert read_tree(tmp_path / "back") == files
    assert set(rclone("lsf", "-R", "--files-only", f"edge:{bucket}/tree").splitlines()) == set(files)
    (tmp_path / "source" / "empty").unlink()
    rclone("sync", tmp_path / "source", f"edge:{bucket}/tree")
    rclone("copy", f"edge:{bucket}/tree", f"edge:{bucket}/again")
    rclone("check", f"edge:{bucket}/tree", f"edge:{bucket}/again")
    rclone("purge", f"edge:{bucket}")
    assert bucket not in rclone("lsd", "edge:")


def test_streams_and_modification_times(rclone: Rclone, bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (1_500_000_000, 1_500_000_000))
    rclone("copy", path, f"edge:{bucket}")
    assert "2017-07-14" in rclone("lsl", f"edge:{bucket}")
    assert rclone("cat", f"edge:{bucket}/file", "--offset", "10", "--count", "5") == "xxxxx"
