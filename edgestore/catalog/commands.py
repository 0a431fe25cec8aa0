"""Every change that the catalog knows, as bytes: an entry is a header and up to some hundred operations (rule 9).

Rule: an operation is deterministic, bounded and validated when it is applied; it is never refused for being old data,
only for its format version. Tags and field order are the disk format: append only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from edgestore.catalog.bounds import Millis, Number, ShortBytes, Tenant, Word
from edgestore.catalog.object_commands import (
    AbortUpload,
    CompleteUpload,
    CopyObject,
    CreateBucket,
    CreateUpload,
    DeleteBucket,
    DeleteObject,
    PutObject,
    PutPart,
    SetVersioning,
)
from edgestore.catalog.object_commands import Content as Content
from edgestore.catalog.object_commands import NewExtent as NewExtent
from edgestore.catalog.site_commands import (
    AddNode,
    CreateToken,
    DropToken,
    FoundNode,
    PlaceExtent,
    QuarantineMember,
    RaiseFeatureLevel,
    RetireLayouts,
    SetAuthority,
    SetBucketPolicy,
    SetNodeQuality,
    SetNodeState,
    SetNodeWeight,
    SetSiteSettings,
    SwapExtent,
    UpdateNode,
)
from edgestore.catalog.site_commands import NewNode as NewNode

ENTRY_FORMAT = 1
FEATURE_LEVEL = 1


class RegisterWriter(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Opens a writer for one start of `node` and closes its earlier ones. Result: WriterRecord."""

    node: Word


class AdvanceWriter(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Moves the low-water mark up (never down)."""

    writer: Number
    low_water: Number


class CloseWriter(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """No chunk of this writer is named for the first time after this."""

    writer: Number


class CondemnChunks(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Condemns those of `chunk_ids` that are garbage: nothing names them, nothing may any more. Result: list of ids."""

    chunk_ids: tuple[ShortBytes, ...]


class ReclaimedChunks(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Their fragments are gone: the condemned rows go too."""

    chunk_ids: tuple[ShortBytes, ...]


class ContinueDrop(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Does the next bounded piece of a drop job (an ended upload, a huge version). Result: True when done."""

    job_id: ShortBytes
    pieces_max: Number = 256


class PutTenant(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Creates an owner, or changes its name and mail. `tenant_id` 0: take the next, unless an owner has that name
    already, who stays as it is. Result: TenantRecord."""

    tenant_id: Tenant
    canonical_id: Word
    name: Word
    email: Word = ""


class PutKey(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Creates a key pair. Result: KeyRecord. Fails: AccessKeyExists (with another secret or owner)."""

    access_key: Word
    secret_key: Word
    tenant_id: Tenant
    created_ms: Millis


class DeleteKey(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Fails: NoSuchAccessKey, BadRequest for the last pair of root."""

    access_key: Word


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Only carries log time on, so that what is due expires."""


class FoundSite(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """The first command of a site: its random id. Applied once; later ones are ignored. Result: the id in force."""

    site_id: ShortBytes
    site_incarnation: Number


Command = (
    CreateBucket
    | DeleteBucket
    | SetVersioning
    | PutObject
    | CopyObject
    | DeleteObject
    | CreateUpload
    | PutPart
    | CompleteUpload
    | AbortUpload
    | RegisterWriter
    | AdvanceWriter
    | CloseWriter
    | CondemnChunks
    | ReclaimedChunks
    | ContinueDrop
    | PutTenant
    | PutKey
    | DeleteKey
    | Tick
    | FoundSite
    | FoundNode
    | AddNode
    | UpdateNode
    | SetNodeState
    | SetNodeWeight
    | SetNodeQuality
    | QuarantineMember
    | CreateToken
    | DropToken
    | SetAuthority
    | SetSiteSettings
    | SetBucketPolicy
    | RaiseFeatureLevel
    | RetireLayouts
    | PlaceExtent
    | SwapExtent
)


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One command with its id: (session, sequence), born at `born_ms` of log time. Session: one start of one proposer.

    `settled`: the proposer knows the outcome of every sequence below it, so their results need not be remembered.
    """

    session: Number
    sequence: Number
    settled: Number
    born_ms: Millis
    tenant: Tenant
    command: Command


@dataclass(frozen=True)
class Unusable:
    """Stands for a command that does not decode: never written, and never applied."""


UNUSABLE = Operation(0, 0, 0, 0, 0, cast(Command, Unusable()))


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry: the header that its operations share, and the operations."""

    feature_level: int
    group: int
    incarnation: int
    log_time_ms: int
    operations: tuple[Operation, ...]


class Deleted(msgspec.Struct, frozen=True, array_like=True):
    """What a delete did. `version_id`: the marker written, or the version removed; empty where nothing was there."""

    version_id: str = ""
    delete_marker: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
_loose_decoder = msgspec.msgpack.Decoder(tuple[int, int, int, int, list[msgspec.Raw]])
_operation_decoder = msgspec.msgpack.Decoder(Operation)
_id_decoder = msgspec.msgpack.Decoder(tuple[Number, Number, Number, Millis, Tenant, msgspec.Raw])


def encode_entry(entry: Entry) -> bytes:
    """One format byte, then msgpack."""
    return bytes((ENTRY_FORMAT,)) + _encoder.encode(entry)


def splice_entry(
    feature_level: int, group: int, incarnation: int, log_time_ms: int, operations: Sequence[msgspec.Raw]
) -> bytes:
    """`encode_entry` of operations that are encoded already."""
    return bytes((ENTRY_FORMAT,)) + _encoder.encode((feature_level, group, incarnation, log_time_ms, operations))


def decode_entry(data: bytes | memoryview) -> Entry:
    """The reverse. Raises ValueError for another format version or malformed bytes (msgspec errors are ValueErrors).

    An operation that breaks its bounds is `Unusable`, and stops nobody who applies the log. Of an entry of a higher
    feature level only the header is read.
    """
    if len(data) < 1 or data[0] != ENTRY_FORMAT:
        raise ValueError(f"log entry format {data[0] if len(data) else None} is not {ENTRY_FORMAT}")
    packed = memoryview(data)[1:]
    try:
        return _decoder.decode(packed)
    except msgspec.ValidationError:
        level, group, incarnation, log_time_ms, operations = _loose_decoder.decode(packed)
    usable = () if level > FEATURE_LEVEL else tuple([_usable(raw) for raw in operations])
    return Entry(level, group, incarnation, log_time_ms, usable)


def _usable(raw: msgspec.Raw) -> Operation:
    """An id that does not decode is nobody's: its operation has one that no proposer uses."""
    try:
        return _operation_decoder.decode(raw)
    except msgspec.ValidationError:
        pass
    try:
        session, sequence, settled, born_ms, tenant, _ = _id_decoder.decode(raw)
    except msgspec.ValidationError:
        return UNUSABLE
    return Operation(session, sequence, settled, born_ms, tenant, UNUSABLE.command)


def check_operation(raw: msgspec.Raw | bytes) -> Operation:
    """Raises a ValueError for what must not be proposed: it would change nothing, or stop all who apply it."""
    operation = _operation_decoder.decode(raw)
    command = operation.command
    if isinstance(command, RaiseFeatureLevel) and command.level > FEATURE_LEVEL:
        raise ValueError(f"this node knows feature level {FEATURE_LEVEL}, and not {command.level}")
    return operation
