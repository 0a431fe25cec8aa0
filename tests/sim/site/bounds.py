"""No queue and no buffer beyond its bound, at any time; and nothing held by anybody when nobody asks for anything.

Rule: a bound is the setting's, read from the configuration of the node: nothing in here is a number of its own, but for
what one message or record may go beyond.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgestore.chunks.budget import ByteBudget
from edgestore.config import ConsensusConfig
from edgestore.consensus import RaftConsensus
from edgestore.consensus.replication import ROUNDS_MAX
from edgestore.core import Core
from edgestore.meta.watches import WATCHES_MAX
from edgestore.net import Peers
from edgestore.records import UNIT_BYTES
from tests.sim.model import Overfull

Filled = tuple[str, int, int]
"""The setting, what is there, and what may be."""


def overfull(name: str, filled: Iterator[Filled]) -> Overfull | None:
    """The first of them that holds more than it may."""
    for setting, there, most in filled:
        if not 0 <= there <= most:
            return Overfull(f"{name}: {setting} allows {most}, and {there} are there")
    return None


def of_consensus(consensus: RaftConsensus, config: ConsensusConfig) -> Iterator[Filled]:
    """One member of a group."""
    reads, asked = consensus._reads, consensus._leader_reads
    yield "consensus.reads_waiting_max", reads._waiting, config.reads_waiting_max
    yield "consensus.reads_waiting_max (asked)", len(asked._asked), config.reads_waiting_max
    yield "consensus.fetches_max", len(consensus._fetches._waiting), config.fetches_max
    yield "consensus.fetches_max (known)", len(consensus._fetches.fetched), config.fetches_max
    voter = consensus._voter
    if voter is None or voter.replication is None:
        return
    yield "rounds", len(voter.replication._round_ms), ROUNDS_MAX
    most = config.append_in_flight_bytes_max + max(config.append_bytes_max, config.entry_bytes_max + UNIT_BYTES)
    for progress in voter.replication.progress.values():
        yield "consensus.append_in_flight_bytes_max", progress.in_flight_bytes, most


def of_core(core: Core) -> Iterator[Filled]:
    """Every room of a node."""
    config, consensus = core.config, core.meta._consensus
    if isinstance(consensus, RaftConsensus):
        yield from of_consensus(consensus, config.consensus)
    yield from _of_meta(core)
    journal = core.journal
    yield "disk.journal_pending_max_bytes", journal._pending_bytes, config.disk.journal_pending_max_bytes + UNIT_BYTES
    yield from _of_chunks(core)
    if core.mesh is not None:
        yield from _of_repair(core)
        yield from _of_net(core.mesh.peers)
        swim = getattr(core.mesh._detector, "_swim", None)
        if swim is not None:
            yield "cluster.relayed_probes_max", len(swim._relays), config.cluster.relayed_probes_max


def _of_meta(core: Core) -> Iterator[Filled]:
    meta, config = core.meta, core.config.meta
    proposals, sender = meta._proposals, meta._sender
    yield "meta.proposals_max", proposals.waiting, config.proposals_max
    yield "meta.forwarded_max", proposals._forwarded, config.forwarded_max
    yield "consensus.entries_in_flight_max", len(proposals._under_way), core.config.consensus.entries_in_flight_max
    yield "watches", len(meta.watch.__self__._watches), WATCHES_MAX
    yield "meta.snapshots_max", len(sender._sent) + len(sender._making), config.snapshots_max


def _of_chunks(core: Core) -> Iterator[Filled]:
    chunks, config = core.chunks, core.config.chunks
    yield "chunks.pool_bytes", chunks.pool.taken_bytes, config.pool_bytes
    taken = config.pool_read_reserve_bytes - chunks._budget.left_bytes
    yield "chunks.pool_read_reserve_bytes", taken, config.pool_read_reserve_bytes
    site = chunks.site
    if site is None:
        return
    yield "chunks.slab_bytes", site.slabs.budget.taken_bytes + site.slabs._idle_bytes, config.slab_bytes
    yield "chunks.intake_bytes", site.server.intake_bytes, config.intake_bytes
    yield "chunks.decode_bytes", site.gather._tools.budget.taken_bytes, config.decode_bytes
    own = sum(1 for task in site._jobs if not task.done())
    yield "chunks.drops_max", own, config.drops_max


def _of_repair(core: Core) -> Iterator[Filled]:
    upkeep, config = getattr(core.mesh, "_upkeep", None), core.config.repair
    if upkeep is None:
        return
    repair, tidier = upkeep._repair, upkeep._tidier
    yield "repair.memory_bytes", repair._mover.memory.taken_bytes, config.memory_bytes
    yield "repair.extents_in_flight", repair._workers, config.extents_in_flight
    yield "repair.queue_max", len(repair._line), config.queue_max
    yield "repair.queue_max (later)", len(repair._later), config.queue_max
    yield "repair.served_max", repair._mover._asked, 8 * config.served_max
    yield "repair.departing_max", len(tidier._departing), config.departing_max


def _of_net(peers: Peers) -> Iterator[Filled]:
    config = peers._config
    for peer in peers._peers.values():
        yield "net.bulk_connections", sum(1 for link in peer._bulk if link.is_open), config.bulk_connections
        for link in (peer._link, *peer._bulk):
            if link is not None:
                yield "net.calls_max", link.waiting, config.calls_max
    inbound = peers._services._inbound
    yield "net.connections_max", len(inbound), config.connections_max
    for one in inbound:
        yield "net.served_max", one._serving, config.served_max
        yield "net.served_bytes_max", one._serving_bytes, config.served_bytes_max


def held_at_rest(core: Core) -> list[str]:
    """What is still held although nobody asks for anything: it never comes back."""
    chunks, site = core.chunks, core.chunks.site
    found = {"units of the pool": chunks.pool.taken_bytes}
    found["read ahead"] = core.config.chunks.pool_read_reserve_bytes - chunks._budget.left_bytes
    found["operations"] = core.meta._proposals.waiting
    budgets: dict[str, ByteBudget] = {}
    if site is not None:
        budgets = {"slabs": site.slabs.budget, "decoding": site.gather._tools.budget}
        found["intake"] = site.server.intake_bytes
    upkeep = getattr(core.mesh, "_upkeep", None)
    if upkeep is not None:
        budgets["repair"] = upkeep._repair._mover.memory
    for name, budget in budgets.items():
        found[name], found[f"waiting for {name}"] = budget.taken_bytes, len(budget._waiting)
    return [f"{name}: {count}" for name, count in found.items() if count]
