"""Odd names, conditions and metadata mean the same to both backends: a name never becomes part of another request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgestore
from edgestore import IfAbsent, IfMatch, Store
from edgestore.errors import (
    BadRequest,
    EdgeStoreError,
    InvalidName,
    NoSuchBucket,
    NoSuchKey,
    NoSuchVersion,
    TooLarge,
)
from edgestore.records import format_version_id
from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess

NO_BUCKETS = [
    "",
    "/",
    "videos/x",
    "videos/x/y",
    "videos/",
    "..",
    ".",
    "Videos",
    "videos?acl",
    "videos#a",
    "ü",
    "v" * 64,
]
NO_KEYS: list[tuple[str, type[EdgeStoreError]]] = [
    ("", InvalidName),
    ("\udc80", InvalidName),
    ("k" * 1025, TooLarge),
    ("ü" * 513, TooLarge),
]
KEYS = [
    "/",
    "//x",
    ".",
    "..",
    "a/../b",
    "?acl",
    "a?uploads",
    "#",
    "%",
    "%2F",
    "+",
    " ",
    "a\nb",
    "ü",
    "\x7f",
    "k" * 1024,
]


@pytest.fixture(params=["embedded", "network"], scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of each kind with one object in it."""
    folder: Path = tmp_path_factory.mktemp(request.param) / "data"
    if request.param == "embedded":
        with edgestore.open(folder) as opened:
            opened.create_bucket("videos").put("x/y", b"kept")
            yield opened
        return
    node = NodeProcess(folder)
    node.start()
    with edgestore.connect(node.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY) as connected:
        connected.create_bucket("videos").put("x/y", b"kept")
        yield connected
    assert node.stop() == 0


@pytest.mark.parametrize("name", NO_BUCKETS)
def test_what_names_no_bucket_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidName):
        store.create_bucket(name)
    with pytest.raises(InvalidName):
        store.delete_bucket(name)
    with pytest.raises(InvalidName):
        store.bucket(name)
    assert store.buckets() == ["videos"]
    assert store.bucket("videos").get("x/y").read() == b"kept"


@pytest.mark.parametrize(("key", "error"), NO_KEYS)
def test_what_names_no_key_is_refused(store: Store, key: str, error: type[EdgeStoreError]) -> None:
    empty = store.create_bucket("empty-one")
    try:
        for act in (empty.get, empty.head, empty.delete, lambda key: empty.put(key, b"x")):
            with pytest.raises(error):
                act(key)
        assert store.buckets() == ["empty-one", "videos"]
        with pytest.raises(InvalidName):
            list(empty.list("\udc80"))
    finally:
        store.delete_bucket("empty-one")


def test_every_other_key_is_a_key(store: Store) -> None:
    bucket = store.create_bucket("odd-keys")
    for key in KEYS:
        bucket.put(key, key.encode())
    assert {entry.key for entry in bucket.list()} == set(KEYS)
    for key in KEYS:
        assert bucket.get(key).read() == key.encode()
        bucket.delete(key)
    store.delete_bucket("odd-keys")


@pytest.mark.parametrize("version_id", ["", "nonsense", "a/b", "?", "ü", "null&x"])
def test_what_is_no_version_id_is_refused(store: Store, version_id: str) -> None:
    for act in (store.bucket("videos").head, store.bucket("videos").get, store.bucket("videos").delete):
        with pytest.raises(InvalidName, match="version id"):
            act("x/y", version_id)
    assert store.bucket("videos").get("x/y").read() == b"kept"


def test_a_version_that_is_not_there(store: Store) -> None:
    other = format_version_id(1, 99_999, 0)
    with pytest.raises(NoSuchVersion):
        store.bucket("videos").head("x/y", other)
    store.bucket("videos").delete("x/y", other)  # deleting what is not there succeeds
    assert store.bucket("videos").get("x/y").read() == b"kept"


def test_conditions(store: Store) -> None:
    bucket = store.bucket("videos")
    etag = bucket.put("condition", b"1").etag
    etag = bucket.put("condition", b"2", condition=IfMatch(f'"{etag}"')).etag
    with pytest.raises(BadRequest):
        bucket.put("condition", b"3", condition=IfMatch(etag, size_bytes=9))
    with pytest.raises(BadRequest, match="IfMatch"):
        bucket.delete("condition", condition=IfAbsent())
    assert bucket.get("condition").read() == b"2"
    bucket.delete("condition", condition=IfMatch(f'"{etag}"'))


def test_metadata_has_a_limit(store: Store) -> None:
    bucket = store.bucket("videos")
    with pytest.raises(TooLarge, match="2048"):
        bucket.put("metadata", b"", metadata={"a": "ü" * 1024})
    metadata = {"Ab": "ü" * 1023}
    assert bucket.put("metadata", b"", metadata=metadata).metadata == {"ab": metadata["Ab"]}
    bucket.delete("metadata")


def test_errors_name_what_they_are_about(store: Store) -> None:
    with pytest.raises(NoSuchKey, match="nothing-here"):
        store.bucket("videos").get("nothing-here")
    with pytest.raises(NoSuchBucket, match="no-such-bucket"):
        store.bucket("no-such-bucket").get("key")
