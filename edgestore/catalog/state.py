"""The read side of the catalog: what was applied, as records.

Rule: nothing here changes anything; a method that names something raises the NotFound of its kind.
"""

from __future__ import annotations

from itertools import islice

from edgestore.catalog import rows
from edgestore.catalog.keys import (
    ORDER_BYTES,
    PREFIX_BYTES,
    TENANT_BYTES,
    Table,
    escape,
    head_row,
    inline_row,
    number,
    order,
    row,
    successor,
)
from edgestore.catalog.row_cache import RECORD_FACTOR, RowCache
from edgestore.catalog.site_state import LayoutCache, SiteState
from edgestore.catalog.view import OrderedView
from edgestore.errors import Corrupt, NoSuchBucket, NoSuchUpload
from edgestore.records import (
    SITE_TENANT,
    BucketRecord,
    BucketUsage,
    ExtentRecord,
    ExtentSpan,
    KeyRecord,
    PartRecord,
    TenantRecord,
    UploadRecord,
    VersionRecord,
    WriterRecord,
)

BUCKETS_CACHED_MAX = 4096
PART_NUMBER_MAX = 10_000


class BucketCache:
    """Bucket records in RAM; the applier and its readers share one, and empty it when a bucket changes."""

    def __init__(self) -> None:
        self.by_name: dict[str, BucketRecord] = {}
        self.by_id: dict[int, BucketRecord] = {}


class State(SiteState):
    """Reads of one group's rows. Versions are named (site incarnation, log index, position); () is the null version."""

    def __init__(
        self,
        view: OrderedView,
        group: int = 0,
        bucket_cache: BucketCache | None = None,
        row_cache: RowCache | None = None,
        layout_cache: LayoutCache | None = None,
    ) -> None:
        self.view, self.group = view, group
        self.bucket_cache = BucketCache() if bucket_cache is None else bucket_cache
        self.layout_cache = LayoutCache() if layout_cache is None else layout_cache
        self._row_cache = row_cache

    def site(self) -> rows.SiteRecord:
        """What was applied last, and the counters."""
        data = self.view.get(row(self.group, Table.SITE, SITE_TENANT))
        return rows.site(data) if data is not None else rows.SiteRecord()

    def forget_buckets(self) -> None:
        """Called when a bucket changes."""
        self.bucket_cache.by_name.clear()
        self.bucket_cache.by_id.clear()

    def bucket(self, name: str) -> BucketRecord:
        """Raises NoSuchBucket."""
        found = self.bucket_cache.by_name.get(name)
        if found is not None:
            return found
        data = self.view.get(row(self.group, Table.BUCKET_NAMES, SITE_TENANT, name.encode()))
        if data is None:
            raise NoSuchBucket(f"there is no bucket {name!r}", bucket=name)
        found = rows.bucket(data)
        if len(self.bucket_cache.by_name) >= BUCKETS_CACHED_MAX:
            self.forget_buckets()
        self.bucket_cache.by_name[name] = self.bucket_cache.by_id[found.bucket_id] = found
        return found

    def bucket_by_id(self, bucket_id: int) -> BucketRecord:
        """Raises NoSuchBucket."""
        found = self.bucket_cache.by_id.get(bucket_id)
        if found is not None:
            return found
        data = self.view.get(row(self.group, Table.BUCKETS, SITE_TENANT, number(bucket_id)))
        if data is None:
            raise NoSuchBucket("the bucket was deleted", bucket_id=bucket_id)
        return self.bucket(data.decode())

    def buckets(self, owner: int | None = None) -> list[BucketRecord]:
        """All of them, or those of an owner, by name."""
        found = [rows.bucket(value) for _, value in self._table(Table.BUCKET_NAMES)]
        return found if owner is None else [bucket for bucket in found if bucket.owner == owner]

    def usage(self, bucket: BucketRecord) -> BucketUsage:
        """Counts of a bucket."""
        data = self.view.get(row(self.group, Table.USAGE, bucket.owner, number(bucket.bucket_id)))
        return rows.usage(data) if data is not None else BucketUsage()

    def head(self, bucket: BucketRecord, key: str) -> VersionRecord | None:
        """The current version; None also under a delete marker."""
        at = head_row(self.group, bucket.owner, bucket.bucket_id, key)
        cache = self._row_cache
        if cache is not None and (kept := cache.rows.get(at)) is not None:
            return kept  # type: ignore[no-any-return]
        data = self.view.get(at)
        if data is None:
            return None
        found = rows.version(data)
        if cache is not None:
            cache.keep(at, found, RECORD_FACTOR * len(data))
        return found

    def version(self, bucket: BucketRecord, key: str, version: tuple[int, ...]) -> VersionRecord | None:
        """One version, delete markers too."""
        head = self.head(bucket, key)
        if head is not None and is_version(head, version):
            return head
        at = version[1:] if version else self._null(bucket, key)
        if at is None or len(at) != 2:
            return None
        data = self.view.get(version_row(self.group, bucket, key, at[0], at[1]))
        found = rows.version(data) if data is not None else None
        return found if found is not None and is_version(found, version) else None

    def newest(self, bucket: BucketRecord, key: str) -> VersionRecord | None:
        """The newest version, delete markers too."""
        return self.head(bucket, key) or newest_row(self.view, self.group, bucket, key)

    def _null(self, bucket: BucketRecord, key: str) -> tuple[int, int] | None:
        data = self.view.get(row(self.group, Table.NULLS, bucket.owner, number(bucket.bucket_id) + key.encode()))
        return rows.position(data) if data is not None else None

    def inline(self, bucket: BucketRecord, record: VersionRecord) -> bytes:
        """The body of an inline version; empty where a delete came between."""
        at = inline_row(self.group, bucket.owner, bucket.bucket_id, record.log_index, record.position)
        cache = self._row_cache
        if cache is not None and (kept := cache.rows.get(at)) is not None:
            return kept  # type: ignore[no-any-return]
        body = self.view.get(at) or b""
        if cache is not None:
            cache.keep(at, body, len(body))
        return body

    def extent(self, tenant: int, extent_id: bytes) -> ExtentRecord | None:
        """One extent."""
        data = self.view.get(row(self.group, Table.EXTENTS, tenant, extent_id))
        return rows.extent(data) if data is not None else None

    def extents(self, tenant: int, spans: tuple[ExtentSpan, ...]) -> list[ExtentRecord | None]:
        """The extents that the spans name; None for one that went."""
        return [self.extent(tenant, span.extent_id) for span in spans]

    def upload(self, bucket: BucketRecord, key: str, upload_id: str) -> UploadRecord:
        """Raises NoSuchUpload, also for what is no upload id."""
        data = self.view.get(upload_row(self.group, bucket, key, upload_id))
        if data is None:
            raise NoSuchUpload(
                "there is no such upload: it was completed, aborted, or never begun", upload_id=upload_id
            )
        return rows.upload(data)

    def parts(self, bucket: BucketRecord, upload_id: str, *, after: int = 0, limit: int = 10_000) -> list[PartRecord]:
        """Parts with a number above `after`, at most `limit`."""
        if after >= PART_NUMBER_MAX:
            return []
        prefix = row(self.group, Table.PARTS, bucket.owner, upload_bytes(upload_id))
        found = self.view.scan(prefix + (max(after, 0) + 1).to_bytes(2, "big"), successor(prefix))
        return [rows.part(value) for _, value in islice(found, limit)]

    def part(self, bucket: BucketRecord, upload_id: str, number: int) -> PartRecord | None:
        """One part."""
        if not 1 <= number <= PART_NUMBER_MAX:
            return None
        data = self.view.get(part_row(self.group, bucket, upload_id, number))
        return rows.part(data) if data is not None else None

    def writer(self, writer: int) -> WriterRecord | None:
        """An open writer."""
        data = self.view.get(row(self.group, Table.WRITERS, SITE_TENANT, number(writer)))
        return rows.writer(data) if data is not None else None

    def is_condemned(self, chunk_id: bytes) -> bool:
        """Whether the chunk waits for its fragments to be deleted."""
        return self.view.get(row(self.group, Table.CONDEMNED, SITE_TENANT, chunk_id)) is not None

    def names_chunk(self, chunk_id: bytes) -> bool:
        """Whether an extent names the chunk."""
        return self.view.get(row(self.group, Table.CHUNKS, SITE_TENANT, chunk_id)) is not None

    def extent_of_chunk(self, chunk_id: bytes) -> tuple[int, ExtentRecord] | None:
        """(tenant, extent) that names the chunk: the way back, for repair and scrub. None: nothing names it."""
        data = self.view.get(row(self.group, Table.CHUNKS, SITE_TENANT, chunk_id))
        if data is None:
            return None
        extent_id, tenant = data[:-TENANT_BYTES], int.from_bytes(data[-TENANT_BYTES:], "big")
        extent = self.extent(tenant, extent_id)
        if extent is None:
            raise Corrupt(f"chunk {chunk_id.hex()} is named by an extent that is missing", extent_id=extent_id.hex())
        return tenant, extent

    def condemned(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        """(chunk id, index at which it was condemned) by id, at most `limit` of those behind the id `after`."""
        prefix = row(self.group, Table.CONDEMNED, SITE_TENANT)
        found = islice(self.view.scan(prefix + after + b"\0" * bool(after), successor(prefix)), limit)
        return [(key[PREFIX_BYTES:], int.from_bytes(value, "big")) for key, value in found]

    def drop_jobs(self, limit: int) -> list[bytes]:
        """Ids of unfinished drop jobs."""
        return [key[PREFIX_BYTES:] for key, _ in islice(self._table(Table.DROPS), limit)]

    def tenant(self, tenant_id: int) -> TenantRecord | None:
        """An owner."""
        data = self.view.get(row(self.group, Table.TENANTS, SITE_TENANT, number(tenant_id)))
        return rows.tenant(data) if data is not None else None

    def tenants(self) -> list[TenantRecord]:
        """All owners."""
        return [rows.tenant(value) for _, value in self._table(Table.TENANTS)]

    def access_keys(self) -> list[KeyRecord]:
        """All key pairs."""
        return [rows.access_key(value) for _, value in self._table(Table.ACCESS_KEYS)]


def is_version(record: VersionRecord, version: tuple[int, ...]) -> bool:
    """Whether the record is the version named; () names the null version."""
    if not version:
        return record.is_null
    return version == (record.site_incarnation, record.log_index, record.position) and not record.is_null


def version_row(group: int, bucket: BucketRecord, key: str, index: int, position: int) -> bytes:
    """The key of a version that is not the head."""
    rest = number(bucket.bucket_id) + escape(key.encode()) + order(index, position)
    return row(group, Table.VERSIONS, bucket.owner, rest)


def upload_bytes(upload_id: str) -> bytes:
    """The 16 bytes of an upload id; 16 zero bytes, which no upload has, for what is none."""
    try:
        data = bytes.fromhex(upload_id) if upload_id.isascii() and len(upload_id) == 32 else b""
    except ValueError:
        data = b""
    return data.rjust(16, b"\0")


def upload_row(group: int, bucket: BucketRecord, key: str, upload_id: str) -> bytes:
    """The key of an upload."""
    rest = number(bucket.bucket_id) + escape(key.encode()) + upload_bytes(upload_id)
    return row(group, Table.UPLOADS, bucket.owner, rest)


def part_row(group: int, bucket: BucketRecord, upload_id: str, part: int) -> bytes:
    """The key of a part."""
    return row(group, Table.PARTS, bucket.owner, upload_bytes(upload_id) + part.to_bytes(2, "big"))


def newest_row(view: OrderedView, group: int, bucket: BucketRecord, key: str) -> VersionRecord | None:
    """The newest version that is not the head."""
    prefix = row(group, Table.VERSIONS, bucket.owner, number(bucket.bucket_id) + escape(key.encode()))
    for _, value in view.scan(prefix, prefix + b"\xff" * (ORDER_BYTES + 1)):
        return rows.version(value)
    return None
