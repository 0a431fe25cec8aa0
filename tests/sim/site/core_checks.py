"""What must be true of a whole site when nothing goes wrong any more."""

from __future__ import annotations

import asyncio
from collections import Counter

from edgestore.catalog import list_versions
from edgestore.core import Core
from edgestore.records import NodeState, VersionKind
from tests.sim.model import Lost, Miscounted, Overfull, Stalled
from tests.sim.site.bounds import held_at_rest
from tests.sim.site.core_clients import VERSIONS, CoreClient, Ledger
from tests.sim.site.cores import CoreSite
from tests.sim.site.machines import Machine
from tests.unit.catalog.audit import audit

ALL = 100_000
REST_WITHIN_S = 10.0
RUSH = 200
RUSH_OF_A_NODE = 4

Fragments = Counter[tuple[int, bytes, int]]
"""(node, chunk, shard)."""


def check_acknowledged(machine: Machine, ledger: Ledger) -> None:
    """Every version that was acknowledged is listed, none that was deleted, and none that nobody asked for."""
    core: Core = machine.service.core
    bucket = core.objects.bucket(core.tenants.root(), VERSIONS)
    rows = [
        (key, version)
        for key, version, _ in list_versions(core.meta.state, bucket, limit=ALL).entries
        if version.kind is VersionKind.OBJECT
    ]
    listed = {(key, version.version_id) for key, version in rows}
    there = ledger.versions.keys() - ledger.maybe_gone
    if missing := there - listed:
        raise Lost(f"{machine} does not list {len(missing)} acknowledged versions: {sorted(missing)[:3]}")
    if returned := ledger.gone & listed:
        raise Lost(f"{machine} lists {len(returned)} versions that were deleted for good: {sorted(returned)[:3]}")
    made = Counter(version.etag for _, version in rows if "-" not in version.etag)
    if twice := made - ledger.asked:
        raise Miscounted(f"{machine} lists versions that nobody asked for so often: {dict(twice)}")


def check_counts(machine: Machine) -> None:
    """Names, counts and references agree (rule 7)."""
    try:
        audit(machine.service.core.meta.store)
    except AssertionError as error:
        raise Miscounted(f"rows of the catalog of {machine} contradict each other: {error}") from error


async def check_rest(site: CoreSite) -> None:
    """What was taken of memory and of queues is given back."""
    deadline_s = site.loop.now_s + REST_WITHIN_S
    while found := {machine.name: held_at_rest(machine.service.core) for machine in site.serving()}:
        if not any(found.values()):
            return
        if site.loop.now_s > deadline_s:
            raise Overfull(f"held at rest: {found}")
        await asyncio.sleep(0.1)


async def check_rush(site: CoreSite, ledger: Ledger) -> None:
    """Large bodies through all nodes at once: one waits for another, and none for ever (rule 13)."""
    clients = [CoreClient(site, RUSH + number, ledger) for number in range(RUSH_OF_A_NODE * len(site.machines))]
    rush = [
        asyncio.ensure_future(client.put_large(site.machines[number % len(site.machines)]))
        for number, client in enumerate(clients)
    ]
    await asyncio.wait(rush)
    if refused := sum(not one.result() for one in rush):
        raise Stalled(f"{refused} of {len(rush)} large bodies at once were not taken, and no fault is left")


def held(site: CoreSite) -> Fragments:
    """All that lies on the disks of those that serve."""
    found: Fragments = Counter()
    for machine in site.serving():
        number, segments = site.number_of(machine.member), machine.service.core.segments
        for chunk_id in set(segments.chunk_ids()):
            for shard in segments.shards(chunk_id):
                found[number, chunk_id, shard] += 1
    return found


def complaints(site: CoreSite) -> list[str]:
    """What keeps the site from being whole, each fragment at its owner and nothing left over."""
    cores = [machine.service.core for machine in site.serving()]
    if len(cores) < len(site.machines):
        return ["not everybody serves"]
    state = max(cores, key=lambda core: core.meta.applied_index).meta.state
    found: list[str] = []
    nodes = {node.number: node for node in state.nodes()}
    expected: Fragments = Counter()
    for _, extent in state.all_extents(b"", ALL).extents:
        placement = state.placement(extent.layout_epoch)
        if extent.exceptions or extent.missing:
            found.append(
                f"extent {extent.extent_id.hex()} of {extent.k}+{extent.m} under epoch {extent.layout_epoch} has "
                f"exceptions {extent.exceptions} and misses {extent.missing}"
            )
        for chunk in extent.chunks:
            for shard, owner in enumerate(placement.owners(chunk.chunk_id, extent.k + extent.m)):
                expected[owner, chunk.chunk_id, shard] += 1
                if owner == 0 or nodes[owner].state is not NodeState.UP:
                    found.append(f"shard {shard} of {chunk.chunk_id.hex()} lies on no live node: {owner}")
    if condemned := state.condemned(10):
        found.append(f"still condemned: {[(chunk.hex(), index) for chunk, index in condemned]}")
    found += _misplaced(site, expected)
    for machine in site.serving():
        if site.fates[machine.number].is_drained and (left := list(machine.service.core.segments.chunk_ids())):
            found.append(f"{machine} was drained, and holds {len(left)} fragments")
    return found


def _misplaced(site: CoreSite, expected: Fragments) -> list[str]:
    there, found = held(site), []
    for machine in site.serving():
        segments = machine.service.core.segments
        for chunk_id in set(segments.chunk_ids()):
            for shard in segments.shards(chunk_id):
                if segments.is_damaged(chunk_id, shard):
                    found.append(f"shard {shard} of {chunk_id.hex()} on {machine} is damaged")
    found += [f"missing: shard {shard} of {chunk.hex()} on {node}" for node, chunk, shard in expected - there]
    found += [f"left over: shard {shard} of {chunk.hex()} on {node}" for node, chunk, shard in there - expected]
    return found
