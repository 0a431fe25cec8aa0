"""What the records of one group in a journal add up to: entries, hard state, members, the newest snapshot.

Rule: records come in log order, but the newest of each control kind opens every file as well, so one that is older
than what is known already says nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from edgestore.consensus.messages import StopSign, decode, first_term, incarnation_of
from edgestore.disk import Journal, JournalRecord, RecordKind
from edgestore.errors import Corrupt
from edgestore.records import Member, MembersRecord, SnapshotRecord, StopSignRecord

T = TypeVar("T")

LogEntry = tuple[bytes, int, int]
"""(command, index, term), as PySyncObj has them."""

STOP_KIND = b"\x10"
"""First byte of a stop-sign's command; PySyncObj's own kinds end at 3."""
MACHINE_FOLDER = "catalog"
"""Where the state machine lies until a snapshot is received."""
TRIM_BYTES = 64 * 1024


def first_folder(group: int) -> str:
    """Where the state machine of a group lies until a snapshot is received."""
    return MACHINE_FOLDER if group == 0 else f"{MACHINE_FOLDER}-{group}"


def machine_folder(journal: Journal, group: int = 0) -> str:
    """The folder that the state machine of a group is to be opened from: what the newest SNAPSHOT record names."""
    folder, index = first_folder(group), -1
    for record in journal.records(group):
        if record.kind is RecordKind.SNAPSHOT and record.index >= index:
            folder, index = decoded(record, SnapshotRecord).folder, record.index
    return folder


class Recovery:
    """See the module. `applied_index`: what the state machine contains; of older entries `kept_bytes` stay."""

    def __init__(
        self, records: Iterable[JournalRecord], applied_index: int, kept_bytes: int, folder: str = MACHINE_FOLDER
    ) -> None:
        self.applied_index, self._kept_bytes = max(1, applied_index), kept_bytes
        self.term, self.vote = 0, ""
        self.incarnation, self.members = 0, ()  # type: tuple[int, tuple[Member, ...]]
        self.stop_index = 0
        self.folder = folder
        self.entries: list[LogEntry] = []
        self._base = (0, 0)
        self._front = (1, 0)
        self._first_index = self._last_index = 0
        self._old_bytes = 0
        self._incarnation_seen = 0
        self._stops: dict[int, StopSign] = {}
        self._followed: set[int] = set()
        for record in records:
            self._take(record)
        self._begin_behind_stops()
        self._check(applied_index)
        self.term = max(self.term, first_term(self.incarnation))
        self.entries = self._with_base()

    def _take(self, record: JournalRecord) -> None:
        self._incarnation_seen = max(self._incarnation_seen, record.incarnation)
        if record.kind is RecordKind.ENTRY:
            self._take_entry(record)
        elif record.kind is RecordKind.TRUNCATE:
            self._cut(record.index)
        elif record.kind is RecordKind.HARD_STATE:
            vote = record.payload.decode()
            if record.term > self.term or (record.term == self.term and vote):
                self.term, self.vote = record.term, vote
        elif record.kind is RecordKind.MEMBERS:
            members = decoded(record, MembersRecord).members
            if record.incarnation >= self.incarnation and not self.stop_index:
                self.incarnation, self.members = record.incarnation, members
        elif record.kind is RecordKind.SNAPSHOT:
            self._take_snapshot(record)
        elif record.kind is RecordKind.STOP_SIGN:
            stop = decoded(record, StopSignRecord)
            self._begin(record.index, stop.next_incarnation, stop.members)

    def _take_entry(self, record: JournalRecord) -> None:
        if incarnation_of(record.term) < self.incarnation and record.index > self.stop_index:
            return  # it lay behind the stop-sign
        last_index = max(self._last_index, self._base[0])
        if not self._first_index:
            self._first_index = record.index
        elif record.index != last_index + 1 and record.index != self._last_index + 1:
            raise Corrupt(f"the journal has no entry {last_index + 1}", index=last_index + 1)
        if self._last_index and record.index > self._last_index + 1:  # behind a snapshot that was received
            self.entries.clear()
            self._old_bytes, self._first_index = 0, record.index
        self._last_index = record.index
        if record.payload[:1] == STOP_KIND:
            self._stops[record.index] = _stop_sign(record)
        elif incarnation_of(record.term) > self.incarnation and record.index - 1 in self._stops:
            self._followed.add(record.index - 1)
        self.entries.append((record.payload, record.index, record.term))
        if record.index <= self.applied_index:
            self._old_bytes += len(record.payload)
            if self._old_bytes > 2 * self._kept_bytes + TRIM_BYTES:
                self._trim()

    def _trim(self) -> None:
        """Of entries that the state machine contains the newest stay."""
        count = 0
        while self._old_bytes > self._kept_bytes and count < len(self.entries) - 1:
            self._old_bytes -= len(self.entries[count][0])
            count += 1
        if count:
            self._front = self.entries[count - 1][1:]
            del self.entries[:count]

    def _take_snapshot(self, record: JournalRecord) -> None:
        snapshot = decoded(record, SnapshotRecord)
        if (record.index, record.term) >= self._base:
            self._base, self.folder = (record.index, record.term), snapshot.folder
        if record.incarnation > self.incarnation:
            self._begin(record.index, record.incarnation, snapshot.members)

    def _begin(self, stop_index: int, incarnation: int, members: tuple[Member, ...]) -> None:
        if incarnation > self.incarnation or (incarnation == self.incarnation and not self.stop_index):
            self.incarnation, self.members, self.stop_index = incarnation, members, stop_index
            behind = bisect_left(self.entries, stop_index + 1, key=lambda entry: entry[1])
            if behind < len(self.entries) and incarnation_of(self.entries[behind][2]) < incarnation:
                self._cut(stop_index + 1)

    def _begin_behind_stops(self) -> None:
        """A stop-sign that is in the log to stay may not have its own record yet: the state machine contains it, or
        entries of the next incarnation follow it, so it was committed."""
        for index in sorted(self._stops):
            if index <= self.applied_index or index in self._followed:
                self._begin(index, self._stops[index].next_incarnation, self._stops[index].members)

    def _cut(self, index: int) -> None:
        for stop_index in [known for known in self._stops if known >= index]:
            del self._stops[stop_index]
        self._followed = {known for known in self._followed if known + 1 < index}
        at = bisect_left(self.entries, index, key=lambda entry: entry[1])
        self._old_bytes -= sum(len(entry[0]) for entry in self.entries[at:] if entry[1] <= self.applied_index)
        del self.entries[at:]
        self._last_index = min(self._last_index, index - 1)

    def _with_base(self) -> list[LogEntry]:
        """The log that PySyncObj compares with: `entries[0]` is the last entry before it, by index and term alone."""
        at = bisect_left(self.entries, self.applied_index + 1, key=lambda entry: entry[1])
        old, new = self.entries[:at], self.entries[at:]
        if old and old[-1][1] < self.applied_index:  # a snapshot was received, and they lie before it
            old, self._old_bytes = [], 0
        count = 0
        while count < len(old) and self._old_bytes > self._kept_bytes:
            self._old_bytes -= len(old[count][0])
            self._front = old[count][1:]
            count += 1
        del old[:count]
        if not old:
            known = [place for place in (self._front, self._base) if place[0] == self.applied_index]
            term = known[0][1] if known else 0
            return [(b"", self.applied_index, term), *new]
        for index, term in (self._front, self._base):
            if index == old[0][1] - 1:
                return [(b"", index, term), *old, *new]
        return [(b"", *old[0][1:]), *old[1:], *new]

    def _check(self, applied_index: int) -> None:
        if self._incarnation_seen > self.incarnation:
            raise Corrupt(
                f"the journal goes on in incarnation {self._incarnation_seen} of its group, and does not say who its "
                "members are: journal files are missing, or another version wrote it",
                incarnation=self._incarnation_seen,
            )
        last_index = max(self._base[0], self._last_index)
        if applied_index > max(1, last_index):
            message = (
                f"the catalog is at entry {applied_index}, ahead of its journal, which ends at {last_index}: "
                "journal files are missing. Restore them from a copy, or use `edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, last_index=last_index)
        first = self._first_index or self._base[0] + 1
        if max(1, applied_index) < first - 1 or (applied_index < self._base[0] and self._last_index < self._base[0]):
            message = (
                f"the catalog is at entry {applied_index}, and the journal begins at {first}: journal files are "
                "missing, or the catalog is an old copy. Restore both from one copy, or use "
                "`edgestore doctor --salvage`"
            )
            raise Corrupt(message, applied_index=applied_index, first_index=first)


def _stop_sign(record: JournalRecord) -> StopSign:
    try:
        return decode(record.payload[len(STOP_KIND) :], StopSign)
    except ValueError as error:
        raise Corrupt(f"the stop-sign at entry {record.index} does not decode: {error}", index=record.index) from error


def decoded(record: JournalRecord, kind: type[T]) -> T:
    """The content of a control record. Raises Corrupt."""
    try:
        return msgspec.msgpack.decode(record.payload, type=kind)
    except msgspec.MsgspecError as error:
        message = f"a {record.kind.name} record of the journal does not decode: {error}; another version wrote it"
        raise Corrupt(message) from error
