"""A live node for the real clients, one for the whole run; buckets of their own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    process = NodeProcess(Path(tmp_path_factory.mktemp("wire")) / "data")
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def make_client(node: NodeProcess) -> Callable[..., Any]:
    def make(
        access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY, region: str = "us-east-1", **config: Any
    ) -> Any:
        settings = {
            "retries": {"total_max_attempts": 1},
            "s3": {"addressing_style": "path"},
            "signature_version": "s3v4",
            "read_timeout": 30,
            **config,
        }
        return boto3.client(
            "s3",
            endpoint_url=node.endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=Config(**settings),
        )

    return make


@pytest.fixture(scope="session")
def s3(make_client: Callable[..., Any]) -> Any:
    return make_client()


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"wire-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket
