"""The leader's decisions, as a function of what it sees."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as changed

from edgestore.catalog import commands
from edgestore.cluster import ChangeVoters, Control, NodeStatus, SeenStatus, SiteView, Standing, StepLogTime
from edgestore.cluster.control import agreed_time_ms
from edgestore.config import ClusterConfig
from edgestore.records import NodeRecord, NodeState, SiteSettings

CONFIG = ClusterConfig()
START_MS = 1_000_000.0
WALL_MS = 1_700_000_000_000


def node(number: int, state: NodeState = NodeState.UP) -> NodeRecord:
    return NodeRecord(number, f"m{number}", "", "", "", 0, 100, state)


def view(count: int = 5, **changes: object) -> SiteView:
    members = [f"m{number}" for number in range(1, count + 1)]
    made = SiteView(
        own="m1",
        nodes=[node(number) for number in range(1, count + 1)],
        settings=SiteSettings(),
        standings=dict.fromkeys(members[1:], Standing.ALIVE),
        statuses={member: SeenStatus(NodeStatus(0, WALL_MS, applied_index=50), 1e12) for member in members},
        voters=tuple(members),
        applied_index=50,
        feature_level=1,
        log_time_ms=WALL_MS,
        epoch=1,
        balance_epoch=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def seen(received_ms: float, **facts: int) -> SeenStatus:
    return SeenStatus(NodeStatus(0, facts.pop("wall_ms", WALL_MS), **facts), received_ms)


def with_node(site: SiteView, number: int, **changes: object) -> SiteView:
    nodes = [changed(one, **changes) if one.number == number else one for one in site.nodes]
    return replace(site, nodes=nodes)


def with_standing(site: SiteView, standing: Standing, *members: str) -> SiteView:
    return replace(site, standings={**site.standings, **dict.fromkeys(members, standing)})


def settled(site: SiteView) -> Control:
    control = Control(CONFIG, START_MS)
    control.decide(site, START_MS)
    return control


def test_a_quiet_site_is_left_alone() -> None:
    control = settled(view())
    for second in range(1, 600):
        assert control.decide(view(), START_MS + second * 1000) == []


def test_a_failed_node_goes_down_at_once_and_a_suspected_one_does_not() -> None:
    site = view()
    control = settled(site)
    at_ms = START_MS + CONFIG.control_settle_ms
    assert control.decide(with_standing(site, Standing.SUSPECTED, "m3"), at_ms) == []
    assert control.decide(with_standing(site, Standing.FAILED, "m3"), at_ms) == [
        commands.SetNodeState(3, NodeState.DOWN, NodeState.UP)
    ]
    draining = with_node(with_standing(site, Standing.FAILED, "m3"), 3, state=NodeState.DRAINING)
    assert control.decide(draining, at_ms) == [commands.SetNodeState(3, NodeState.DOWN, NodeState.DRAINING)]


def test_a_leader_that_is_new_or_was_stalled_waits() -> None:
    site = with_standing(view(), Standing.FAILED, "m3")
    control = settled(site)
    assert control.decide(site, START_MS + CONFIG.control_settle_ms - 1) == []
    assert control.decide(site, START_MS + CONFIG.control_settle_ms)
    control.was_stalled(START_MS + 60_000)
    assert control.decide(site, START_MS + 60_001) == []


def test_a_leader_without_a_majority_declares_nothing() -> None:
    site = with_standing(view(), Standing.FAILED, "m3", "m4", "m5")
    assert settled(site).decide(site, START_MS + 10_000) == []


def test_a_node_that_is_back_for_a_while_is_up_again() -> None:
    gone = with_node(with_standing(view(), Standing.FAILED, "m3"), 3, state=NodeState.DOWN)
    control = settled(gone)
    back = with_standing(gone, Standing.ALIVE, "m3")
    at_ms = START_MS + 10_000
    assert control.decide(back, at_ms) == []
    assert control.decide(gone, at_ms + 500) == []
    assert control.decide(back, at_ms + 600) == []
    assert control.decide(back, at_ms + 600 + CONFIG.up_after_ms) == [
        commands.SetNodeState(3, NodeState.UP, NodeState.DOWN)
    ]
    silent = replace(back, statuses={})
    assert control.decide(silent, at_ms + 9000) == []


def test_it_is_removed_after_the_setting_one_at_a_time_and_only_while_most_are_there() -> None:
    site = view(settings=SiteSettings(remove_after_ms=3_600_000), margin=1)
    for number in (4, 5):
        site = with_node(site, number, state=NodeState.DOWN, down_since_ms=WALL_MS)
    site = replace(with_standing(site, Standing.FAILED, "m4", "m5"), log_time_ms=WALL_MS + 3_600_000)
    control = settled(replace(site, log_time_ms=WALL_MS + 3_599_999))
    removal = commands.SetNodeState(4, NodeState.REMOVED, NodeState.DOWN)
    assert control.decide(site, START_MS + 1) == [removal]
    assert control.decide(site, START_MS + 2) == []
    later = START_MS + 2 + CONFIG.remove_pause_s * 1000
    few = with_node(site, 3, state=NodeState.DOWN)
    assert all(decision != removal for decision in control.decide(few, later))
    for margin in (-2, -1, 0):  # not known, something is unreadable, the next loss is one of data
        assert all(decision != removal for decision in control.decide(replace(site, margin=margin), later))
    assert removal in control.decide(site, later)
    by_hand = replace(site, settings=SiteSettings())
    assert all(decision != removal for decision in control.decide(by_hand, later * 2))


def test_the_feature_level_rises_when_every_member_knows_it() -> None:
    site = view(3)
    control = settled(site)
    for number in (1, 2):
        site = with_node(site, number, feature_level=2)
    assert control.decide(site, START_MS + 1) == []
    site = with_node(site, 3, feature_level=3)
    assert control.decide(site, START_MS + 2) == [commands.RaiseFeatureLevel(2)]
    without = with_node(replace(site, voters=("m1", "m2")), 3, state=NodeState.REMOVED, feature_level=1)
    assert control.decide(without, START_MS + 3) == [commands.RaiseFeatureLevel(2)]


def test_log_time_is_stepped_when_a_majority_of_clocks_agrees() -> None:
    site = view(3)
    control = settled(site)
    hour = 3_600_000
    one = {"m2": seen(START_MS, wall_ms=WALL_MS + hour), "m1": seen(START_MS), "m3": seen(START_MS)}
    assert control.decide(replace(site, statuses=one), START_MS) == []
    two = one | {"m3": seen(START_MS - 1000, wall_ms=WALL_MS + hour)}
    assert control.decide(replace(site, statuses=two), START_MS) == [StepLogTime(WALL_MS + hour)]
    assert control.decide(replace(site, statuses=two, log_time_ms=WALL_MS + 2 * hour), START_MS) == []
    lone = replace(view(1), statuses={"m1": seen(START_MS, wall_ms=WALL_MS + hour)})
    assert settled(lone).decide(lone, START_MS) == []


def test_agreed_time_is_the_latest_that_enough_clocks_show() -> None:
    assert agreed_time_ms([10, 1000, 1001], 2, 5) == 1000
    assert agreed_time_ms([10, 11, 1001], 2, 5) == 10
    assert agreed_time_ms([10, 500, 1001], 2, 5) is None
    assert agreed_time_ms([10], 2, 5) is None


def test_condemned_rows_go_when_every_node_that_is_up_has_reported() -> None:
    site = with_node(view(3, condemned=[(b"a", 10), (b"b", 20)]), 3, state=NodeState.DOWN)
    site = with_standing(site, Standing.FAILED, "m3")
    control = settled(replace(site, statuses={}))
    statuses = {"m1": seen(0, reclaimed_index=30), "m2": seen(0, reclaimed_index=10)}
    assert control.decide(replace(site, statuses=statuses), START_MS) == [commands.ReclaimedChunks((b"a",))]
    assert control.decide(replace(site, statuses={"m1": statuses["m1"]}), START_MS) == []


def test_empty_closed_layouts_retire() -> None:
    control = settled(view())
    old = view(epoch=40, balance_epoch=35, layouts=[(1, 0), (2, 0), (30, 5)])
    assert control.decide(old, START_MS) == [commands.RetireLayouts(32)]
    assert control.decide(replace(old, layouts=[(1, 0), (2, 1), (36, 0)]), START_MS) == []


def test_an_identity_that_lives_twice_is_put_in_quarantine() -> None:
    site = view(contested=frozenset(["m2"]))
    assert settled(site).decide(site, START_MS) == [commands.QuarantineMember("m2")]
    assert settled(site).decide(with_node(site, 2, state=NodeState.QUARANTINED), START_MS)[:1] != [
        commands.QuarantineMember("m2")
    ]


def test_a_voter_that_is_down_for_long_is_replaced() -> None:
    site = view(6, voters=("m1", "m2", "m3"), settings=SiteSettings(tolerate=1))
    site = with_standing(with_node(site, 3, state=NodeState.DOWN), Standing.FAILED, "m3")
    control = settled(site)
    fresh = replace(site, statuses={member: seen(1e12, applied_index=50) for member in site.statuses})
    before = control.decide(fresh, START_MS + CONFIG.voter_down_ms - 1)
    assert not any(isinstance(decision, ChangeVoters) for decision in before)
    (change,) = control.decide(fresh, START_MS + CONFIG.voter_down_ms)
    assert change == ChangeVoters(("m1", "m2", "m4"))
    assert control.decide(fresh, START_MS + CONFIG.voter_down_ms + 1) == []


def test_a_node_far_behind_does_not_vote() -> None:
    site = view(2, voters=("m1",), applied_index=1_000_000)
    control = settled(site)
    assert control.decide(site, START_MS + 60_000) == []
    near = replace(site, statuses={"m2": seen(1e12, applied_index=999_000)})
    assert control.decide(near, START_MS + 60_000) == [ChangeVoters(("m1", "m2"))]
