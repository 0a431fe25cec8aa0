"""Several members of several groups on one virtual loop: real consensus, simulated disks, wires that a test can cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from edgestore.config import ConsensusConfig, DiskConfig
from edgestore.consensus import RaftConsensus, Snapshot
from edgestore.disk import Journal
from edgestore.errors import Unavailable
from edgestore.records import Member
from tests.sim.disk import Disk, SimFiles
from tests.sim.loop import SimClock, SimLoop
from tests.unit.consensus.group import Machine

CONFIG = ConsensusConfig(fetch_wait_ms=200, read_timeout_ms=1000)
DISK = DiskConfig(journal_file_bytes=256 * 1024)
DELAY_S = 0.0005


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    member: str


@dataclass(frozen=True)
class Answer:
    """What a call brings."""

    head: bytes
    payload: memoryview = field(default_factory=lambda: memoryview(b""))


class Wire:
    """`net.Peers` of one member, as far as consensus needs it: messages come a little later, or never."""

    def __init__(self, site: Several, member: str) -> None:
        self.site, self.member = site, member
        self.topics: dict[int, Callable[[Caller, bytes], None]] = {}
        self.ports: dict[type, Any] = {}
        self.methods: dict[int, Callable[..., Awaitable[Any]]] = {}
        self.sent_at_s: list[float] = []

    def on_message(self, topic: int, handler: Callable[[Caller, bytes], None]) -> None:
        """See net.Peers."""
        self.topics[topic] = handler

    def serve(self, method: int, handler: Callable[..., Awaitable[Any]]) -> None:
        """See net.Peers."""
        self.methods[method] = handler

    def on_connected(self, callback: Callable[[str], None]) -> None:
        """Connections do not break here."""

    def known(self) -> dict[str, str]:
        """Everybody."""
        return dict.fromkeys(self.site.members, "")

    def is_connected(self, member: str) -> bool:
        """Whether anything passes."""
        return self.site.passes(self.member, member)

    def send(self, member: str, topic: int, head: bytes) -> bool:
        """See net.Peers."""
        self.sent_at_s.append(self.site.loop.time())
        if self.site.passes(self.member, member):
            self.site.loop.call_later(DELAY_S, self._arrive, member, topic, head)
        return True

    def _arrive(self, member: str, topic: int, head: bytes) -> None:
        if self.site.passes(self.member, member):
            self.site.members[member].wire.topics[topic](Caller(self.member), head)

    async def call(self, member: str, method: int, head: bytes, *, timeout_s: float) -> Answer:
        """See net.Peers."""
        await asyncio.sleep(DELAY_S)
        if not self.site.passes(self.member, member):
            await asyncio.sleep(0.05)
            raise Unavailable("not reachable")
        async with asyncio.timeout(timeout_s):
            reply = await self.site.members[member].wire.methods[method](Caller(self.member), head, memoryview(b""))
        await asyncio.sleep(DELAY_S)
        return Answer(reply.head)


class MortalWorker:
    """A worker whose answers stop with its machine."""

    def __init__(self, files: MortalFiles, worker: Any) -> None:
        self.files, self.worker = files, worker

    def submit(self, work: Callable[[], Any], done: Callable[..., None]) -> None:
        """See disk.Worker."""
        self.worker.submit(
            lambda: None if self.files.is_off else work(),
            lambda result, error: self.files.loop.call_later(self.files.slow_s, self._answer, done, result, error),
        )

    def _answer(self, done: Callable[..., None], result: Any, error: BaseException | None) -> None:
        if not self.files.is_off:
            done(result, error)

    def write_synced(self, file: Any, offset: int, data: bytes, done: Callable[..., None]) -> None:
        """See disk.Worker."""
        self.submit(lambda: file.write_synced(offset, data), lambda _, error: done(error))

    def close(self) -> None:
        """See disk.Worker."""


class MortalFiles(SimFiles):
    """Files of one machine: when its power goes nothing more is written, and the others go on."""

    is_off = False
    slow_s = 0.0
    """How much later it answers."""

    def power_off(self) -> None:
        """No more."""
        self.is_off = True

    def worker(self, name: str, threads: int = 1) -> Any:
        """See disk.Files."""
        return MortalWorker(self, super().worker(name, threads))


class Follower(Machine):
    """`StateMachine` that takes a snapshot from the machine of another member as it is."""

    def __init__(self, site: Several, group: int) -> None:
        super().__init__()
        self.site, self.group = site, group
        self.incarnations: list[int] = []
        self.received: list[tuple[int, int, bytes]] = []

    def begin_incarnation(self, index: int, term: int, incarnation: int) -> None:
        """As an entry without a payload."""
        self.apply(index, term, b"")
        self.incarnations.append(incarnation)

    async def receive(self, member: str) -> Snapshot:
        """All of the other's entries."""
        other = self.site.members[member]
        base = other.groups[self.group].snapshot_base()
        self.received = list(other.machines[self.group].entries)
        await asyncio.sleep(0.01)
        return Snapshot("received", base.index, base.term, base.incarnation, base.members)

    async def switch(self, snapshot: Snapshot) -> None:
        """It is there at once."""
        self.entries, self.applied_index = self.received, snapshot.index


class OneOf:
    """A member: one journal, one wire, some groups."""

    def __init__(self, site: Several, name: str, founders: tuple[Member, ...], groups: int, disk: Disk | None) -> None:
        self.name = name
        self.disk = disk or Disk(random.Random(f"{name} {site.rng.random()}"))
        self.files = MortalFiles(self.disk, site.loop)
        self.wire = site.wire_of(name)
        entropy = random.Random(f"{name} entropy").randbytes
        self.journal = Journal.open(self.files, "journal", DISK, entropy)
        self.machines = [Follower(site, group) for group in range(groups)]
        self.groups = [
            RaftConsensus(
                self.journal,
                machine,
                member=name,
                group=group,
                peers=self.wire,
                founders=founders,
                config=site.config,
                clock=site.clock,
                entropy=entropy,
            )
            for group, machine in enumerate(self.machines)
        ]


class Several:
    """The members of a test. `cut`: pairs (from, to) between which nothing passes."""

    def __init__(self, *, config: ConsensusConfig = CONFIG, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.loop = SimLoop()
        self.clock = SimClock(self.loop)
        self.config = config
        self.members: dict[str, OneOf] = {}
        self.cut: set[tuple[str, str]] = set()

    def run(self, main: Awaitable[None]) -> None:
        """To its end, with nothing left unhandled."""

        async def begin() -> None:
            async with asyncio.timeout(60):
                await main

        try:
            self.loop.run(begin())
            assert not self.loop.failures
        finally:
            self.loop.abandon()

    def wire_of(self, name: str) -> Any:
        """Its peers."""
        return Wire(self, name)

    def passes(self, source: str, target: str) -> bool:
        """Whether anything passes that way."""
        return target in self.members and (source, target) not in self.cut

    def cut_off(self, name: str) -> None:
        """Nothing passes from or to it."""
        self.cut |= {pair for other in self.members for pair in ((name, other), (other, name))}

    async def add(self, *names: str, founders: tuple[str, ...] = (), groups: int = 1, disk: Disk | None = None) -> None:
        """New members, that are told who votes; or one on a disk that has a journal already."""
        members = tuple(Member(name) for name in founders or names)
        added = [OneOf(self, name, members, groups, disk) for name in names]
        self.members |= {one.name: one for one in added}
        for one in added:
            for group in one.groups:
                await group.start()

    async def lose_power(self, name: str) -> None:
        """It goes, with what it had not synced, and comes back. Its machine kept nothing: the journal says it all."""
        one = self.members.pop(name)
        for group in one.groups:
            group.close()
        one.files.power_off()
        one.disk.lose_power()
        await asyncio.sleep(self.rng.uniform(0, 0.3))
        await self.add(name, founders=tuple(sorted({*self.members, name})), disk=one.disk)

    async def leader(self, group: int = 0) -> OneOf:
        """The one that leads, once there is one that may be read from."""
        while True:
            for one in self.members.values():
                if one.groups[group].can_read_now():
                    return one
            await asyncio.sleep(0.01)

    async def propose(self, one: OneOf, payload: bytes, group: int = 0) -> list[object]:
        """The outcomes, or the error."""
        future: asyncio.Future[list[object]] = self.loop.create_future()

        def done(outcomes: list[object] | None, error: BaseException | None) -> None:
            if error is not None or outcomes is None:
                future.set_exception(error or AssertionError("neither outcomes nor error"))
            else:
                future.set_result(outcomes)

        one.groups[group].propose(payload, done)
        return await future

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for it."""
        while not holds():
            await asyncio.sleep(0.005)
