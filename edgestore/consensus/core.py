"""PySyncObj as the vote, append and commit core, and nothing else; docs/internals/consensus.md lists the hooks.

Rule 2: a member counts itself only up to its own synced index, and applies at most min(committed, synced). Nothing is
sent by PySyncObj, and no message reaches it: `elections`, `replication` and `voter` decide, and change it through the
methods of `Core`.
"""

from __future__ import annotations

import asyncio
import importlib
from importlib.metadata import version
from typing import Any

from edgestore.consensus.applying import Applying
from edgestore.consensus.interface import Done
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.library import Node, SyncObj, SyncObjConf, Transport, syncobj
from edgestore.errors import Corrupt

PYSYNCOBJ_VERSION = "0.3.17"
NEVER = 10**9
TICK_S = 3600.0
"""How long one tick may go on taking commands: a process that was paused in the middle must not leave one behind."""

PRIVATE_METHODS = (
    "_SyncObj__doApplyCommand",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__getCurrentLogTerm",
    "_SyncObj__applyLogEntries",
    "_SyncObj__onMessageReceived",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
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
    "_SyncObj__votedForNodeId",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__votesCount",
    "_SyncObj__leaderCommitIndex",
    "_SyncObj__noopIDx",
)
MODULE_NAMES = ("createJournal", "monotonicTime", "pickle", "_RAFT_STATE")
PICKLERS = ("pysyncobj.pickle", "pysyncobj.journal", "pysyncobj.serializer", "pysyncobj.tcp_connection")


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
    missing += [name for name in MODULE_NAMES if not hasattr(syncobj, name)]
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
    syncobj.monotonicTime = _loop_time


class SilentTransport(Transport):  # type: ignore[misc]
    """The transport that PySyncObj is given: nothing listens and nothing is sent."""

    def send(self, node: Node, message: Any) -> bool:
        """Messages leave by `transport`, never by PySyncObj."""
        raise AssertionError(f"PySyncObj sent {message!r} to {node}")


class Core(SyncObj):  # type: ignore[misc]
    """One voter of one incarnation of one group. There is no thread and no timer: `_onTick` runs when something
    happened."""

    def __init__(self, raft_journal: RaftJournal, member: str, others: tuple[str, ...], applying: Applying) -> None:
        self._applying = applying
        self._raft_journal = raft_journal
        self._nodes = {name: Node(name) for name in others}
        create, syncobj.createJournal = syncobj.createJournal, lambda _: raft_journal
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
            nodes = list(self._nodes.values())
            super().__init__(Node(member), nodes, configuration, nodeClass=Node, transportClass=SilentTransport)
        finally:
            syncobj.createJournal = create
        missing = [name for name in PRIVATE_FIELDS if not hasattr(self, name)]
        if missing:
            raise Corrupt(f"pysyncobj has no {', '.join(missing)}: install pysyncobj=={PYSYNCOBJ_VERSION}")
        self._SyncObj__raftLastApplied = applying.applied_index
        self._SyncObj__raftCommitIndex = applying.commit_index
        self._SyncObj__commandsWaitingCommit = applying.waiting

    # --- what the roles ask and tell -----------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""
        return bool(self._SyncObj__raftState == syncobj._RAFT_STATE.LEADER)

    @property
    def is_candidate(self) -> bool:
        """Whether it stands."""
        return bool(self._SyncObj__raftState == syncobj._RAFT_STATE.CANDIDATE)

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def vote(self) -> str:
        """Whom it voted for in this term; empty for nobody."""
        return self._SyncObj__votedForNodeId or ""

    @property
    def leader(self) -> str:
        """Whom it follows, itself included; empty for nobody."""
        node = self._SyncObj__raftLeader
        return node.id if node is not None else ""

    @property
    def first_of_term(self) -> int:
        """Index of the entry that this leader began with: what is committed is known once it is."""
        return int(self._SyncObj__noopIDx or 0)

    def follow(self, term: int, leader: str) -> None:
        """A follower of this term, which is not below its own; of nobody where `leader` is empty."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(syncobj._RAFT_STATE.FOLLOWER)
        self._SyncObj__raftLeader = self._nodes[leader] if leader else None

    def grant(self, candidate: str) -> None:
        """The vote of this term."""
        self._SyncObj__setCurrentTerm(self.term, candidate)

    def stand(self) -> None:
        """The next term, and its own vote in it."""
        state = syncobj._RAFT_STATE
        self._SyncObj__raftLeader = None
        self._SyncObj__setCurrentTerm(self.term + 1, self._SyncObj__selfNode.id)
        self._SyncObj__setState(state.CANDIDATE)
        self.count_votes(1)

    def count_votes(self, votes: int) -> bool:
        """Leads where that is a majority, beginning with an entry of its own. Whether it does."""
        self._SyncObj__votesCount = votes
        if self._SyncObj__votesCount > (len(self._SyncObj__otherNodes) + 1) / 2:
            self._SyncObj__onBecomeLeader()
            return True
        return False

    def acknowledged(self, member: str, index: int) -> None:
        """Another voter has synced everything up to `index`, as it is here."""
        node = self._nodes[member]
        if self._SyncObj__raftMatchIndex[node] < index <= self._raft_journal.last_index:
            self._SyncObj__raftMatchIndex[node] = index

    def matched(self, member: str) -> int:
        """The last index of `acknowledged`."""
        return int(self._SyncObj__raftMatchIndex.get(self._nodes[member], 0))

    def commit(self, index: int) -> None:
        """The leader says so, and the log is as the leader's up to there."""
        if self._applying.commit(index):
            self._SyncObj__raftCommitIndex = self._applying.commit_index
            self._raft_journal.setRaftCommitIndex(self._applying.commit_index)

    def installed(self) -> None:
        """The state machine was switched to a snapshot."""
        self._SyncObj__raftLastApplied = self._applying.applied_index
        self._SyncObj__raftCommitIndex = self._applying.commit_index

    def propose(self, command: bytes, done: Done) -> None:
        """Appends a command, as leader. Raises what the journal raises: then it is in nobody's log."""
        self._applyCommand(command, done)
        self._onTick()

    # --- in place of PySyncObj's own ------------------------------------------------------------------

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """Takes commands, counts, applies; no elections, compaction, pipes or polls. A lone voter stands at once."""
        if not self._nodes and not self.is_leader:
            self.stand()
        self._checkCommandsToApply()
        if self.is_leader:
            self._advance_commit()
        self._apply_committed()

    def _advance_commit(self) -> None:
        """The highest index of this term that a majority has synced, this member included."""
        synced = [self._raft_journal.synced_index]
        synced += [self._SyncObj__raftMatchIndex[node] for node in self._SyncObj__otherNodes]
        reached = sorted(synced, reverse=True)[len(synced) // 2]
        if reached <= self._SyncObj__raftCommitIndex:
            return
        if self._raft_journal.term_at(reached) == self._SyncObj__raftCurrentTerm:
            self.commit(reached)
        self._SyncObj__leaderCommitIndex = self._SyncObj__raftCommitIndex

    def _apply_committed(self) -> None:
        """At most min(committed, synced); each entry's callbacks right after it."""
        self._applying.run()
        self._SyncObj__raftLastApplied = self._applying.applied_index

    def _SyncObj__setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """The journal first: what it refuses is not the term."""
        self._raft_journal.setCurrentTerm(term, votedForNodeId)
        self._SyncObj__raftCurrentTerm = term
        self._SyncObj__votedForNodeId = votedForNodeId

    def _SyncObj__sendAppendEntries(self) -> None:
        """`replication` sends."""

    def _SyncObj__sendNextNodeIdx(self, *_: object, **__: object) -> None:
        """`voter` answers."""
        raise AssertionError("PySyncObj answers nobody")

    def _SyncObj__onMessageReceived(self, node: Node, message: Any) -> None:
        """PySyncObj's own cuts the log without a conflict, counts a vote twice, and acknowledges without a sync."""
        raise AssertionError("no message reaches PySyncObj")

    def _SyncObj__applyLogEntries(self) -> bool:
        """PySyncObj's own applying unpickles and forgets rule 2."""
        raise AssertionError("entries are applied by _apply_committed")

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """PySyncObj's own unpickles."""
        raise AssertionError("entries are applied by _apply_committed")

    def _SyncObj__tryLogCompaction(self) -> None:
        """PySyncObj's own pickles."""
        raise AssertionError("the log is trimmed after a flush of the catalog")
