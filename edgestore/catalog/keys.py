"""The keys of the catalog's rows: group, table, tenant, then what the table needs. The grammar stands in formats.md.

Rule: keys sort as S3 lists (UTF-8 binary order), and one group's rows are one range.
"""

from __future__ import annotations

import struct
from enum import IntEnum

_PREFIX = struct.Struct(">HBI")
_BUCKET_PREFIX = struct.Struct(">HBIQ")
_INLINE = struct.Struct(">HBIQQI")
_ID = struct.Struct(">Q")
_TENANT = struct.Struct(">I")
_ORDER = struct.Struct(">QI")
_INDEX_MAX = (1 << 64) - 1
_POSITION_MAX = (1 << 32) - 1

PREFIX_BYTES = _PREFIX.size
BUCKET_PREFIX_BYTES = PREFIX_BYTES + _ID.size
ORDER_BYTES = _ORDER.size
TENANT_BYTES = _TENANT.size
TERMINATOR = b"\x00\x00"
UPLOAD_ID_BYTES = 16


class Table(IntEnum):
    """The second field of every key."""

    SITE = 1
    BUCKET_NAMES = 2
    BUCKETS = 3
    USAGE = 4
    HEADS = 5
    INLINE = 6
    VERSIONS = 7
    NULLS = 8
    UPLOADS = 9
    PARTS = 10
    EXTENTS = 11
    CHUNKS = 12
    WRITERS = 13
    CONDEMNED = 14
    DROPS = 15
    OPERATIONS = 16
    TENANTS = 17
    ACCESS_KEYS = 18
    DROP_CURSORS = 19
    TOMBSTONES = 20
    """Written by deletes in buckets with a cloud behind them; formats.md says when."""
    NODES = 21
    MEMBERS = 22
    LAYOUTS = 23
    LAYOUT_EPOCH = 24
    LAYOUT_EXTENTS = 25
    TOKENS = 26
    AUTHORITY = 27
    SETTINGS = 28
    DEGRADED = 29


def row(group: int, table: Table, tenant: int, rest: bytes = b"") -> bytes:
    """The key of a row."""
    return _PREFIX.pack(group, table, tenant) + rest


def head_row(group: int, owner: int, bucket_id: int, key: str) -> bytes:
    """The key of a current version."""
    return _BUCKET_PREFIX.pack(group, Table.HEADS, owner, bucket_id) + key.encode()


def inline_row(group: int, owner: int, bucket_id: int, index: int, position: int) -> bytes:
    """The key of an inline body, of the version that was written at a place of the log."""
    return _INLINE.pack(group, Table.INLINE, owner, bucket_id, index, position)


def number(value: int) -> bytes:
    """A 64-bit number, so that it sorts."""
    return _ID.pack(value)


def number_of_tenant(tenant: int) -> bytes:
    """A tenant, as every key has it."""
    return _TENANT.pack(tenant)


def read_number(data: bytes) -> int:
    """The reverse of `number`."""
    return int(_ID.unpack(data)[0])


def order(index: int, position: int) -> bytes:
    """Sorts newer before older."""
    return _ORDER.pack(_INDEX_MAX - index, _POSITION_MAX - position)


def age(index: int, position: int) -> bytes:
    """Sorts older before newer."""
    return _ORDER.pack(index, position)


def escape(key: bytes) -> bytes:
    """A user key with something behind it: 0x00 becomes 0x00 0xFF, the end is 0x00 0x00."""
    return key.replace(b"\x00", b"\x00\xff") + TERMINATOR


def escape_prefix(prefix: bytes) -> bytes:
    """What all escaped keys with this prefix begin with."""
    return prefix.replace(b"\x00", b"\x00\xff")


def unescape(data: bytes) -> bytes:
    """The reverse of `escape`, without the end."""
    return data.replace(b"\x00\xff", b"\x00")


def successor(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        raise ValueError("no key lies behind this prefix")
    return stripped[:-1] + bytes((stripped[-1] + 1,))
