"""Bugs planted on purpose: each breaks one safety rule, and the simulator must catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from edgestore.catalog import apply, commands, extents
from edgestore.catalog.keys import Table, row
from edgestore.consensus import core as consensus_core
from edgestore.disk import journal_frames, journal_recovery, segment_recovery
from edgestore.disk.segment_keeper import SegmentKeeper
from tests.sim.disk import SimFile, SimIndex


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


BUGS: tuple[Callable[[], Any], ...] = (
    acknowledged_before_fsync,
    fragments_named_before_fsync,
    applied_ahead_of_the_journal,
    journal_trimmed_before_the_flush,
    chunk_in_flight_reclaimed,
    counts_and_names_in_two_steps,
    torn_tail_served,
    torn_copy_counts,
)
