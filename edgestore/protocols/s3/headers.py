"""System headers, user metadata, and the headers of an answer about a version.

Rule: header values are bytes on the wire and latin-1 text here, so what a client stored comes back byte for byte; a
value
that cannot be one line of latin-1 (stored through Python) leaves as RFC 2047 words. No value carries a line break out.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping

from edgestore.protocols.s3.checksums import checksum_headers
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.names import METADATA_PREFIX, STORED, HeaderNames
from edgestore.protocols.s3.xml import http_time
from edgestore.records import VersionKind, VersionRecord

METADATA_MAX_BYTES = 2048
DEFAULT_TYPE = "binary/octet-stream"

OVERRIDES: Mapping[str, str] = {f"response-{name}": shown for name, shown in STORED.items()}

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def system_headers(headers: Mapping[str, str], names: HeaderNames) -> dict[str, str]:
    """What is stored with the object of the standard headers, by usual name; `aws-chunked` is framing and goes."""
    if not names.stored:
        return {}
    stored = {shown: headers[name] for name, shown in names.stored}
    encoding = stored.get("Content-Encoding")
    if encoding is not None and "aws-chunked" in encoding.lower():
        kept = [word.strip() for word in encoding.split(",") if word.strip().lower() not in ("", "aws-chunked")]
        if kept:
            stored["Content-Encoding"] = ", ".join(kept)
        else:
            del stored["Content-Encoding"]
    return stored


def user_metadata(headers: Mapping[str, str], names: HeaderNames) -> dict[str, str]:
    """`x-amz-meta-*`, names without the prefix. Raises Fault(MetadataTooLarge) over 2 KB of names and values."""
    if not names.metadata:
        return {}
    metadata = {bare: headers[name] for name, bare in names.metadata}
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > METADATA_MAX_BYTES:
        raise Fault("MetadataTooLarge", Size=size, MaxSizeAllowed=METADATA_MAX_BYTES)
    return metadata


def require_storage_class(headers: Mapping[str, str]) -> None:
    """Raises Fault(InvalidStorageClass) for any class but STANDARD: there is one."""
    storage_class = headers.get("x-amz-storage-class")
    if storage_class is not None and storage_class != "STANDARD":
        raise Fault("InvalidStorageClass", StorageClassRequested=storage_class)


def overrides(query: Mapping[str, str]) -> dict[str, str]:
    """The `response-*` parameters of a read, by usual name. Raises Fault(InvalidArgument) for a value with line
    breaks.
    """
    found: dict[str, str] = {}
    for parameter, name in OVERRIDES.items():
        value = query.get(parameter)
        if value is not None:
            if _CONTROL.search(value):
                raise Fault(
                    "InvalidArgument", "A header value may not hold control characters.", ArgumentName=parameter
                )
            found[name] = value.encode().decode("latin-1")
    return found


def version_headers(
    record: VersionRecord, *, version_id: str | None, checksums: bool, overridden: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The headers of a GET or HEAD, without length and range. `version_id`: what to show, None where versioning is
    off.
    """
    stored = {**record.headers, **overridden} if overridden else record.headers
    headers = [
        ("ETag", f'"{record.etag}"'),
        ("Last-Modified", http_time(record.modified_ms)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", safe_value(stored["Content-Type"]) if "Content-Type" in stored else DEFAULT_TYPE),
    ]
    for name, value in stored.items():
        if name != "Content-Type":
            headers.append((name, safe_value(value)))
    if record.metadata:
        headers.extend((METADATA_PREFIX + name, safe_value(value)) for name, value in record.metadata.items())
    if version_id is not None:
        headers.append(("x-amz-version-id", version_id))
    if checksums and record.checksums:
        headers.extend(checksum_headers(record.checksums, len(record.parts)))
    if record.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", record.storage_class))
    return headers


def not_modified_headers(record: VersionRecord, version_id: str | None) -> list[tuple[str, str]]:
    """What a 304 repeats (RFC 9110 section 15.4.5)."""
    headers = [("ETag", f'"{record.etag}"'), ("Last-Modified", http_time(record.modified_ms))]
    headers.extend(
        (name, safe_value(record.headers[name])) for name in ("Cache-Control", "Expires") if name in record.headers
    )
    if version_id is not None:
        headers.append(("x-amz-version-id", version_id))
    return headers


def shown_version_id(record: VersionRecord, *, versioned: bool) -> str | None:
    """The version id that an answer shows: `null` versions only where the bucket has, or had, versioning."""
    if not record.is_null:
        return record.version_id
    return "null" if versioned else None


def is_delete_marker(record: VersionRecord) -> bool:
    """Whether the row is a delete marker."""
    return record.kind == VersionKind.DELETE_MARKER


def safe_value(value: str) -> str:
    """The value as one line of latin-1; anything else as RFC 2047 words, as S3 does."""
    if value.isascii() and value.isprintable():
        return value
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return _words(value)
    return _words(value) if _CONTROL.search(value) else value


def _words(value: str) -> str:
    return f"=?UTF-8?B?{b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="
