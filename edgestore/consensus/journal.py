"""PySyncObj's Journal over the node's journal: entries, term and vote are records of one group.

Rule 3: the log never shrinks without a term conflict; here it only loses what was applied and flushed, from the front.
"""

from __future__ import annotations

from itertools import pairwise
from typing import overload

import pysyncobj.journal

from edgestore.disk import Journal, JournalRecord, RecordKind
from edgestore.errors import Corrupt

LogEntry = tuple[bytes, int, int]
"""(command, index, term), as PySyncObj has them."""


class RaftJournal(pysyncobj.journal.Journal):  # type: ignore[misc]
    """The log of one group. `entries[0]` is the last entry before the log: PySyncObj compares with it."""

    def __init__(self, journal: Journal, group: int, incarnation: int, applied_index: int) -> None:
        self._journal, self._group, self._incarnation = journal, group, incarnation
        self.term, self.vote = 0, ""
        base = (0, 0)
        entries: list[LogEntry] = []
        for record in journal.records(group):
            if record.kind is RecordKind.HARD_STATE:
                self.term, self.vote = record.term, record.payload.decode()
            elif record.kind is RecordKind.SNAPSHOT:
                base = max(base, (record.index, record.term))
            elif record.kind is RecordKind.TRUNCATE:
                entries = [entry for entry in entries if entry[1] < record.index]
            elif record.kind is RecordKind.ENTRY:
                entries.append((record.payload, record.index, record.term))
        self.last_index = max(base[0], entries[-1][1] if entries else 0)
        self._check(base[0], entries, applied_index)
        before = [entry for entry in entries if entry[1] <= applied_index]
        term = before[-1][2] if before else base[1]
        self.entries: list[LogEntry] = [(b"", max(1, applied_index), term)]
        self.entries += [entry for entry in entries if entry[1] > max(1, applied_index)]
        self.synced_index = self.entries[-1][1]
        self._commit = self.entries[0][1]

    def _check(self, base: int, entries: list[LogEntry], applied_index: int) -> None:
        if applied_index > max(1, self.last_index):
            message = (
                f"the catalog is at entry {applied_index}, ahead of its journal, which ends at {self.last_index}: "
                "journal files are missing. Restore them from a copy, or use `edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, last_index=self.last_index)
        first = entries[0][1] if entries else base + 1
        if max(1, applied_index) < first - 1:
            message = (
                f"the catalog is at entry {applied_index}, and the journal begins at {first}: journal files are "
                "missing, or the catalog is an old copy. Restore both from one copy, or use "
                "`edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, first_index=first)
        for earlier, later in pairwise(entries):
            if later[1] != earlier[1] + 1:
                raise Corrupt(f"the journal has no entry {earlier[1] + 1}", index=earlier[1] + 1)

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
