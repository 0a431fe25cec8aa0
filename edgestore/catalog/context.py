"""What an operation works with while it is applied: the transaction, the entry's header, and the counts it moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.catalog import rows
from edgestore.catalog.keys import Table, number, row
from edgestore.catalog.state import State
from edgestore.catalog.view import Transaction
from edgestore.records import BucketRecord, BucketUsage


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
    moved: list[tuple[BucketRecord, int, int, int]] = field(default_factory=list)
    totals: dict[int, tuple[BucketRecord, int, int, int]] = field(default_factory=dict)

    def put(self, table: Table, tenant: int, rest: bytes, value: bytes) -> None:
        """Sets a row."""
        self.transaction.put(row(self.group, table, tenant, rest), value)

    def delete(self, table: Table, tenant: int, rest: bytes) -> None:
        """Removes a row."""
        self.transaction.delete(row(self.group, table, tenant, rest))

    def get(self, table: Table, tenant: int, rest: bytes) -> bytes | None:
        """Reads a row."""
        return self.transaction.get(row(self.group, table, tenant, rest))

    def move(self, bucket: BucketRecord, *, current: int = 0, versions: int = 0, size_bytes: int = 0) -> None:
        """Moves the counts of a bucket (rule 7)."""
        self.moved.append((bucket, current, versions, size_bytes))

    def keep(self) -> None:
        """The operation succeeded."""
        self.transaction.keep()
        for bucket, current, versions, size_bytes in self.moved:
            _, a, b, c = self.totals.get(bucket.bucket_id, (bucket, 0, 0, 0))
            self.totals[bucket.bucket_id] = (bucket, a + current, b + versions, c + size_bytes)
        self.moved.clear()

    def forget(self, site: rows.SiteRecord) -> None:
        """The operation failed: as if it had never been."""
        self.transaction.forget()
        self.moved.clear()
        self.site = site

    def write_usage(self) -> None:
        """Writes the counts of the whole entry, one row a bucket."""
        for bucket, current, versions, size_bytes in self.totals.values():
            rest = number(bucket.bucket_id)
            if self.get(Table.BUCKETS, 0, rest) is None:
                continue  # deleted by a later operation of the entry
            before = self.state.usage(bucket)
            after = BucketUsage(
                before.current_objects + current, before.versions + versions, before.size_bytes + size_bytes, 0
            )
            self.put(Table.USAGE, bucket.owner, rest, rows.encode(after))
        self.transaction.keep()
