"""The Python face is one interface: embedded, over the network, plain and asyncio."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgestore
from edgestore import IfAbsent, IfMatch, Store
from edgestore.errors import (
    BadRequest,
    BucketNotEmpty,
    Closing,
    InUse,
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
)
from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess


@pytest.fixture(params=["embedded", "network"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind."""
    if request.param == "embedded":
        with edgestore.open(tmp_path / "data") as opened:
            yield opened
        return
    node = NodeProcess(tmp_path / "data")
    node.start()
    with edgestore.connect(node.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY) as connected:
        yield connected
    assert node.stop() == 0


def test_the_first_program(store: Store) -> None:
    videos = store.create_bucket("videos")
    body = os.urandom(100_000)
    version = videos.put("2026/a.mp4", body, metadata={"camera": "7"}, condition=IfAbsent())
    assert version.size_bytes == 100_000
    assert videos.get("2026/a.mp4").read(10, 1024) == body[10:1034]
    assert videos.get("2026/a.mp4").read(99_990, 1024) == body[99_990:]
    assert b"".join(videos.get("2026/a.mp4").stream()) == body
    assert videos.head("2026/a.mp4").metadata == {"camera": "7"}
    assert [entry.key for entry in videos.list(prefix="2026/")] == ["2026/a.mp4"]
    assert store.buckets() == ["videos"]
    with pytest.raises(PreconditionFailed):
        videos.put("2026/a.mp4", b"x", condition=IfAbsent())
    videos.put("2026/a.mp4", b"new", condition=IfMatch(version.etag))
    assert videos.get("2026/a.mp4").read() == b"new"
    with pytest.raises(BucketNotEmpty):
        store.delete_bucket("videos")
    videos.delete("2026/a.mp4")
    with pytest.raises(NoSuchKey):
        videos.get("2026/a.mp4")
    store.delete_bucket("videos")
    with pytest.raises(NoSuchBucket):
        videos.head("2026/a.mp4")


def test_reads_are_local_where_that_is_asked_for(store: Store) -> None:
    store.create_bucket("videos").put("a", b"1234")
    local = store.bucket("videos", consistency="local")
    assert local.get("a").read(1, 2) == b"23"
    assert [version.key for version in (*local.list(), *local.versions())] == ["a", "a"]
    local.put("b", b"x")
    assert store.bucket("videos", consistency="linearizable").head("b").size_bytes == 1
    with pytest.raises(BadRequest, match="linearizable"):
        store.bucket("videos", consistency="weak")  # type: ignore[arg-type]


def test_every_kind_of_body(store: Store, tmp_path: Path) -> None:
    bucket = store.create_bucket("bodies")
    large = os.urandom(20_000_000)
    path = tmp_path / "file"
    path.write_bytes(large)
    bucket.put("bytes", memoryview(large)[:5])
    bucket.put("path", path)
    bucket.put("file", io.BytesIO(large))
    bucket.put("iterator", (large[at : at + 700_001] for at in range(0, len(large), 700_001)))
    bucket.put("empty", iter(()))
    assert bucket.get("bytes").read() == large[:5]
    for key in ("path", "file", "iterator"):
        assert bucket.get(key).read() == large
    assert bucket.get("empty").read() == b""
    with pytest.raises(TypeError):
        bucket.put("text", "not bytes")  # type: ignore[arg-type]


def test_listings_go_over_pages_and_odd_names(store: Store) -> None:
    bucket = store.create_bucket("names")
    names = sorted(
        [f"n/{number:05d}" for number in range(1100)] + ["n/ü ö", "n/a&b=c", "n/..", "n//x", "n/%2F"], key=str.encode
    )
    for name in names:
        bucket.put(name, b"x")
    assert [entry.key for entry in bucket.list("n/")] == names
    assert [entry.key for entry in bucket.versions("n/")] == names
    for name in names[-5:]:
        assert bucket.get(name).read() == b"x"


async def test_asyncio_has_the_same(tmp_path: Path) -> None:
    async with await edgestore.aio.open(tmp_path / "data") as store:
        bucket = await store.create_bucket("bucket")
        await bucket.put("key", b"body")
        found = await bucket.get("key")
        assert await found.read() == b"body"
        assert [entry.key async for entry in bucket.list()] == ["key"]


def test_a_folder_is_open_once_and_closed_for_good(tmp_path: Path) -> None:
    store = edgestore.open(tmp_path / "data")
    bucket = store.create_bucket("bucket")
    with pytest.raises(InUse, match="in use"):
        edgestore.open(tmp_path / "data")
    store.close()
    with pytest.raises(Closing):
        bucket.put("key", b"x")
    with edgestore.open(tmp_path / "data") as again:
        assert again.buckets() == ["bucket"]
