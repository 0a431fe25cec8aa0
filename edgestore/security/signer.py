"""Makes signatures, for our own client and the benchmarks. The time is an argument."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from edgestore.security.canonical import (
    ALGORITHM,
    canonical_headers,
    canonical_path,
    canonical_query,
    raw_pairs,
    signature,
    signing_key,
    timestamp_of,
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
    """The headers to send: those given (lower-case names), host, date, payload and authorization.

    Values go on the wire as UTF-8. `payload` is a SHA-256 in hex, UNSIGNED-PAYLOAD, or a STREAMING- value.
    """
    parts = urlsplit(url)
    timestamp = timestamp_of(now_ms // 1000)
    sent = {**headers, "host": parts.netloc, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
    names = sorted(name for name in sent if name == "host" or name.startswith("x-amz-"))
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    canonical = (
        f"{method}\n{canonical_path(parts.path or '/')}\n{canonical_query(raw_pairs(parts.query))}\n"
        f"{canonical_headers(sent, names)}\n{';'.join(names)}\n{payload}"
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
    timestamp = timestamp_of(now_ms // 1000)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    path = canonical_path(parts.path or "/")
    pairs = [
        *raw_pairs(parts.query),
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", quote(f"{access_key}/{scope}", safe="-_.~")),
        ("X-Amz-Date", timestamp),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    query = canonical_query(pairs)
    canonical = f"{method}\n{path}\n{query}\nhost:{parts.netloc}\n\nhost\n{UNSIGNED}"
    proof = signature(signing_key(secret_key, timestamp[:8], region), timestamp, scope, canonical.encode())
    return f"{parts.scheme}://{parts.netloc}{path}?{query}&X-Amz-Signature={proof}"
