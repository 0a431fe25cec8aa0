"""Byte ranges and parts against slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.errors import InvalidRange
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.ranges import parse_copy_range, parse_range, part_range
from edgestore.records import PartSpan, VersionKind, VersionRecord


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-9", 10, (0, 10)),
        ("bytes=4-7", 10, (4, 4)),
        ("bytes=4-", 10, (4, 6)),
        ("bytes=4-99999999999999999999", 10, (4, 6)),
        ("bytes=-3", 10, (7, 3)),
        ("bytes=-30", 10, (0, 10)),
        ("Bytes= 1-2 ", 10, (1, 2)),
    ],
)
def test_ranges_that_lie_in_the_object(header: str, size: int, expected: tuple[int, int]) -> None:
    assert parse_range(header, size) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=7-4",
        "bytes=0-1,3-4",
        "bits=0-1",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=0x1-2",
        "bytes = 1-2",
        "bytes=1_0-20",
    ],
)
def test_ranges_that_are_not_understood_are_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=\u0660-\u0669", "bytes=1-\uff15", "bytes=-\u00b2", "bytes=\u0967-"])
def test_unicode_digits_in_range_are_not_digits(header: str) -> None:
    assert parse_range(header, 100) is None
    with pytest.raises(Fault):
        parse_copy_range(header, 100)


def test_range_of_thousands_of_digits_is_ignored() -> None:
    assert parse_range("bytes=" + "9" * 5000 + "-", 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_ranges_outside_the_object_are_refused(header: str, size: int) -> None:
    with pytest.raises(InvalidRange):
        parse_range(header, size)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_range_selects_what_a_slice_selects(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    try:
        found = parse_range(f"bytes={first}-{last}", size)
    except InvalidRange:
        assert first >= size
        return
    if found is None:
        assert last < first
        return
    assert content[found.offset : found.offset + found.length] == content[first : last + 1]
    assert found.length > 0


def test_copy_range_needs_both_ends_inside_the_source() -> None:
    assert parse_copy_range("bytes=2-5", 6) == (2, 4)
    for header in ("bytes=2-", "bytes=-2", "2-5", "bytes=5-2", ""):
        with pytest.raises(Fault) as refused:
            parse_copy_range(header, 6)
        assert refused.value.code == "InvalidArgument"
    with pytest.raises(Fault) as refused:
        parse_copy_range("bytes=2-6", 6)
    assert refused.value.code == "InvalidRange"


def test_part_number_selects_its_bytes() -> None:
    record = VersionRecord(
        VersionKind.OBJECT, 12, "e", 0, 1, 0, 1, is_null=True, owner=1, storage_class="STANDARD", checksums=(),
        parts=(PartSpan(3, 5), PartSpan(7, 7)),
    )  # fmt: skip
    assert part_range(record, 1) == (0, 5)
    assert part_range(record, 2) == (5, 7)
    with pytest.raises(Fault) as refused:
        part_range(record, 3)
    assert refused.value.code == "InvalidPartNumber"
