"""PySyncObj's Journal over the node's journal: entries, term and vote are records of one group.

Rule 3: the log never shrinks without a term conflict; here it only loses what was applied and flushed, from the front.
"""

from __future__ import annotations

from typing import TypeVar, overload

import msgspec
import pysyncobj.journal

from edgestore.disk import Journal, JournalRecord, RecordKind
from edgestore.errors import Corrupt
from edgestore.records import Member, MembersRecord, SnapshotRecord

T = TypeVar("T")

LogEntry = tuple[bytes, int, int]
"""(command, index, term), as PySyncObj has them."""


class RaftJournal(pysyncobj.journal.Journal):  # type: ignore[misc]
    """The log of one group. `entries[0]` is the last entry before the log: PySyncObj compares with it."""

    def __init__(self, journal: Journal, group: int, incarnation: int, applied_index: int) -> None:
        self._journal, self._group, self._incarnation = journal, group, incarnation
        self.term, self.vote = 0, ""
        self.members: tuple[Member, ...] = ()
        self._base = (0, 0)
        self._first_index = self.last_index = 0
        self._applied_index, self._applied_term = max(1, applied_index), 0
        self.entries: list[LogEntry] = []
        for record in journal.records(group):
            self._recover(record)
        self._check(applied_index)
        self.entries.insert(0, (b"", self._applied_index, self._applied_term or self._base[1]))
        self.synced_index = self.entries[-1][1]
        self._commit = self._applied_index

    def _recover(self, record: JournalRecord) -> None:
        """One record, in log order. Of entries that the state machine contains only the last one's term is kept."""
        if record.incarnation != self._incarnation or record.kind is RecordKind.STOP_SIGN:
            raise Corrupt(
                f"the journal goes on in incarnation {record.incarnation} of its group: it was written by a version "
                "of edgestore that changes members",
                incarnation=record.incarnation,
            )
        if record.kind is RecordKind.ENTRY:
            self._recover_entry(record)
        elif record.kind is RecordKind.TRUNCATE:
            self.entries = [entry for entry in self.entries if entry[1] < record.index]
            self.last_index = min(self.last_index, record.index - 1)
        elif record.kind is RecordKind.HARD_STATE:
            self.term, self.vote = record.term, record.payload.decode()
        elif record.kind is RecordKind.MEMBERS:
            self.members = _decoded(record, MembersRecord).members
        elif record.kind is RecordKind.SNAPSHOT:
            _decoded(record, SnapshotRecord)
            self._base = max(self._base, (record.index, record.term))

    def _recover_entry(self, record: JournalRecord) -> None:
        if not self._first_index:
            self._first_index = record.index
        elif record.index != self.last_index + 1:
            raise Corrupt(f"the journal has no entry {self.last_index + 1}", index=self.last_index + 1)
        self.last_index = record.index
        if record.index == self._applied_index:
            self._applied_term = record.term
        elif record.index > self._applied_index:
            self.entries.append((record.payload, record.index, record.term))

    def _check(self, applied_index: int) -> None:
        last_index = max(self._base[0], self.last_index)
        if applied_index > max(1, last_index):
            message = (
                f"the catalog is at entry {applied_index}, ahead of its journal, which ends at {last_index}: "
                "journal files are missing. Restore them from a copy, or use `edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, last_index=last_index)
        first = self._first_index or self._base[0] + 1
        if max(1, applied_index) < first - 1:
            message = (
                f"the catalog is at entry {applied_index}, and the journal begins at {first}: journal files are "
                "missing, or the catalog is an old copy. Restore both from one copy, or use "
                "`edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, first_index=first)

    # --- what PySyncObj calls ------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Appends an entry; it is durable after the next sync."""
        self._journal.append(JournalRecord(self._group, self._incarnation, RecordKind.ENTRY, idx, term, command))
        self.entries.append((command, idx, term))  # after it: what the journal refuses is not in the log

    def clear(self) -> None:
        """Never: a snapshot is installed by a SNAPSHOT record."""
        raise AssertionError("the log is not cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """At a term conflict."""
        index = self.entries[entryFrom][1]
        del self.entries[entryFrom:]
        self._journal.append(JournalRecord(self._group, self._incarnation, RecordKind.TRUNCATE, index, self.term))

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Forgets the front in memory; the files go by `trim`."""
        command, index, term = self.entries[entryTo]
        del self.entries[: entryTo + 1]
        self.entries.insert(0, (b"" if entryTo else command, index, term))

    def found(self, members: tuple[Member, ...]) -> None:
        """Who forms the group, at its first start: every file of the journal begins with it (rule 5)."""
        self.members = members
        self._append_control(RecordKind.MEMBERS, MembersRecord(members))

    def note_snapshot(self, index: int, term: int, folder: str) -> None:
        """What `folder` holds contains everything up to `index`, durably: a later start counts from here (rule 2)."""
        self._append_control(RecordKind.SNAPSHOT, SnapshotRecord(folder, self.members), index, term)

    def _append_control(self, kind: RecordKind, content: msgspec.Struct, index: int = 0, term: int = 0) -> None:
        payload = msgspec.msgpack.encode(content)
        self._journal.append(JournalRecord(self._group, self._incarnation, kind, index, term, payload))

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self.entries[item]

    def __len__(self) -> int:
        return len(self.entries)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Hard state goes into the same log, so it is durable before anything of the term is."""
        self.term, self.vote = term, votedForNodeId or ""
        record = JournalRecord(
            self._group, self._incarnation, RecordKind.HARD_STATE, term=term, payload=self.vote.encode()
        )
        self._journal.append(record)

    def getCurrentTerm(self) -> int:
        """The term."""
        return self.term

    def getVotedForNodeId(self) -> str | None:
        """The vote of this term."""
        return self.vote or None

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """In memory only: after a restart the commit index is found anew."""
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        """Never beyond the log."""
        return min(self._commit, self.entries[-1][1])

    def onOneSecondTimer(self) -> None:
        """Nothing to do."""

    def _destroy(self) -> None:
        """The node closes its journal itself."""


def _decoded(record: JournalRecord, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(record.payload, type=kind)
    except msgspec.MsgspecError as error:
        message = f"a {record.kind.name} record of the journal does not decode: {error}; another version wrote it"
        raise Corrupt(message) from error
