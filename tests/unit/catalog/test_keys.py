"""Keys sort as S3 lists, and what is escaped comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.catalog.keys import age, escape, escape_prefix, number, order, read_number, successor, unescape

KEYS = st.binary(max_size=6) | st.lists(st.sampled_from([b"\x00", b"\x01", b"\xff", b"a"]), max_size=6).map(b"".join)


@given(KEYS, KEYS)
def test_escaped_keys_sort_as_the_keys_do(first: bytes, second: bytes) -> None:
    tail = b"\xff" * 12
    assert (first < second) == (escape(first) + tail < escape(second))
    assert (first == second) == (escape(first) == escape(second))


@given(KEYS)
def test_escaped_key_comes_back(key: bytes) -> None:
    assert unescape(escape(key)[:-2]) == key


@given(KEYS, KEYS)
def test_escaped_prefix_is_a_prefix_of_exactly_its_keys(prefix: bytes, key: bytes) -> None:
    """A key that goes on with 0xFF right behind a prefix that ends in 0x00 is no UTF-8, so it does not occur."""
    if not (prefix.endswith(b"\x00") and key.startswith(b"\xff")):
        assert escape(prefix + key).startswith(escape_prefix(prefix))
    if not key.startswith(prefix) and not prefix.endswith(b"\xff"):
        assert not escape(key).startswith(escape_prefix(prefix))


@given(KEYS.filter(lambda key: key.rstrip(b"\xff") != b""), KEYS)
def test_successor_lies_behind_all_that_begin_so(prefix: bytes, key: bytes) -> None:
    end = successor(prefix)
    assert prefix + key < end
    if key >= prefix and not key.startswith(prefix):
        assert key >= end


def test_nothing_lies_behind_all_ones() -> None:
    with pytest.raises(ValueError, match="no key lies behind"):
        successor(b"\xff\xff")


@given(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_order_is_newest_first_and_age_oldest_first(first: tuple[int, int], second: tuple[int, int]) -> None:
    assert (first < second) == (age(*first) < age(*second)) == (order(*first) > order(*second))


@given(st.integers(0, 2**64 - 1))
def test_number_comes_back(value: int) -> None:
    assert read_number(number(value)) == value
