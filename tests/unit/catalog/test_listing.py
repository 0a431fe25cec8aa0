"""Pages of keys, versions and uploads: equal to a plain model for every prefix, delimiter, marker and limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.catalog import (
    ObjectPage,
    UploadPage,
    VersionPage,
    commands,
    list_objects,
    list_uploads,
    list_versions,
)
from edgestore.records import BucketRecord, Versioning
from tests.unit.catalog.site import OWNER, MemoryStore, Site, inline, place

TEXT = st.lists(st.sampled_from(["a", "b", "/", "//", "\x00", "ü", "\U0010ffff", "z"]), min_size=1, max_size=4).map(
    "".join
)
PREFIXES = st.just("") | TEXT
DELIMITERS = st.sampled_from(["", "/", "a", "//", "ü", "\x00"])
LIMITS = st.integers(1, 5) | st.just(1000)

Row = tuple[str, str]
"""(key or common prefix, what tells entries of one key apart; empty for a common prefix)."""


def fold(entries: list[Row], prefix: str, delimiter: str, after: Row | None) -> list[Row]:
    """The dumb model: filter, fold, and only then cut off what does not lie behind `after`."""
    found: list[Row] = []
    for key, mark in entries:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            found.append((key, mark))
        elif found[-1:] != [(key[: cut + len(delimiter)], "")]:
            found.append((key[: cut + len(delimiter)], ""))
    return found if after is None else found[found.index(after) + 1 :]


def keys_in(keys: set[str]) -> list[str]:
    return sorted(keys, key=str.encode)


def walk_objects(site: Site, bucket: BucketRecord, prefix: str, delimiter: str, limit: int) -> list[ObjectPage]:
    pages = [list_objects(site.state, bucket, prefix=prefix, delimiter=delimiter, limit=limit)]
    while pages[-1].truncated:
        start = pages[-1].next
        pages.append(
            list_objects(site.state, bucket, prefix=prefix, delimiter=delimiter, limit=limit, start_after=start)
        )
    return pages


@settings(deadline=None)
@given(st.sets(TEXT, max_size=14), PREFIXES, DELIMITERS, LIMITS)
def test_object_pages_together_are_the_bucket(keys: set[str], prefix: str, delimiter: str, limit: int) -> None:
    site = Site()
    before, bucket, behind = site.bucket("before"), site.bucket(), site.bucket("behind")
    site.all(*(commands.PutObject(bucket.bucket_id, key, OWNER, 1, inline(key.encode())) for key in keys))
    for other in (before, behind):
        site.put(other, "not listed")
    pages = walk_objects(site, bucket, prefix, delimiter, limit)
    rows: list[Row] = []
    for page in pages:
        mine = [(key, "x") for key, _ in page.entries] + [(common, "") for common in page.prefixes]
        mine.sort(key=lambda one: one[0].encode())
        assert len(mine) <= limit
        assert not mine or mine[-1][0] == page.next
        assert all(version.size_bytes == len(key.encode()) for key, version in page.entries)
        rows += mine
    assert all(len(page.entries) + len(page.prefixes) == limit for page in pages[:-1])
    assert rows == fold([(key, "x") for key in keys_in(keys)], prefix, delimiter, None)


@settings(deadline=None)
@given(st.sets(TEXT, max_size=14), PREFIXES, DELIMITERS, TEXT)
def test_keys_behind_a_marker_are_listed(keys: set[str], prefix: str, delimiter: str, after: str) -> None:
    """Keys count from the marker on, then they are folded; a marker that is a common prefix hides it."""
    site = Site()
    bucket = site.bucket()
    site.all(*(commands.PutObject(bucket.bucket_id, key, OWNER, 1, inline(b"")) for key in keys))
    page = list_objects(site.state, bucket, prefix=prefix, delimiter=delimiter, start_after=after)
    rest = [key for key in keys_in(keys) if key.encode() > after.encode()]
    expected = [row for row in fold([(key, "x") for key in rest], prefix, delimiter, None) if row != (after, "")]
    assert [key for key, _ in page.entries] == [key for key, mark in expected if mark]
    assert page.prefixes == [key for key, mark in expected if not mark]
    assert not page.truncated


def test_hidden_keys_are_not_listed() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    for key in ("a", "b", "c"):
        site.put(bucket, key)
    site.delete(bucket, "b")
    assert [key for key, _ in list_objects(site.state, bucket).entries] == ["a", "c"]


@pytest.mark.parametrize("limit", [0, -1])
def test_page_of_nothing_is_not_truncated(limit: int) -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key")
    assert list_objects(site.state, bucket, limit=limit) == ObjectPage()
    assert list_versions(site.state, bucket, limit=limit) == VersionPage()
    assert list_uploads(site.state, bucket, limit=limit) == UploadPage()


class CountingStore(MemoryStore):
    """Counts the rows that scans give out."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def scan(self, start: bytes, stop: bytes) -> Any:
        for pair in super().scan(start, stop):
            self.read += 1
            yield pair


@pytest.mark.parametrize("kind", ["objects", "versions", "uploads"])
def test_work_of_a_page_does_not_grow_with_the_keys_it_skips(kind: str) -> None:
    work = []
    for inside in (50, 1000):
        site = Site()
        bucket = site.bucket()
        for folder in range(4):
            names = [f"{folder}/{number:04}" for number in range(inside)]
            made: list[commands.Command] = [
                commands.CreateUpload(bucket.bucket_id, name, f"{number:032x}", OWNER, 0)
                if kind == "uploads"
                else commands.PutObject(bucket.bucket_id, name, OWNER, 0, inline(b""))
                for number, name in enumerate(names)
            ]
            site.all(*made)
        store = CountingStore()
        store.rows = site.store.rows
        site.state.view = store
        listed: Any = {"objects": list_objects, "versions": list_versions, "uploads": list_uploads}[kind]
        assert listed(site.state, bucket, delimiter="/").prefixes == ["0/", "1/", "2/", "3/"]
        work.append(store.read)
    assert work[0] == work[1]


# --- versions ----------------------------------------------------------------------------------------


def versions_of(site: Site, bucket: BucketRecord, keys: list[str], model: dict[str, list[str]]) -> list[Row]:
    return [(key, version_id) for key in keys for version_id in model[key]]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(TEXT, st.sampled_from(["put", "put", "delete"]), st.sampled_from([1, 2])), min_size=1, max_size=16
    ),
    PREFIXES,
    DELIMITERS,
    LIMITS,
)
def test_version_pages_together_are_the_bucket(
    changes: list[tuple[str, str, int]], prefix: str, delimiter: str, limit: int
) -> None:
    site = Site()
    bucket = site.bucket()
    model: dict[str, list[str]] = {}
    for key, change, versioning in changes:
        if bucket.versioning != versioning:
            bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning(versioning)))
        version_id = (site.put(bucket, key) if change == "put" else site.delete(bucket, key)).version_id
        mine = model.setdefault(key, [])
        if version_id == "null" and "null" in mine:
            mine.remove("null")
        mine.insert(0, version_id)
    expected = fold([(key, one) for key in keys_in(set(model)) for one in model[key]], prefix, delimiter, None)
    rows: list[Row] = []
    page = list_versions(site.state, bucket, prefix=prefix, delimiter=delimiter, limit=limit)
    while True:
        mine_now = [(key, version.version_id) for key, version, _ in page.entries]
        assert len(mine_now) + len(page.prefixes) <= limit
        assert all(is_latest == (model[key][0] == version.version_id) for key, version, is_latest in page.entries)
        folded = mine_now + [(common, "") for common in page.prefixes]
        rows += [row for row in expected if row in folded]
        if not page.truncated:
            break
        assert len(mine_now) + len(page.prefixes) == limit
        assert (page.next_key, page.next_version) == rows[-1]
        page = list_versions(
            site.state,
            bucket,
            prefix=prefix,
            delimiter=delimiter,
            limit=limit,
            key_marker=page.next_key,
            version_marker=marker_of(site, bucket, page.next_key, page.next_version),
        )
    assert rows == expected


def marker_of(site: Site, bucket: BucketRecord, key: str, version_id: str) -> tuple[int, ...] | None:
    """What the service makes of the text of a version id."""
    if not version_id:
        return None
    if version_id == "null":
        return ()
    return int(version_id[:8], 16), int(version_id[8:24], 16), int(version_id[24:], 16)


def listed_behind(site: Site, bucket: BucketRecord, key: str, version: tuple[int, ...]) -> list[tuple[str, str, bool]]:
    page = list_versions(site.state, bucket, key_marker=key, version_marker=version)
    return [(name, one.version_id, is_latest) for name, one, is_latest in page.entries]


def test_marker_of_a_version_that_went_meanwhile_repeats_and_skips_nothing() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    old, middle, new = (site.put(bucket, "key") for _ in range(3))
    behind = site.put(bucket, "later")
    last = [("later", behind.version_id, True)]
    assert listed_behind(site, bucket, "key", place(middle)) == [("key", old.version_id, False), *last]
    site.delete(bucket, "key", place(middle))
    assert listed_behind(site, bucket, "key", place(middle)) == [("key", old.version_id, False), *last]
    site.delete(bucket, "key", place(new))
    assert listed_behind(site, bucket, "key", place(new)) == [("key", old.version_id, True), *last]
    site.delete(bucket, "key", place(old))
    assert listed_behind(site, bucket, "key", place(old)) == last


def test_first_version_behind_a_removed_marker_is_the_latest() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    site.delete(bucket, "key")
    record = site.put(bucket, "key")
    site.delete(bucket, "key", place(record))
    (entry,) = listed_behind(site, bucket, "key", place(record))
    assert entry[2] is True


@pytest.mark.parametrize("is_head", [True, False])
def test_null_version_serves_as_a_marker(is_head: bool) -> None:
    site = Site()
    bucket = site.bucket()
    if not is_head:
        site.put(bucket, "key")
    bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED))
    record = site.put(bucket, "key")
    if is_head:
        bucket = site.do(commands.SetVersioning(bucket.bucket_id, Versioning.SUSPENDED))
        site.put(bucket, "key")
    expected = [("key", record.version_id, False)] if is_head else []
    assert listed_behind(site, bucket, "key", ()) == expected
    site.delete(bucket, "key", ())
    assert listed_behind(site, bucket, "key", ()) == [("key", record.version_id, True)]


# --- uploads -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(TEXT, st.integers(1, 2**128 - 1)), max_size=12, unique_by=lambda one: one[1]),
    PREFIXES,
    DELIMITERS,
    LIMITS,
)
def test_upload_pages_together_are_all_uploads(
    uploads: list[tuple[str, int]], prefix: str, delimiter: str, limit: int
) -> None:
    site = Site()
    bucket = site.bucket()
    for key, number in uploads:
        site.upload(bucket, key, f"{number:032x}")
    ordered = sorted((key.encode(), f"{number:032x}") for key, number in uploads)
    expected = fold([(key.decode(), upload_id) for key, upload_id in ordered], prefix, delimiter, None)
    rows: list[Row] = []
    page = list_uploads(site.state, bucket, prefix=prefix, delimiter=delimiter, limit=limit)
    while True:
        mine = [(upload.key, upload.upload_id) for upload in page.entries]
        mine += [(common, "") for common in page.prefixes]
        assert len(mine) <= limit
        rows += [row for row in expected if row in mine]
        if not page.truncated:
            break
        assert (page.next_key, page.next_upload_id) == rows[-1]
        page = list_uploads(
            site.state,
            bucket,
            prefix=prefix,
            delimiter=delimiter,
            limit=limit,
            key_marker=page.next_key,
            upload_id_marker=page.next_upload_id,
        )
    assert rows == expected
