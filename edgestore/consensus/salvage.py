"""The entries that a damaged journal still holds: for salvage, never for a node."""

from __future__ import annotations

from collections.abc import Iterator

from edgestore.consensus.core import REGULAR
from edgestore.disk import Files, JournalRecord, RecordKind, salvage_records


def salvage_entries(files: Files, folder: str, group: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(index, term, entry of the catalog) in the order of the indices, which may leave gaps.

    A later record of an index makes the earlier ones from that index on void, as in the log; so does a truncation.
    """
    kept: list[tuple[int, int]] = []
    for place, record in enumerate(salvage_records(files, folder, group)):
        if record.kind in (RecordKind.ENTRY, RecordKind.TRUNCATE):
            while kept and kept[-1][0] >= record.index:
                kept.pop()
        if record.kind is RecordKind.ENTRY:
            kept.append((record.index, place))
    wanted = {place for _, place in kept}
    for place, record in enumerate(salvage_records(files, folder, group)):
        if place in wanted and _has_operations(record):
            yield record.index, record.term, record.payload[len(REGULAR) :]


def _has_operations(record: JournalRecord) -> bool:
    return record.payload[: len(REGULAR)] == REGULAR and len(record.payload) > len(REGULAR)
