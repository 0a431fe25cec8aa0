"""Registers on a replicated log: the smallest state machine that shows whether consensus keeps its promises.

Rule: it does what the catalog does, in little: rows and the applied index in one batch, operation ids applied once, a
flush before the log is trimmed, snapshots into a folder of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from edgestore.config import ConsensusConfig, DiskConfig
from edgestore.consensus import RaftConsensus
from edgestore.consensus.interface import Snapshot, SnapshotBase
from edgestore.disk import Journal, RecordKind
from edgestore.errors import EdgeStoreError, StorageFull, TooBusy, Unavailable
from edgestore.net import Method, Reply
from edgestore.records import Member, SnapshotRecord
from tests.sim.disk import SimFiles
from tests.sim.index import SimIndex
from tests.sim.site.bounds import of_consensus, overfull
from tests.sim.site.linearizability import Kind
from tests.sim.site.lives import Life
from tests.sim.site.machines import Machine
from tests.sim.site.watch import glance

JOURNAL = DiskConfig(journal_file_bytes=64 * 1024, journal_idle_mark_ms=50, journal_pending_max_bytes=512 * 1024)
FIRST_FOLDER = "catalog"
APPLIED, CHAIN = b"applied", b"chain"


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One operation in an entry."""

    operation_id: str
    kind: str
    key: str
    value: str | None
    expected: str | None = None


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """A state machine on the wires."""

    index: int
    term: int
    incarnation: int
    members: tuple[Member, ...]
    rows: list[tuple[bytes, bytes]]


class RegisterMachine:
    """edgestore.consensus.StateMachine. `chain` is the digest of everything that was applied, in order."""

    def __init__(self, machine: Machine, files: SimFiles, peers: Any, folder: str) -> None:
        self.machine, self.files, self.peers = machine, files, peers
        self.store = SimIndex.open(files, folder)
        self.folder = folder
        self.on_outcome: Callable[[str, bool], None] = lambda operation_id, does: None
        """Called for each operation that is applied here, wherever it was proposed."""
        self._load()

    def _load(self) -> None:
        self.applied_index = int.from_bytes(self.store.get(APPLIED) or b"", "big")
        self.chain = self.store.get(CHAIN) or b""

    def get(self, key: str) -> str | None:
        """What the register holds here."""
        row = self.store.get(b"=" + key.encode())
        return None if row is None else row.decode()

    def knows(self, operation_id: str) -> bool:
        """Whether it was applied."""
        return self.store.get(b"#" + operation_id.encode()) is not None

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """See StateMachine."""
        changes: dict[bytes, bytes | None] = {}
        writes = msgspec.msgpack.decode(payload, type=list[Write]) if payload else []
        outcomes = [self._operate(write, changes) for write in writes]
        self._commit(index, term, bytes(payload), changes)
        for write, does in zip(writes, outcomes, strict=True):
            self.on_outcome(write.operation_id, does)
        return list(outcomes)

    def _operate(self, write: Write, changes: dict[bytes, bytes | None]) -> bool:
        memory, row = b"#" + write.operation_id.encode(), b"=" + write.key.encode()
        known = changes.get(memory) or self.store.get(memory)
        if known is not None:
            return known == b"1"
        held = changes[row] if row in changes else self.store.get(row)
        does = write.kind == Kind.WRITE.value or (None if held is None else held.decode()) == write.expected
        if does:
            changes[row] = None if write.value is None else write.value.encode()
        changes[memory] = b"1" if does else b"0"
        return does

    def _commit(self, index: int, term: int, payload: bytes, changes: dict[bytes, bytes | None]) -> None:
        place = b"%d %d " % (index, term)
        self.chain = hashlib.blake2b(self.chain + place + payload, digest_size=16).digest()
        self.store.write([*changes.items(), (APPLIED, index.to_bytes(8, "big")), (CHAIN, self.chain)])
        self.applied_index = index
        self.machine.site.watch.holds(self.machine.name, index, self.chain)

    def begin_incarnation(self, index: int, term: int, incarnation: int) -> None:
        """See StateMachine."""
        self._commit(index, term, b"incarnation %d" % incarnation, {})

    def sent(self, base: SnapshotBase) -> bytes:
        """All of it, as it is now."""
        rows = list(self.store.scan(b"", b"\xff"))
        return msgspec.msgpack.encode(Sent(base.index, base.term, base.incarnation, base.members, rows))

    async def receive(self, member: str) -> Snapshot:
        """See StateMachine."""
        answer = await self.peers.call(member, Method.SNAPSHOT_READ, b"", timeout_s=2.0)
        sent = msgspec.msgpack.decode(answer.payload, type=Sent)
        folder = f"{FIRST_FOLDER}-{sent.index}-{self.machine.lives}"
        self.files.disk.stores.pop(folder, None)
        store = SimIndex.open(self.files, folder)
        for place in range(0, len(sent.rows), 16):
            store.write(list(sent.rows[place : place + 16]))
            await asyncio.sleep(0.0005)
        store.flush()
        return Snapshot(folder, sent.index, sent.term, sent.incarnation, sent.members)

    async def switch(self, snapshot: Snapshot) -> None:
        """See StateMachine."""
        old, self.folder = self.folder, snapshot.folder
        self.store = SimIndex.open(self.files, snapshot.folder)
        self._load()
        self.machine.site.watch.holds(self.machine.name, self.applied_index, self.chain)
        await asyncio.sleep(0.0005)
        if old != self.folder:
            self.files.disk.stores.pop(old, None)


def folder_of(journal: Journal) -> str:
    """The folder that the newest SNAPSHOT record names."""
    folder = FIRST_FOLDER
    for record in journal.records(0):
        if record.kind is RecordKind.SNAPSHOT:
            folder = msgspec.msgpack.decode(record.payload, type=SnapshotRecord).folder
    return folder


class Registers:
    """One life of a node that offers registers."""

    def __init__(self, machine: Machine, life: Life, files: SimFiles, config: ConsensusConfig) -> None:
        assert machine.clock is not None
        site = machine.site
        self.machine, self.life, self.config = machine, life, config
        self.journal = Journal.open(files, "journal", JOURNAL, machine.rng.randbytes)
        self.peers = site.wires.peers(life, machine.member, machine.clock)
        self.registers = RegisterMachine(machine, files, self.peers, folder_of(self.journal))
        self.consensus = RaftConsensus(
            self.journal,
            self.registers,
            member=machine.member,
            peers=self.peers,
            founders=machine.site.told[machine.number],
            config=config,
            clock=machine.clock,
            entropy=machine.rng.randbytes,
        )
        self.journal.on_failure = lambda error: machine.stopped(life, error)
        self.consensus.on_failure = lambda error: machine.stopped(life, error)
        self.peers.serve(Method.SNAPSHOT_READ, self._send_snapshot)
        self.peers.serve(Method.PROPOSE, self._take)
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self.registers.on_outcome = self._outcome
        self._flushed_index = self.registers.applied_index
        self._seen: tuple[Any, ...] = ()

    async def open(self) -> None:
        """Begins."""
        await self.machine.site.wires.begin(self.peers)
        await self.consensus.start()
        self.life.start(self._keep_short())

    def look(self) -> None:
        """See machines.Service."""
        watch, seen = self.machine.site.watch, glance(self.consensus)
        if seen != self._seen:
            self._seen = seen
            watch.looks(self.machine.name, self.consensus.status())
        if (violation := overfull(self.machine.name, of_consensus(self.consensus, self.config))) is not None:
            watch.blame(violation)

    async def write(self, write: Write) -> bool:
        """On any member, as the catalog does it: the leader takes the operation, and the outcome is what this member
        itself applies. Raises what consensus raises."""
        leader = self.consensus.leader()
        if leader in ("", self.machine.member):
            return await self.propose(write)
        outcome = self._waiting.setdefault(write.operation_id, asyncio.get_running_loop().create_future())
        await self.peers.call(leader, Method.PROPOSE, msgspec.msgpack.encode(write), timeout_s=0.5)
        return await asyncio.shield(outcome)

    def _outcome(self, operation_id: str, does: bool) -> None:
        outcome = self._waiting.pop(operation_id, None)
        if outcome is not None:
            outcome.set_result(does)

    async def _take(self, caller: Any, head: bytes, payload: memoryview) -> Reply:
        """Taken, or refused; what becomes of it the caller sees."""
        refused: list[BaseException] = []
        self.consensus.propose(
            msgspec.msgpack.encode([msgspec.msgpack.decode(head, type=Write)]),
            lambda outcomes, error: refused.append(error) if error is not None else None,
        )
        if refused:
            raise refused[0]
        return Reply(b"")

    async def propose(self, write: Write) -> bool:
        """On the leader. Raises what consensus raises."""
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcomes: list[object] | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                assert outcomes is not None
                outcome.set_result(bool(outcomes[0]))

        self.consensus.propose(msgspec.msgpack.encode([write]), done)
        return await outcome

    async def read(self, key: str) -> str | None:
        """Linearizable, wherever it is asked."""
        await self.consensus.read_barrier()
        return self.registers.get(key)

    async def _keep_short(self) -> None:
        """Flushes now and then, so that the journal is trimmed."""
        while True:
            await asyncio.sleep(self.machine.rng.uniform(0.02, 0.2))
            if self.registers.applied_index - self._flushed_index < self.machine.rng.randint(10, 80):
                continue
            self._flushed_index = self.registers.applied_index
            try:
                await self.consensus.snapshot(self._flush)
            except (TooBusy, StorageFull, Unavailable):
                continue
            except EdgeStoreError as error:
                self.machine.stopped(self.life, error, "cannot flush")

    async def _flush(self) -> None:
        await asyncio.sleep(self.machine.rng.expovariate(1000))
        self.registers.store.flush()

    async def _send_snapshot(self, caller: Any, head: bytes, payload: memoryview) -> Reply:
        release = self.consensus.hold_log()
        self.machine.site.loop.later(1.0, release, life=self.life)
        return Reply(b"", [self.registers.sent(self.consensus.snapshot_base())])
