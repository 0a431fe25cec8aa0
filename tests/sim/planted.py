"""Bugs planted on purpose: each breaks one safety rule, and the simulator must catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import msgspec

from edgestore.catalog import apply, commands, extents
from edgestore.catalog.keys import Table, row
from edgestore.catalog.memory import OperationMemory
from edgestore.chunks.numbers import ChunkNumbers
from edgestore.chunks.reclaim import Pins
from edgestore.consensus import core as consensus_core
from edgestore.disk import Segments, journal_frames, journal_recovery, segment_recovery
from edgestore.disk.files import File
from edgestore.disk.readable import ReadableFile
from edgestore.disk.segment_keeper import SegmentKeeper
from edgestore.disk.segment_recovery import Recovery
from edgestore.errors import DiskFailed
from tests.sim import world
from tests.sim.disk import SimFile
from tests.sim.index import SimIndex
from tests.sim.model import Damaged, Lost, Miscounted, Refused, Violation


@contextmanager
def acknowledged_before_fsync() -> Iterator[None]:
    """Rule 1: the journal never syncs."""
    sync = SimFile.sync

    def planted(self: SimFile) -> None:
        if not self.path.startswith("journal/"):
            sync(self)

    with mock.patch.object(SimFile, "sync", planted):
        yield


@contextmanager
def fragments_named_before_fsync() -> Iterator[None]:
    """Rule 1: segments never sync."""
    sync = SimFile.sync

    def planted(self: SimFile) -> None:
        if not self.path.startswith("segments/"):
            sync(self)

    with mock.patch.object(SimFile, "sync", planted):
        yield


@contextmanager
def applied_ahead_of_the_journal() -> Iterator[None]:
    """Rule 2: a member counts itself, and applies, before its own sync."""
    advance = consensus_core.Core._advance_commit

    def planted(self: consensus_core.Core) -> None:
        self._raft_journal.synced_index = self._raft_journal.entries[-1][1]
        advance(self)

    with mock.patch.object(consensus_core.Core, "_advance_commit", planted):
        yield


@contextmanager
def journal_trimmed_before_the_flush() -> Iterator[None]:
    """Rule 2: the journal goes although the catalog was not flushed."""
    with mock.patch.object(SimIndex, "flush", lambda self: None):
        yield


@contextmanager
def chunk_in_flight_reclaimed() -> Iterator[None]:
    """Rule 6: a chunk of an open writer is taken for garbage."""

    def planted(context: Any, command: Any) -> list[bytes]:
        for chunk_id in command.chunk_ids:
            extents._condemn(context, chunk_id)
        return list(command.chunk_ids)

    with mock.patch.dict(apply.HANDLERS, {commands.CondemnChunks: planted}):
        yield


@contextmanager
def counts_and_names_in_two_steps() -> Iterator[None]:
    """Rule 7: the counts of a bucket are written after its names."""
    write = SimIndex.write

    def planted(self: SimIndex, changes: Any) -> None:
        counts = row(0, Table.USAGE, 1)[:3]
        write(self, [change for change in changes if not change[0].startswith(counts)])
        rest = [change for change in changes if change[0].startswith(counts)]
        if rest:
            write(self, rest)

    with mock.patch.object(SimIndex, "write", planted):
        yield


@contextmanager
def torn_tail_served() -> Iterator[None]:
    """Rule 5: frames are not checked."""
    with (
        mock.patch.object(journal_frames, "crc32c", lambda data, value=0: 0),
        mock.patch.object(journal_recovery, "find_frames", lambda *_: iter(())),
    ):
        yield


@contextmanager
def torn_copy_counts() -> Iterator[None]:
    """Rule 1: compaction seals a copy before its data is synced, and recovery takes it without looking."""

    async def planted(self: SegmentKeeper, opened: object) -> None:
        return

    with (
        mock.patch.object(SegmentKeeper, "_sync_data", planted),
        mock.patch.object(segment_recovery, "is_whole", lambda file, info: True),
    ):
        yield


@contextmanager
def reclaimed_under_a_pin() -> Iterator[None]:
    """Rule 6: a condemned chunk goes although a reader has begun with it."""
    with mock.patch.object(Pins, "lowest", lambda self, otherwise: otherwise):
        yield


@contextmanager
def named_below_the_low_water_mark() -> Iterator[None]:
    """Rule 6: the mark passes chunks whose naming is under way, and naming does not look at it."""
    with (
        mock.patch.object(ChunkNumbers, "low_water", lambda self: self._next),
        mock.patch.object(extents, "_check_fresh", lambda *_: None),
    ):
        yield


@contextmanager
def proposed_twice() -> Iterator[None]:
    """No bug: every operation is in its entry twice, and the operation ids keep the second one from being applied."""
    apply_entry = apply.Applier._apply_entry

    def planted(self: apply.Applier, index: int, term: int, entry: commands.Entry) -> list[object]:
        twice = msgspec.structs.replace(entry, operations=entry.operations * 2)
        return apply_entry(self, index, term, twice)[: len(entry.operations)]

    with mock.patch.object(apply.Applier, "_apply_entry", planted):
        yield


@contextmanager
def operation_applied_twice() -> Iterator[None]:
    """Rule 9: an operation id that is known does not keep the operation from being applied again."""
    with proposed_twice(), mock.patch.object(OperationMemory, "is_known", lambda *_: False):
        yield


@contextmanager
def copies_are_not_counted() -> Iterator[None]:
    """Rule 7: a copy shares an extent without a reference of its own."""
    with mock.patch.object(extents, "share_extents", lambda *_: None):
        yield


@contextmanager
def damage_taken_for_a_torn_tail() -> Iterator[None]:
    """Rule 5: the journal is cut at damage that lies before what is known to be synced."""
    with mock.patch.object(journal_recovery, "_note_synced", lambda *_: None):
        yield


@contextmanager
def pages_are_not_checked() -> Iterator[None]:
    """Rule 8: stored bytes are served as they are."""
    with mock.patch.object(Segments, "_check_pages", lambda *_: None):
        yield


@contextmanager
def unread_sectors_forgotten() -> Iterator[None]:
    """Rule 8: what a start could not read is never looked for again, and its segment goes. Aims at bad sectors."""
    with mock.patch.object(Recovery, "_note_unreadable", lambda *_: None), mock.patch.object(world, "BAD_SECTORS", 1.0):
        yield


@contextmanager
def unread_journal_taken_for_empty() -> Iterator[None]:
    """Rule 5: a start goes round the sectors of the journal that cannot be read."""

    def planted(file: File, offset: int, length: int) -> bytes:
        return ReadableFile(file).read_at(offset, length)

    with mock.patch.object(journal_recovery, "_read", planted):
        yield


@contextmanager
def failed_sync_acknowledged() -> Iterator[None]:
    """Rule 5: a sync that failed counts."""
    sync = SimFile.sync

    def planted(self: SimFile) -> None:
        with suppress(DiskFailed):
            sync(self)

    with mock.patch.object(SimFile, "sync", planted):
        yield


BUGS: dict[Callable[[], Any], tuple[type[Violation], ...]] = {
    acknowledged_before_fsync: (Lost, Refused, Damaged),
    fragments_named_before_fsync: (Lost, Damaged),
    applied_ahead_of_the_journal: (Lost, Refused),
    journal_trimmed_before_the_flush: (Lost, Refused),
    chunk_in_flight_reclaimed: (Refused, Lost, Damaged, Miscounted),
    counts_and_names_in_two_steps: (Miscounted, Refused),
    torn_tail_served: (Lost, Damaged, Refused),
    torn_copy_counts: (Lost, Damaged),
    reclaimed_under_a_pin: (Lost, Damaged),
    named_below_the_low_water_mark: (Lost, Damaged, Miscounted),
    operation_applied_twice: (Refused, Lost, Miscounted),
    copies_are_not_counted: (Lost, Damaged, Miscounted),
    damage_taken_for_a_torn_tail: (Lost, Refused),
    pages_are_not_checked: (Lost,),
    failed_sync_acknowledged: (Lost, Damaged, Refused),
    unread_sectors_forgotten: (Lost, Damaged),
    unread_journal_taken_for_empty: (Lost, Damaged),
}
"""Each with what it must be caught as: a plant that merely breaks the code is not one."""
