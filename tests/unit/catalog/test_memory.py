"""Operation ids are applied once and remembered by log time (rule 9)."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.catalog.keys import Table
from edgestore.catalog.memory import OPERATION_MEMORY_MS
from edgestore.errors import AlreadyApplied, BucketExists, PreconditionFailed
from edgestore.records import IfAbsent, Versioning
from tests.unit.catalog.audit import tables
from tests.unit.catalog.site import OWNER, SESSION, Site, inline, put


def creation(name: str, owner: int = OWNER) -> commands.CreateBucket:
    return commands.CreateBucket(name, owner, 0, "us-east-1")


@pytest.mark.parametrize("restart", [False, True])
def test_operation_again_has_its_first_outcome(restart: bool) -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    operation = site.operation(put(bucket, "key", inline(b"body")))
    (first,) = site.apply(operation)
    if restart:
        site.reopen()
    (again,) = site.apply(operation)
    assert again == first
    assert site.state.usage(bucket).versions == 1


def test_operation_twice_in_one_entry_is_applied_once() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    operation = site.operation(put(bucket, "key", inline(b"body")))
    first, second = site.apply(operation, operation)
    assert first == second
    assert site.state.usage(bucket).versions == 1


@pytest.mark.parametrize("restart", [False, True])
def test_remembered_error_keeps_its_class_message_and_fields(restart: bool) -> None:
    site = Site()
    site.bucket("bucket")
    operation = site.operation(creation("bucket", OWNER + 1))
    (first,) = site.apply(operation)
    if restart:
        site.reopen()
    (again,) = site.apply(operation)
    for error in (first, again):
        assert isinstance(error, BucketExists)
        assert str(error) == "the bucket name 'bucket' is taken"
        assert error.fields == {"owned": False, "bucket": "bucket"}


def test_remembered_failure_stays_a_failure_when_the_state_changes() -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key")
    operation = site.operation(put(bucket, "key", inline(b"new"), IfAbsent()))
    (first,) = site.apply(operation)
    site.apply(site.operation(commands.DeleteObject(bucket.bucket_id, "key", OWNER, 0), settled=operation.sequence))
    (again,) = site.apply(operation)
    assert isinstance(first, PreconditionFailed)
    assert isinstance(again, PreconditionFailed)
    assert site.state.head(bucket, "key") is None


@pytest.mark.parametrize("restart", [False, True])
def test_settled_outcome_is_forgotten_and_refused(restart: bool) -> None:
    site = Site()
    operation = site.operation(creation("one"))
    site.apply(operation)
    site.apply(site.operation(creation("two"), settled=operation.sequence + 1))
    if restart:
        site.reopen()
    (again,) = site.apply(operation)
    assert isinstance(again, AlreadyApplied)
    assert len(site.state.buckets()) == 2


@pytest.mark.parametrize("restart", [False, True])
def test_operation_born_too_long_ago_is_refused(restart: bool) -> None:
    site = Site()
    late = site.operation(creation("late"))
    site.time_ms += OPERATION_MEMORY_MS
    (fine,) = site.apply(site.operation(commands.Tick()))
    assert fine is None
    site.time_ms += 1
    if restart:
        site.reopen()
    (refused,) = site.apply(late)
    assert isinstance(refused, AlreadyApplied)
    assert site.state.buckets() == []


def test_operation_is_remembered_as_long_as_it_could_be_taken_for_new() -> None:
    site = Site()
    operation = site.operation(creation("one"))
    (first,) = site.apply(operation)
    site.time_ms += OPERATION_MEMORY_MS
    site.apply(commands.Operation(SESSION + 1, 1, 0, site.time_ms, OWNER, commands.Tick()))
    (again,) = site.apply(operation)
    assert again == first
    site.time_ms += 1
    site.apply(commands.Operation(SESSION + 1, 2, 0, site.time_ms, OWNER, commands.Tick()))
    (refused,) = site.apply(operation)
    assert isinstance(refused, AlreadyApplied)


def test_memory_is_bounded_by_what_is_settled_and_by_log_time() -> None:
    site = Site()
    bucket = site.bucket()
    for number in range(50):
        site.put(bucket, f"key{number}")
    assert len(tables(site.store)[Table.OPERATIONS]) == 1
    for number in range(50):
        site.apply(commands.Operation(SESSION + 1 + number, 1, 0, site.time_ms, OWNER, commands.Tick()))
    assert len(tables(site.store)[Table.OPERATIONS]) == 51
    site.time_ms += OPERATION_MEMORY_MS + 1
    site.do(commands.Tick())
    assert len(tables(site.store)[Table.OPERATIONS]) == 1


def test_restart_in_between_changes_no_row() -> None:
    """Memory is a function of its rows: a replica that restarted decides and writes as one that did not."""
    steady, restarted = Site(), Site()
    for site in (steady, restarted):
        bucket = site.bucket("bucket", Versioning.ENABLED)
        kept = []
        for number in range(12):
            kept.append(site.operation(put(bucket, f"key{number % 3}", inline(b"x")), settled=max(0, number - 2)))
            if site is restarted:
                site.reopen()
            site.apply(kept[-1], *([kept[-2]] if number % 4 == 1 else []))
            site.time_ms += OPERATION_MEMORY_MS // 5
        if site is restarted:
            site.reopen()
        site.apply(kept[3], kept[-1])
    assert dict(steady.store.rows) == dict(restarted.store.rows)


def test_every_kind_of_outcome_is_remembered() -> None:
    site = Site()
    bucket = site.bucket()
    upload = "ab" * 16
    several: tuple[commands.Command, ...] = (
        creation("other"),
        commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED),
        put(bucket, "key", inline(b"x")),
        commands.DeleteObject(bucket.bucket_id, "key", OWNER, 0),
        commands.CreateUpload(bucket.bucket_id, "key", upload, OWNER, 0),
        commands.PutPart(bucket.bucket_id, "key", upload, 1, 0, site.content()),
        commands.AbortUpload(bucket.bucket_id, "key", upload),
        commands.RegisterWriter("third"),
        commands.CondemnChunks((b"x" * 16,)),
        commands.ContinueDrop(b"x"),
        commands.PutTenant(0, "c", "name"),
        commands.PutKey("AK", "secret", 5, 1),
        commands.FoundSite(b"x", 1),
        commands.Tick(),
        commands.DeleteBucket(99),
    )
    operations = [site.operation(command) for command in several]
    first = site.apply(*operations)
    site.reopen()
    again = site.apply(*operations)
    assert again[:-1] == first[:-1]
    assert type(again[-1]) is type(first[-1])
