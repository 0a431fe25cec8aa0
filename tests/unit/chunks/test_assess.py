"""What an extent needs, as a table of what may be wrong with it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from edgestore.catalog import commands
from edgestore.chunks import Assessor, Need
from edgestore.chunks.assess import SiteFacts
from edgestore.config import RepairConfig
from edgestore.core.site_view import MetaSites
from edgestore.errors import NoSuchBucket
from edgestore.placement import Placement, Scheme, copies_for
from edgestore.records import ExtentRecord, NodeState, SiteSettings
from tests.unit.catalog.nodes import NodeSite, member, new_node
from tests.unit.catalog.site import put

CONFIG = RepairConfig()
WIDE = Scheme(4, 2, 2)
SMALL_BYTES = 128 * 1024


class Judge(NodeSite):
    """A catalog, and what repair would make of its extents."""

    meta = property(lambda self: self)
    later_ms = 0

    def named(self, scheme: Scheme = WIDE, *, chunks: int = 2, **places: object) -> ExtentRecord:
        """An extent of a new object."""
        extent = self.spread(scheme, chunks=chunks, **places)  # type: ignore[arg-type]
        extent = replace(
            extent,
            chunks=tuple(replace(chunk, size_bytes=SMALL_BYTES) for chunk in extent.chunks),
            size_bytes=chunks * SMALL_BYTES,
        )
        try:
            bucket = self.state.bucket("bucket")
        except NoSuchBucket:
            bucket = self.bucket()
        self.do(put(bucket, f"key-{self.number}", self.content(extent)))
        return self.record(extent)

    def assessor(self) -> Assessor:
        sites = MetaSites(self, member(1), lambda member: False)  # type: ignore[arg-type]
        facts = SiteFacts(self.state.nodes(), self.state.settings(), self.time_ms + self.later_ms)
        return Assessor(self.state.layout(), sites.placements, self.state.bucket_by_id, facts, CONFIG, SMALL_BYTES)

    def need(self, extent: ExtentRecord) -> Need:
        return self.assessor().judge(self.record_of(extent.extent_id)).need


def test_what_is_at_home_needs_nothing() -> None:
    site = Judge(6)
    extent = site.named()
    assert site.assessor().judge(extent).margin == 2
    assert site.need(extent) is Need.NOTHING
    assert site.need(site.named(copies_for(2), chunks=1)) is Need.NOTHING


def test_a_short_absence_costs_nothing_and_a_long_one_is_made_good_for() -> None:
    site = Judge(7)
    extent = site.named()
    away = next(iter(site.owners(extent)))
    site.turn(away, NodeState.DOWN)
    assert site.need(extent) is Need.WAIT
    assert site.assessor().judge(extent).margin == 1
    site.later_ms = CONFIG.lazy_wait_s * 1000 - 1
    assert site.need(extent) is Need.WAIT
    site.later_ms += 1
    assert site.need(extent) is Need.PLACE
    site.turn(away, NodeState.UP)
    assert site.need(extent) is Need.NOTHING


def test_with_only_k_fragments_left_the_wait_is_shorter() -> None:
    site = Judge(8)
    extent = site.named(chunks=1)
    for away in site.owners(extent)[:2]:
        site.turn(away, NodeState.DOWN)
    assert site.need(extent) is Need.WAIT
    site.later_ms = CONFIG.critical_wait_s * 1000
    assert site.need(extent) is Need.PLACE


def test_fewer_than_k_fragments_wait_for_a_node() -> None:
    site = Judge(6)
    extent = site.named(chunks=1)
    for away in site.owners(extent)[:3]:
        site.turn(away, NodeState.DOWN)
    finding = site.assessor().judge(extent)
    assert (finding.need, finding.margin) == (Need.LOST, -1)


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.REMOVED, NodeState.QUARANTINED])
def test_who_leaves_is_made_good_for_at_once(state: NodeState) -> None:
    site = Judge(8)
    extent = site.named()
    site.turn(site.owners(extent)[0], state)
    assert site.need(extent) is Need.PLACE


def test_what_a_node_drains_goes_at_once_also_while_it_is_down() -> None:
    site = Judge(8)
    extent = site.named()
    away = site.owners(extent)[0]
    site.turn(away, NodeState.DOWN)
    site.turn(away, NodeState.DRAINING)
    assert site.state.node(away).state is NodeState.DOWN
    assert site.need(extent) is Need.PLACE


def test_missing_fragments_and_exceptions_are_due_at_once() -> None:
    site = Judge(8)
    extent = site.named(chunks=1)
    other = next(node for node in range(1, 9) if node not in site.owners(extent))
    assert site.assessor().judge(replace(extent, missing=((0, 3),))).need is Need.PLACE
    assert site.assessor().judge(replace(extent, exceptions=((0, 2, other),))).need is Need.PLACE


def test_a_join_moves_what_was_placed_before_it() -> None:
    site = Judge(6)
    extent = site.named()
    site.join(new_node(7))
    assert site.need(extent) is Need.PLACE
    assert site.need(site.named()) is Need.NOTHING


def test_quality_moves_nothing() -> None:
    site = Judge(7)
    extent = site.named()
    site.do(commands.SetNodeQuality(site.owners(extent)[0], 5))
    assert site.need(extent) is Need.NOTHING


def test_another_scheme_is_taken_when_enough_nodes_are_up_for_it() -> None:
    site = Judge(6)
    extent = site.named(Scheme(3, 2, 2))
    finding = site.assessor().judge(extent)
    assert (finding.need, finding.scheme) == (Need.ENCODE, WIDE)
    site.turn(6, NodeState.DOWN)
    assert site.need(extent) is not Need.ENCODE, "4+2 is what the site should have, and cannot now"
    assert site.need(site.named(Scheme(1, 2, 2), chunks=1)) is Need.NOTHING, "small bodies are copies"
    site.later_ms = CONFIG.reencode_wait_s * 1000
    assert site.need(site.named(Scheme(3, 2, 2))) is Need.NOTHING, "after a day it is a site of five"


def test_no_scheme_is_taken_that_needs_a_node_of_poor_quality() -> None:
    """A full one would refuse its fragment of each chunk, again and again."""
    site = Judge(3)
    copies = site.named(Scheme(1, 1, 1))
    assert site.assessor().judge(copies).scheme == Scheme(2, 1, 1)
    site.do(commands.SetNodeQuality(3, 5))
    assert site.need(copies) is Need.NOTHING
    site.do(commands.SetNodeQuality(3, 20))
    assert site.assessor().judge(copies).scheme == Scheme(2, 1, 1)


def test_a_fragment_that_no_node_can_take_is_no_work() -> None:
    """4+2 on five live nodes lacks one, and asks for nothing until a node comes."""
    site = Judge(6)
    extent = site.named()
    site.turn(6, NodeState.DOWN)
    site.later_ms = CONFIG.lazy_wait_s * 1000
    assessor = site.assessor()
    before = assessor.judge(extent)
    holders = {
        (at, shard): node
        for at, row in enumerate(assessor.holders(extent))
        for shard, node in enumerate(row)
        if node in assessor.counted
    }
    newest: Placement = assessor.newest
    places = newest.places([chunk.chunk_id for chunk in extent.chunks], 6, holders)
    placed = replace(extent, layout_epoch=newest.epoch, exceptions=places.exceptions, missing=places.missing)
    assert before.need in (Need.WAIT, Need.PLACE)
    assert assessor.judge(placed).need is Need.WAIT
    assert assessor.judge(placed).margin == 1


def test_where_the_next_death_would_lose_data_a_scheme_for_those_that_are_there_is_taken() -> None:
    site = Judge(3)
    extent = site.named(Scheme(2, 1, 1))
    site.turn(3, NodeState.DOWN)
    assert site.need(extent) is Need.WAIT
    site.later_ms = CONFIG.lazy_wait_s * 1000
    finding = site.assessor().judge(extent)
    assert (finding.need, finding.margin, finding.scheme) == (Need.ENCODE, 0, Scheme(1, 1, 1))
    copies = site.named(Scheme(1, 1, 1))
    assert site.need(copies) is Need.NOTHING
    site.turn(3, NodeState.UP)
    site.later_ms = 0
    assert site.assessor().judge(copies).scheme == Scheme(2, 1, 1)


def test_settings_of_the_site_count_for_extents_of_no_bucket() -> None:
    site = Judge(6)
    extent = replace(site.named(), bucket_id=0)
    assessor = site.assessor()
    assert assessor.judge(extent).need is Need.NOTHING
    assert assessor.judge(replace(extent, bucket_id=99)).need is Need.NOTHING, "who has no bucket goes anyway"
    assert SiteSettings() == site.state.settings()
