"""Voters: they grow with the site, are replaced when they leave, and no step lowers what the site survives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgestore.cluster.voters import next_voters, voters_wanted
from edgestore.records import NodeRecord, NodeState


def node(number: int, zone: str = "", state: NodeState = NodeState.UP, witness: bool = False) -> NodeRecord:
    return NodeRecord(number, f"m{number}", "", "", zone, 0, 100, state, witness=witness)


def grow(nodes: list[NodeRecord], current: tuple[str, ...], tolerate: int | None = None) -> list[tuple[str, ...]]:
    steps = []
    while True:
        ready = {row.member for row in nodes}
        wanted = next_voters(nodes, current, tolerate=tolerate, ready=ready, lost=set())
        if set(wanted) == set(current):
            return steps
        current = wanted
        steps.append(current)


def test_a_site_grows_one_two_three_five() -> None:
    nodes = [node(number) for number in range(1, 10)]
    assert [len(step) for step in grow(nodes, ("m1",))] == [2, 3, 5]
    assert [len(step) for step in grow(nodes[:4], ("m1",))] == [2, 3]
    assert [len(step) for step in grow(nodes[:2], ("m1",))] == [2]
    assert grow(nodes[:1], ("m1",)) == []


def test_the_tolerance_asks_for_more_or_fewer() -> None:
    nodes = [node(number) for number in range(1, 10)]
    assert voters_wanted(nodes, 1) == 3
    assert voters_wanted(nodes, 2) == 5
    assert voters_wanted(nodes, 4) == 5
    assert [len(step) for step in grow(nodes, ("m1", "m2", "m3", "m4", "m5"), 1)] == [3]


def test_two_nodes_and_a_witness_are_three_voters() -> None:
    assert len(grow([node(1), node(2), node(3, witness=True)], ("m1",))[-1]) == 3


def test_voters_are_spread_over_zones() -> None:
    nodes = [node(1, "x"), node(2, "x"), node(3, "x"), node(4, "y"), node(5, "z"), node(6, "z")]
    assert set(grow(nodes, ("m1",), 1)[-1]) == {"m1", "m4", "m5"}


def test_a_voter_that_is_removed_is_replaced_in_one_step() -> None:
    nodes = [node(1), node(2), node(3, state=NodeState.REMOVED), node(4)]
    assert set(grow(nodes, ("m1", "m2", "m3"))[0]) == {"m1", "m2", "m4"}


def test_without_a_replacement_it_is_dropped() -> None:
    nodes = [node(1), node(2), node(3, state=NodeState.REMOVED)]
    assert grow(nodes, ("m1", "m2", "m3")) == [("m1", "m2")]
    assert grow([node(1), node(2, state=NodeState.REMOVED)], ("m1", "m2")) == [("m1",)]


def test_one_that_is_down_for_long_or_drains_keeps_its_vote_until_another_is_ready() -> None:
    for state, lost in ((NodeState.DOWN, {"m3"}), (NodeState.DRAINING, set())):
        nodes = [node(1), node(2), node(3, state=state), node(4)]
        current = ("m1", "m2", "m3")
        without = next_voters(nodes, current, tolerate=None, ready={"m1", "m2"}, lost=lost)
        assert without == current
        wanted = next_voters(nodes, current, tolerate=None, ready={"m1", "m2", "m4"}, lost=lost)
        assert set(wanted) == {"m1", "m2", "m4"}


@given(
    st.lists(st.tuples(st.sampled_from(NodeState), st.booleans(), st.booleans()), min_size=1, max_size=9),
    st.integers(1, 9),
    st.sampled_from([None, 0, 1, 2]),
)
def test_changes_end_and_keep_to_the_rules(
    rows: list[tuple[NodeState, bool, bool]], first: int, tolerate: int | None
) -> None:
    nodes = [node(number, state=row[0], witness=row[1]) for number, row in enumerate(rows, 1)]
    ready = {row.member for row, (_, _, is_ready) in zip(nodes, rows, strict=True) if is_ready}
    lost = {row.member for row in nodes if row.state is NodeState.DOWN}
    current: tuple[str, ...] = tuple(row.member for row in nodes[: min(first, 5)])
    for _ in range(20):
        wanted = next_voters(nodes, current, tolerate=tolerate, ready=ready, lost=lost)
        if set(wanted) == set(current):
            break
        assert len(set(wanted)) == len(wanted) <= 5
        assert wanted
        by_member = {row.member: row for row in nodes}
        for member in set(wanted) - set(current):
            assert member in ready
            assert by_member[member].state is NodeState.UP
        current = wanted
    else:
        raise AssertionError("it never comes to rest")
