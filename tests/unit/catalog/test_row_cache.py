"""What is read from the row cache is what the store would give, and the cache is bounded."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.catalog import rows
from edgestore.catalog.row_cache import RECORD_FACTOR, ROW_OVERHEAD_BYTES, RowCache
from edgestore.catalog.state import State
from edgestore.records import ExtentSpan, PartSpan, Versioning, VersionKind, VersionRecord
from tests.unit.catalog.site import Site, inline

KEYS = ("a", "b", "c")


@given(
    st.sampled_from((None, Versioning.ENABLED, Versioning.SUSPENDED)),
    st.lists(st.tuples(st.sampled_from(("put", "delete", "read", "read")), st.sampled_from(KEYS)), max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_reads_through_the_cache_are_those_of_the_store(
    versioning: Versioning | None, steps: list[tuple[str, str]]
) -> None:
    site = Site(cache_bytes=4 * ROW_OVERHEAD_BYTES)
    bucket = site.bucket("bucket", *([versioning] if versioning else []))
    for number, (step, key) in enumerate(steps):
        if step == "put":
            site.put(bucket, key, inline(b"body %d" % number))
        elif step == "delete":
            site.delete(bucket, key)
        for name in KEYS:
            plain = State(site.store)
            found = site.state.head(bucket, name)
            assert found == plain.head(bucket, name)
            if found is not None:
                assert site.state.inline(bucket, found) == plain.inline(bucket, found)


def test_the_bytes_of_the_rows_are_bounded() -> None:
    cache = RowCache(10 * (ROW_OVERHEAD_BYTES + 1004))
    for number in range(100):
        cache.keep(b"%04d" % number, bytes(1000), 1000)
        cache.forget([b"%04d" % (number - 1)] if number % 3 == 0 else [])
        assert len(cache.rows) <= 10
    assert b"0099" in cache.rows
    assert b"0050" not in cache.rows


def test_without_room_nothing_is_kept() -> None:
    cache = RowCache(0)
    cache.keep(b"key", b"row", 3)
    assert not cache.rows


@pytest.mark.parametrize("parts", [0, 2000])
def test_the_memory_of_decoded_rows_is_bounded(parts: int) -> None:
    limit_bytes = 8 << 20
    row = rows.encode(
        VersionRecord(
            kind=VersionKind.OBJECT,
            size_bytes=4096,
            etag="0" * 32,
            modified_ms=1,
            log_index=1,
            position=1,
            site_incarnation=1,
            is_null=True,
            owner=1,
            storage_class="STANDARD",
            checksums=(),
            extents=tuple(ExtentSpan(number.to_bytes(16, "big"), 4096) for number in range(parts)),
            parts=tuple(PartSpan(number, 4096, (), "0" * 32) for number in range(parts)),
        )
    )
    cache = RowCache(limit_bytes)
    count = 4 * limit_bytes // (RECORD_FACTOR * len(row) + ROW_OVERHEAD_BYTES)
    tracemalloc.start()
    try:
        for number in range(count):
            cache.keep(b"%032d" % number, rows.version(row), RECORD_FACTOR * len(row))
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < len(cache.rows) < count
    assert taken_bytes < limit_bytes
