"""awscli against a live node."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.environments import environment, run
from tests.wire.trees import make_tree, read_tree


class Aws:
    """`aws --endpoint-url NODE ...`."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.command: list[str | Path] = [environment("awscli") / "aws", "--endpoint-url", endpoint]
        # Without this `presign` makes signatures of version 2.
        settings = folder / "config"
        settings.write_text("[default]\ns3 =\n  signature_version = s3v4\n")
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_CONFIG_FILE": str(settings),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __call__(self, *words: str | Path) -> str:
        return run([*self.command, *words], variables=self.variables).decode()


@pytest.fixture
def aws(node: NodeProcess, tmp_path: Path) -> Aws:
    return Aws(node.endpoint, tmp_path)


def test_sync_there_and_back(aws: Aws, bucket: str, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "source")
    aws("s3", "sync", tmp_path / "source", f"s3://{bucket}/tree", "--quiet")
    listed = aws("s3", "ls", "--recursive", f"s3://{bucket}/tree/")
    assert len(listed.splitlines()) == len(files)
    aws("s3", "sync", f"s3://{bucket}/tree", tmp_path / "back", "--quiet")
    assert read_tree(tmp_path / "back") == files
    assert aws("s3", "sync", tmp_path / "source", f"s3://{bucket}/tree") == ""
    aws("s3", "rm", "--recursive", "--quiet", f"s3://{bucket}/tree")
    aws("s3", "rb", f"s3://{bucket}")


def test_copy_move_and_presign(aws: Aws, bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    aws("s3", "cp", path, f"s3://{bucket}/a", "--metadata", "camera=7")
    aws("s3", "mv", f"s3://{bucket}/a", f"s3://{bucket}/b")
    head = json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", "b"))
    assert (head["ContentLength"], head["Metadata"]) == (7, {"camera": "7"})
    url = aws("s3", "presign", f"s3://{bucket}/b").strip()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"
