"""PySyncObj as the vote, append and commit core, and nothing else; docs/internals/consensus.md lists the hooks.

Rule 2: a member counts itself only up to its own synced index, and applies at most min(committed, synced).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from edgestore.clock import Clock, Entropy, SystemClock, system_entropy
from edgestore.config import ConsensusConfig
from edgestore.consensus.interface import ConsensusStatus, Done, Readable, StateMachine
from edgestore.consensus.journal import RaftJournal
from edgestore.disk import Journal
from edgestore.errors import Closing, Corrupt, EdgeStoreError, Unavailable
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import Member

log = logging.getLogger("edgestore.consensus")

PYSYNCOBJ_VERSION = "0.3.17"
REGULAR = b"\x00"
NEVER = 10**9
INCARNATION = 0
"""Of the group: members change with it (rule 4), and a lone member never changes."""
MACHINE_FOLDER = "catalog"
"""The state machine's rows are their own snapshot: a flush makes them durable where they are."""
DEFAULTS = ConsensusConfig()
SYSTEM_CLOCK = SystemClock()
TICK_S = 3600.0
"""How long one tick may go on taking commands: a process that was paused in the middle must not leave one behind."""

PRIVATE_METHODS = (
    "_SyncObj__doApplyCommand",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__applyLogEntries",
    "_SyncObj__onMessageReceived",
    "_SyncObj__tryLogCompaction",
    "_checkCommandsToApply",
    "_applyCommand",
    "_isLeader",
    "_onTick",
)
PRIVATE_FIELDS = (
    "_SyncObj__raftLog",
    "_SyncObj__raftState",
    "_SyncObj__raftLeader",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__otherNodes",
    "_SyncObj__selfNode",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__votesCount",
    "_SyncObj__leaderCommitIndex",
)
MODULE_NAMES = ("createJournal", "monotonicTime", "pickle", "_RAFT_STATE")
PICKLERS = ("pysyncobj.pickle", "pysyncobj.journal", "pysyncobj.serializer", "pysyncobj.tcp_connection")


class NotAppliedError(Exception):
    """A committed entry could not be applied: the cause says why. The member stops, and a start tries it again."""


def _refuse_pickle(*_: object, **__: object) -> Any:
    raise Corrupt("something asked for pickle: commands and messages are never pickled")


def _refuse_snapshot(*_: object) -> Any:
    raise Corrupt("PySyncObj asked for a snapshot of its own: the state machine keeps its own files")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def check_core() -> None:
    """Raises Corrupt where PySyncObj is not exactly what the hooks were written for."""
    found = version("pysyncobj")
    missing = [name for name in PRIVATE_METHODS if not hasattr(SyncObj, name)]
    missing += [name for name in MODULE_NAMES if not hasattr(pysyncobj.syncobj, name)]
    if found != PYSYNCOBJ_VERSION or missing:
        raise Corrupt(
            f"pysyncobj {found} is not the {PYSYNCOBJ_VERSION} that the node was built for"
            f"{' (missing: ' + ', '.join(missing) + ')' if missing else ''}: install pysyncobj=={PYSYNCOBJ_VERSION}"
        )


def harden() -> None:
    """Takes pickle away from PySyncObj, and gives it the loop's clock."""
    for name in PICKLERS:
        module = importlib.import_module(name)
        for function in ("loads", "dumps"):
            if hasattr(module, function):
                setattr(module, function, _refuse_pickle)
    pysyncobj.syncobj.monotonicTime = _loop_time


class LoneTransport(Transport):  # type: ignore[misc]
    """The transport of a group with one member: nothing listens and nothing is sent."""

    def __init__(self, sync_object: SyncObj, self_node: Node, other_nodes: set[Node]) -> None:
        super().__init__(sync_object, self_node, other_nodes)
        if other_nodes:
            raise AssertionError("a lone transport has no peers")

    def send(self, node: Node, message: Any) -> bool:
        """There is nobody."""
        raise AssertionError(f"a lone member sent {message!r} to {node}")


class Core(SyncObj):  # type: ignore[misc]
    """One member of one group. Ticks run when something happened; there is no thread and no timer."""

    def __init__(self, raft_journal: RaftJournal, member: str, machine: StateMachine) -> None:
        self._machine = machine
        self._raft_journal = raft_journal
        create, pysyncobj.syncobj.createJournal = pysyncobj.syncobj.createJournal, lambda _: raft_journal
        try:
            configuration = SyncObjConf(
                autoTick=False,
                appendEntriesPeriod=TICK_S,
                raftMinTimeout=4 * TICK_S,
                raftMaxTimeout=5 * TICK_S,
                connectionTimeout=5 * TICK_S,
                leaderFallbackTimeout=2 * TICK_S,
                dynamicMembershipChange=False,
                appendEntriesUseBatch=True,
                appendEntriesBatchSizeBytes=NEVER,
                logCompactionMinEntries=NEVER,
                logCompactionMinTime=NEVER,
                commandsWaitLeader=True,
                serializer=_refuse_snapshot,
                deserializer=_refuse_snapshot,
                fullDumpFile="",  # it wants a name beside a serializer; no file has this one
            )
            super().__init__(Node(member), [], configuration, nodeClass=Node, transportClass=LoneTransport)
        finally:
            pysyncobj.syncobj.createJournal = create
        missing = [name for name in PRIVATE_FIELDS if not hasattr(self, name)]
        if missing:
            raise Corrupt(f"pysyncobj has no {', '.join(missing)}: install pysyncobj=={PYSYNCOBJ_VERSION}")
        self._SyncObj__raftLastApplied = self._SyncObj__raftCommitIndex = raft_journal.entries[0][1]

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """In place of PySyncObj's: stands, takes commands, counts, applies; no compaction, pipes or polls."""
        state = pysyncobj.syncobj._RAFT_STATE
        if self._SyncObj__raftState != state.LEADER:
            self._stand(state)
        self._checkCommandsToApply()
        if self._SyncObj__raftState == state.LEADER:
            self._advance_commit()
        self._apply_committed()

    def _stand(self, state: Any) -> None:
        """A lone voter wins at once; its term and vote are in the journal before the entry that makes it leader."""
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(state.CANDIDATE)
        self._SyncObj__setCurrentTerm(self._SyncObj__raftCurrentTerm + 1, self._SyncObj__selfNode.id)
        self._SyncObj__votesCount = 1
        if self._SyncObj__votesCount > (len(self._SyncObj__otherNodes) + 1) / 2:
            self._SyncObj__onBecomeLeader()

    def _advance_commit(self) -> None:
        """The highest index of this term that a majority has synced, this member included."""
        synced = [self._raft_journal.synced_index]
        synced += [self._SyncObj__raftMatchIndex[node] for node in self._SyncObj__otherNodes]
        reached = sorted(synced, reverse=True)[len(synced) // 2]
        first = self._raft_journal.entries[0][1]
        if reached <= self._SyncObj__raftCommitIndex:
            return
        if self._raft_journal.entries[reached - first][2] == self._SyncObj__raftCurrentTerm:
            self._SyncObj__raftCommitIndex = reached
            self._raft_journal.setRaftCommitIndex(reached)
        self._SyncObj__leaderCommitIndex = self._SyncObj__raftCommitIndex

    def _apply_committed(self) -> None:
        """At most min(committed, synced); each entry's callbacks right after it."""
        limit = min(self._SyncObj__raftCommitIndex, self._raft_journal.synced_index)
        entries = self._raft_journal.entries
        while self._SyncObj__raftLastApplied < limit:
            command, index, term = entries[self._SyncObj__raftLastApplied + 1 - entries[0][1]]
            payload = memoryview(command)[1:] if command[:1] == REGULAR else b""
            try:
                outcomes = self._machine.apply(index, term, payload)
            except Exception as error:
                raise NotAppliedError(f"log entry {index} of term {term}: {error}") from error
            self._SyncObj__raftLastApplied = index
            waiting = self._SyncObj__commandsWaitingCommit.pop(index, ())
            for proposed_term, callback in waiting:
                if proposed_term == term:
                    callback(outcomes, None)
                else:
                    callback(None, "discarded")

    def _SyncObj__applyLogEntries(self) -> bool:
        """PySyncObj's own applying unpickles and forgets rule 2."""
        raise AssertionError("entries are applied by _apply_committed")

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """PySyncObj's own unpickles."""
        raise AssertionError("entries are applied by _apply_committed")

    def _SyncObj__tryLogCompaction(self) -> None:
        """PySyncObj's own pickles."""
        raise AssertionError("the log is trimmed after a flush of the catalog")


class RaftConsensus:
    """`Consensus` over `Core` for a group whose only voter is this member.

    `founders`: who forms the group where this member's journal is empty; empty itself: this member alone. A member that
    joins gives the voters that it was told of, and learns. `peers` None: the group never has another member.
    """

    def __init__(
        self,
        journal: Journal,
        machine: StateMachine,
        *,
        member: str,
        group: int = 0,
        peers: Any = None,
        founders: tuple[Member, ...] = (),
        config: ConsensusConfig = DEFAULTS,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Entropy = system_entropy,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        check_core()
        harden()
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self._journal, self._machine, self._group, self._metrics = journal, machine, group, metrics
        self._closed = False
        self._failed: BaseException | None = None
        self._members = (Member(member),)
        self._raft_journal = RaftJournal(journal, group, INCARNATION, machine.applied_index)
        if self._raft_journal.members not in ((), self._members):
            found = ", ".join(known.member for known in self._raft_journal.members)
            raise Corrupt(
                f"the journal belongs to member {found}, and the data folder says {member}: its file `identity` is of "
                "another folder. Restore both from one copy",
                member=member,
            )
        self._asked_index = self._raft_journal.synced_index
        self._started: asyncio.Future[None] | None = None
        if machine.applied_index == 0:
            machine.apply(1, 0, b"")
        self._core = Core(self._raft_journal, member, machine)

    async def start(self) -> None:
        """Becomes leader, which commits and applies what the journal holds beyond the state machine."""
        self._started = asyncio.get_running_loop().create_future()
        if not self._raft_journal.members:
            self._raft_journal.found(self._members)
        self._core.doTick(0.0)
        self._ask_for_sync()
        await self._started

    def propose(self, payload: bytes, done: Done) -> None:
        """See `Consensus.propose`."""
        if self._closed or self._failed is not None:
            done(None, Closing("the node is closing: send it again later"))
            return

        def answer(outcomes: list[object] | None, failure: object) -> None:
            done(outcomes, Unavailable("the leader changed: try again") if failure else None)

        self._core._applyCommand(REGULAR + payload, answer)
        try:
            self._core.doTick(0.0)
        except EdgeStoreError as error:  # the journal took no record: the entry is in nobody's log
            done(None, error)
            return
        except NotAppliedError as error:
            self._fail(error)
            return
        self._ask_for_sync()

    def _ask_for_sync(self) -> None:
        index = self._raft_journal.entries[-1][1]
        if index > self._asked_index:
            self._asked_index = index
            self._journal.sync(partial(self._synced, index))

    def _synced(self, index: int) -> None:
        self._raft_journal.synced_index = max(index, self._raft_journal.synced_index)
        if self._closed or self._failed is not None:
            return
        before = self._machine.applied_index
        try:
            self._core.doTick(0.0)
        except NotAppliedError as error:
            self._fail(error)
            return
        self._metrics.count("consensus_entries_total", self._machine.applied_index - before)
        self._forget_applied()
        self._ask_for_sync()
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    def _fail(self, error: NotAppliedError) -> None:
        """Entries apply in order, so nothing after this one can: the member stops and answers nothing more."""
        self._failed = error
        log.critical("apply-failed error=%s", error)
        if self._started is not None and not self._started.done():
            self._started.set_exception(error.__cause__ or error)
        self.on_failure(error)

    def _forget_applied(self) -> None:
        """A lone member needs no entry in memory that is applied."""
        self._raft_journal.deleteEntriesTo(self._machine.applied_index - self._raft_journal.entries[0][1])

    async def read_barrier(self) -> None:
        """See `Consensus.read_barrier`: a lone leader has applied whatever it has acknowledged."""
        if not self.can_read_now():
            raise Unavailable("the node has no leader yet: try again", retry_after_s=0.5)

    def when_readable(self, done: Readable) -> None:
        """See `Consensus.when_readable`."""
        done(None if self.can_read_now() else Unavailable("the node has no leader yet: try again", retry_after_s=0.5))

    def leader(self) -> str:
        """See `Consensus.leader`."""
        return self._members[0].member if self.is_leader else ""

    @property
    def is_leader(self) -> bool:
        """See `Consensus.is_leader`."""
        return bool(self._core._isLeader())

    @property
    def incarnation(self) -> int:
        """See `Consensus.incarnation`."""
        return INCARNATION

    def can_read_now(self) -> bool:
        """See `Consensus.can_read_now`."""
        return bool(self._core._isLeader()) and not self._closed and self._failed is None

    def status(self) -> ConsensusStatus:
        """See `Consensus.status`."""
        return ConsensusStatus(
            is_leader=bool(self._core._isLeader()),
            term=self._core.raftCurrentTerm,
            last_index=self._raft_journal.entries[-1][1],
            synced_index=self._raft_journal.synced_index,
            committed_index=self._core.raftCommitIndex,
            applied_index=self._machine.applied_index,
        )

    async def snapshot(self, flush: Callable[[], Awaitable[None]]) -> None:
        """See `Consensus.snapshot`. The index is the one applied before the flush began (rule 2)."""
        _, index, term = self._raft_journal.entries[self._machine.applied_index - self._raft_journal.entries[0][1]]
        await flush()
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.trim(index, term, lambda: None if synced.done() else synced.set_result(None))
        await synced

    def trim(self, index: int, term: int, done: Callable[[], None]) -> None:
        """The machine has everything up to `index` durably: that is in the journal, synced, before files go."""
        self._raft_journal.note_snapshot(index, term, MACHINE_FOLDER)

        def synced() -> None:
            self._journal.trim(self._group, index)
            done()

        self._journal.sync(synced)

    def close(self) -> None:
        """See `Consensus.close`."""
        self._closed = True
