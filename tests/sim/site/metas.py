"""One life of a node that offers a catalog: real `Meta` for one or more groups on a simulated disk and wires."""

from __future__ import annotations

from functools import partial
from typing import Any

from edgestore.catalog import commands
from edgestore.config import Config, ConsensusConfig, DiskConfig, MetaConfig
from edgestore.consensus import ConsensusStatus, machine_folder
from edgestore.disk import Journal
from edgestore.meta import GroupSetup, Meta
from edgestore.records import BucketRecord, Member
from tests.sim.disk import SimFiles
from tests.sim.index import SimIndex
from tests.sim.site.lives import Life
from tests.sim.site.machines import Machine, Site
from tests.sim.site.wires import WirePeers

CONFIG = Config(
    disk=DiskConfig(journal_file_bytes=64 * 1024, journal_idle_mark_ms=50, journal_pending_max_bytes=512 * 1024),
    consensus=ConsensusConfig(
        entry_operations_max=8,
        entry_bytes_max=64 * 1024,
        log_kept_bytes=4 * 1024,
        log_behind_max_bytes=64 * 1024,
        catch_up_entries=16,
        fetch_wait_ms=200,
        read_timeout_ms=1000,
    ),
    meta=MetaConfig(
        propose_timeout_s=20.0,
        flush_operations_max=40,
        resend_after_ms=300,
        snapshot_piece_bytes=512,
        snapshot_open_timeout_s=1.0,
        snapshot_piece_timeout_s=0.5,
        snapshot_idle_s=3.0,
    ),
)


class Metas:
    """Journal and metas of one node, by group."""

    def __init__(self, machine: Machine, life: Life, files: SimFiles, groups: int, config: Config) -> None:
        self.machine, self.life, self.files, self.config = machine, life, files, config
        self.journal = Journal.open(files, "journal", config.disk, machine.rng.randbytes)
        self.journal.on_failure = lambda error: machine.stopped(life, error)
        self.peers = WirePeers(machine.site.wires, life, machine.member)
        self.groups = groups
        self.metas: list[Meta] = []

    async def open(self, founders: tuple[Member, ...]) -> None:
        """Every group, without a quorum."""
        clock = self.machine.clock
        assert clock is not None
        self.machine.site.wires.plug(self.peers)
        for group in range(self.groups):
            open_folder = partial(SimIndex.open, self.files)
            meta = await Meta.open(
                self.files,
                self.journal,
                open_folder(machine_folder(self.journal, group)),
                self.config.meta,
                self.config.consensus,
                clock=clock,
                entropy=self.machine.rng.randbytes,
                member=self.machine.member,
                setup=GroupSetup(group, self.peers, founders, open_folder),
            )
            self.metas.append(meta)

    def look(self) -> None:
        """See machines.Service."""
        for group, meta in enumerate(self.metas):
            self.machine.site.watch.looks(self.machine.name, meta.status(), group=group)


class MetaSite(Site):
    """Machines 1 to `voters` form every group; the others learn."""

    def __init__(self, seed: int, nodes: int, *, voters: int = 0, groups: int = 1, config: Config = CONFIG) -> None:
        super().__init__(seed, nodes)
        founders = tuple(Member(machine.member) for machine in self.machines[: voters or nodes])
        self.founders, self.groups, self.config = founders, groups, config
        self.open_service = self._open

    async def _open(self, machine: Machine, life: Life, files: SimFiles) -> Metas:
        metas = Metas(machine, life, files, self.groups, self.config)
        await metas.open(self.founders)
        return metas

    def meta(self, machine: Machine, group: int = 0) -> Meta:
        """Of a machine that serves."""
        return machine.service.metas[group]  # type: ignore[no-any-return]

    async def propose(self, machine: Machine, command: commands.Command, group: int = 0) -> Any:
        """Through that machine. Raises NodeDied where it dies."""
        assert machine.life is not None
        return await machine.life.ask(self.meta(machine, group).propose(1, command))

    def leader(self, group: int = 0) -> Machine | None:
        """Who leads, where somebody does."""
        for machine in self.serving():
            if self.status(machine, group).is_leader:
                return machine
        return None

    def status(self, machine: Machine, group: int = 0) -> ConsensusStatus:
        """Where a member stands."""
        return self.meta(machine, group).status()


def bucket(name: str) -> commands.CreateBucket:
    """A command that fails the second time."""
    return commands.CreateBucket(name, 1, 1, "us-east-1")


def put(bucket: BucketRecord, key: str, body: bytes = b"x") -> commands.PutObject:
    """An inline object."""
    return commands.PutObject(bucket.bucket_id, key, 1, 1, commands.Content(len(body), "etag", (), body))
