"""Applying entries out of a damaged log to a copy of the catalog: what is missing is passed over (salvage only)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edgestore.catalog import commands, rows
from edgestore.catalog.apply import Applier
from edgestore.catalog.keys import Table, number, row
from edgestore.catalog.view import OrderedStore
from edgestore.errors import NoSuchBucket
from edgestore.records import SITE_TENANT, BucketRecord, WriterRecord


class GapApplier:
    """An applier that goes on behind a gap, with stand-ins for buckets and writers that were made in it."""

    def __init__(self, applier: Applier, store: OrderedStore) -> None:
        self._applier, self._store = applier, store
        self._has_gap = False

    def apply(self, index: int, term: int, payload: bytes) -> None:
        """Applies one entry; what fails of it changes nothing. Raises Corrupt for an entry that does not decode."""
        site = self._applier.site
        if index <= site.index:
            return
        if index != site.index + 1:  # a leader's first entries carry nothing, and are not handed in
            self._has_gap = True
            self._applier.judges_fragments = False
            self._applier.site = msgspec.structs.replace(site, index=index - 1)
        if self._has_gap:
            self._stand_in(payload)
        self._applier.apply(index, term, payload)

    def _stand_in(self, payload: bytes) -> None:
        try:
            entry = commands.decode_entry(payload)
        except (ValueError, msgspec.MsgspecError):
            return  # apply says so
        self._take_header(entry)
        changes: list[tuple[bytes, bytes | None]] = []
        for operation in entry.operations:
            command = operation.command
            bucket_id = getattr(command, "bucket_id", 0)
            if bucket_id and not isinstance(command, commands.DeleteBucket) and self._lacks_bucket(bucket_id):
                owner = getattr(command, "owner", operation.tenant)
                bucket = BucketRecord(bucket_id, f"lost-bucket-{bucket_id}", owner, 0)
                name = bucket.name.encode()
                changes.append((row(0, Table.BUCKET_NAMES, SITE_TENANT, name), rows.encode(bucket)))
                changes.append((row(0, Table.BUCKETS, SITE_TENANT, number(bucket_id)), name))
            for writer in _writers(command):
                if self._applier.state.writer(writer) is None:
                    record = WriterRecord(writer, "lost", 0)
                    changes.append((row(0, Table.WRITERS, SITE_TENANT, number(writer)), rows.encode(record)))
        if changes:
            self._store.write(changes)
            self._applier.state.forget_buckets()

    def _take_header(self, entry: commands.Entry) -> None:
        """A stop-sign or a rise of the feature level may lie in the gap."""
        site = self._applier.site
        self._applier.site = msgspec.structs.replace(
            site,
            incarnation=max(site.incarnation, entry.incarnation),
            feature_level=max(site.feature_level, entry.feature_level),
        )

    def _lacks_bucket(self, bucket_id: int) -> bool:
        try:
            self._applier.state.bucket_by_id(bucket_id)
        except NoSuchBucket:
            return True
        return False


def _writers(command: commands.Command) -> Iterator[int]:
    """Of the chunks that the command names for the first time."""
    if isinstance(command, commands.SwapExtent):
        yield from {chunk.writer for chunk in command.chunks}
    if isinstance(command, commands.PutObject | commands.PutPart):
        for extent in command.content.extents:
            yield from {chunk.writer for chunk in extent.chunks}
