"""Row codecs that only the catalog knows, and the decoders of the shared records."""

from __future__ import annotations

import msgspec

from edgestore.errors import Corrupt
from edgestore.records import (
    BucketRecord,
    BucketUsage,
    ExtentRecord,
    ExtentSpan,
    KeyRecord,
    LayoutRecord,
    ListedVersion,
    NodeRecord,
    PartRecord,
    SiteSettings,
    TenantRecord,
    Tombstone,
    UploadRecord,
    VersionRecord,
    WriterRecord,
)

CATALOG_FORMAT = 1
"""Of all rows and keys."""
NUMBER_MAX = (1 << 64) - 1
"""What a number in a key can be."""

encode = msgspec.msgpack.Encoder().encode


class SiteRecord(msgspec.Struct, frozen=True, array_like=True):
    """The one row of table SITE: format of the catalog, what was applied, log time, identity, counters of ids.

    `incarnation`: of the group, moved on by a stop-sign (rule 4). `feature_level`: what entries may need (rule 9).
    """

    format: int = CATALOG_FORMAT
    index: int = 0
    term: int = 0
    log_time_ms: int = 0
    site_id: bytes = b""
    site_incarnation: int = 0
    next_bucket: int = 1
    next_writer: int = 1
    next_tenant: int = 2
    incarnation: int = 0
    feature_level: int = 1
    next_node: int = 1


class TokenRecord(msgspec.Struct, frozen=True, array_like=True):
    """A join token: `secret_digest` is the sha256 of its secret, `expires_ms` is log time. It stays when it was used,
    so that the same member may ask again for the answer it lost."""

    token_id: bytes
    secret_digest: bytes
    expires_ms: int
    used_by: str = ""

    def opens(self, secret_digest: bytes, member: str, now_ms: int) -> bool:
        """Whether the member may join with it: it knows the secret, is in time, and nobody else was here before."""
        return self.secret_digest == secret_digest and now_ms < self.expires_ms and self.used_by in ("", member)


class AuthorityRecord(msgspec.Struct, frozen=True, array_like=True):
    """The site's certificate authority, both DER. Every member that holds the catalog may issue."""

    certificate: bytes
    key: bytes


class SiteFormat(msgspec.Struct, frozen=True, array_like=True):
    """The first field of a `SiteRecord`, which every version of it has."""

    format: int


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
tombstone = msgspec.msgpack.Decoder(Tombstone).decode
drop_job = msgspec.msgpack.Decoder(DropJob).decode
remembered = msgspec.msgpack.Decoder(RememberedOutcomes).decode
node = msgspec.msgpack.Decoder(NodeRecord).decode
layout = msgspec.msgpack.Decoder(LayoutRecord).decode
settings = msgspec.msgpack.Decoder(SiteSettings).decode
token = msgspec.msgpack.Decoder(TokenRecord).decode
authority = msgspec.msgpack.Decoder(AuthorityRecord).decode
position = msgspec.msgpack.Decoder(tuple[int, int]).decode
_site = msgspec.msgpack.Decoder(SiteRecord).decode
_site_format = msgspec.msgpack.Decoder(SiteFormat).decode


def site(data: bytes) -> SiteRecord:
    """The row of the site. Raises Corrupt where another version wrote the catalog."""
    found = _site_format(data).format
    if found != CATALOG_FORMAT:
        raise Corrupt(
            f"the catalog has format {found}, and this version of edgestore reads format {CATALOG_FORMAT}: open it "
            "with the version that wrote it",
            format=found,
        )
    return _site(data)
