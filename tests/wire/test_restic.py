"""restic against a live node: backup, check, prune, restore."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.environments import run
from tests.wire.trees import make_tree, read_tree


@pytest.mark.needs_program("restic")
def test_backup_checks_out_and_is_restored(node: NodeProcess, bucket: str, tmp_path: Path) -> None:
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "RESTIC_REPOSITORY": f"s3:{node.endpoint}/{bucket}/repository",
        "RESTIC_PASSWORD": "password",
    }

    def restic(*words: str | Path) -> None:
        run([shutil.which("restic") or "restic", "--no-cache", *words], variables=variables)

    source = tmp_path / "source"
    files = make_tree(source)
    restic("init")
    restic("backup", source)
    (source / "many" / "000.txt").write_bytes(b"changed")
    restic("backup", source)
    restic("check", "--read-data")
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "back")
    assert read_tree(tmp_path / "back" / str(source).lstrip("/")) == {**files, "many/000.txt": b"changed"}
