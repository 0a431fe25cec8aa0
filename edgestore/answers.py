"""What the answers of a node mean: its errors as those of the tree, its documents as versions."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote_plus

from defusedxml import ElementTree

from edgestore import errors
from edgestore.store_types import Version

CODES: dict[str, type[errors.EdgeStoreError]] = {
    "AccessDenied": errors.Denied,
    "AuthorizationHeaderMalformed": errors.InvalidCredentials,
    "BadDigest": errors.BadDigest,
    "BucketAlreadyExists": errors.BucketExists,
    "BucketAlreadyOwnedByYou": errors.BucketExists,
    "BucketNotEmpty": errors.BucketNotEmpty,
    "EntityTooLarge": errors.TooLarge,
    "InsufficientStorage": errors.StorageFull,
    "InvalidAccessKeyId": errors.InvalidCredentials,
    "InvalidBucketName": errors.InvalidName,
    "InvalidPart": errors.InvalidPart,
    "InvalidRange": errors.InvalidRange,
    "KeyTooLongError": errors.TooLarge,
    "NoSuchBucket": errors.NoSuchBucket,
    "NoSuchKey": errors.NoSuchKey,
    "NoSuchUpload": errors.NoSuchUpload,
    "NoSuchVersion": errors.NoSuchVersion,
    "NotImplemented": errors.NotSupported,
    "PreconditionFailed": errors.PreconditionFailed,
    "SignatureDoesNotMatch": errors.InvalidCredentials,
    "SlowDown": errors.TooBusy,
}
STATUSES: dict[int, type[errors.EdgeStoreError]] = {
    403: errors.Denied,
    404: errors.NoSuchKey,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    416: errors.InvalidRange,
    503: errors.Unavailable,
    507: errors.StorageFull,
}


def error_of(method: str, status: int, document: bytes) -> errors.EdgeStoreError:
    """The error that an answer stands for; `region`: the one that the node expects, where it says so."""
    code = message = region = ""
    with suppress(ElementTree.ParseError, ValueError):  # a proxy may answer in HTML
        root = ElementTree.fromstring(document)
        code, message = root.findtext("Code", ""), root.findtext("Message", "")
        region = root.findtext("Region", "")
    if status == 405 and method in ("GET", "HEAD"):  # of a version: it exists and has nothing to read
        return errors.DeleteMarkerMethod("the version is a delete marker", code=code, status=status)
    kind = CODES.get(code) or STATUSES.get(status) or (errors.Unavailable if status >= 500 else errors.BadRequest)
    return kind(message or f"the node answered {status}", code=code, status=status, region=region)


def text_of(root: Any, name: str) -> str:
    """The text of an element, empty for none."""
    found = root.find(f"{{*}}{name}")
    return (found.text or "") if found is not None else ""


def row_of(row: Any) -> Version:
    """One row of a listing."""
    modified = datetime.fromisoformat(text_of(row, "LastModified").replace("Z", "+00:00"))
    return Version(
        unquote_plus(text_of(row, "Key")),
        text_of(row, "VersionId") or "null",
        text_of(row, "ETag").strip('"'),
        int(text_of(row, "Size") or 0),
        int(modified.timestamp() * 1000),
        text_of(row, "IsLatest") != "false",
        row.tag.endswith("}DeleteMarker"),
    )


def date_ms(text: str) -> int:
    """A date of HTTP."""
    return int(parsedate_to_datetime(text).timestamp() * 1000)
