"""The rules for names of buckets and keys (Amazon S3 User Guide, bucket naming rules; object key names)."""

from __future__ import annotations

import re

from edgestore.errors import InvalidName, TooLarge

KEY_MAX_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> None:
    """Raises InvalidName."""
    bad = (
        not _BUCKET.fullmatch(name)
        or ".." in name
        or ".-" in name
        or "-." in name
        or _ADDRESS.fullmatch(name) is not None
        or name.startswith(_RESERVED_PREFIXES)
        or name.endswith(_RESERVED_SUFFIXES)
    )
    if bad:
        raise InvalidName(
            f"{name!r} is no bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens", bucket=name
        )


def check_key(key: str) -> None:
    """Raises InvalidName for an empty key or one that is not UTF-8, TooLarge for one over 1,024 bytes."""
    if not key:
        raise InvalidName("a key has at least one byte")
    if len(key) * 4 <= KEY_MAX_BYTES and key.isascii():
        return
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidName("the key is not valid UTF-8") from error
    if size > KEY_MAX_BYTES:
        raise TooLarge(
            f"the key has {size} bytes, {KEY_MAX_BYTES} are allowed", limit_bytes=KEY_MAX_BYTES, code="KeyTooLongError"
        )
