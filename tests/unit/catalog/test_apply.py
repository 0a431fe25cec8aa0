"""Entries: one batch each, in order, all or nothing, the same on every replica."""

from __future__ import annotations

import msgspec
import pytest

from edgestore.catalog import Applier, commands
from edgestore.catalog.keys import Table
from edgestore.errors import Corrupt, EdgeStoreError, NotSupported
from edgestore.records import BucketUsage
from tests.unit.catalog.audit import audit, tables
from tests.unit.catalog.site import OWNER, MemoryStore, Site, inline, put


def entry(*, time_ms: int = 5, feature_level: int = 1, group: int = 0) -> bytes:
    return commands.encode_entry(commands.Entry(feature_level, group, 0, time_ms, ()))


def test_entry_is_one_batch_with_the_applied_index_in_it() -> None:
    site = Site()
    bucket = site.bucket()
    before = site.store.batches
    site.all(*(put(bucket, f"key{number}", inline(b"x")) for number in range(32)))
    assert site.store.batches == before + 1
    applied = Applier(site.store).site
    assert (applied.index, applied.term) == (len(site.entries), 1)
    assert site.state.usage(bucket) == BucketUsage(32, 32, 32, 0)


def test_entry_that_was_applied_changes_nothing() -> None:
    site = Site()
    before, batches = dict(site.store.rows), site.store.batches
    for index, payload in enumerate(site.entries, 1):
        assert site.applier.apply(index, 1, payload) == []
    assert (dict(site.store.rows), site.store.batches) == (before, batches)


def test_gap_between_entries_is_refused() -> None:
    site = Site()
    with pytest.raises(Corrupt):
        site.applier.apply(len(site.entries) + 2, 1, entry())


@pytest.mark.parametrize("payload", [b"\x02", b"\x01", b"\x01\xff", b"\x01\x95\x01\x00\x00\x05", b"\x00" + entry()[1:]])
def test_bytes_that_are_no_entry_are_refused(payload: bytes) -> None:
    with pytest.raises(Corrupt):
        Applier(MemoryStore()).apply(1, 1, payload)


def test_entry_of_a_higher_feature_level_or_another_group_is_refused() -> None:
    applier = Applier(MemoryStore())
    with pytest.raises(NotSupported):
        applier.apply(1, 1, entry(feature_level=commands.FEATURE_LEVEL + 1))
    with pytest.raises(Corrupt):
        applier.apply(1, 1, entry(group=1))
    assert applier.applied_index == 0


def test_entry_of_another_incarnation_is_refused() -> None:
    applier = Applier(MemoryStore())
    with pytest.raises(Corrupt, match="incarnation 1"):
        applier.apply(1, 1, commands.encode_entry(commands.Entry(1, 0, 1, 5, ())))
    assert applier.applied_index == 0


def test_catalog_of_an_unknown_format_is_refused() -> None:
    site = Site()
    (at,) = [key for key in site.store.rows if key[2] == Table.SITE]
    for other in ([2], [2, "quite", {"another": "layout"}]):
        site.store.rows[at] = msgspec.msgpack.encode(other)
        with pytest.raises(Corrupt, match="format 2"):
            Applier(site.store)


def test_entry_without_operations_moves_the_index_only() -> None:
    applier = Applier(MemoryStore())
    assert applier.apply(1, 4, b"") == []
    assert applier.apply(2, 4, entry(time_ms=9)) == []
    assert (applier.site.index, applier.site.term, applier.site.log_time_ms) == (2, 4, 9)


def test_log_time_never_goes_back() -> None:
    site = Site()
    site.time_ms += 1000
    site.do(commands.Tick())
    high = site.applier.site.log_time_ms
    site.time_ms -= 5000
    bucket = site.bucket()
    record = site.put(bucket, "key")
    assert site.applier.site.log_time_ms == record.log_time_ms == high


def test_failing_operation_leaves_no_trace() -> None:
    """The same entry with and without failing operations writes the same rows, but for the memory of outcomes."""
    rows = []
    for with_failures in (False, True):
        site = Site()
        bucket = site.bucket()
        site.upload(bucket, "up", "ab" * 16)
        content = site.content(site.extent(2))
        stale = commands.NewExtent(b"\0" * 8 + b"\0" * 7 + b"\1", (site.chunk(), site.chunk()), 1)
        failing: list[commands.Command] = [
            commands.CreateBucket("bucket", OWNER, 0, "us-east-1"),
            put(bucket, "key", site.content(stale)),
            put(bucket, "", inline(b"x")),
            commands.CompleteUpload(bucket.bucket_id, "up", "ab" * 16, ((1, "x"),), "e", 0),
            commands.DeleteBucket(99),
            commands.PutPart(bucket.bucket_id, "up", "ab" * 16, 0, 0, site.content()),
            commands.AdvanceWriter(-1, 0),
        ]
        commands_of_entry: list[commands.Command] = []
        for position, command in enumerate(failing):
            commands_of_entry.append(command if with_failures else commands.Tick())
            commands_of_entry.append(put(bucket, f"key{position}", inline(b"y")))
        outcomes = site.all(*commands_of_entry, put(bucket, "last", content))
        assert sum(isinstance(outcome, EdgeStoreError) for outcome in outcomes) == with_failures * len(failing)
        audit(site.store)
        found = tables(site.store)
        found.pop(Table.OPERATIONS)
        rows.append(found)
    assert rows[0] == rows[1]


def test_failed_creation_takes_no_number() -> None:
    site = Site()
    first = site.bucket("one")
    with pytest.raises(EdgeStoreError):
        site.bucket("one")
    assert site.bucket("two").bucket_id == first.bucket_id + 1


def test_two_groups_share_a_store() -> None:
    store = MemoryStore()
    first, second = Applier(store, 0), Applier(store, 1)
    operation = commands.Operation(1, 1, 0, 5, OWNER, commands.CreateBucket("b", OWNER, 0, "us-east-1"))
    first.apply(1, 1, commands.encode_entry(commands.Entry(1, 0, 0, 5, (operation,))))
    second.apply(1, 1, commands.encode_entry(commands.Entry(1, 1, 0, 5, (operation,))))
    assert first.state.buckets() == second.state.buckets() != []
    assert len(store.rows) == 8
