"""PySyncObj's Journal over the node's journal: entries, term and vote are records of one group.

Rule 3: the log never shrinks without a term conflict; else it only loses what was applied and flushed, from the front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import overload

import msgspec

from edgestore.consensus.interface import Snapshot, SnapshotBase
from edgestore.consensus.library import Journal as LogOfPySyncObj
from edgestore.consensus.messages import StopSign, first_term, incarnation_of
from edgestore.consensus.recovery import STOP_KIND, LogEntry, Recovery, first_folder
from edgestore.disk import Journal, JournalRecord, RecordKind
from edgestore.errors import Corrupt, EdgeStoreError
from edgestore.records import Member, MembersRecord, SnapshotRecord, StopSignRecord


class DivergedError(Corrupt):
    """What is committed contradicts what this member has applied: it must never happen, and the member stops."""


class _Mark:
    """What a sync that is under way makes durable."""

    __slots__ = ("hard_states", "index")

    def __init__(self, index: int, hard_states: int) -> None:
        self.index, self.hard_states = index, hard_states


class RaftJournal(LogOfPySyncObj):  # type: ignore[misc]
    """The log of one group. `entries[0]` is the last entry before the log: PySyncObj compares with it."""

    def __init__(self, journal: Journal, group: int, applied_index: int, kept_bytes: int = 0) -> None:
        self._journal, self._group = journal, group
        found = Recovery(journal.records(group), applied_index, kept_bytes, first_folder(group))
        self.term, self.vote = found.term, found.vote
        self.incarnation, self.members = found.incarnation, found.members
        self.folder = found.folder
        self.entries = found.entries
        self.synced_index = self.entries[-1][1]
        self.committed_floor = max(found.applied_index, min(found.stop_index, self.entries[-1][1]))
        """What is committed for certain: applied, or before a stop-sign that was applied."""
        self._commit = self.committed_floor
        self.stops = [entry[1] for entry in self.entries if entry[0][:1] == STOP_KIND and entry[1] > applied_index]
        """Stop-signs that were not applied yet: what lies behind one is not committed, whoever counts (rule 4)."""
        self._hard_states = self._hard_states_synced = 0
        self._marks: list[_Mark] = []
        self.is_dirty = False
        """Something was written that no sync was asked for yet."""
        self.size_bytes = sum(len(entry[0]) for entry in self.entries)
        """Of the entries in memory."""

    # --- reading --------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the first entry that is here; the log is empty where it is beyond `last_index`."""
        return self.entries[0][1] + 1

    @property
    def last_index(self) -> int:
        """Of the last entry."""
        return self.entries[-1][1]

    def term_at(self, index: int) -> int | None:
        """None where the entry is not known here."""
        at = index - self.entries[0][1]
        return self.entries[at][2] if 0 <= at < len(self.entries) else None

    def after(self, index: int, bytes_max: int, last_index: int) -> list[LogEntry]:
        """Entries behind `index` up to `last_index`: at least one where there is one, and about so many bytes."""
        at = index + 1 - self.entries[0][1]
        end = min(len(self.entries), last_index + 1 - self.entries[0][1])
        taken, size = at, 0
        while taken < end and (taken == at or size + len(self.entries[taken][0]) <= bytes_max):
            size += len(self.entries[taken][0])
            taken += 1
        return self.entries[at:taken]

    @property
    def is_hard_state_synced(self) -> bool:
        """Whether term and vote are on the disk as they are here: nothing may leave this member before."""
        return self._hard_states_synced == self._hard_states

    # --- writing --------------------------------------------------------------------------------------

    def sync(self, done: Callable[[], None], *, at_once: bool = False) -> None:
        """Calls `done` when everything up to here is on the disk, after `synced_index` says so. `at_once`: see
        `Journal.sync`."""
        mark = _Mark(self.entries[-1][1], self._hard_states)
        self.is_dirty = False
        self._marks.append(mark)
        self._journal.sync(partial(self._synced, mark, done), at_once=at_once)

    def _synced(self, mark: _Mark, done: Callable[[], None]) -> None:
        self._marks.remove(mark)
        if mark.index > self.synced_index:
            self.synced_index = mark.index
        self._hard_states_synced = max(self._hard_states_synced, mark.hard_states)
        done()

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Appends an entry; it is durable after the next sync."""
        if idx != self.entries[-1][1] + 1:
            raise AssertionError(f"entry {idx} does not follow {self.entries[-1][1]}")
        record = JournalRecord(self._group, incarnation_of(term), RecordKind.ENTRY, idx, term, command)
        self._journal.append(record)
        self.entries.append((command, idx, term))  # after it: what the journal refuses is not in the log
        self.size_bytes += len(command)
        self.is_dirty = True
        if command[:1] == STOP_KIND:
            self.stops.append(idx)

    def merge(self, previous: tuple[int, int], entries: Sequence[tuple[int, bytes]], committed_index: int) -> int:
        """Takes entries (term, command) that follow `previous` (index, term), which is here. Cuts at a conflict only.

        Returns the index up to which the log is as the sender's. Raises DivergedError for a conflict in what is
        committed; where the journal takes no more, what it took counts.
        """
        index = previous[0]
        for term, command in entries:
            index += 1
            known = self.term_at(index)
            if known == term or index < self.first_index:
                continue
            if incarnation_of(term) < self.incarnation:
                return index - 1  # its sender does not know yet that it lies behind a stop-sign
            if known is not None:
                if index <= committed_index:
                    raise DivergedError(
                        f"entry {index} is committed with term {known} here, and the leader has it with {term}",
                        index=index,
                    )
                self.cut(index)
            try:
                self.add(command, index, term)
            except EdgeStoreError:
                return index - 1
        return index

    def cut(self, index: int) -> None:
        """At a term conflict, or behind a stop-sign: entries from `index` on are void."""
        at = index - self.entries[0][1]
        if at >= len(self.entries):
            return
        term = max(self.term, self.entries[at][2])
        self._journal.append(JournalRecord(self._group, incarnation_of(term), RecordKind.TRUNCATE, index, term))
        self.is_dirty = True
        self.size_bytes -= sum(len(entry[0]) for entry in self.entries[at:])
        del self.entries[at:]
        self.stops = [stop for stop in self.stops if stop < index]
        self.synced_index = min(self.synced_index, index - 1)
        for mark in self._marks:
            mark.index = min(mark.index, index - 1)

    def forget(self, index: int) -> None:
        """Lets go of the entries up to `index` in memory; the files go by `trim`."""
        at = index - self.entries[0][1]
        if at > 0:
            _, index, term = self.entries[at]
            self.size_bytes -= sum(len(entry[0]) for entry in self.entries[: at + 1])
            del self.entries[: at + 1]
            self.entries.insert(0, (b"", index, term))

    def forget_over(self, bytes_max: int, index: int) -> None:
        """Lets go of the oldest up to `index`, so far as there are more than `bytes_max` of them all."""
        if self.size_bytes <= bytes_max + bytes_max // 8:
            return
        count, left = 0, self.size_bytes
        while left > bytes_max and self.entries[count][1] < index:
            count += 1
            left -= len(self.entries[count][0])
        self.forget(self.entries[count][1])

    def found(self, members: tuple[Member, ...]) -> None:
        """Who forms the group, at its first start: every file of the journal begins with it (rule 5)."""
        self._append_control(RecordKind.MEMBERS, MembersRecord(members))
        self.members = members

    def note_snapshot(self, base: SnapshotBase) -> None:
        """The machine's folder contains everything up to there, durably: a later start counts from it (rule 2)."""
        payload = msgspec.msgpack.encode(SnapshotRecord(self.folder, base.members))
        self._journal.append(
            JournalRecord(self._group, base.incarnation, RecordKind.SNAPSHOT, base.index, base.term, payload)
        )

    def install(self, snapshot: Snapshot) -> bool:
        """A snapshot was received and is synced: the log begins behind it; entries beyond it stay where they match.
        Whether the incarnation is another now."""
        matches = self.term_at(snapshot.index) == snapshot.term
        if not matches and self.last_index >= snapshot.index:
            self.cut(max(snapshot.index, self.first_index))
        begins = snapshot.incarnation > self.incarnation
        before, self.folder = self.folder, snapshot.folder
        try:
            self.note_snapshot(SnapshotBase(snapshot.index, snapshot.term, snapshot.incarnation, snapshot.members))
        except EdgeStoreError:
            self.folder = before
            raise
        self.members, self.incarnation = snapshot.members, snapshot.incarnation
        self.is_dirty = True
        if matches:
            self.forget(snapshot.index)
        else:
            self.entries = [(b"", snapshot.index, snapshot.term)]
            self.synced_index, self.size_bytes = min(self.synced_index, snapshot.index - 1), 0
        self.stops = [stop for stop in self.stops if stop > snapshot.index]
        if begins:
            self._begin_terms()
        return begins

    def begin_incarnation(self, index: int, term: int, stop: StopSign) -> None:
        """The stop-sign at `index` was applied: nothing behind it counts, and terms go on in the next incarnation."""
        behind = self.term_at(index + 1)
        if behind is not None and incarnation_of(behind) < stop.next_incarnation:
            self.cut(index + 1)
        record = StopSignRecord(stop.next_incarnation, stop.members)
        self._append_control(RecordKind.STOP_SIGN, record, index, term)
        self.incarnation, self.members = stop.next_incarnation, stop.members
        self._begin_terms()

    def _begin_terms(self) -> None:
        self.setCurrentTerm(max(self.term, first_term(self.incarnation)), None)

    def _append_control(self, kind: RecordKind, content: msgspec.Struct, index: int = 0, term: int = 0) -> None:
        payload = msgspec.msgpack.encode(content)
        self._journal.append(JournalRecord(self._group, self.incarnation, kind, index, term, payload))
        self.is_dirty = True

    # --- what PySyncObj calls ------------------------------------------------------------------------

    def clear(self) -> None:
        """Never: a snapshot is installed by a SNAPSHOT record."""
        raise AssertionError("the log is not cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Never: `merge` cuts at a term conflict."""
        raise AssertionError("PySyncObj does not cut the log")

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Never: `forget` does."""
        raise AssertionError("PySyncObj does not trim the log")

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
        vote = votedForNodeId or ""
        self._journal.append(
            JournalRecord(self._group, incarnation_of(term), RecordKind.HARD_STATE, term=term, payload=vote.encode())
        )
        self.term, self.vote = term, vote
        self._hard_states += 1
        self.is_dirty = True

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
