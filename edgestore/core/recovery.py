"""`site recover --from-survivors`: what would be lost, and then one survivor goes on alone.

Rule: the plan only reads. Recovery is written to the log as what it is: a stop-sign that names one member, and the
removal of every lost node, so that none of them is ever let in again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from edgestore.catalog import Applier, State, commands
from edgestore.clock import SystemClock, system_entropy
from edgestore.config import Config
from edgestore.consensus import apply_log, force_members, log_end, machine_folder
from edgestore.core.membership import SiteFile, read_site
from edgestore.disk import Files, Journal, OrderedStore, RocksIndex, SystemFiles
from edgestore.errors import BadRequest, ConfigError, NoSuchLayout
from edgestore.meta import Meta
from edgestore.placement import NOBODY, Placement
from edgestore.records import SITE_TENANT, ExtentRecord, Member, NodeRecord, NodeState

PAGE_EXTENTS = 1000
COPY = "catalog-planned"
"""A copy of the catalog, to which the log is applied; gone when the plan is made."""
FENCE = 1 << 16
"""Incarnations that are left out: the lost ones can never have begun so many."""
BEGUN = "recovery.json"
"""The numbers of the lost, written before the first step and removed behind the last: a run that was killed is gone on
with, whatever it had done."""
GONE = (NodeState.REMOVED, NodeState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What recovery would do and what it would cost. Bytes are of content."""

    site_id: str
    own: int
    survivors: tuple[int, ...]
    lost: tuple[int, ...]
    last_index: int
    extents: int
    lost_extents: int
    lost_bytes: int
    thin_extents: int

    def lines(self) -> Iterator[str]:
        """For the operator to read before saying yes."""
        yield f"site {self.site_id}, on node {self.own}, whose log ends at entry {self.last_index}"
        yield f"nodes that are given up for ever: {', '.join(map(str, self.lost))}"
        others = [number for number in self.survivors if number != self.own]
        yield f"nodes that go on behind this one: {', '.join(map(str, others)) or 'none'}"
        yield (
            f"content: {self.lost_extents} of {self.extents} extents ({self.lost_bytes} bytes) cannot be read from the "
            f"survivors; {self.thin_extents} more are below their redundancy until they are repaired"
        )
        yield (
            "names: whatever was acknowledged behind that entry is lost. Run this on the survivor whose log ends last, "
            "and join any survivor whose log ends later anew, with an empty folder"
        )


def plan_recovery(folder: str, config: Config, lost: tuple[int, ...]) -> RecoveryPlan:
    """Reads the folder of a node that is stopped. `lost`: node numbers; empty: every other voter.

    Raises ConfigError, BadRequest where a majority of the voters would survive.
    """

    async def work() -> RecoveryPlan:
        begun = _begun(SystemFiles(folder))
        async with catalog_of(folder, config) as (site, log, state):
            return _plan(site, log, state, begun or lost, is_begun=bool(begun))

    return asyncio.run(work())


@asynccontextmanager
async def catalog_of(folder: str, config: Config) -> AsyncIterator[tuple[SiteFile, tuple[int, tuple[str, ...]], State]]:
    """(site file, end of the log, catalog) of a node that is stopped: its whole log applied to a copy."""
    async with _opened(folder, config) as (files, site, journal, store):
        if files.exists(COPY):
            files.remove_folder(COPY)
        store.checkpoint(COPY)
        try:
            copy = _catalog(files, config, COPY)
            try:
                apply_log(journal, Applier(copy, 0, cache_bytes=config.meta.catalog_cache_bytes))
                yield site, log_end(journal, State(store).site().index), State(copy)
            finally:
                copy.close()
        finally:
            files.remove_folder(COPY)


def recover_site(folder: str, config: Config, plan: RecoveryPlan) -> dict[str, Any]:
    """Carries the plan out. Returns what was done. The folder is opened twice: a journal is read when it is opened, and
    the second reading finds this member alone."""

    async def work() -> dict[str, Any]:
        async with _opened(folder, config) as (files, site, journal, store):
            files.replace(BEGUN, json.dumps(plan.lost).encode(), mode=0o600)
            index, voters = log_end(journal, State(store).site().index)
            if voters != (site.member,):  # else an earlier run was killed behind this step
                alone = (Member(site.member),)
                index, _ = await force_members(journal, State(store).site().index, alone, skipped=FENCE)
        async with _opened(folder, config) as (files, site, journal, store):
            meta = await Meta.open(
                files,
                journal,
                store,
                config.meta,
                config.consensus,
                clock=SystemClock(),
                entropy=system_entropy,
                member=site.member,
            )
            try:
                for node in [row for row in meta.state.nodes() if row.number in plan.lost and row.state not in GONE]:
                    command = commands.SetNodeState(node.number, NodeState.REMOVED, node.state)
                    await meta.propose(SITE_TENANT, command)
            finally:
                await meta.close()
            files.remove(BEGUN)
            return {"stop_sign": index, "removed": list(plan.lost), "node": plan.own}

    return asyncio.run(work())


def _begun(files: Files) -> tuple[int, ...]:
    """Whom an earlier run has given up, where it did not come to its end."""
    if not files.exists(BEGUN):
        return ()
    try:
        return tuple(int(number) for number in json.loads(files.read(BEGUN)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{BEGUN} is damaged ({error}): remove it, and name the lost nodes with --lost") from error


@asynccontextmanager
async def _opened(folder: str, config: Config) -> AsyncIterator[tuple[Files, SiteFile, Journal, OrderedStore]]:
    files = SystemFiles(folder)
    site = read_site(files)
    if site is None:
        raise ConfigError(f"{folder} belongs to no site of several nodes")
    lock = files.lock("lock")
    try:
        journal = Journal.open(files, "journal", config.disk, system_entropy)
        try:
            store = _catalog(files, config, machine_folder(journal))
            try:
                yield files, site, journal, store
            finally:
                store.close()
        finally:
            closing = journal.close()
            if closing is not None:
                await closing
    finally:
        lock.release()


def _catalog(files: Files, config: Config, folder: str) -> OrderedStore:
    return RocksIndex.open(
        files,
        folder,
        write_buffer_bytes=config.meta.catalog_write_buffer_bytes,
        cache_bytes=config.meta.catalog_cache_bytes,
    )


def _plan(
    site: SiteFile, log: tuple[int, tuple[str, ...]], state: State, lost: tuple[int, ...], *, is_begun: bool
) -> RecoveryPlan:
    """`state` is that of the whole log: what the survivor was told counts, also what it does not know as committed."""
    last_index, voters = log
    nodes = {node.number: node for node in state.nodes() if node.state not in GONE}
    own = next((node.number for node in nodes.values() if node.member == site.member), None)
    if own is None:
        raise ConfigError("the catalog of this folder does not name its own node, or names it as removed")
    gone = set(lost) or {node.number for node in nodes.values() if node.member in voters and node.number != own}
    if (unknown := gone - set(nodes)) and not is_begun:
        raise BadRequest(f"the site has no such node: {', '.join(map(str, sorted(unknown)))}")
    if own in gone:
        raise BadRequest("the node of this folder is the survivor: it cannot be lost too")
    left = [node for node in nodes.values() if node.member in voters and node.number not in gone]
    if 2 * len(left) > len(voters) and not is_begun:
        raise BadRequest("a majority of the voters survives: start them, and remove the lost nodes with `node remove`")
    survivors = tuple(sorted(set(nodes) - gone))
    count = _Count(state, nodes, frozenset(survivors))
    count.run()
    return RecoveryPlan(
        site.site_id,
        own,
        survivors,
        tuple(sorted(gone)),
        last_index,
        count.extents,
        count.lost_extents,
        count.lost_bytes,
        count.thin_extents,
    )


class _Count:
    """Of extents: how many cannot be read, and how many can lose less than before."""

    def __init__(self, state: State, nodes: dict[int, NodeRecord], survivors: frozenset[int]) -> None:
        self._state, self._nodes, self._survivors = state, nodes, survivors
        self.extents = self.lost_extents = self.lost_bytes = self.thin_extents = 0

    def run(self) -> None:
        """All of them, a page at a time."""
        after = b""
        while True:
            page = self._state.all_extents(after, PAGE_EXTENTS)
            for _, extent in page.extents:
                self._add(extent)
            after = page.after
            if not after:
                return

    def _add(self, extent: ExtentRecord) -> None:
        self.extents += 1
        try:
            placement = self._state.placement(extent.layout_epoch)
        except NoSuchLayout:
            placement = self._state.placement()
        least = min((self._held(extent, position, placement) for position in range(len(extent.chunks))), default=0)
        if least < extent.k:
            self.lost_extents += 1
            self.lost_bytes += extent.size_bytes
        elif least < extent.k + extent.m:
            self.thin_extents += 1

    def _held(self, extent: ExtentRecord, position: int, placement: Placement) -> int:
        """Fragments of a chunk that lie on survivors."""
        owners = list(placement.owners(extent.chunks[position].chunk_id, extent.k + extent.m))
        for at, shard, node in extent.exceptions:
            if at == position:
                owners[shard] = node
        for at, shard in extent.missing:
            if at == position:
                owners[shard] = NOBODY
        return sum(owner in self._survivors for owner in owners)
