"""Schemes: by the nodes that are up, at the tolerance that the site promised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.errors import BadRequest, Unavailable
from edgestore.placement import (
    FRAGMENTS_MAX,
    TOLERATE_MAX,
    Scheme,
    copies_for,
    default_scheme,
    parse_scheme,
    scheme_for,
)
from edgestore.records import BucketRecord, LayoutRecord, NodeState, SiteSettings
from tests.unit.placement.sites import changed, site, turned


@pytest.mark.parametrize(
    ("nodes", "scheme"),
    [(1, "1+0/0"), (2, "1+1/1"), (3, "2+1/1"), (4, "2+2/1"), (5, "3+2/2"), (6, "4+2/2"), (7, "4+2/2"), (9, "4+2/2")],
)
def test_defaults_by_the_number_of_nodes(nodes: int, scheme: str) -> None:
    found = default_scheme(nodes)
    assert f"{found}/{found.t}" == scheme
    assert scheme_for(None, site(*[1] * nodes), SiteSettings()) == found


@given(st.integers(1, 30), st.integers(0, TOLERATE_MAX))
def test_a_scheme_fits_the_nodes_and_holds_the_tolerance(nodes: int, tolerate: int) -> None:
    if nodes <= tolerate:
        with pytest.raises(Unavailable):
            default_scheme(nodes, tolerate)
        return
    scheme = default_scheme(nodes, tolerate)
    assert scheme.t == tolerate <= scheme.m
    assert scheme.k >= 1
    assert scheme.count <= min(nodes, FRAGMENTS_MAX)
    assert parse_scheme(str(scheme), tolerate) == scheme


@pytest.mark.parametrize(
    ("nodes", "down", "scheme"),
    [(3, 1, "1+1/1"), (4, 1, "2+1/1"), (5, 1, "2+2/2"), (5, 2, "1+2/2"), (6, 1, "3+2/2"), (6, 2, "2+2/2")],
)
def test_with_nodes_down_it_goes_on_at_the_same_tolerance(nodes: int, down: int, scheme: str) -> None:
    layout = site(*[1] * nodes)
    for number in range(1, down + 1):
        layout = turned(layout, number, NodeState.DOWN)
    found = scheme_for(None, layout, SiteSettings())
    assert f"{found}/{found.t}" == scheme


@pytest.mark.parametrize(("nodes", "down"), [(2, 1), (3, 2), (5, 3)])
def test_with_too_few_nodes_up_it_refuses(nodes: int, down: int) -> None:
    layout = site(*[1] * nodes)
    for number in range(1, down + 1):
        layout = turned(layout, number, NodeState.DOWN)
    with pytest.raises(Unavailable):
        scheme_for(None, layout, SiteSettings())
    single = BucketRecord(1, "visible", 1, 0, tolerate=0)
    assert scheme_for(single, layout, SiteSettings()) == Scheme(1, 0, 0)


def test_a_node_that_leaves_is_no_longer_promised_on() -> None:
    layout = turned(site(1, 1, 1), 3, NodeState.DRAINING)
    assert scheme_for(None, layout, SiteSettings()) == Scheme(1, 1, 1)


def test_a_poor_node_is_passed_over_while_the_others_suffice() -> None:
    assert scheme_for(None, changed(site(1, 1, 1), 2, quality=5), SiteSettings()) == Scheme(1, 1, 1)
    assert scheme_for(None, changed(site(1, 1), 2, quality=5), SiteSettings()) == Scheme(1, 1, 1)


def bucket(**fields: Any) -> BucketRecord:
    return BucketRecord(1, "bucket", 1, 0, **fields)


@pytest.mark.parametrize(
    ("nodes", "made", "settings", "scheme"),
    [
        (6, bucket(tolerate=1), SiteSettings(), "4+2/1"),
        (6, bucket(tolerate=3), SiteSettings(), "3+3/3"),
        (6, bucket(scheme="2+1"), SiteSettings(), "2+1/1"),
        (6, bucket(scheme="2+2", tolerate=1), SiteSettings(tolerate=2, scheme="4+2"), "2+2/1"),
        (6, bucket(), SiteSettings(tolerate=1), "4+2/1"),
        (6, bucket(), SiteSettings(scheme="3+3"), "3+3/2"),
        (3, bucket(scheme="4+2"), SiteSettings(), "2+1/1"),
    ],
)
def test_the_bucket_decides_then_the_site_then_the_nodes(
    nodes: int, made: BucketRecord, settings: SiteSettings, scheme: str
) -> None:
    found = scheme_for(made, site(*[1] * nodes), settings)
    assert f"{found}/{found.t}" == scheme


@pytest.mark.parametrize("text", ["", "4", "4+", "+2", "0+2", "4+2+1", "4 + 2", "17+2", "16+9", "4+2\n", "٤+2"])
def test_what_is_no_scheme_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_scheme(text)


@pytest.mark.parametrize("tolerate", [-1, 3, 5])
def test_a_scheme_that_cannot_hold_the_tolerance_is_refused(tolerate: int) -> None:
    with pytest.raises(BadRequest):
        parse_scheme("4+2", tolerate)


def test_a_lone_site_keeps_one_copy_and_copies_hold_the_tolerance() -> None:
    assert scheme_for(None, LayoutRecord(), SiteSettings()) == Scheme(1, 0, 0)
    assert (copies_for(2).count, copies_for(2).needed) == (3, 3)
