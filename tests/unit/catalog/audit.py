"""Reads every row of a catalog and checks what must hold between them."""

from __future__ import annotations

from collections import Counter, defaultdict

from edgestore.catalog import State, rows
from edgestore.catalog.keys import Table, read_number, unescape
from edgestore.records import BucketRecord, BucketUsage, ExtentSpan, VersionKind, VersionRecord
from tests.unit.catalog.site import MemoryStore

PREFIX = 7
ORDER = 12


def tables(store: MemoryStore) -> dict[Table, dict[bytes, bytes]]:
    """Rows by table, without the group and tenant in front."""
    found: dict[Table, dict[bytes, bytes]] = defaultdict(dict)
    for key, value in store.rows.items():
        found[Table(key[2])][key[PREFIX:]] = value
    return found


def audit(store: MemoryStore) -> None:
    """Raises AssertionError where rows contradict each other."""
    found = tables(store)
    heads = {key: rows.version(value) for key, value in found[Table.HEADS].items()}
    others = {key: rows.version(value) for key, value in found[Table.VERSIONS].items()}
    _check_order(heads, others)
    _check_nulls(found, others)
    _check_inline(found, [*heads.items()], [*others.items()])
    _check_usage(found, heads, others)
    _check_references(found, [*heads.values(), *others.values()])
    _check_way_back(store)
    _check_places(found)


def _split(rest: bytes) -> bytes:
    """Bucket and key of a row of VERSIONS, as those of HEADS."""
    return rest[:8] + unescape(rest[8 : -ORDER - 2])


def _age(record: VersionRecord) -> tuple[int, int]:
    return record.log_index, record.position


def _check_order(heads: dict[bytes, VersionRecord], others: dict[bytes, VersionRecord]) -> None:
    behind: dict[bytes, list[VersionRecord]] = defaultdict(list)
    for rest, record in others.items():
        behind[_split(rest)].append(record)
    for key, records in behind.items():
        ages = [_age(record) for record in records]
        assert ages == sorted(ages, reverse=True)
        if key in heads:
            assert _age(heads[key]) > ages[0]
        else:
            assert records[0].kind is VersionKind.DELETE_MARKER, "the newest of a key without a head is a marker"
    assert all(head.kind is VersionKind.OBJECT for head in heads.values())
    for key in heads.keys() | behind.keys():
        nulls = [one for one in [heads.get(key), *behind[key]] if one is not None and one.is_null]
        assert len(nulls) <= 1


def _check_nulls(found: dict[Table, dict[bytes, bytes]], others: dict[bytes, VersionRecord]) -> None:
    expected = {_split(rest): _age(record) for rest, record in others.items() if record.is_null}
    assert {rest: rows.position(value) for rest, value in found[Table.NULLS].items()} == expected


def _check_inline(
    found: dict[Table, dict[bytes, bytes]],
    heads: list[tuple[bytes, VersionRecord]],
    others: list[tuple[bytes, VersionRecord]],
) -> None:
    expected = {}
    for rest, record in heads + others:
        if record.inline:
            at = rest[:8] + record.log_index.to_bytes(8, "big") + record.position.to_bytes(4, "big")
            expected[at] = record.size_bytes
    assert {rest: len(body) for rest, body in found[Table.INLINE].items()} == expected


def _check_usage(
    found: dict[Table, dict[bytes, bytes]], heads: dict[bytes, VersionRecord], others: dict[bytes, VersionRecord]
) -> None:
    names: dict[bytes, BucketRecord] = {}
    for value in found[Table.BUCKET_NAMES].values():
        record = rows.bucket(value)
        names[record.bucket_id.to_bytes(8, "big")] = record
    assert {rest: name.decode() for rest, name in found[Table.BUCKETS].items()} == {
        rest: record.name for rest, record in names.items()
    }
    for rest in names:
        mine = [record for key, record in [*heads.items(), *others.items()] if key[:8] == rest]
        counted = BucketUsage(
            sum(key[:8] == rest for key in heads),
            len(mine),
            sum(record.size_bytes for record in mine),
            sum(key[:8] == rest for key in found[Table.UPLOADS]),
        )
        stored = found[Table.USAGE].get(rest)
        assert (rows.usage(stored) if stored is not None else BucketUsage()) == counted
    assert found[Table.USAGE].keys() <= names.keys()
    for table in (Table.HEADS, Table.VERSIONS, Table.UPLOADS, Table.INLINE, Table.NULLS):
        assert all(rest[:8] in names for rest in found[table]), "rows of a bucket that is gone"


def _check_references(found: dict[Table, dict[bytes, bytes]], versions: list[VersionRecord]) -> None:
    spans: list[ExtentSpan] = [span for record in versions for span in record.extents]
    ending = {}
    for job_id, value in found[Table.DROPS].items():
        job = rows.drop_job(value)
        done = int.from_bytes(found[Table.DROP_CURSORS].get(job_id, b""), "big")
        spans += job.spans[done:]
        if job.upload_id:
            ending[job.upload_id] = frozenset(job.kept)
    assert found[Table.DROP_CURSORS].keys() <= found[Table.DROPS].keys()
    living = {rest[-16:] for rest in found[Table.UPLOADS]}
    for rest, value in found[Table.PARTS].items():
        part = rows.part(value)
        assert (rest[:16] in living) != (rest[:16] in ending)
        if part.number not in ending.get(rest[:16], frozenset()):
            spans += part.extents
    expected = Counter(span.extent_id for span in spans)
    extents = {rest: rows.extent(value) for rest, value in found[Table.EXTENTS].items()}
    assert {rest: extent.references for rest, extent in extents.items()} == expected
    named = [(chunk.chunk_id, extent.extent_id) for extent in extents.values() for chunk in extent.chunks]
    assert len(named) == len(dict(named)), "a chunk in two extents"
    assert found[Table.CHUNKS].keys() == dict(named).keys(), "chunks without an extent, or the reverse"
    assert not found[Table.CONDEMNED].keys() & dict(named).keys(), "a condemned chunk is named"


def _check_places(found: dict[Table, dict[bytes, bytes]]) -> None:
    """What is listed and counted of the places of extents is what stands in their records."""
    extents = [rows.extent(value) for value in found[Table.EXTENTS].values()]
    assert found[Table.DEGRADED].keys() == {one.extent_id for one in extents if one.exceptions or one.missing}
    under = Counter(one.layout_epoch for one in extents if one.layout_epoch > 1)
    counted = {int.from_bytes(rest, "big"): read_number(value) for rest, value in found[Table.LAYOUT_EXTENTS].items()}
    assert counted == under
    if found[Table.LAYOUTS]:
        assert {one.layout_epoch for one in extents} <= {int.from_bytes(rest, "big") for rest in found[Table.LAYOUTS]}


def _check_way_back(store: MemoryStore) -> None:
    """From every chunk to the extent that names it, and to its tenant."""
    state = State(store)
    for key in store.rows:
        if key[2] == Table.EXTENTS:
            tenant, extent = int.from_bytes(key[3:PREFIX], "big"), rows.extent(store.rows[key])
            for chunk in extent.chunks:
                assert state.extent_of_chunk(chunk.chunk_id) == (tenant, extent)
