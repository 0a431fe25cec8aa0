"""Nodes join, change and leave by commands; what changes who takes new data makes a new epoch in the same command."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.errors import (
    BadRequest,
    Conflict,
    InvalidToken,
    MemberRemoved,
    NoSuchLayout,
    NoSuchNode,
    NotSupported,
    TooLarge,
)
from edgestore.records import NodeState, SiteSettings
from tests.unit.catalog.nodes import HOUR_MS, SECRET, NodeSite, member, new_node
from tests.unit.catalog.site import Site, put


def test_a_catalog_without_nodes_has_an_empty_layout_and_goes_on_when_it_is_founded() -> None:
    site = Site()
    bucket = site.bucket()
    site.do(put(bucket, "key", site.content()))
    assert (site.state.layout().epoch, site.state.layout().nodes, site.state.nodes()) == (1, (), [])
    node = site.do(commands.FoundNode(new_node(1)))
    assert (node.number, node.state, node.weight) == (1, NodeState.UP, 100)
    assert site.do(commands.FoundNode(new_node(1))) == node
    chunk = site.content().extents[0].chunks[0]
    assert site.state.placement(1).owners(chunk.chunk_id, 1) == (1,)
    site.do(put(bucket, "key", site.content()))
    with pytest.raises(Conflict):
        site.do(commands.FoundNode(new_node(2)))


def test_nodes_join_by_token_and_each_makes_an_epoch_to_which_data_moves() -> None:
    site = NodeSite(3)
    assert [node.number for node in site.state.nodes()] == [1, 2, 3]
    layout = site.state.layout()
    assert (layout.epoch, layout.balance_epoch) == (3, 3)
    assert [node.joined_epoch for node in layout.nodes] == [1, 2, 3]
    assert site.state.node_of(member(2)) == site.state.node(2)
    assert site.state.node_of(member(9)) is None
    assert [one.epoch for one in site.state.layouts()] == [1, 2, 3]
    assert site.state.layout(2).nodes == layout.nodes[:2]


def test_a_token_is_for_one_member_and_one_key_and_it_may_ask_again() -> None:
    site = NodeSite(1)
    token = site.token()
    joined = site.do(commands.AddNode(new_node(2), token, SECRET))
    assert site.do(commands.AddNode(new_node(2), token, SECRET)) == joined
    assert len(site.state.nodes()) == 2
    with pytest.raises(InvalidToken):
        site.do(commands.AddNode(new_node(3), token, SECRET))
    with pytest.raises(InvalidToken):
        site.do(commands.AddNode(new_node(3), site.token(), b"x" * 32))
    with pytest.raises(InvalidToken):
        site.do(commands.AddNode(new_node(3), b"unknown", SECRET))
    stranger = commands.NewNode(member(2), "", "", "", 1 << 40, b"other key", b"", 1)
    with pytest.raises(Conflict):
        site.do(commands.AddNode(stranger, site.token(), SECRET))


def test_tokens_end_by_log_time_and_are_bounded() -> None:
    site = NodeSite(1)
    token = site.token(HOUR_MS)
    dropped = site.token()
    site.do(commands.DropToken(dropped))
    site.do(commands.DropToken(dropped))
    site.time_ms += HOUR_MS
    for used in (token, dropped):
        with pytest.raises(InvalidToken):
            site.do(commands.AddNode(new_node(2), used, SECRET))
    site.token()
    assert len(site.state.tokens()) == 1, "a new token drops those that are too old"
    with pytest.raises(Conflict):
        site.do(commands.CreateToken(site.state.tokens()[0].token_id, SECRET, HOUR_MS))
    for number in range(999):
        site.do(commands.CreateToken(b"many%d" % number, SECRET, HOUR_MS))
    with pytest.raises(TooLarge):
        site.token()


@pytest.mark.parametrize("command", [(b"", SECRET, 1), (b"i", b"short", 1), (b"i", SECRET, 0), (b"i", SECRET, 1 << 40)])
def test_a_token_that_cannot_be_is_refused(command: tuple[bytes, bytes, int]) -> None:
    with pytest.raises(BadRequest):
        Site().do(commands.CreateToken(*command))


def test_down_and_up_make_epochs_but_move_no_data_and_close_the_writers() -> None:
    site = NodeSite(3)
    writer = site.do(commands.RegisterWriter(member(2))).writer
    site.time_ms += 5
    down = site.turn(2, NodeState.DOWN)
    assert (down.state, down.down_since_ms, down.state_epoch) == (NodeState.DOWN, site.time_ms, 4)
    assert site.state.writer(writer) is None
    assert site.state.writer(site.writer) is not None
    assert site.state.counted_nodes() == {1, 3}
    up = site.turn(2, NodeState.UP)
    assert (up.down_since_ms, site.state.layout().epoch, site.state.layout().balance_epoch) == (0, 5, 3)
    assert site.do(commands.SetNodeState(2, NodeState.UP, NodeState.UP)) == up
    assert site.state.layout().epoch == 5
    with pytest.raises(Conflict):
        site.do(commands.SetNodeState(2, NodeState.DOWN, NodeState.DRAINING))
    with pytest.raises(NoSuchNode):
        site.do(commands.SetNodeState(9, NodeState.DOWN, NodeState.UP))


def test_a_node_that_drains_goes_on_after_it_was_down_until_it_is_told_to_stay() -> None:
    site = NodeSite(3)
    site.turn(3, NodeState.DRAINING)
    assert site.state.layout().balance_epoch == 4
    assert site.state.counted_nodes() == {1, 2, 3}
    site.turn(3, NodeState.DOWN)
    assert site.turn(3, NodeState.UP).state is NodeState.DRAINING
    assert site.state.layout().balance_epoch == 4
    stays = site.turn(3, NodeState.UP)
    assert (stays.state, stays.drains) == (NodeState.UP, False)
    assert site.state.layout().balance_epoch == site.state.layout().epoch
    site.turn(3, NodeState.DOWN)
    drains = site.turn(3, NodeState.DRAINING)
    assert (drains.state, drains.drains) == (NodeState.DOWN, True)
    assert site.state.layout().balance_epoch == site.state.layout().epoch
    assert site.turn(3, NodeState.UP).state is NodeState.DRAINING


def test_who_was_removed_never_comes_back() -> None:
    site = NodeSite(3)
    token = site.token()
    site.turn(3, NodeState.REMOVED)
    assert site.state.layout().balance_epoch == 4
    for command in (
        commands.AddNode(new_node(3), token, SECRET),
        commands.UpdateNode(member(3), address="elsewhere"),
    ):
        with pytest.raises(MemberRemoved):
            site.do(command)
    for state in NodeState:
        if state is not NodeState.REMOVED:
            with pytest.raises(Conflict):
                site.turn(3, state)
    assert site.do(commands.QuarantineMember(member(3))).state is NodeState.REMOVED
    assert site.join(new_node(4)).number == 4
    site.turn(2, NodeState.REMOVED)
    site.turn(4, NodeState.REMOVED)
    with pytest.raises(Conflict, match="last storage node"):
        site.turn(1, NodeState.REMOVED)


def test_a_copied_identity_counts_no_more() -> None:
    site = NodeSite(3)
    writer = site.do(commands.RegisterWriter(member(2))).writer
    found = site.do(commands.QuarantineMember(member(2)))
    assert found.state is NodeState.QUARANTINED
    assert site.state.writer(writer) is None
    assert site.state.counted_nodes() == {1, 3}
    with pytest.raises(MemberRemoved):
        site.do(commands.UpdateNode(member(2)))
    with pytest.raises(Conflict):
        site.turn(2, NodeState.UP)
    assert site.turn(2, NodeState.REMOVED).state is NodeState.REMOVED
    with pytest.raises(NoSuchNode):
        site.do(commands.QuarantineMember(member(8)))


def test_a_start_says_where_the_node_is_and_makes_no_epoch() -> None:
    site = NodeSite(2)
    updated = site.do(commands.UpdateNode(member(2), "new:1", "new:2", 5 << 30, 1, b"again"))
    assert (updated.address, updated.s3_address, updated.capacity_bytes, updated.start_nonce) == (
        "new:1",
        "new:2",
        5 << 30,
        b"again",
    )
    assert (updated.weight, site.state.layout().epoch) == (100, 2)
    assert site.do(commands.UpdateNode(member(2))) == updated
    site.do(commands.UpdateNode(member(2), zone="b"))
    assert (site.state.layout().epoch, site.state.layout().balance_epoch) == (3, 3)
    with pytest.raises(NoSuchNode):
        site.do(commands.UpdateNode(member(5)))


def test_weight_moves_data_and_quality_does_not() -> None:
    site = NodeSite(3)
    site.do(commands.SetNodeQuality(2, 5))
    assert (site.state.layout().epoch, site.state.layout().balance_epoch) == (4, 3)
    site.do(commands.SetNodeQuality(2, 5))
    assert site.state.layout().epoch == 4, "nothing changed"
    site.do(commands.SetNodeWeight(2, 7))
    assert (site.state.layout().epoch, site.state.layout().balance_epoch) == (5, 5)
    assert [(node.weight, node.quality) for node in site.state.layout().nodes] == [(100, 100), (7, 5), (100, 100)]
    for command in (
        commands.SetNodeQuality(2, 0),
        commands.SetNodeQuality(2, 101),
        commands.SetNodeWeight(2, 0),
        commands.SetNodeWeight(2, -1),
    ):
        with pytest.raises(BadRequest):
            site.do(command)


def test_a_witness_moves_no_data() -> None:
    site = NodeSite(2)
    site.join(new_node(3, witness=True))
    assert (site.state.layout().epoch, site.state.layout().balance_epoch) == (3, 2)
    assert site.state.counted_nodes() == {1, 2}


def test_a_failed_command_leaves_the_layout_as_it_was() -> None:
    site = NodeSite(2)
    before = site.state.layout()
    add = commands.AddNode(new_node(3), site.token(), SECRET)
    late = commands.SetNodeState(2, NodeState.DOWN, NodeState.DRAINING)
    outcomes = site.all(add, late, commands.SetNodeState(9, NodeState.DOWN, NodeState.UP))
    assert outcomes[0].number == 3
    assert [type(outcome) for outcome in outcomes[1:]] == [Conflict, NoSuchNode]
    assert site.state.layout().epoch == before.epoch + 1
    site.reopen()
    assert site.state.layout().epoch == before.epoch + 1


def test_the_feature_level_rises_when_every_node_knows_it_and_shuts_older_ones_out() -> None:
    site = NodeSite(2)
    with pytest.raises(Conflict):
        site.do(commands.RaiseFeatureLevel(2))
    for number in (1, 2):
        site.do(commands.UpdateNode(member(number), feature_level=2))
    assert site.do(commands.RaiseFeatureLevel(2)) == 2
    assert site.do(commands.RaiseFeatureLevel(1)) == 2
    with pytest.raises(NotSupported):
        site.join(new_node(3))
    with pytest.raises(NotSupported):
        site.do(commands.UpdateNode(member(2), feature_level=1))
    site.reopen()
    assert site.applier.site.feature_level == 2


def test_the_first_authority_counts() -> None:
    site = Site()
    assert site.state.authority() is None
    assert site.do(commands.SetAuthority(b"certificate", b"key")) == b"certificate"
    assert site.do(commands.SetAuthority(b"other", b"key")) == b"certificate"
    found = site.state.authority()
    assert found is not None
    assert (found.certificate, found.key) == (b"certificate", b"key")


def test_settings_and_bucket_policies_are_checked() -> None:
    site = Site()
    bucket = site.bucket()
    assert site.state.settings() == SiteSettings()
    wanted = SiteSettings(2, "4+2", HOUR_MS)
    assert site.do(commands.SetSiteSettings(wanted)) == wanted == site.state.settings()
    changed = site.do(commands.SetBucketPolicy(bucket.bucket_id, 1, "2+1"))
    assert site.state.bucket("bucket") == changed
    assert (changed.tolerate, changed.scheme) == (1, "2+1")
    for command in (
        commands.SetSiteSettings(SiteSettings(9)),
        commands.SetSiteSettings(SiteSettings(remove_after_ms=-1)),
        commands.SetBucketPolicy(bucket.bucket_id, 3, "4+2"),
        commands.SetBucketPolicy(bucket.bucket_id, None, "much"),
    ):
        with pytest.raises(BadRequest):
            site.do(command)
    assert site.state.settings() == wanted


def test_epochs_retire_when_no_extent_needs_them() -> None:
    site = NodeSite(3)
    bucket = site.bucket()
    kept = site.spread()
    site.put(bucket, "kept", site.content(kept))
    for state in (NodeState.DOWN, NodeState.UP) * 2:
        site.turn(3, state)
    assert site.state.extents_under(3) == 1
    assert site.do(commands.RetireLayouts(100)) == [2, 4, 5, 6]
    assert [layout.epoch for layout in site.state.layouts()] == [1, 3, 7]
    with pytest.raises(NoSuchLayout):
        site.state.placement(5)
    site.delete(bucket, "kept")
    assert site.do(commands.RetireLayouts(3)) == []
    assert site.do(commands.RetireLayouts(4)) == [3]


def test_removed_nodes_fade_from_the_layout_in_the_end() -> None:
    site = NodeSite(1)
    for number in range(2, 80):
        site.join(new_node(number))
        site.turn(number, NodeState.REMOVED)
    assert len(site.state.nodes()) == 79
    assert len(site.state.layout().nodes) == 65


def test_watchers_hear_of_nodes_and_layouts() -> None:
    site = NodeSite(1)
    heard: list[set[str]] = []
    site.applier.on_changed = lambda index, tables: heard.append({table.name for table in tables})
    site.do(commands.UpdateNode(member(1), address="x"))
    site.do(commands.SetNodeWeight(1, 5))
    site.do(commands.SetSiteSettings(SiteSettings()))
    site.do(commands.SetAuthority(b"c", b"k"))
    assert heard == [{"NODES"}, {"NODES", "LAYOUTS"}, {"SETTINGS"}, {"AUTHORITY"}]


def test_a_change_that_was_looked_at_under_another_layout_is_refused() -> None:
    site = NodeSite(4)
    epoch = site.state.layout().epoch
    site.turn(4, NodeState.DOWN)
    with pytest.raises(Conflict):
        site.do(commands.SetNodeState(3, NodeState.REMOVED, NodeState.UP, epoch))
    assert site.do(commands.SetNodeState(3, NodeState.REMOVED, NodeState.UP, epoch + 1)).state is NodeState.REMOVED
