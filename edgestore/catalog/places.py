"""Where the fragments of an extent are: judged at its naming, moved by repair, swapped by encoding anew (rules 1, 8).

Rule: an extent is listed in DEGRADED exactly while it has exceptions or missing fragments. A fragment on a node that is
down when its extent is named is recorded as missing: repair makes it anew at once. What repair could not place stays
named on a node that is down: where too many are away, what comes back is found by nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

from msgspec.structs import replace

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, number_of_tenant
from edgestore.errors import BadRequest, NoSuchExtent, NoSuchLayout, StaleExtent, StaleFragments
from edgestore.placement import FRAGMENTS_MAX, NOBODY, TOLERATE_MAX, Placement, Places, may_hold
from edgestore.records import SITE_TENANT, ChunkRef, ExtentRecord

AT_HOME = Places()
_Shards = dict[int, int]


class Placed(Protocol):
    """What a command says of the places of an extent."""

    @property
    def layout_epoch(self) -> int: ...

    @property
    def exceptions(self) -> tuple[tuple[int, int, int], ...]: ...

    @property
    def missing(self) -> tuple[tuple[int, int], ...]: ...


class Fragmented(Placed, Protocol):
    """What a command says of new chunks."""

    @property
    def chunks(self) -> tuple[ChunkRef, ...]: ...

    @property
    def k(self) -> int: ...

    @property
    def m(self) -> int: ...

    @property
    def tolerate(self) -> int: ...


def judge_named(context: Context, new: Fragmented) -> Places:
    """Rule 1: every chunk has k + t fragments on distinct nodes that count now, under an open epoch.

    Raises StaleFragments. A site of one node has nothing to judge.
    """
    is_lone = len(context.state.layout().nodes) <= 1
    if is_lone and new.k == 1 and new.m == 0 and new.tolerate == 0 and not new.exceptions and not new.missing:
        return AT_HOME  # what a lone node writes costs it nothing
    if not (new.k >= 1 and 0 <= new.tolerate <= min(new.m, TOLERATE_MAX) and new.k + new.m <= FRAGMENTS_MAX):
        raise BadRequest("an extent has k >= 1 data fragments, and tolerates at most m losses")
    if is_lone or not context.judges_fragments:
        return Places(new.exceptions, new.missing)
    counted, needed = context.state.counted_nodes(), new.k + new.tolerate
    return _judge(context, new.chunks, new.k + new.m, new, counted=counted, needed=needed)


def _judge(
    context: Context,
    chunks: tuple[ChunkRef, ...],
    count: int,
    placed: Placed,
    *,
    counted: frozenset[int],
    needed: int,
) -> Places:
    """The places with what lies on other nodes than those of `counted` as missing."""
    placement = _open_epoch(context, placed.layout_epoch)
    changed = _by_position(placed, len(chunks), count)
    exceptions, missing = [], []
    for position, chunk in enumerate(chunks):
        owners = placement.owners(chunk.chunk_id, count)
        elsewhere = changed.get(position)
        if elsewhere is None and counted.issuperset(owners):
            continue  # all at home on distinct nodes
        holders = set()
        for shard, owner in enumerate(owners):
            holder = owner if elsewhere is None else elsewhere.get(shard, owner)
            if holder not in counted:
                missing.append((position, shard))
                continue
            holders.add(holder)
            if holder != owner:
                exceptions.append((position, shard, holder))
        if len(holders) < needed:
            raise StaleFragments(
                f"{len(holders)} fragments of a chunk count by now, and it takes {needed}",
                layout_epoch=context.state.layout().epoch,
                position=position,
            )
    return Places(tuple(exceptions), tuple(missing))


def _open_epoch(context: Context, epoch: int) -> Placement:
    newest = context.state.layout()
    if epoch >= newest.balance_epoch:
        try:
            return context.state.placement(epoch)
        except NoSuchLayout:
            pass
    raise StaleFragments(f"layout epoch {epoch} is closed: place by the newest one", layout_epoch=newest.epoch)


def _by_position(placed: Placed, chunks: int, count: int) -> dict[int, _Shards]:
    """Chunk position -> shard -> who has it, for what is not at home. Raises BadRequest for what cannot be."""
    found: dict[int, _Shards] = defaultdict(dict)
    for position, shard, holder in [*placed.exceptions, *((*one, NOBODY) for one in placed.missing)]:
        if not (0 <= position < chunks and 0 <= shard < count) or shard in found[position]:
            raise BadRequest("an exception names a fragment that the extent does not have, or twice")
        found[position][shard] = holder
    return found


def list_degraded(context: Context, tenant: int, extent: ExtentRecord) -> None:
    """As the rule of this file says; for an extent that is new or was changed."""
    if extent.exceptions or extent.missing:
        context.put(Table.DEGRADED, SITE_TENANT, extent.extent_id, number_of_tenant(tenant))


def forget_places(context: Context, extent: ExtentRecord) -> None:
    """An extent goes, or is written anew: its epoch has one less, and nothing is to be repaired."""
    context.move_epoch(extent.layout_epoch, -1)
    if extent.exceptions or extent.missing:
        context.delete(Table.DEGRADED, SITE_TENANT, extent.extent_id)


def find_unchanged(context: Context, command: commands.PlaceExtent | commands.SwapExtent) -> ExtentRecord:
    """The extent that a command of repair was made for."""
    extent = context.state.extent(command.tenant, command.extent_id)
    if extent is None:
        raise NoSuchExtent("the extent went while it was repaired")
    if (extent.generation, extent.revision) != (command.generation, command.revision):
        raise StaleExtent(
            "the extent changed while it was repaired: look again",
            generation=extent.generation,
            revision=extent.revision,
        )
    return extent


def write_places(context: Context, tenant: int, before: ExtentRecord, after: ExtentRecord) -> ExtentRecord:
    """Replaces the record of an extent, and what is counted and listed of it."""
    after = replace(after, revision=before.revision + 1)
    forget_places(context, before)
    context.move_epoch(after.layout_epoch, 1)
    list_degraded(context, tenant, after)
    context.put(Table.EXTENTS, tenant, after.extent_id, rows.encode(after))
    return after


def place_extent(context: Context, command: commands.PlaceExtent) -> ExtentRecord:
    """Where the fragments are now, as repair has verified; those of nodes that are down, as the record said."""
    extent = find_unchanged(context, command)
    holding = frozenset(node.number for node in context.state.layout().nodes if may_hold(node))
    places = _judge(context, extent.chunks, extent.k + extent.m, command, counted=holding, needed=0)
    after = replace(extent, layout_epoch=command.layout_epoch, exceptions=places.exceptions, missing=places.missing)
    return write_places(context, command.tenant, extent, after)
