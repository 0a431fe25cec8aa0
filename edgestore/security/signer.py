"""Makes signatures, for our own client. The time is an argument."""

from __future__ import annotations

import time
from urllib.parse import quote, urlsplit

from edgestore.security.canonical import (
    ALGORITHM,
    canonical_headers,
    canonical_path,
    canonical_query,
    raw_pairs,
    signature,
    signing_key,
)

UNSIGNED = "UNSIGNED-PAYLOAD"


def sign_headers(
    method: str,
    url: str,
    headers: dict[str, str],
    *,
    access_key: str,
    secret_key: str,
    region: str,
    now_ms: int,
    payload: str = UNSIGNED,
) -> dict[str, str]:
    """The headers to send: those given (lower-case names), host, date, payload and authorization."""
    parts = urlsplit(url)
    timestamp = _timestamp(now_ms)
    sent = {**headers, "host": parts.netloc, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
    names = sorted(name for name in sent if name == "host" or name.startswith("x-amz-"))
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    canonical = "\n".join(
        (
            method,
            canonical_path(parts.path or "/"),
            canonical_query(raw_pairs(parts.query)),
            canonical_headers(sent, names),
            ";".join(names),
            payload,
        )
    )
    proof = signature(signing_key(secret_key, timestamp[:8], region), timestamp, scope, canonical.encode())
    sent["authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={proof}"
    )
    return sent


def presign_url(
    method: str, url: str, *, access_key: str, secret_key: str, region: str, now_ms: int, expires_s: int
) -> str:
    """The URL with a signature that holds for `expires_s` seconds (1 to 604,800)."""
    parts = urlsplit(url)
    timestamp = _timestamp(now_ms)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    pairs = raw_pairs(parts.query)
    pairs += [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", quote(f"{access_key}/{scope}", safe="-_.~")),
        ("X-Amz-Date", timestamp),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    query = canonical_query(pairs)
    canonical = f"{method}\n{canonical_path(parts.path)}\n{query}\nhost:{parts.netloc}\n\nhost\n{UNSIGNED}"
    proof = signature(signing_key(secret_key, timestamp[:8], region), timestamp, scope, canonical.encode())
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{query}&X-Amz-Signature={proof}"


def _timestamp(now_ms: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms // 1000))
