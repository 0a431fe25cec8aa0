"""Random commands in random entries: the catalog answers and lists like the dumb model, its rows never contradict
each other, and the same entries make the same rows again."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgestore.catalog import Applier, commands, list_objects, list_uploads, list_versions
from edgestore.catalog.keys import Table
from edgestore.errors import EdgeStoreError
from edgestore.records import (
    BucketRecord,
    Condition,
    IfAbsent,
    IfMatch,
    PartRecord,
    UploadRecord,
    Versioning,
    VersionRecord,
)
from tests.unit.catalog.audit import audit, tables
from tests.unit.catalog.model import INCARNATION, Model
from tests.unit.catalog.site import CHUNK_BYTES, OWNER, MemoryStore, Site, inline

KEYS = st.sampled_from(["a", "a/b", "a\x00", "ü"])
NAMES = st.sampled_from(["one", "two", "six"])
CONDITIONS: st.SearchStrategy[Condition] = st.sampled_from(
    [None, None, None, IfAbsent(), IfMatch("*"), IfMatch("etag-2"), IfMatch("other")]
)
PICK = st.integers(0, 1_000_000)


def told(outcome: object) -> object:
    """What the model tells of an outcome."""
    if isinstance(outcome, EdgeStoreError):
        return type(outcome)
    if isinstance(outcome, VersionRecord | commands.Deleted):
        return outcome.version_id
    if isinstance(outcome, BucketRecord):
        return outcome.bucket_id
    if isinstance(outcome, UploadRecord):
        return outcome.upload_id
    return outcome.number if isinstance(outcome, PartRecord) else outcome


class CatalogMachine(RuleBasedStateMachine):
    """Commands gather in `pending` and are applied as one entry; the model runs ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.model = Model()
        self.pending: list[commands.Command] = []
        self.expected: list[object] = []
        self.uploads = 0

    def add(self, command: commands.Command) -> None:
        place = (len(self.site.entries) + 1, len(self.pending))
        self.pending.append(command)
        self.expected.append(self.model.apply(command, place))

    def any_bucket(self, pick: int) -> int:
        """Mostly one that exists."""
        known = [*self.model.buckets, 99]
        return known[pick % len(known)]

    def any_version(self, bucket_id: int, key: str, pick: int) -> tuple[int, ...]:
        bucket = self.model.buckets.get(bucket_id)
        known: list[tuple[int, ...]] = [(), (INCARNATION, 1, 0)]
        for version in bucket.keys.get(key, []) if bucket is not None else []:
            known += [(INCARNATION, *version.place)] * 3
        return known[pick % len(known)]

    def content(self, pick: int) -> commands.Content:
        if pick % 3 == 0:
            return inline(b"x" * (pick % 5 + 1))
        if pick % 29 == 1:
            return self.site.content(*(self.site.extent() for _ in range(20)), etag="many")
        return self.site.content(*(self.site.extent() for _ in range(pick % 3)))

    @initialize(versioning=st.sampled_from(Versioning))
    def begin(self, versioning: Versioning) -> None:
        self.add(commands.CreateBucket("one", OWNER, 0, "us-east-1"))
        if versioning:
            self.add(commands.SetVersioning(1, versioning))

    @rule(name=NAMES)
    def create_bucket(self, name: str) -> None:
        self.add(commands.CreateBucket(name, OWNER, 0, "us-east-1"))

    @rule(pick=PICK)
    def delete_bucket(self, pick: int) -> None:
        self.add(commands.DeleteBucket(self.any_bucket(pick)))

    @rule(pick=PICK, versioning=st.sampled_from(Versioning))
    def set_versioning(self, pick: int, versioning: Versioning) -> None:
        self.add(commands.SetVersioning(self.any_bucket(pick), versioning))

    @rule(pick=PICK, key=KEYS, condition=CONDITIONS)
    def put_object(self, pick: int, key: str, condition: Condition) -> None:
        content = self.content(pick)
        self.add(commands.PutObject(self.any_bucket(pick), key, OWNER, 0, content, {}, {}, "STANDARD", condition))

    @precondition(lambda self: self.model.named)
    @rule(pick=PICK, key=KEYS)
    def put_object_of_chunks_named_before(self, pick: int, key: str) -> None:
        ids = sorted(self.model.named)
        chunk = self.site.chunk(CHUNK_BYTES)
        number = int.from_bytes(ids[pick % len(ids)][8:], "big")
        again = type(chunk)(chunk.writer, number, CHUNK_BYTES)
        content = self.site.content(commands.NewExtent(again.chunk_id, (again,), CHUNK_BYTES))
        self.add(commands.PutObject(self.any_bucket(pick), key, OWNER, 0, content))

    @rule(pick=PICK, source=KEYS, key=KEYS, condition=CONDITIONS)
    def copy_object(self, pick: int, source: str, key: str, condition: Condition) -> None:
        source_id, bucket_id = self.any_bucket(pick), self.any_bucket(pick // 7)
        version = self.any_version(source_id, source, pick // 49) or (INCARNATION, 1, 0)
        self.add(
            commands.CopyObject(
                source_id,
                source,
                (version[0], version[1], version[2]),
                bucket_id,
                key,
                OWNER,
                0,
                condition=condition,
            )
        )

    @rule(pick=PICK, key=KEYS, condition=CONDITIONS)
    def delete_object(self, pick: int, key: str, condition: Condition) -> None:
        self.add(commands.DeleteObject(self.any_bucket(pick), key, OWNER, 0, None, condition))

    @rule(pick=PICK, key=KEYS, condition=CONDITIONS)
    def delete_version(self, pick: int, key: str, condition: Condition) -> None:
        bucket_id = self.any_bucket(pick)
        version = self.any_version(bucket_id, key, pick // 7)
        self.add(commands.DeleteObject(bucket_id, key, OWNER, 0, version, condition))

    @rule(pick=PICK, key=KEYS)
    def create_upload(self, pick: int, key: str) -> None:
        self.uploads += 1
        self.add(commands.CreateUpload(self.any_bucket(pick), key, f"{self.uploads:032x}", OWNER, 0))

    def any_upload(self, pick: int) -> tuple[int, str, str]:
        known = [(99, "a", "0" * 32), (1, "a", "9" * 32)]
        for bucket in self.model.buckets.values():
            known += [(bucket.bucket_id, upload.key, one) for one, upload in bucket.uploads.items()] * 3
        return known[-1 - pick % len(known)]

    @rule(pick=PICK, number=st.integers(1, 3))
    def put_part(self, pick: int, number: int) -> None:
        self.add(commands.PutPart(*self.any_upload(pick), number, 0, self.site.content()))

    @rule(pick=PICK, left_out=st.sets(st.integers(1, 3)), condition=CONDITIONS)
    def complete_upload(self, pick: int, left_out: set[int], condition: Condition) -> None:
        bucket_id, key, upload_id = self.any_upload(pick)
        bucket = self.model.buckets.get(bucket_id)
        upload = bucket.uploads.get(upload_id) if bucket is not None else None
        parts = sorted((upload.parts if upload is not None else {}).items())
        named = tuple((number, part.etag) for number, part in parts if number not in left_out)
        self.add(commands.CompleteUpload(bucket_id, key, upload_id, named, "etag-2", 0, (), condition))

    @rule(pick=PICK)
    def abort_upload(self, pick: int) -> None:
        self.add(commands.AbortUpload(*self.any_upload(pick)))

    @rule(behind=st.integers(0, 3))
    def advance_writer(self, behind: int) -> None:
        self.add(commands.AdvanceWriter(self.site.writer, max(0, self.site.number - behind)))

    @rule()
    def restart(self) -> None:
        self.apply()
        self.site.reopen()

    @rule()
    def drop(self) -> None:
        self.apply()
        self.site.run_drops(pieces_max=3)

    @rule()
    def apply(self) -> None:
        if self.pending:
            outcomes: list[Any] = self.site.all(*self.pending)
            assert [told(outcome) for outcome in outcomes] == self.expected
            self.pending, self.expected = [], []

    @invariant()
    def lists_like_the_model(self) -> None:
        if self.pending:
            return
        audit(self.site.store)
        state = self.site.state
        assert [record.bucket_id for record in state.buckets()] == [
            bucket.bucket_id for bucket in sorted(self.model.buckets.values(), key=lambda bucket: bucket.name)
        ]
        for bucket in self.model.buckets.values():
            record = state.bucket(bucket.name)
            keys = sorted(bucket.keys, key=str.encode)
            assert [
                (key, version.version_id, latest) for key, version, latest in list_versions(state, record).entries
            ] == [
                (key, version.version_id, place == 0) for key in keys for place, version in enumerate(bucket.keys[key])
            ]
            current = [key for key in keys if bucket.current(key) is not None]
            assert [key for key, _ in list_objects(state, record).entries] == current
            assert sorted(one.upload_id for one in list_uploads(state, record).entries) == sorted(bucket.uploads)
            for key in keys:
                for version in bucket.keys[key]:
                    found = state.version(record, key, () if version.is_null else (INCARNATION, *version.place))
                    assert found is not None
                    assert (found.size_bytes, found.etag) == (version.size, version.etag)
                    assert tuple(span.extent_id for span in found.extents) == version.extents
                    assert state.inline(record, found) == version.body
                    assert all(state.extents(OWNER, found.extents))

    def teardown(self) -> None:
        """Ended drop jobs leave exactly what the model still names; the same entries make the same rows."""
        self.apply()
        self.site.run_drops()
        audit(self.site.store)
        found = tables(self.site.store)
        live = self.model.live_extents()
        assert set(found[Table.EXTENTS]) == live
        assert set(found[Table.CONDEMNED]) == self.model.named - live
        store = MemoryStore()
        applier = Applier(store)
        for index, entry in enumerate(self.site.entries, 1):
            applier.apply(index, 1, entry)
        assert dict(store.rows) == dict(self.site.store.rows)


CatalogMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestCatalogIsTheModel = CatalogMachine.TestCase
