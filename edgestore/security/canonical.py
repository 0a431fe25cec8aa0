"""The canonical forms that Signature Version 4 is computed over, for S3: paths are encoded once and never normalised.

Header values are latin-1 text, one character for each byte on the wire; everything else is ASCII once it is canonical.
Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SIGNING_KEYS_MAX = 1024

Pairs = list[tuple[str, str]]

# Canonical text leaves the unreserved characters alone and escapes all others, with capital hex digits.
_PLAIN = r"[A-Za-z0-9\-._~]"
_ESCAPED = r"%(?:[0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-DF])"
_WORD = rf"{_PLAIN}*+(?:{_ESCAPED}{_PLAIN}*+)*+"
_CANONICAL_PATH = re.compile(rf"[A-Za-z0-9\-._~/]*+(?:{_ESCAPED}[A-Za-z0-9\-._~/]*+)*+", re.ASCII)
_CANONICAL_PAIR = rf"{_WORD}={_WORD}"
_CANONICAL_QUERY = re.compile(rf"{_CANONICAL_PAIR}(?:&{_CANONICAL_PAIR})*+", re.ASCII)
_RUNS_OF_SPACE = re.compile(r"[ \t]+")
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_keys: dict[tuple[str, str, str], bytes] = {}
_started: dict[bytes, hmac.HMAC] = {}


def canonical_path(raw_path: str) -> str:
    """The path as it was sent; encoded again where the client left something open."""
    if _CANONICAL_PATH.fullmatch(raw_path):
        return raw_path
    return "/".join(_encoded(part) for part in raw_path.split("/"))


def raw_pairs(raw_query: str) -> Pairs:
    """The pairs of a raw query in canonical encoding, in the order they came."""
    if _CANONICAL_QUERY.fullmatch(raw_query):
        return [tuple(part.split("=")) for part in raw_query.split("&")]  # type: ignore[misc]
    pairs = []
    for part in raw_query.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((_encoded(name), _encoded(value)))
    return pairs


def canonical_query(pairs: Pairs) -> str:
    """Encoded pairs, sorted."""
    return "&".join([f"{name}={value}" for name, value in sorted(pairs)])


def _encoded(text: str) -> str:
    """Percent-decoded once and encoded again; a broken escape is taken literally."""
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="-_.~")


def canonical_headers(headers: Mapping[str, str], names: Iterable[str]) -> str:
    """`name:value` lines in the order of `names`. KeyError where one is missing."""
    lines = ""
    for name in names:
        value = headers[name]
        if " " in value or "\t" in value:
            value = _RUNS_OF_SPACE.sub(" ", value.strip(" \t"))
        lines += f"{name}:{value}\n"
    return lines


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
    """The signature of a canonical request, hex. An HMAC that has taken in its key is kept and copied."""
    started = _started.get(key)
    if started is None:
        if len(_started) >= SIGNING_KEYS_MAX:
            _started.clear()
        started = _started[key] = hmac.new(key, digestmod="sha256")
    digest = hashlib.sha256(canonical_request).hexdigest()
    running = started.copy()
    running.update(f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}".encode())
    return running.hexdigest()


def is_timestamp(text: str) -> bool:
    """Whether it looks like `20261124T091500Z`; `epoch_ms` says whether it is a date."""
    return _TIMESTAMP.fullmatch(text) is not None


def epoch_ms(timestamp: str) -> int:
    """Milliseconds since 1970 of such a text. ValueError where there is no such date."""
    return calendar.timegm(datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").timetuple()) * 1000


def timestamp_of(epoch_s: int) -> str:
    """The text of a time. ValueError or OverflowError beyond the calendar."""
    return datetime.fromtimestamp(epoch_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")  # noqa: UP017 - 3.11 has both
