"""Checks AWS Signature Version 4 on a raw request: header form and pre-signed form.

Rule: what is not signed does not count: every x-amz-* header must be in SignedHeaders, a request without a date is
refused, and whatever the payload says of itself, the request's own signature is checked first, on one path for all.
"""

from __future__ import annotations

import hmac
import re
from calendar import timegm
from collections.abc import Callable, Mapping
from email.utils import parsedate_tz
from typing import NamedTuple
from urllib.parse import unquote

from edgestore.errors import BadRequest, Denied, InvalidCredentials
from edgestore.security.canonical import (
    ALGORITHM,
    Pairs,
    canonical_headers,
    canonical_path,
    canonical_query,
    epoch_ms,
    is_timestamp,
    raw_pairs,
    signature,
    signing_key,
    timestamp_of,
)

UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING = frozenset((STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER))
PRESIGN_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")

_HEADER_ERROR = "AuthorizationHeaderMalformed"
_QUERY_ERROR = "AuthorizationQueryParametersError"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^,= ]+), ?SignedHeaders=([^,= ]+), ?Signature=([0-9a-f]{64})", re.ASCII
)
_HEX_64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CACHED_MAX = 1024
_CACHED_TEXT_MAX = 512
_times: dict[str, int] = {}
_signed_sets: dict[str, frozenset[str]] = {}


class SignedRequest(NamedTuple):
    """A request as it came: nothing decoded, header names in lower case, values in latin-1."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]


class SigningLimits(NamedTuple):
    """Bounds on time."""

    clock_skew_max_s: int = 900
    presign_expiry_max_s: int = 604_800


class Verified(NamedTuple):
    """A request whose signature holds. `payload`: what x-amz-content-sha256 says, or UNSIGNED-PAYLOAD."""

    access_key: str
    payload: str
    key: bytes
    seed_signature: str
    timestamp: str
    scope: str

    @property
    def payload_sha256(self) -> bytes | None:
        """The signed digest of the body; None where the body is not signed as a whole."""
        return bytes.fromhex(self.payload) if len(self.payload) == 64 else None

    @property
    def is_chunked(self) -> bool:
        """Whether the body is `aws-chunked`."""
        return self.payload in STREAMING


class _Claim(NamedTuple):
    """What the request says of its signature. `pairs`: the query that was signed; `error`: S3's code for its form."""

    credential: str
    signed_headers: str
    signature: str
    timestamp: str
    payload: str
    pairs: Pairs
    error: str


_LIMITS = SigningLimits()


def verify_request(
    request: SignedRequest,
    *,
    now_ms: int,
    region: str,
    lookup: Callable[[str], str | None],
    limits: SigningLimits = _LIMITS,
) -> Verified:
    """Raises InvalidCredentials (`reason` is S3's code), Denied, or BadRequest. `lookup`: access key to secret."""
    method, raw_path, raw_query, headers = request
    pairs = raw_pairs(raw_query) if raw_query else []
    if "authorization" in headers:
        claim = _from_header(headers, pairs)
        if abs(now_ms - _epoch_ms(claim.timestamp)) > limits.clock_skew_max_s * 1000:
            raise InvalidCredentials(
                "the request's time differs too much from the server's: set the clock", reason="RequestTimeTooSkewed"
            )
    else:
        claim = _from_query(headers, pairs, now_ms, limits)
    access_key, day, scope = _scope(claim, region)
    _check_signed(headers, claim.signed_headers)
    secret = lookup(access_key)
    if secret is None:
        raise InvalidCredentials("the access key does not exist", reason="InvalidAccessKeyId", access_key=access_key)
    key = signing_key(secret, day, region)
    query = canonical_query(claim.pairs) if claim.pairs else ""
    try:
        lines = canonical_headers(headers, claim.signed_headers.split(";"))
    except KeyError as error:
        raise _mismatch(access_key) from error
    canonical = f"{method}\n{canonical_path(raw_path)}\n{query}\n{lines}\n{claim.signed_headers}\n{claim.payload}"
    expected = signature(key, claim.timestamp, scope, canonical.encode("latin-1", "replace"))
    if not hmac.compare_digest(expected, claim.signature):
        raise _mismatch(access_key)
    return Verified(access_key, claim.payload, key, expected, claim.timestamp, scope)


def _mismatch(access_key: str) -> InvalidCredentials:
    return InvalidCredentials(
        "the signature does not match: check the secret key and how the request was signed",
        reason="SignatureDoesNotMatch",
        access_key=access_key,
    )


def _malformed(code: str) -> InvalidCredentials:
    return InvalidCredentials("the authorization is malformed or incomplete", reason=code)


# --- the header form --------------------------------------------------------------------------------------


def _from_header(headers: Mapping[str, str], pairs: Pairs) -> _Claim:
    for name, _ in pairs:
        if name == "X-Amz-Signature" or name == "X-Amz-Algorithm":
            raise BadRequest("only one way of signing a request is allowed", code="InvalidArgument")
    credential, signed_headers, claimed = _authorization(headers["authorization"])
    payload = headers.get("x-amz-content-sha256")
    if payload is None:
        raise BadRequest("Missing required header for this request: x-amz-content-sha256", code="InvalidRequest")
    _check_payload(payload)
    return _Claim(credential, signed_headers, claimed, _header_time(headers), payload, pairs, _HEADER_ERROR)


def _authorization(value: str) -> tuple[str, str, str]:
    """(credential, signed headers, signature). Order and spacing vary between clients."""
    match = _AUTHORIZATION.fullmatch(value)
    if match is not None:
        return match[1], match[2], match[3]
    algorithm, _, rest = value.partition(" ")
    if algorithm != ALGORITHM:
        raise BadRequest("only AWS4-HMAC-SHA256 is supported", code="InvalidRequest")
    fields = {}
    for part in rest.split(","):
        name, separator, text = part.strip(" \t").partition("=")
        if not separator or name in fields:
            raise _malformed(_HEADER_ERROR)
        fields[name] = text
    if fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise _malformed(_HEADER_ERROR)
    return fields["Credential"], fields["SignedHeaders"], fields["Signature"]


def _header_time(headers: Mapping[str, str]) -> str:
    """x-amz-date, else Date. A request without either could be replayed for ever."""
    given = headers.get("x-amz-date")
    if given is not None and is_timestamp(given):
        return given
    parsed = parsedate_tz(headers.get("date", ""))
    if given is None and parsed is not None:
        try:
            return timestamp_of(timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0))
        except (ValueError, OverflowError) as error:
            raise Denied("the request's date is not a date") from error
    raise Denied("AWS authentication requires a valid Date or x-amz-date header")


def _epoch_ms(timestamp: str) -> int:
    """Milliseconds since 1970; requests of one second share the work."""
    found = _times.get(timestamp)
    if found is None:
        try:
            found = epoch_ms(timestamp)
        except ValueError as error:
            raise Denied("the request's date is not a date") from error
        if len(_times) >= _CACHED_MAX:
            _times.clear()
        _times[timestamp] = found
    return found


# --- the pre-signed form ----------------------------------------------------------------------------------


def _from_query(headers: Mapping[str, str], pairs: Pairs, now_ms: int, limits: SigningLimits) -> _Claim:
    given = dict(pairs)
    if len(given) != len(pairs):
        raise BadRequest("a query parameter appears twice", code="InvalidArgument")
    claimed = given.get("X-Amz-Signature", "")
    try:
        algorithm, credential, timestamp, expires, signed_headers = [given[name] for name in PRESIGN_NAMES]
    except KeyError as error:
        raise _malformed(_QUERY_ERROR) from error
    if algorithm != ALGORITHM or not claimed or not is_timestamp(timestamp):
        raise _malformed(_QUERY_ERROR)
    _check_expiry(expires, timestamp, now_ms, limits)
    payload = headers.get("x-amz-content-sha256") or given.get("X-Amz-Content-Sha256", UNSIGNED)
    _check_payload(payload)
    pairs.remove(("X-Amz-Signature", claimed))
    return _Claim(_decoded(credential), _decoded(signed_headers), claimed, timestamp, payload, pairs, _QUERY_ERROR)


def _decoded(text: str) -> str:
    """Percent-decoded once; nearly always only slashes and semicolons are escaped."""
    if "%" in text:
        text = text.replace("%2F", "/").replace("%3B", ";")
        return unquote(text) if "%" in text else text
    return text


def _check_expiry(expires: str, timestamp: str, now_ms: int, limits: SigningLimits) -> None:
    if not (expires.isascii() and expires.isdigit() and len(expires) < 10):
        raise _malformed(_QUERY_ERROR)
    if not 1 <= int(expires) <= limits.presign_expiry_max_s:
        raise InvalidCredentials(
            f"X-Amz-Expires must be 1 to {limits.presign_expiry_max_s} seconds", reason=_QUERY_ERROR
        )
    signed_ms = _epoch_ms(timestamp)
    if signed_ms > now_ms + limits.clock_skew_max_s * 1000:
        raise Denied("Request is not valid yet")
    if now_ms > signed_ms + int(expires) * 1000:
        raise Denied("Request has expired")


# --- what both have ---------------------------------------------------------------------------------------


def _check_payload(payload: str) -> None:
    if payload != UNSIGNED and not _HEX_64.fullmatch(payload) and payload not in STREAMING:
        raise BadRequest(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value that is supported, or a SHA-256 in hex",
            code="InvalidArgument",
        )


def _scope(claim: _Claim, region: str) -> tuple[str, str, str]:
    """(access key, day, scope). Refuses another region, service or day."""
    access_key, _, scope = claim.credential.partition("/")
    day = claim.timestamp[:8]
    if access_key and scope == f"{day}/{region}/s3/aws4_request" and _HEX_64.fullmatch(claim.signature):
        return access_key, day, scope
    parts = scope.split("/")
    if len(parts) == 4 and parts[1] != region:
        raise InvalidCredentials(
            f"the region {parts[1]!r} is wrong; expecting {region!r}", reason=claim.error, region=region
        )
    raise _malformed(claim.error)


def _check_signed(headers: Mapping[str, str], signed_headers: str) -> None:
    """Refuses a request whose x-amz-* headers were not all signed: anybody could have added them."""
    signed = _signed_sets.get(signed_headers)
    if signed is None:
        names = signed_headers.split(";")
        signed = frozenset(names)
        if "host" not in signed or len(signed) != len(names):
            raise Denied("the host header must be signed, and no header twice")
        if len(_signed_sets) >= _CACHED_MAX:
            _signed_sets.clear()
        if len(signed_headers) <= _CACHED_TEXT_MAX:
            _signed_sets[signed_headers] = signed
    for name in headers:
        if name not in signed and name.startswith("x-amz-"):
            raise Denied(
                "There were headers present in the request which were not signed", code="AccessDenied", header=name
            )
