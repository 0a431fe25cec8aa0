"""What an operation works with while it is applied: the transaction, the entry's header, and the counts it moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.catalog import rows
from edgestore.catalog.keys import Table, number, row
from edgestore.catalog.state import State
from edgestore.catalog.view import Transaction
from edgestore.records import SITE_TENANT, BucketRecord, BucketUsage


@dataclass(slots=True)
class Moves:
    """By how much the counts of one bucket move."""

    owner: int
    current: int = 0
    versions: int = 0
    size_bytes: int = 0
    uploads: int = 0


@dataclass(slots=True)
class Context:
    """One operation of one entry. `state` reads through `transaction`."""

    transaction: Transaction
    state: State
    group: int
    index: int
    log_time_ms: int
    site: rows.SiteRecord
    position: int = 0
    drops_begun: int = 0
    buckets_changed: bool = False
    """By any operation of the entry, failed ones too."""
    layout_changed: bool = False
    """As `buckets_changed`."""
    judges_fragments: bool = True
    changed_tables: set[Table] = field(default_factory=set)
    """Of those that can be watched: the rows that few commands change and many hold in RAM."""
    moved: dict[int, Moves] = field(default_factory=dict)
    totals: dict[int, Moves] = field(default_factory=dict)
    epochs_moved: dict[int, int] = field(default_factory=dict)
    """By how much the extents of a layout epoch move, in the operation, and in the entry so far."""
    epoch_totals: dict[int, int] = field(default_factory=dict)

    def put(self, table: Table, tenant: int, rest: bytes, value: bytes) -> None:
        """Sets a row."""
        self.transaction.put(row(self.group, table, tenant, rest), value)

    def delete(self, table: Table, tenant: int, rest: bytes) -> None:
        """Removes a row."""
        self.transaction.delete(row(self.group, table, tenant, rest))

    def get(self, table: Table, tenant: int, rest: bytes) -> bytes | None:
        """Reads a row."""
        return self.transaction.get(row(self.group, table, tenant, rest))

    def change_buckets(self) -> None:
        """A bucket record changes: what the readers hold is no longer it."""
        self.buckets_changed = True
        self.changed_tables.add(Table.BUCKET_NAMES)
        self.state.forget_buckets()

    def change_layout(self, table: Table) -> None:
        """The newest layout or the settings change."""
        self.layout_changed = True
        self.changed_tables.add(table)
        self.state.layout_cache.forget()

    def move_epoch(self, epoch: int, extents: int) -> None:
        """Moves the count of the extents of a layout epoch. Epoch 1 has none: a lone node's writes cost no row more,
        and what it wrote before it was one of several was never counted."""
        if epoch > 1:
            self.epochs_moved[epoch] = self.epochs_moved.get(epoch, 0) + extents

    def move(
        self, bucket: BucketRecord, *, current: int = 0, versions: int = 0, size_bytes: int = 0, uploads: int = 0
    ) -> None:
        """Moves the counts of a bucket (rule 7)."""
        moves = self.moved.get(bucket.bucket_id)
        if moves is None:
            self.moved[bucket.bucket_id] = Moves(bucket.owner, current, versions, size_bytes, uploads)
            return
        moves.current += current
        moves.versions += versions
        moves.size_bytes += size_bytes
        moves.uploads += uploads

    def begin(self, position: int) -> None:
        """The next operation of the entry."""
        self.position, self.drops_begun = position, 0

    def keep(self) -> None:
        """The operation succeeded."""
        self.transaction.keep()
        for bucket_id, moves in self.moved.items():
            total = self.totals.get(bucket_id)
            if total is None:
                self.totals[bucket_id] = moves
                continue
            total.current += moves.current
            total.versions += moves.versions
            total.size_bytes += moves.size_bytes
            total.uploads += moves.uploads
        self.moved.clear()
        if self.epochs_moved:
            for epoch, extents in self.epochs_moved.items():
                self.epoch_totals[epoch] = self.epoch_totals.get(epoch, 0) + extents
            self.epochs_moved.clear()

    def forget(self, site: rows.SiteRecord) -> None:
        """The operation failed: as if it had never been."""
        self.transaction.forget()
        self.moved.clear()
        self.epochs_moved.clear()
        self.site = site
        if self.layout_changed:
            self.state.layout_cache.forget()
        if self.buckets_changed:
            self.state.forget_buckets()

    def write_usage(self) -> None:
        """Writes the counts of the whole entry, one row a bucket and one a layout epoch."""
        for bucket_id, moves in self.totals.items():
            rest = number(bucket_id)
            if self.get(Table.BUCKETS, SITE_TENANT, rest) is None:
                continue  # deleted by a later operation of the entry
            data = self.get(Table.USAGE, moves.owner, rest)
            before = rows.usage(data) if data is not None else BucketUsage()
            after = BucketUsage(
                before.current_objects + moves.current,
                before.versions + moves.versions,
                min(before.size_bytes + moves.size_bytes, rows.NUMBER_MAX),
                before.uploads + moves.uploads,
            )
            self.put(Table.USAGE, moves.owner, rest, rows.encode(after))
        self.totals.clear()
        for epoch, extents in self.epoch_totals.items():
            total = self.state.extents_under(epoch) + extents
            if total > 0:
                self.put(Table.LAYOUT_EXTENTS, SITE_TENANT, number(epoch), number(total))
            else:
                self.delete(Table.LAYOUT_EXTENTS, SITE_TENANT, number(epoch))
        self.epoch_totals.clear()
