"""boto3 of both ages against a live node: before it sent checksums unasked (1.36), and of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.environments import environment, run


@pytest.mark.parametrize(("name", "default"), [("boto3-old", "plain"), ("boto3", "checksums")])
def test_boto3_puts_gets_lists_copies_and_deletes(node: NodeProcess, bucket: str, name: str, default: str) -> None:
    program = Path(__file__).with_name("boto3_round.py")
    python = environment(name) / "python"
    answer = run([python, "-W", "ignore", program, node.endpoint, ACCESS_KEY, SECRET_KEY, bucket, default])
    assert answer.startswith(b"ok 1.35." if default == "plain" else b"ok 1.4")
