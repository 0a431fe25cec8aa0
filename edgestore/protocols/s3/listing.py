"""ListObjects, ListObjectsV2, ListObjectVersions: a page of catalog rows becomes a page of XML.

Rule: one f-string a row and one join a page; what many rows share (owner, dates of a second) is made once.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from edgestore.objects import Body
from edgestore.protocols.http import Response
from edgestore.protocols.s3.call import Call, xml_response
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.owners import Owners
from edgestore.protocols.s3.xml import element, escape, escape_strictly, iso_time, url_encode
from edgestore.records import Checksum, ChecksumType, ListedVersion, VersionKind

PAGE_MAX = 1000

_PLAIN_BASE64 = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Question:
    """What the parameters that all listings share ask for."""

    prefix: str
    delimiter: str
    limit: int
    encode: Callable[[str], str]
    encoding: str | None

    def elements(self, *, encodes_prefix: bool = True) -> str:
        """What every listing repeats of the question."""
        prefix = self.encode(self.prefix) if encodes_prefix else escape_strictly(self.prefix)
        delimiter = f"<Delimiter>{self.encode(self.delimiter)}</Delimiter>" if self.delimiter else ""
        encoding = f"<EncodingType>{self.encoding}</EncodingType>" if self.encoding else ""
        return f"<Prefix>{prefix}</Prefix>{delimiter}{encoding}"


def question(call: Call, limit_name: str = "max-keys") -> Question:
    """Reads prefix, delimiter, encoding-type and the page size. Raises Fault(InvalidArgument)."""
    encoding = call.query.get("encoding-type")
    if encoding not in (None, "", "url"):
        raise Fault("InvalidArgument", "Invalid Encoding Method specified in Request", ArgumentName="encoding-type")
    return Question(
        prefix=call.query.get("prefix", ""),
        delimiter=call.query.get("delimiter", ""),
        limit=min(call.number(limit_name, PAGE_MAX), PAGE_MAX),
        encode=url_encode if encoding else escape,
        encoding=encoding or None,
    )


async def list_objects(call: Call, body: Body) -> Response:
    """ListObjects (version 1)."""
    await call.barrier()
    asked, marker = question(call), call.query.get("marker", "")
    page = call.objects.list_objects(
        call.principal,
        call.bucket,
        prefix=asked.prefix,
        start_after=marker,
        delimiter=asked.delimiter,
        limit=asked.limit,
    )
    after = (
        f"<NextMarker>{asked.encode(page.next)}</NextMarker>"
        if page.truncated and page.next and asked.delimiter
        else ""
    )
    return xml_response(
        "ListBucketResult",
        # boto3 does not decode the prefix of version 1: it leaves as it is.
        f"<Name>{escape(call.bucket)}</Name>{asked.elements(encodes_prefix=False)}<Marker>{asked.encode(marker)}</Marker>{after}"
        f"<MaxKeys>{asked.limit}</MaxKeys><IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>",
        object_rows(page.entries, asked.encode, Owners(call)),
        prefix_rows(page.prefixes, asked.encode),
    )


async def list_objects_v2(call: Call, body: Body) -> Response:
    """ListObjectsV2. `list-type` other than 2 is version 1 in S3 too."""
    if call.query["list-type"] != "2":
        raise Fault(
            "InvalidArgument", "list-type must be 2", ArgumentName="list-type", ArgumentValue=call.query["list-type"]
        )
    await call.barrier()
    asked, token, after = question(call), call.query.get("continuation-token"), call.query.get("start-after", "")
    page = call.objects.list_objects(
        call.principal,
        call.bucket,
        prefix=asked.prefix,
        start_after=parse_token(token) if token else after,
        delimiter=asked.delimiter,
        limit=asked.limit,
    )
    owners = Owners(call) if call.query.get("fetch-owner", "").lower() == "true" else None
    following = make_token(page.next) if page.truncated and page.next else None
    return xml_response(
        "ListBucketResult",
        f"<Name>{escape(call.bucket)}</Name>{asked.elements()}",
        "" if token is None else f"<ContinuationToken>{escape(token)}</ContinuationToken>",
        "" if following is None else f"<NextContinuationToken>{following}</NextContinuationToken>",
        f"<StartAfter>{asked.encode(after)}</StartAfter>" if after else "",
        f"<KeyCount>{len(page.entries) + len(page.prefixes)}</KeyCount><MaxKeys>{asked.limit}</MaxKeys>"
        f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>",
        object_rows(page.entries, asked.encode, owners),
        prefix_rows(page.prefixes, asked.encode),
    )


async def list_versions(call: Call, body: Body) -> Response:
    """ListObjectVersions: versions and delete markers in key order, newest first."""
    await call.barrier()
    asked = question(call)
    key_marker, version_marker = call.query.get("key-marker", ""), call.query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise Fault(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
        )
    page = call.objects.list_versions(
        call.principal,
        call.bucket,
        prefix=asked.prefix,
        key_marker=key_marker,
        version_marker=version_marker,
        delimiter=asked.delimiter,
        limit=asked.limit,
    )
    after = ""
    if page.truncated:
        after = (
            f"<NextKeyMarker>{asked.encode(page.next_key or '')}</NextKeyMarker>"
            f"{element('NextVersionIdMarker', page.next_version or None)}"
        )
    return xml_response(
        "ListVersionsResult",
        f"<Name>{escape(call.bucket)}</Name>{asked.elements()}<KeyMarker>{asked.encode(key_marker)}</KeyMarker>"
        f"<VersionIdMarker>{escape(version_marker)}</VersionIdMarker>{after}<MaxKeys>{asked.limit}</MaxKeys>"
        f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>",
        version_rows(page.entries, asked.encode, Owners(call)),
        prefix_rows(page.prefixes, asked.encode),
    )


def object_rows(entries: list[tuple[str, ListedVersion]], encode: Callable[[str], str], owners: Owners | None) -> str:
    """`<Contents>` of a page."""
    rows: list[str] = []
    for key, version in entries:
        digest = checksum_names(version.checksums) if version.checksums else ""
        owner = owners.xml(version.owner) if owners is not None else ""
        rows.append(
            f"<Contents><Key>{encode(key)}</Key><LastModified>{iso_time(version.modified_ms)}</LastModified>"
            f"<ETag>&quot;{version.etag}&quot;</ETag>{digest}<Size>{version.size_bytes}</Size>{owner}"
            f"<StorageClass>{version.storage_class}</StorageClass></Contents>"
        )
    return "".join(rows)


def version_rows(entries: list[tuple[str, ListedVersion, bool]], encode: Callable[[str], str], owners: Owners) -> str:
    """`<Version>` and `<DeleteMarker>` of a page, in its order."""
    rows: list[str] = []
    for key, version, is_latest in entries:
        head = (
            f"<Key>{encode(key)}</Key><VersionId>{version.version_id}</VersionId>"
            f"<IsLatest>{'true' if is_latest else 'false'}</IsLatest>"
            f"<LastModified>{iso_time(version.modified_ms)}</LastModified>"
        )
        owner = owners.xml(version.owner)
        if version.kind == VersionKind.DELETE_MARKER:
            rows.append(f"<DeleteMarker>{head}{owner}</DeleteMarker>")
            continue
        digest = checksum_names(version.checksums) if version.checksums else ""
        rows.append(
            f"<Version>{head}<ETag>&quot;{version.etag}&quot;</ETag>{digest}<Size>{version.size_bytes}</Size>{owner}"
            f"<StorageClass>{version.storage_class}</StorageClass></Version>"
        )
    return "".join(rows)


def prefix_rows(prefixes: list[str], encode: Callable[[str], str]) -> str:
    """`<CommonPrefixes>` of a page."""
    return "".join(f"<CommonPrefixes><Prefix>{encode(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes)


def checksum_names(found: tuple[Checksum, ...]) -> str:
    """`<ChecksumAlgorithm>` of each, and the type."""
    return _named(tuple([checksum.algorithm for checksum in found]), found[0].type)


@lru_cache(maxsize=64)
def _named(algorithms: tuple[str, ...], kind: ChecksumType) -> str:
    names = "".join(f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm>" for algorithm in algorithms)
    return f"{names}<ChecksumType>{ChecksumType(kind).name}</ChecksumType>"


def make_token(start_after: str) -> str:
    """An opaque continuation token."""
    return urlsafe_b64encode(start_after.encode()).decode()


def parse_token(token: str) -> str:
    """The reverse. Raises Fault(InvalidArgument)."""
    try:
        found = binascii.a2b_base64(token.encode("ascii").translate(_PLAIN_BASE64), strict_mode=True).decode()
    except ValueError:
        found = ""
    if not found:  # one that were taken for the beginning would make its client list for ever
        raise Fault(
            "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
        )
    return found
