"""The entries that a damaged journal still holds: for salvage, never for a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgestore.consensus.applying import REGULAR
from edgestore.consensus.recovery import decoded, first_folder
from edgestore.disk import Files, JournalRecord, RecordKind, salvage_records
from edgestore.errors import Corrupt
from edgestore.records import SnapshotRecord

FIRST_INDEX = 2
"""PySyncObj's own first entry is never written."""


def salvage_folder(files: Files, folder: str, group: int = 0) -> str:
    """Where the state machine lies, as far as the journal in `folder` still tells."""
    found, newest = first_folder(group), -1
    for record in salvage_records(files, folder, group):
        if record.kind is RecordKind.SNAPSHOT and record.index >= newest:
            try:
                found, newest = decoded(record, SnapshotRecord).folder, record.index
            except Corrupt:
                continue
    return found


def salvage_entries(
    files: Files, folder: str, applied_index: int, on_gap: Callable[[int, int], None], group: int = 0
) -> Iterator[tuple[int, int, bytes]]:
    """(index, term, entry of the catalog) in the order of the indices, which may leave gaps.

    A later record of an index makes the earlier ones from that index on void, as in the log; so does a truncation.
    `on_gap(first, last)` hears of every range of indices that is missing behind what the catalog holds; the last one
    may be missing at its end too, which no index tells.
    """
    kept: list[tuple[int, int]] = []
    for place, record in enumerate(salvage_records(files, folder, group)):
        if record.kind in (RecordKind.ENTRY, RecordKind.TRUNCATE):
            while kept and kept[-1][0] >= record.index:
                kept.pop()
        if record.kind is RecordKind.ENTRY:
            kept.append((record.index, place))
    wanted = {place for _, place in kept}
    expected = max(FIRST_INDEX, applied_index + 1)
    for index, _ in kept:
        if index > expected:
            on_gap(expected, index - 1)
        expected = max(expected, index + 1)
    for place, record in enumerate(salvage_records(files, folder, group)):
        if place in wanted and _has_operations(record):
            yield record.index, record.term, record.payload[len(REGULAR) :]


def _has_operations(record: JournalRecord) -> bool:
    return record.payload[: len(REGULAR)] == REGULAR and len(record.payload) > len(REGULAR)
