"""Sizes and times of the command line read as they are written on disks and in instructions."""

from __future__ import annotations

import click
import pytest

from edgestore.cli.options import Bytes, Duration


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("2TB", 2 * 10**12), ("500 GB", 500 * 10**9), ("1.5TiB", 3 * 1024**4 // 2), ("64m", 64 * 10**6), ("123", 123)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert Bytes().convert(text, None, None) == size_bytes


@pytest.mark.parametrize("text", ["", "TB", "2XB", "-1GB", "1iB", "1.GB", "2TBs", "0", "0TB", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize(("text", "milliseconds"), [("1s", 1000), ("30m", 1_800_000), ("2d", 172_800_000)])
def test_times(text: str, milliseconds: int) -> None:
    assert Duration().convert(text, None, None) == milliseconds


@pytest.mark.parametrize("text", ["", "1", "0s", "-1h", "1w", "1.5h", "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
