"""The canonical forms that Signature Version 4 is computed over, for S3: paths are encoded once and never normalised.

Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SIGNING_KEYS_MAX = 1024

_CANONICAL_PATH = re.compile(r"(?:[A-Za-z0-9\-._~/]|%[0-9A-F]{2})*", re.ASCII)
_CANONICAL_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~=&]|%[0-9A-F]{2})*", re.ASCII)
_keys: dict[tuple[str, str, str], bytes] = {}


def canonical_path(raw_path: str) -> str:
    """The path as it was sent; encoded again where the client left something open."""
    if _CANONICAL_PATH.fullmatch(raw_path):
        return raw_path
    return "/".join(quote(unquote_to_bytes(part), safe="-_.~") for part in raw_path.split("/"))


def canonical_query(pairs: list[tuple[str, str]]) -> str:
    """Raw (name, value) pairs, sorted and encoded."""
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def raw_pairs(raw_query: str) -> list[tuple[str, str]]:
    """The pairs of a raw query in canonical encoding."""
    if not raw_query:
        return []
    if _CANONICAL_QUERY.fullmatch(raw_query):
        return [tuple(part.partition("=")[::2]) for part in raw_query.split("&") if part]  # type: ignore[misc]
    pairs = []
    for part in raw_query.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((_encoded(name), _encoded(value)))
    return pairs


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def canonical_headers(headers: Mapping[str, str], names: list[str]) -> str:
    """`name:value` lines in the order of `names`. KeyError where one is missing."""
    lines = []
    for name in names:
        value = headers[name]
        if "  " in value:
            value = re.sub(" +", " ", value)
        lines.append(f"{name}:{value.strip()}\n")
    return "".join(lines)


def signing_key(secret: str, day: str, region: str) -> bytes:
    """Four HMACs a key and day; cached, bounded."""
    found = _keys.get((secret, day, region))
    if found is not None:
        return found
    key = b"AWS4" + secret.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if len(_keys) >= SIGNING_KEYS_MAX:
        _keys.clear()
    _keys[secret, day, region] = key
    return key


def signature(key: bytes, timestamp: str, scope: str, canonical_request: bytes) -> str:
    """The signature of a canonical request, hex. The caller encodes it as its header values are on the wire."""
    digest = hashlib.sha256(canonical_request).hexdigest()
    text = f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    return hmac.digest(key, text.encode(), "sha256").hex()
