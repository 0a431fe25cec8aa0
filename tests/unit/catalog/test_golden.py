"""What was once written stays readable: log entries, keys, rows, outcomes and journal payloads, byte for byte."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgestore import errors, records
from edgestore.catalog import commands, keys, memory, rows
from edgestore.catalog.apply import HANDLERS
from edgestore.catalog.keys import Table
from edgestore.catalog.state import part_row, upload_row, version_row
from edgestore.disk import RecordKind
from tests.unit.catalog.samples import NOT_ON_DISK, WITHOUT_SAMPLE, sample, structs

GOLDEN: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "catalog_formats.json").read_text(encoding="utf-8")
)
COMMANDS: tuple[type[msgspec.Struct], ...] = typing.get_args(commands.Command)
GROUP, TENANT, INDEX, POSITION = 3, 7, 1001, 5
ID = bytes(range(16))
BUCKET = records.BucketRecord(9, "bucket", TENANT, 1)
KEY = "k\0y/ü"
IN_BUCKET = keys.number(BUCKET.bucket_id)
PAYLOADS = (records.MembersRecord, records.SnapshotRecord, records.StopSignRecord)

KEYS: dict[Table, bytes] = {
    Table.SITE: keys.row(GROUP, Table.SITE, 0),
    Table.BUCKET_NAMES: keys.row(GROUP, Table.BUCKET_NAMES, 0, b"bucket"),
    Table.BUCKETS: keys.row(GROUP, Table.BUCKETS, 0, IN_BUCKET),
    Table.USAGE: keys.row(GROUP, Table.USAGE, TENANT, IN_BUCKET),
    Table.HEADS: keys.head_row(GROUP, TENANT, 9, KEY),
    Table.INLINE: keys.inline_row(GROUP, TENANT, 9, INDEX, POSITION),
    Table.VERSIONS: version_row(GROUP, BUCKET, KEY, INDEX, POSITION),
    Table.NULLS: keys.row(GROUP, Table.NULLS, TENANT, IN_BUCKET + KEY.encode()),
    Table.UPLOADS: upload_row(GROUP, BUCKET, KEY, ID.hex()),
    Table.PARTS: part_row(GROUP, BUCKET, ID.hex(), 4000),
    Table.EXTENTS: keys.row(GROUP, Table.EXTENTS, TENANT, ID),
    Table.CHUNKS: keys.row(GROUP, Table.CHUNKS, 0, ID),
    Table.WRITERS: keys.row(GROUP, Table.WRITERS, 0, keys.number(11)),
    Table.CONDEMNED: keys.row(GROUP, Table.CONDEMNED, 0, ID),
    Table.DROPS: keys.row(GROUP, Table.DROPS, 0, keys.age(INDEX, POSITION) + b"\0\1"),
    Table.OPERATIONS: keys.row(GROUP, Table.OPERATIONS, 0, keys.number(77) + keys.number(INDEX)),
    Table.TENANTS: keys.row(GROUP, Table.TENANTS, 0, keys.number(TENANT)),
    Table.ACCESS_KEYS: keys.row(GROUP, Table.ACCESS_KEYS, 0, b"ACCESS"),
    Table.DROP_CURSORS: keys.row(GROUP, Table.DROP_CURSORS, 0, keys.age(INDEX, POSITION) + b"\0\1"),
    Table.TOMBSTONES: keys.row(GROUP, Table.TOMBSTONES, TENANT, IN_BUCKET + KEY.encode()),
    Table.NODES: keys.row(GROUP, Table.NODES, 0, keys.number(3)),
    Table.MEMBERS: keys.row(GROUP, Table.MEMBERS, 0, ID.hex().encode()),
    Table.LAYOUTS: keys.row(GROUP, Table.LAYOUTS, 0, keys.number(12)),
    Table.LAYOUT_EPOCH: keys.row(GROUP, Table.LAYOUT_EPOCH, 0),
    Table.LAYOUT_EXTENTS: keys.row(GROUP, Table.LAYOUT_EXTENTS, 0, keys.number(12)),
    Table.TOKENS: keys.row(GROUP, Table.TOKENS, 0, ID[:8]),
    Table.AUTHORITY: keys.row(GROUP, Table.AUTHORITY, 0),
    Table.SETTINGS: keys.row(GROUP, Table.SETTINGS, 0),
    Table.DEGRADED: keys.row(GROUP, Table.DEGRADED, 0, ID),
}
STRUCT_ROWS: dict[Table, tuple[type[msgspec.Struct], Any]] = {
    Table.SITE: (rows.SiteRecord, rows.site),
    Table.BUCKET_NAMES: (records.BucketRecord, rows.bucket),
    Table.USAGE: (records.BucketUsage, rows.usage),
    Table.HEADS: (records.VersionRecord, rows.version),
    Table.VERSIONS: (records.VersionRecord, rows.version),
    Table.UPLOADS: (records.UploadRecord, rows.upload),
    Table.PARTS: (records.PartRecord, rows.part),
    Table.EXTENTS: (records.ExtentRecord, rows.extent),
    Table.WRITERS: (records.WriterRecord, rows.writer),
    Table.DROPS: (rows.DropJob, rows.drop_job),
    Table.OPERATIONS: (rows.RememberedOutcomes, rows.remembered),
    Table.TENANTS: (records.TenantRecord, rows.tenant),
    Table.ACCESS_KEYS: (records.KeyRecord, rows.access_key),
    Table.TOMBSTONES: (records.Tombstone, rows.tombstone),
    Table.NODES: (records.NodeRecord, rows.node),
    Table.LAYOUTS: (records.LayoutRecord, rows.layout),
    Table.TOKENS: (rows.TokenRecord, rows.token),
    Table.AUTHORITY: (rows.AuthorityRecord, rows.authority),
    Table.SETTINGS: (records.SiteSettings, rows.settings),
}
PLAIN_ROWS: dict[Table, bytes] = {
    Table.BUCKETS: b"bucket",
    Table.INLINE: b"body",
    Table.NULLS: rows.encode((INDEX, POSITION)),
    Table.CHUNKS: ID + keys.number_of_tenant(TENANT),
    Table.CONDEMNED: keys.number(INDEX),
    Table.DROP_CURSORS: keys.number(17),
    Table.MEMBERS: keys.number(3),
    Table.LAYOUT_EPOCH: keys.number(12),
    Table.LAYOUT_EXTENTS: keys.number(1234),
    Table.DEGRADED: keys.number_of_tenant(TENANT),
}
OUTCOMES: tuple[Any, ...] = (
    errors.NoSuchKey("it is not there", key="k", size=5),
    None,
    True,
    b"site",
    [ID, b""],
    *(sample(kind) for kind in memory.OUTCOMES[5:]),
)


def site() -> rows.SiteRecord:
    """The format is no number to be made up."""
    return msgspec.structs.replace(sample(rows.SiteRecord), format=rows.CATALOG_FORMAT)


def entry_of(command: Any) -> bytes:
    """A log entry with one operation."""
    operation = commands.Operation(41, 42, 40, 1_700_000_000_000, TENANT, command)
    return commands.encode_entry(commands.Entry(1, GROUP, 2, 1_700_000_000_001, (operation,)))


def written() -> dict[str, dict[str, str]]:
    """What today's code writes."""
    values = {table: sample(kind) for table, (kind, _) in STRUCT_ROWS.items()} | {Table.SITE: site()}
    remembered = [memory._encodable(number, outcome) for number, outcome in enumerate(OUTCOMES, 1)]
    found = {
        "entries": {kind.__name__: entry_of(sample(kind)) for kind in COMMANDS},
        "keys": {table.name: KEYS[table] for table in Table},
        "rows": {table.name: rows.encode(value) for table, value in values.items()}
        | {table.name: value for table, value in PLAIN_ROWS.items()},
        "conditions": {kind.__name__: rows.encode(sample(kind)) for kind in (records.IfAbsent, records.IfMatch)},
        "outcomes": {"all kinds": rows.encode((5, 1, remembered))},
        "journal payloads": {kind.__name__: rows.encode(sample(kind)) for kind in PAYLOADS},
    }
    return {part: {name: data.hex() for name, data in some.items()} for part, some in found.items()}


def test_the_bytes_are_those_of_the_first_release() -> None:
    assert written() == {part: some for part, some in GOLDEN.items() if part != "before several nodes"}


@pytest.mark.parametrize(
    "table", [Table.SITE, Table.BUCKET_NAMES, Table.VERSIONS, Table.EXTENTS], ids=lambda table: table.name
)
def test_rows_without_the_fields_that_came_later_are_understood(table: Table) -> None:
    kind, decode = STRUCT_ROWS[table]
    data = bytes.fromhex(GOLDEN["before several nodes"][table.name])
    found, fields = decode(data), msgspec.msgpack.decode(data)
    assert msgspec.msgpack.decode(rows.encode(found))[: len(fields)] == fields
    appended = kind.__struct_fields__[len(fields) :]
    assert [getattr(found, name) for name in appended] == list(kind.__struct_defaults__[-len(appended) :])


@pytest.mark.parametrize("kind", [commands.PutObject, commands.PutPart], ids=lambda kind: kind.__name__)
def test_entries_without_the_fields_of_several_nodes_are_understood(kind: Any) -> None:
    entry = commands.decode_entry(bytes.fromhex(GOLDEN["before several nodes"][kind.__name__]))
    command = entry.operations[0].command
    assert isinstance(command, kind)
    assert all((one.tolerate, one.exceptions, one.missing) == (0, (), ()) for one in command.content.extents)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_entries_are_understood(kind: Any) -> None:
    data = bytes.fromhex(GOLDEN["entries"][kind.__name__])
    entry = commands.decode_entry(data)
    assert entry.operations[0].command == sample(kind)
    assert commands.encode_entry(entry) == data


@pytest.mark.parametrize("table", STRUCT_ROWS, ids=lambda table: table.name)
def test_rows_are_understood(table: Table) -> None:
    kind, decode = STRUCT_ROWS[table]
    data = bytes.fromhex(GOLDEN["rows"][table.name])
    assert decode(data) == (site() if table is Table.SITE else sample(kind))
    assert rows.encode(decode(data)) == data


def test_remembered_outcomes_are_understood() -> None:
    found = rows.remembered(bytes.fromhex(GOLDEN["outcomes"]["all kinds"]))
    outcomes = [memory.decode_outcome(one) for one in found.outcomes]
    failed, expected = outcomes[0], OUTCOMES[0]
    assert isinstance(failed, errors.NoSuchKey)
    assert (str(failed), failed.fields) == (str(expected), expected.fields)
    assert outcomes[1:] == list(OUTCOMES[1:])


@pytest.mark.parametrize("kind", PAYLOADS, ids=lambda kind: kind.__name__)
def test_journal_payloads_are_understood(kind: Any) -> None:
    data = bytes.fromhex(GOLDEN["journal payloads"][kind.__name__])
    assert msgspec.msgpack.decode(data, type=kind) == sample(kind)


def test_conditions_are_understood() -> None:
    for kind in (records.IfAbsent, records.IfMatch):
        data = bytes.fromhex(GOLDEN["conditions"][kind.__name__])
        assert msgspec.msgpack.decode(data, type=records.Condition) == sample(kind)


def test_nothing_is_left_out() -> None:
    """Every command, table, outcome and struct has its golden bytes, itself or inside another."""
    assert {*COMMANDS, commands.Unusable} == set(HANDLERS)
    assert set(KEYS) == set(Table) == set(STRUCT_ROWS) | set(PLAIN_ROWS)
    assert len(OUTCOMES) == len(memory.OUTCOMES)
    tops = {*COMMANDS, *(kind for kind, _ in STRUCT_ROWS.values()), *PAYLOADS, records.IfAbsent, records.IfMatch}
    reached = {type(part).__name__ for top in tops for part in _parts(sample(top))}
    reached |= {kind.__name__ for kind in memory.OUTCOMES}
    assert structs().keys() <= reached | WITHOUT_SAMPLE


def test_the_documentation_names_every_field_in_its_order() -> None:
    text = (Path(__file__).parents[3] / "docs" / "internals" / "formats.md").read_text(encoding="utf-8")
    missing = []
    for name, kind in (structs() | {"Entry": commands.Entry, "Operation": commands.Operation}).items():
        if name in ("IfAbsent", *NOT_ON_DISK):
            continue
        fields = re.escape(", ".join(kind.__struct_fields__))
        if not re.search(rf"(^|`){name} *:= \[{fields}\]", text, re.MULTILINE):
            missing.append(name)
    assert not missing
    assert all(f"| {kind.__struct_config__.tag} | `{kind.__name__} " in text for kind in COMMANDS)
    assert all(f"| {table.value} {table.name.lower().replace('_', ' ')} |" in text for table in Table)
    kinds = {kind.value: kind.name.lower().replace("_", " ").replace("stop ", "stop-") for kind in RecordKind}
    assert all(f"| {value} {name} |" in text for value, name in kinds.items())


def _parts(value: Any) -> list[Any]:
    """The structs inside a value, itself included."""
    if isinstance(value, msgspec.Struct):
        inner = [part for name in value.__struct_fields__ for part in _parts(getattr(value, name))]
        return [value, *inner]
    return [part for one in value for part in _parts(one)] if isinstance(value, tuple) else []
