"""A catalog on a sorted dict, driven entry by entry, and short ways to make its commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sortedcontainers import SortedDict

from edgestore.catalog import Applier, State, commands
from edgestore.errors import EdgeStoreError
from edgestore.records import BucketRecord, ChunkRef, Condition, Versioning, VersionRecord

OWNER = 7
SESSION = 41
CHUNK_BYTES = 1000


class MemoryStore:
    """The dumbest ordered store. `batches` counts the writes."""

    def __init__(self) -> None:
        self.rows: SortedDict[bytes, bytes] = SortedDict()
        self.batches = 0

    def get(self, key: bytes, /) -> bytes | None:
        return self.rows.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in self.rows.irange(start, stop, inclusive=(True, False)):
            yield key, self.rows[key]

    def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        self.batches += 1
        for key, value in changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


class Site:
    """One catalog: `do` applies one command in an entry of its own and raises its error."""

    def __init__(self, *, cache_bytes: int = 0) -> None:
        self.store = MemoryStore()
        self.applier = Applier(self.store, cache_bytes=cache_bytes)
        self.entries: list[bytes] = []
        self.sequence = 0
        self.time_ms = 1_000_000
        self.do(commands.FoundSite(b"0123456789abcdef", 3))
        self.writer: int = self.do(commands.RegisterWriter("node")).writer
        self.number = 0

    @property
    def state(self) -> State:
        return self.applier.state

    def operation(self, command: commands.Command, *, settled: int = 0) -> commands.Operation:
        self.sequence += 1
        return commands.Operation(SESSION, self.sequence, settled, self.time_ms, OWNER, command)

    def apply(self, *operations: commands.Operation) -> list[Any]:
        """One entry."""
        entry = commands.Entry(commands.FEATURE_LEVEL, 0, 0, self.time_ms, operations)
        self.entries.append(commands.encode_entry(entry))
        return self.applier.apply(len(self.entries), 1, self.entries[-1])

    def all(self, *several: commands.Command) -> list[Any]:
        """One entry of several commands; their outcomes."""
        settled = self.sequence + 1
        return self.apply(*(self.operation(command, settled=settled) for command in several))

    def do(self, command: commands.Command) -> Any:
        (outcome,) = self.all(command)
        if isinstance(outcome, EdgeStoreError):
            raise outcome
        return outcome

    def reopen(self) -> None:
        """A restart: what is in RAM is read again from the rows."""
        self.applier = Applier(self.store)

    def bucket(self, name: str = "bucket", *versioning: Versioning) -> BucketRecord:
        made: BucketRecord = self.do(commands.CreateBucket(name, OWNER, self.time_ms, "us-east-1"))
        for one in versioning:
            made = self.do(commands.SetVersioning(made.bucket_id, one))
        return made

    def chunk(self, size_bytes: int = CHUNK_BYTES) -> ChunkRef:
        self.number += 1
        return ChunkRef(self.writer, self.number, size_bytes)

    def extent(self, chunks: int = 1) -> commands.NewExtent:
        taken = tuple(self.chunk() for _ in range(chunks))
        return commands.NewExtent(taken[0].chunk_id, taken, sum(chunk.size_bytes for chunk in taken))

    def content(self, *extents: commands.NewExtent, etag: str = "") -> commands.Content:
        """Of extents; one of one chunk where none is given."""
        given = extents or (self.extent(),)
        return commands.Content(
            sum(extent.size_bytes for extent in given), etag or f"etag{self.number}", (), b"", given
        )

    def put(
        self, bucket: BucketRecord, key: str, content: commands.Content | None = None, condition: Condition = None
    ) -> VersionRecord:
        made: VersionRecord = self.do(put(bucket, key, content or inline(b"body"), condition))
        return made

    def delete(
        self,
        bucket: BucketRecord,
        key: str,
        version: tuple[int, ...] | None = None,
        condition: Condition = None,
    ) -> commands.Deleted:
        deleted: commands.Deleted = self.do(
            commands.DeleteObject(bucket.bucket_id, key, OWNER, self.time_ms, version, condition)
        )
        return deleted

    def upload(self, bucket: BucketRecord, key: str, upload_id: str) -> None:
        self.do(commands.CreateUpload(bucket.bucket_id, key, upload_id, OWNER, self.time_ms))

    def part(self, bucket: BucketRecord, key: str, upload_id: str, number: int, content: commands.Content) -> None:
        self.do(commands.PutPart(bucket.bucket_id, key, upload_id, number, self.time_ms, content))

    def complete(self, bucket: BucketRecord, key: str, upload_id: str, *parts: tuple[int, str]) -> VersionRecord:
        made: VersionRecord = self.do(
            commands.CompleteUpload(bucket.bucket_id, key, upload_id, parts, f"whole-{len(parts)}", self.time_ms)
        )
        return made

    def run_drops(self, *, pieces_max: int = 256) -> int:
        """Ends all drop jobs; how many commands that took."""
        turns = 0
        while jobs := self.state.drop_jobs(1):
            self.do(commands.ContinueDrop(jobs[0], pieces_max))
            turns += 1
        return turns


def inline(body: bytes, etag: str = "") -> commands.Content:
    return commands.Content(len(body), etag or f"etag-{len(body)}", (), body)


def put(
    bucket: BucketRecord, key: str, content: commands.Content, condition: Condition = None, *, time_ms: int = 5_000
) -> commands.PutObject:
    return commands.PutObject(bucket.bucket_id, key, OWNER, time_ms, content, condition=condition)


def place(record: VersionRecord) -> tuple[int, ...]:
    """How commands name a version."""
    return () if record.is_null else (record.site_incarnation, record.log_index, record.position)
