"""Which bucket and key a request names. Rule: the raw path is percent-decoded exactly once and then taken literally.

`..`, `//` and `%2F` are ordinary parts of a key: nothing here or below cleans a path, so what was signed is what is
read.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from edgestore.protocols.s3.faults import Fault

KEY_MAX_BYTES = 1024

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_BUCKET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9])){1,61}[a-z0-9]")
_FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


class Address(NamedTuple):
    """What a request is about: the service (both empty), a bucket (key empty), or an object."""

    bucket: str
    key: str

    @property
    def level(self) -> str:
        """`service`, `bucket` or `object`: a part of the operation table's key."""
        return "object" if self.key else "bucket" if self.bucket else "service"


def resolve(path: str, host: str, domain: str) -> Address:
    """The address that a raw path and a Host header name. `domain` empty: path style only."""
    if not path.startswith("/"):
        raise Fault("InvalidURI", "The request target is not a path.")
    if domain:
        name = (host.rpartition(":")[0] if ":" in host and host[-1] != "]" else host).lower()
        if name.endswith("." + domain):
            return Address(name[: -len(domain) - 1], _key(path[1:]))
    bucket, _, key = path[1:].partition("/")
    if "%" in bucket:
        bucket = percent_decoded(bucket)
    if key and not bucket:
        raise Fault("InvalidBucketName", "The specified bucket is not valid.", BucketName="")
    return Address(bucket, _key(key))


def resolve_copy_source(value: str) -> tuple[Address, str | None]:
    """The address and version id in `x-amz-copy-source`: `[/]bucket/key[?versionId=id]`, percent-encoded, decoded
    once.
    """
    path, _, query = value.partition("?")
    name, _, version = query.partition("=")
    if query and (name != "versionId" or not version):
        raise Fault("InvalidArgument", "The copy source may carry versionId only.", ArgumentName="x-amz-copy-source")
    bucket, _, key = path.removeprefix("/").partition("/")
    if not bucket or not key:
        raise Fault(
            "InvalidArgument",
            "The copy source must name a bucket and a key, separated by a slash.",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=value,
        )
    return Address(percent_decoded(bucket), _key(key)), percent_decoded(version) if version else None


def percent_decoded(text: str) -> str:
    """Percent-decoded once. Anything that is not ASCII, a broken escape, or no UTF-8 afterwards, is refused."""
    if not text.isascii() or _BROKEN_ESCAPE.search(text):
        raise Fault("InvalidURI", "Couldn't parse the specified URI: it is not percent-encoded ASCII.")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise Fault("InvalidURI", "Couldn't parse the specified URI: it is not UTF-8.") from error


SIGNATURE_PARAMETERS = frozenset(
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"]
)


def parse_query(raw: str) -> dict[str, str]:
    """The query, percent-decoded once; `+` is a plus, as it was signed.

    A name given twice is refused: two readers could take different ones.
    """
    query: dict[str, str] = {}
    plain = raw.isascii()
    for pair in raw.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if name in SIGNATURE_PARAMETERS:
            pass  # judged raw by the signature check, and read by nobody else
        elif not plain or "%" in pair:
            name, value = percent_decoded(name), percent_decoded(value)
        if name in query:
            raise Fault("InvalidArgument", "A query parameter is given twice.", ArgumentName=name)
        query[name] = value
    return query


def require_bucket_name(name: str) -> None:
    """Raises InvalidBucketName unless `name` may be a new bucket: 3-63 characters, DNS-like, no address, nothing
    reserved.
    """
    if (
        not _BUCKET_NAME.fullmatch(name)
        or ".-" in name
        or "-." in name
        or _FOUR_NUMBERS.fullmatch(name)
        or name.startswith(_RESERVED_PREFIXES)
        or name.endswith(_RESERVED_SUFFIXES)
    ):
        raise Fault("InvalidBucketName", BucketName=name)


def _key(raw: str) -> str:
    key = percent_decoded(raw) if "%" in raw or not raw.isascii() else raw
    if len(raw) > KEY_MAX_BYTES and len(key.encode()) > KEY_MAX_BYTES:
        raise Fault("KeyTooLongError", Size=len(key.encode()), MaxSizeAllowed=KEY_MAX_BYTES)
    return key
