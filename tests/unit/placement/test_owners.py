"""Owners: each its share, no zone more than its own, as little movement as can be, the same answer everywhere."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.placement import NOBODY, PARTITIONS, QUALITY_POOR, Placement, partition_of
from edgestore.placement.partitions import _log2, lot
from edgestore.records import LayoutNode, LayoutRecord, NodeState
from tests.unit.placement.sites import changed, joined, least, moved, site, turned

STATES = st.sampled_from(NodeState)


@st.composite
def layouts(draw: st.DrawFn) -> LayoutRecord:
    """Any layout that the catalog could come to."""
    epoch = draw(st.integers(1, 30))
    nodes = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        since = draw(st.integers(1, epoch))
        nodes.append(
            LayoutNode(
                number,
                draw(st.integers(1, 1 << 20)),
                draw(st.sampled_from(["", "", "a", "b", "c"])),
                draw(STATES),
                draw(st.sampled_from([100, 100, 50, 5])),
                draw(st.integers(0, 9)) == 0,
                since,
                draw(st.integers(since, epoch)),
            )
        )
    return LayoutRecord(epoch, tuple(nodes), draw(st.integers(1, epoch)))


def eligible(layout: LayoutRecord) -> dict[int, LayoutNode]:
    return {node.number: node for node in layout.nodes if node.state is NodeState.UP and not node.witness}


def assert_moves_least(before: LayoutRecord, after: LayoutRecord, count: int) -> float:
    """How much that was."""
    share = moved(before, after, count)
    assert share == least(before, after, count)
    return share


@settings(max_examples=300, deadline=None)
@given(layouts(), st.integers(0, PARTITIONS - 1), st.integers(1, 8))
def test_owners_are_distinct_eligible_and_as_many_as_there_are(
    layout: LayoutRecord, partition: int, count: int
) -> None:
    able = eligible(layout)
    owners = Placement(layout).owners_of(partition, count)
    named = [number for number in owners if number != NOBODY]
    assert len(owners) == count
    assert len(named) == len(set(named)) == min(count, len(able))
    assert set(named) <= able.keys()


@settings(max_examples=300, deadline=None)
@given(layouts(), st.integers(0, PARTITIONS - 1), st.integers(1, 8))
def test_no_zone_holds_more_than_the_least_share_that_works(layout: LayoutRecord, partition: int, count: int) -> None:
    able = eligible(layout)
    zone = {number: node.zone or f"own {number}" for number, node in able.items()}
    sizes = Counter(zone.values())
    wanted = min(count, len(able))
    share = next(
        (share for share in range(1, count + 1) if sum(min(size, share) for size in sizes.values()) >= wanted), 1
    )
    held = Counter(zone[number] for number in Placement(layout).owners_of(partition, count) if number)
    assert max(held.values(), default=0) <= share
    if wanted == count and all(size >= ceil(count / len(sizes)) for size in sizes.values()):
        assert share == ceil(count / len(sizes))


@settings(max_examples=100, deadline=None)
@given(layouts(), st.binary(min_size=16, max_size=16))
def test_the_ranking_names_all_that_may_take_new_data_the_poor_ones_last(layout: LayoutRecord, chunk: bytes) -> None:
    able = eligible(layout)
    ranking = Placement(layout).ranking(chunk)
    assert sorted(ranking) == sorted(able)
    poor = [able[number].quality <= QUALITY_POOR for number in ranking]
    assert poor == sorted(poor)


@pytest.mark.parametrize(("nodes", "count"), [(2, 2), (3, 3), (4, 2), (4, 4), (5, 3), (6, 6), (8, 2), (8, 6)])
def test_a_node_that_joins_gets_its_share_and_nothing_else_moves(nodes: int, count: int) -> None:
    before = site(*[1000] * nodes)
    assert moved(before, joined(before, 1000), count) <= 1.1 / (nodes + 1)


def test_a_node_that_joins_an_unequal_site_moves_what_it_must() -> None:
    before = site(500, 2000, 1000, 1000, 250, 4000)
    after = joined(before, 1500)
    assert_moves_least(before, after, 3)


@pytest.mark.parametrize("state", [NodeState.DOWN, NodeState.DRAINING, NodeState.REMOVED])
@pytest.mark.parametrize("count", [2, 6])
def test_only_the_shards_of_a_node_that_leaves_move(state: NodeState, count: int) -> None:
    before = site(*[1000] * 9)
    after = turned(before, 4, state)
    assert assert_moves_least(before, after, count) <= 1.1 / 9


def test_a_node_that_went_for_a_while_has_its_shards_again() -> None:
    before = site(*[1000] * 6)
    away = turned(before, 2, NodeState.DOWN)
    assert moved(before, turned(away, 2, NodeState.UP), 4) == 0.0


def test_a_long_history_of_leaving_and_joining_moves_one_shard_a_change() -> None:
    layout = site(*[1000] * 7)
    for leaves in (3, 1, 6):
        after = turned(layout, leaves, NodeState.REMOVED)
        assert_moves_least(layout, after, 4)
        layout, after = after, joined(after, 1000)
        assert_moves_least(layout, after, 4)
        layout = after


def test_weights_are_shares_of_single_copies() -> None:
    layout = site(1000, 2000, 3000, 4000)
    placement = Placement(layout)
    got = Counter(placement.owners_of(partition, 1)[0] for partition in range(PARTITIONS))
    for number in range(1, 5):
        assert got[number] / PARTITIONS == pytest.approx(number / 10, abs=0.02)


def test_a_changed_weight_moves_at_most_three_times_what_it_must() -> None:
    before = site(*[1000] * 9)
    after = changed(before, 3, weight=2000)
    assert moved(before, after, 6) <= 3 * least(before, after, 6)


def test_a_poor_node_loses_its_new_data_and_nothing_else_changes_its_node() -> None:
    before = site(*[1000] * 7)
    after = changed(before, 3, quality=QUALITY_POOR)
    placement = Placement(after)
    assert all(3 not in placement.owners_of(partition, 6) for partition in range(PARTITIONS))
    assert_moves_least(before, after, 6)


def test_a_poor_node_is_used_where_there_is_no_other() -> None:
    placement = Placement(changed(site(10, 10, 10), 2, quality=1))
    assert all(sorted(placement.owners_of(partition, 3)) == [1, 2, 3] for partition in range(PARTITIONS))


def test_every_node_holds_its_share_of_every_shard() -> None:
    """Or the oldest nodes would answer all reads."""
    placement = Placement(site(*[1000] * 6))
    first = Counter(placement.owners_of(partition, 6)[0] for partition in range(PARTITIONS))
    assert max(first.values()) < 1.25 * min(first.values())


def test_zones_share_a_chunk() -> None:
    placement = Placement(site(*[1000] * 6, zones="aaabbb"))
    for partition in range(PARTITIONS):
        assert sorted(number > 3 for number in placement.owners_of(partition, 4)) == [False, False, True, True]


def test_a_zone_too_small_for_its_share_gives_what_it_has() -> None:
    placement = Placement(site(*[1000] * 5, zones="aaaab"))
    assert all(5 in placement.owners_of(partition, 4) for partition in range(PARTITIONS))


def test_a_witness_owns_nothing() -> None:
    nodes = (LayoutNode(1, 1, "", NodeState.UP), LayoutNode(2, 1, "", NodeState.UP, witness=True))
    placement = Placement(LayoutRecord(1, nodes))
    assert placement.owners(bytes(16), 2) in {(1, NOBODY), (NOBODY, 1)}
    assert placement.ranking(bytes(16)) == (1,)


def test_places_name_what_is_not_at_home() -> None:
    placement = Placement(site(10, 10, 10, 10))
    chunks = [number.to_bytes(16, "big") for number in range(2)]
    owners = [placement.owners(chunk, 3) for chunk in chunks]
    other = next(number for number in range(1, 5) if number not in owners[0])
    holders = {(position, shard): owners[position][shard] for position in range(2) for shard in range(3)}
    assert placement.places(chunks, 3, holders) == type(placement.places([], 3, {}))()
    holders[0, 1] = other
    del holders[1, 2]
    found = placement.places(chunks, 3, holders)
    assert (found.exceptions, found.missing) == (((0, 1, other),), ((1, 2),))


def test_lots_are_logarithms() -> None:
    for partition in range(0, PARTITIONS, 97):
        for number in (1, 2, 300):
            assert 0 <= lot(partition, number) < 64 << 32
    for value in (1, 2, 3, 10**6, (1 << 63) + 12345, (1 << 64) - 1, 1 << 64):
        assert _log2(value) / 2**32 == pytest.approx(log2(value), abs=1e-8)


def test_what_was_placed_once_is_found_for_ever() -> None:
    """Extents on disk rely on these answers: another one would be another format."""
    placement = Placement(site(500, 1000, 2000, 1000, 1000, zones="abcab"))
    chunks = [(7).to_bytes(8, "big") + number.to_bytes(8, "big") for number in (1, 2, 3, 1000)]
    assert [partition_of(chunk) for chunk in chunks] == PINNED_PARTITIONS
    assert [placement.owners(chunk, 4) for chunk in chunks] == PINNED_OWNERS
    assert [lot(partition, 3) for partition in (0, 1, 4095)] == PINNED_LOTS


PINNED_PARTITIONS: list[int] = [2692, 2192, 3125, 2]
PINNED_OWNERS: list[tuple[int, ...]] = [(1, 2, 5, 4), (1, 2, 3, 5), (2, 3, 5, 1), (3, 4, 5, 2)]
PINNED_LOTS: list[int] = [17334578226, 2324070144, 3476560840]
