"""What only the network backend has to solve: parts, its own answers, the region of the node."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import edgestore
from edgestore.client import PARTS_MAX, RemoteBackend, part_bytes
from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess

TIB = 1024**4
REGION = "eu-central-7"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node in a region of its own."""
    process = NodeProcess(tmp_path_factory.mktemp("node") / "data", configuration=f'[s3]\nregion = "{REGION}"\n')
    process.start()
    yield process
    assert process.stop() == 0


@pytest.mark.parametrize("size_bytes", [1, 8 << 20, 78 << 30, 80 << 30, 5 * TIB])
def test_the_parts_of_a_known_size_are_at_most_10_000_of_at_most_5_gib(size_bytes: int) -> None:
    part = part_bytes(size_bytes, 1)
    assert 8 << 20 <= part <= 5 << 30
    assert part * PARTS_MAX >= size_bytes


def test_the_parts_of_a_stream_grow_to_the_largest_object() -> None:
    parts = [part_bytes(None, number) for number in range(1, PARTS_MAX + 1)]
    assert parts[0] == 8 << 20
    assert parts == sorted(parts)
    assert parts[-1] <= 1 << 30
    assert sum(parts) >= 5 * TIB


@pytest.mark.parametrize("first", ["head", "get", "put", "list"])
def test_the_region_is_learned_from_the_node(node: NodeProcess, first: str) -> None:
    with edgestore.connect(node.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION) as right:
        if "regions" not in right.buckets():
            right.create_bucket("regions")
        right.bucket("regions").put("key", b"body")
    with edgestore.connect(node.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY) as store:
        bucket = store.bucket("regions")
        if first == "list":
            assert [entry.key for entry in bucket.list()] == ["key"]
        elif first == "put":
            bucket.put("key", b"body")
        else:
            getattr(bucket, first)("key")
        assert bucket.get("key").read() == b"body"


def test_the_command_line_finds_the_region(node: NodeProcess) -> None:
    for words in (("status", "--json"), ("ls", "--json")):
        done = subprocess.run(
            [sys.executable, "-m", "edgestore", *words, "--node", node.endpoint],
            capture_output=True,
            text=True,
            env={**os.environ, "EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY},
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


class Replaced(RemoteBackend):
    """Another writer replaces and deletes the object as soon as it is stored."""

    async def _request(self, method: str, path: str, *rest: object, **more: object) -> object:  # type: ignore[override]
        response = await super()._request(method, path, *rest, **more)  # type: ignore[arg-type]
        query = rest[0] if rest else None
        finished = method == "POST" and isinstance(query, dict) and "uploads" not in query
        if (method == "PUT" and not query and path.count("/") > 1) or finished:
            (await super()._request("DELETE", path)).release()
        return response


@pytest.mark.parametrize("size_bytes", [10, 9 << 20])
def test_what_put_returns_is_what_it_stored(node: NodeProcess, size_bytes: int) -> None:
    async def main() -> None:
        backend = Replaced(node.endpoint, ACCESS_KEY, SECRET_KEY, region=REGION)
        store = edgestore.aio.Store(backend)
        name = f"replaced-{size_bytes}"
        bucket = await store.create_bucket(name)
        body = os.urandom(size_bytes)
        stored = await bucket.put("key", body, metadata={"A": "ü"}, headers={"content-type": "text/plain"})
        assert (stored.key, stored.size_bytes) == ("key", size_bytes)
        assert stored.metadata == {"a": "ü"}
        assert stored.headers == {"Content-Type": "text/plain"}
        plain = edgestore.aio.connect(node.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        again = await plain.bucket(name).put("key", body)
        found = await plain.bucket(name).head("key")
        assert (again.etag, again.version_id) == (found.etag, found.version_id) == (stored.etag, stored.version_id)
        assert abs(again.modified_ms - found.modified_ms) <= 2000
        await plain.close()
        await store.close()

    asyncio.run(main())
