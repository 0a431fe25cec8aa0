"""Row codecs that only the catalog knows, and the decoders of the shared records."""

from __future__ import annotations

import msgspec

from edgestore.records import (
    BucketRecord,
    BucketUsage,
    ExtentRecord,
    ExtentSpan,
    KeyRecord,
    ListedVersion,
    PartRecord,
    TenantRecord,
    UploadRecord,
    VersionRecord,
    WriterRecord,
)

encode = msgspec.msgpack.Encoder().encode


class SiteRecord(msgspec.Struct, frozen=True, array_like=True):
    """The one row of table SITE: what was applied, log time, the site's identity and the counters of ids."""

    index: int = 0
    term: int = 0
    log_time_ms: int = 0
    site_id: bytes = b""
    site_incarnation: int = 0
    next_bucket: int = 1
    next_writer: int = 1
    next_tenant: int = 2


class DropJob(msgspec.Struct, frozen=True, array_like=True):
    """Something too large for one command (rule 7): `spans` to release, then all parts of `upload_id` but `kept`.

    The row never changes; how many spans are done stands in table DROP_CURSORS.
    """

    tenant: int
    spans: tuple[ExtentSpan, ...] = ()
    upload_id: bytes = b""
    kept: tuple[int, ...] = ()


class RememberedOutcome(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of one operation: `kind` indexes memory.OUTCOMES; 0 is an error (class name, message, fields)."""

    sequence: int
    kind: int
    outcome: msgspec.Raw


class RememberedOutcomes(msgspec.Struct, frozen=True, array_like=True):
    """What one entry did for one session. The newest row of a session also carries what is known of the session."""

    log_time_ms: int
    settled: int
    outcomes: tuple[RememberedOutcome, ...]


bucket = msgspec.msgpack.Decoder(BucketRecord).decode
usage = msgspec.msgpack.Decoder(BucketUsage).decode
version = msgspec.msgpack.Decoder(VersionRecord).decode
listed = msgspec.msgpack.Decoder(ListedVersion).decode
upload = msgspec.msgpack.Decoder(UploadRecord).decode
part = msgspec.msgpack.Decoder(PartRecord).decode
extent = msgspec.msgpack.Decoder(ExtentRecord).decode
writer = msgspec.msgpack.Decoder(WriterRecord).decode
tenant = msgspec.msgpack.Decoder(TenantRecord).decode
access_key = msgspec.msgpack.Decoder(KeyRecord).decode
site = msgspec.msgpack.Decoder(SiteRecord).decode
drop_job = msgspec.msgpack.Decoder(DropJob).decode
remembered = msgspec.msgpack.Decoder(RememberedOutcomes).decode
position = msgspec.msgpack.Decoder(tuple[int, int]).decode
