"""Where fragments are: rule 1 judged when a command is applied, places moved by repair, chunks swapped underneath."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from edgestore.catalog import commands, places
from edgestore.catalog.keys import Table
from edgestore.errors import BadRequest, NoSuchExtent, StaleChunk, StaleExtent, StaleFragments
from edgestore.placement import Places, Scheme
from edgestore.records import BucketRecord, ExtentRecord, NodeState
from tests.unit.catalog.audit import audit, tables
from tests.unit.catalog.nodes import NodeSite, new_node
from tests.unit.catalog.site import OWNER, Site

SPREAD = Scheme(2, 2, 1)


def put(site: Site, bucket: BucketRecord, *extents: commands.NewExtent, key: str = "key") -> None:
    site.put(bucket, key, site.content(*extents))
    audit(site.store)


def test_a_chunk_counts_with_k_and_t_fragments_on_distinct_live_nodes() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    whole = site.spread(SPREAD, chunks=3)
    put(site, bucket, whole)
    record = site.record(whole)
    assert (record.k, record.m, record.tolerate, record.layout_epoch) == (2, 2, 1, 4)
    assert (record.exceptions, record.missing, site.state.degraded(10)) == ((), (), [])
    enough = site.spread(SPREAD, chunks=3, missing=((1, 3),))
    put(site, bucket, enough, key="enough")
    assert [one.extent_id for _, one in site.state.degraded(10)] == [enough.extent_id]
    with pytest.raises(StaleFragments):
        put(site, bucket, site.spread(SPREAD, chunks=3, missing=((1, 3), (1, 0))))


def test_two_fragments_on_one_node_count_once() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    owners = site.owners(extent)
    doubled = replace(extent, exceptions=((0, 0, owners[1]),), missing=((0, 3),))
    with pytest.raises(StaleFragments):
        put(site, bucket, doubled)
    put(site, bucket, replace(extent, exceptions=((0, 0, owners[1]),)))


@pytest.mark.parametrize("state", [NodeState.DOWN, NodeState.REMOVED, NodeState.QUARANTINED])
def test_fragments_on_a_node_that_went_do_not_count_and_are_recorded_as_missing(state: NodeState) -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    before = site.spread(SPREAD)
    tight = site.spread(Scheme(2, 2, 2))
    lost = site.owners(before).index(4)
    site.turn(4, state)
    if state is NodeState.REMOVED:  # its going moves data: epochs before it are closed
        with pytest.raises(StaleFragments, match="closed"):
            put(site, bucket, before)
        return
    put(site, bucket, before)
    assert site.record(before).missing == ((0, lost),)
    assert [one.extent_id for _, one in site.state.degraded(10)] == [before.extent_id]
    with pytest.raises(StaleFragments):
        put(site, bucket, tight, key="tight")


def test_what_lies_on_a_draining_node_counts() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    plain = site.spread(SPREAD)
    site.turn(4, NodeState.DRAINING)
    epoch = site.state.layout().epoch
    free = [shard for shard, owner in enumerate(site.owners(replace(plain, layout_epoch=epoch))) if owner == 0]
    extent = replace(plain, layout_epoch=epoch, tolerate=2, exceptions=((0, free[0], 4),))
    put(site, bucket, extent)
    assert site.record(extent).exceptions == ((0, free[0], 4),)


def test_a_shard_without_an_owner_is_missing_unless_somebody_has_it() -> None:
    site = NodeSite(3)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    free = site.owners(extent).index(0)
    put(site, bucket, extent)
    assert site.record(extent).missing == ((0, free),)


@pytest.mark.parametrize("epoch", [0, 2, 3, 5, 1 << 63])
def test_only_open_epochs_take_new_extents(epoch: int) -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    with pytest.raises(StaleFragments) as refused:
        put(site, bucket, site.spread(SPREAD, epoch=epoch))
    assert refused.value.fields["layout_epoch"] == 4


def test_an_epoch_stays_open_until_data_must_move() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    early, late = site.spread(SPREAD), site.spread(SPREAD)
    site.turn(2, NodeState.DOWN)
    site.turn(2, NodeState.UP)
    put(site, bucket, early)
    site.join(new_node(5))
    with pytest.raises(StaleFragments):
        put(site, bucket, late, key="late")


def test_a_lone_node_pays_nothing() -> None:
    alone, founded = Site(), NodeSite(1)
    for site in (alone, founded):
        bucket = site.bucket()
        put(site, bucket, site.extent(3))
        found = tables(site.store)
        assert not found[Table.LAYOUT_EXTENTS]
        assert not found[Table.DEGRADED]
    assert len(tables(alone.store)[Table.EXTENTS]) == 1
    assert set(tables(founded.store)) - set(tables(alone.store)) == {
        Table.NODES,
        Table.MEMBERS,
        Table.LAYOUTS,
        Table.LAYOUT_EPOCH,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"tolerate": 3},
        {"tolerate": -1},
        {"m": 30},
        {"m": -1},
        {"exceptions": ((1, 0, 1),)},
        {"exceptions": ((0, 4, 1),)},
        {"exceptions": ((-1, 0, 1),)},
        {"exceptions": ((0, 1, 1), (0, 1, 2))},
        {"exceptions": ((0, 1, 1),), "missing": ((0, 1),)},
        {"missing": ((0, 9),)},
    ],
)
def test_places_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    with pytest.raises(BadRequest):
        put(site, bucket, replace(site.spread(SPREAD), **wrong))


def test_an_exception_on_a_node_that_is_unknown_is_missing() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD, exceptions=((0, 2, 99),))
    put(site, bucket, extent)
    assert (site.record(extent).exceptions, site.record(extent).missing) == ((), ((0, 2),))


def place(record: ExtentRecord, epoch: int, found: Places | None = None) -> commands.PlaceExtent:
    found = found or Places()
    return commands.PlaceExtent(
        OWNER, record.extent_id, record.generation, record.revision, epoch, found.exceptions, found.missing
    )


def test_repair_says_where_fragments_are_now_once() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD, missing=((0, 1),))
    put(site, bucket, extent)
    record = site.record(extent)
    mended = site.do(place(record, 4))
    assert (mended.missing, mended.revision, mended.generation) == ((), 1, 0)
    assert site.record(extent) == mended
    assert site.state.degraded(10) == []
    with pytest.raises(StaleExtent):
        site.do(place(record, 4))
    site.delete(bucket, "key")
    with pytest.raises(NoSuchExtent):
        site.do(place(mended, 4))


def test_places_move_home_to_a_newer_epoch_and_its_count_moves_with_them() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    put(site, bucket, extent)
    site.join(new_node(5))
    assert (site.state.extents_under(4), site.state.extents_under(5)) == (1, 0)
    with pytest.raises(StaleFragments):
        site.do(place(site.record(extent), 4))
    old = site.owners(extent)
    chunk = extent.chunks[0].chunk_id
    holders = {(0, shard): owner for shard, owner in enumerate(old)}
    elsewhere = site.state.placement(5).places([chunk], 4, holders)
    moved = site.do(place(site.record(extent), 5, elsewhere))
    assert (moved.layout_epoch, moved.exceptions) == (5, elsewhere.exceptions)
    assert (site.state.extents_under(4), site.state.extents_under(5)) == (0, 1)
    assert bool(site.state.degraded(10)) == bool(elsewhere.exceptions)
    audit(site.store)


def test_a_holder_that_is_down_stays_named_and_one_that_was_removed_does_not() -> None:
    site = NodeSite(5)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    owner, other = site.owners(extent)[:2]
    spare = next(number for number in range(1, 6) if number not in site.owners(extent))
    put(site, bucket, extent)
    site.turn(spare, NodeState.DOWN)
    site.turn(other, NodeState.DOWN)
    found = Places(((0, 0, spare), (0, 1, other)))
    placed = site.do(place(site.record(extent), site.state.layout().epoch, found))
    assert (set(placed.exceptions), placed.missing) == (set(found.exceptions), ())
    site.turn(spare, NodeState.REMOVED)
    placed = site.do(place(placed, site.state.layout().epoch, found))
    assert (placed.exceptions, placed.missing) == (((0, 1, other),), ((0, 0),))
    assert owner != spare
    audit(site.store)


def test_repair_may_record_a_loss() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    put(site, bucket, extent)
    lost = site.do(place(site.record(extent), 4, Places(missing=((0, 0), (0, 1), (0, 2)))))
    assert len(lost.missing) == 3


def swap(site: NodeSite, record: ExtentRecord, new: commands.NewExtent) -> commands.SwapExtent:
    return commands.SwapExtent(
        OWNER,
        record.extent_id,
        record.generation,
        record.revision,
        new.chunks,
        new.k,
        new.m,
        new.tolerate,
        new.layout_epoch,
        new.exceptions,
        new.missing,
    )


def test_encoding_anew_swaps_the_chunks_under_all_versions() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    old = site.spread(Scheme(1, 1, 1), chunks=2)
    put(site, bucket, old)
    put(site, bucket, site.spread(SPREAD, chunks=2), key="other")
    before = site.record(old)
    new = site.spread(SPREAD, chunks=2, missing=((1, 0),))
    after = site.do(swap(site, before, new))
    assert (after.extent_id, after.chunks, after.references) == (old.extent_id, new.chunks, 1)
    assert (after.k, after.m, after.tolerate, after.generation, after.revision) == (2, 2, 1, 1, 1)
    assert all(site.state.is_condemned(chunk.chunk_id) for chunk in old.chunks)
    assert [one.extent_id for _, one in site.state.degraded(10)] == [old.extent_id]
    audit(site.store)
    for stale in (before, replace(after, generation=0)):
        with pytest.raises(StaleExtent):
            site.do(swap(site, stale, site.spread(SPREAD, chunks=2)))
    with pytest.raises(StaleExtent):
        site.do(place(before, 4))
    site.delete(bucket, "key")
    assert all(site.state.is_condemned(chunk.chunk_id) for chunk in new.chunks)
    assert site.state.degraded(10) == []
    audit(site.store)


def test_a_swap_is_judged_as_a_first_naming_and_leaves_nothing_when_it_fails() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    old, other = site.spread(SPREAD), site.spread(SPREAD)
    put(site, bucket, old)
    put(site, bucket, other, key="other")
    record = site.record(old)
    rows = dict(site.store.rows)
    for error, new in (
        (StaleFragments, site.spread(SPREAD, missing=((0, 0), (0, 1)))),
        (StaleFragments, site.spread(SPREAD, epoch=3)),
        (StaleChunk, other),
        (BadRequest, site.spread(SPREAD, chunks=2)),
        (BadRequest, replace(old, chunks=())),
    ):
        with pytest.raises(error):
            site.do(swap(site, record, new))
    kept = (Table.EXTENTS, Table.CHUNKS, Table.CONDEMNED, Table.DEGRADED)
    assert {key: value for key, value in rows.items() if key[2] in kept} == {
        key: value for key, value in site.store.rows.items() if key[2] in kept
    }
    site.do(commands.CloseWriter(site.writer))
    with pytest.raises(StaleChunk):
        site.do(swap(site, record, site.spread(SPREAD)))


def test_walks_over_extents_go_on_where_they_stopped() -> None:
    site = NodeSite(4)
    bucket = site.bucket()
    extents = [site.spread(SPREAD, missing=((0, 0),)) for _ in range(5)]
    for extent in extents:
        put(site, bucket, extent, key=extent.extent_id.hex())
    ids = [extent.extent_id for extent in extents]
    first = site.state.degraded(2)
    rest = site.state.degraded(10, first[-1][1].extent_id)
    assert [one.extent_id for _, one in first + rest] == ids
    site.join(new_node(5))
    site.do(place(site.record(extents[1]), 5))
    walked, after = [], b""
    while True:
        page = site.state.extents_older_than(5, after, 2)
        walked += [(tenant, one.extent_id) for tenant, one in page.extents]
        after = page.after
        if not after:
            break
    assert walked == [(OWNER, one) for one in ids if one != ids[1]]


@pytest.mark.parametrize("broken", [False, True], ids=["with the rule", "without it"])
def test_rule_1_nothing_is_acknowledged_that_two_deaths_lost_already(broken: bool) -> None:
    """The gateway had four fragments confirmed; two of their nodes are down when the commit is applied."""
    site = NodeSite(4)
    bucket = site.bucket()
    extent = site.spread(SPREAD)
    for number in (3, 4):
        site.turn(number, NodeState.DOWN)
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(places, "_judge", lambda context, chunks, count, placed, counted, needed: Places())
    with rule, suppress(StaleFragments):
        site.put(bucket, "key", site.content(extent))
    is_acknowledged = site.state.head(bucket, "key") is not None
    assert is_acknowledged is broken  # one more death than the two, and it could not be read
