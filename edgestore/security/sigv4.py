"""Checks AWS Signature Version 4 on a raw request: header form and pre-signed form.

Rule: what is not signed does not count: every x-amz-* header must be in SignedHeaders, and a request without a date
is refused.
"""

from __future__ import annotations

import calendar
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_tz
from typing import NamedTuple
from urllib.parse import unquote

from edgestore.errors import BadRequest, Denied, InvalidCredentials
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
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING = frozenset((STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER))
PRESIGN_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")

_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_times: dict[str, int] = {}
_TIMES_MAX = 4096


class SignedRequest(NamedTuple):
    """A request as it came: nothing decoded, header names in lower case."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]


class SigningLimits(NamedTuple):
    """Bounds on time."""

    clock_skew_max_s: int = 900
    presign_expiry_max_s: int = 604_800


DEFAULT_LIMITS = SigningLimits()


@dataclass(frozen=True, slots=True)
class Verified:
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
    """What the request says about its signature."""

    credential: str
    signed_headers: str
    signature: str
    timestamp: str
    payload: str
    pairs: list[tuple[str, str]]
    error: str


def verify_request(
    request: SignedRequest,
    *,
    now_ms: int,
    region: str,
    lookup: Callable[[str], str | None],
    limits: SigningLimits = DEFAULT_LIMITS,
) -> Verified:
    """Raises InvalidCredentials (`reason` is S3's code), Denied, or BadRequest."""
    pairs = raw_pairs(request.raw_query)
    if "authorization" in request.headers:
        if any(name == "X-Amz-Signature" for name, _ in pairs):
            raise BadRequest("only one way of signing a request is allowed", code="InvalidArgument")
        claim = _from_header(request, pairs)
        _check_skew(claim.timestamp, now_ms, limits)
    else:
        claim = _from_query(request, pairs, now_ms, limits)
    access_key, day, scope = _scope(claim, region)
    names = claim.signed_headers.split(";")
    _check_signed(request.headers, names)
    secret = lookup(access_key)
    if secret is None:
        raise InvalidCredentials("the access key does not exist", reason="InvalidAccessKeyId", access_key=access_key)
    key = signing_key(secret, day, region)
    try:
        lines = canonical_headers(request.headers, names)
    except KeyError as error:
        raise _mismatch(access_key) from error
    canonical = (
        f"{request.method}\n{canonical_path(request.raw_path)}\n{canonical_query(claim.pairs)}\n"
        f"{lines}\n{claim.signed_headers}\n{claim.payload}"
    )
    try:
        expected = signature(key, claim.timestamp, scope, canonical.encode("latin-1"))
    except UnicodeEncodeError as error:
        raise BadRequest("the request line or a header is no text of single bytes", code="InvalidURI") from error
    if not hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
        raise _mismatch(access_key)
    return Verified(access_key, claim.payload, key, claim.signature, claim.timestamp, scope)


def _mismatch(access_key: str) -> InvalidCredentials:
    return InvalidCredentials(
        "the signature does not match: check the secret key and how the request was signed",
        reason="SignatureDoesNotMatch",
        access_key=access_key,
    )


def _from_header(request: SignedRequest, pairs: list[tuple[str, str]]) -> _Claim:
    algorithm, _, rest = request.headers["authorization"].partition(" ")
    if algorithm != ALGORITHM:
        raise BadRequest("only AWS4-HMAC-SHA256 is supported", code="InvalidRequest")
    fields = {}
    for part in rest.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name in fields:
            raise _malformed("AuthorizationHeaderMalformed")
        fields[name] = value
    if set(fields) != {"Credential", "SignedHeaders", "Signature"}:
        raise _malformed("AuthorizationHeaderMalformed")
    payload = request.headers.get("x-amz-content-sha256")
    if payload is None:
        raise BadRequest("Missing required header for this request: x-amz-content-sha256", code="InvalidRequest")
    _check_payload(payload)
    return _Claim(
        fields["Credential"],
        fields["SignedHeaders"],
        fields["Signature"],
        _header_time(request.headers),
        payload,
        pairs,
        "AuthorizationHeaderMalformed",
    )


def _header_time(headers: Mapping[str, str]) -> str:
    """x-amz-date, else Date. A request without either could be replayed for ever."""
    given = headers.get("x-amz-date")
    if given is not None and _TIMESTAMP.fullmatch(given):
        return given
    parsed = parsedate_tz(headers.get("date", ""))
    if given is not None or parsed is None:
        raise Denied("AWS authentication requires a valid Date or x-amz-date header")
    seconds = calendar.timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0)
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _from_query(request: SignedRequest, pairs: list[tuple[str, str]], now_ms: int, limits: SigningLimits) -> _Claim:
    given: dict[str, str] = {}
    unsigned = []
    claimed = ""
    for name, value in pairs:
        if name in given:
            raise BadRequest(f"the query parameter {name} appears twice", code="InvalidArgument")
        given[name] = value
        if name == "X-Amz-Signature":
            claimed = value
        else:
            unsigned.append((name, value))
    missing = [name for name in PRESIGN_NAMES if name not in given]
    if missing or given["X-Amz-Algorithm"] != ALGORITHM or not claimed:
        raise _malformed("AuthorizationQueryParametersError")
    _check_expiry(given, now_ms, limits)
    payload = request.headers.get("x-amz-content-sha256") or unquote(given.get("X-Amz-Content-Sha256", UNSIGNED))
    _check_payload(payload)
    return _Claim(
        unquote(given["X-Amz-Credential"]),
        unquote(given["X-Amz-SignedHeaders"]),
        claimed,
        given["X-Amz-Date"],
        payload,
        unsigned,
        "AuthorizationQueryParametersError",
    )


def _check_expiry(given: Mapping[str, str], now_ms: int, limits: SigningLimits) -> None:
    expires, timestamp = given["X-Amz-Expires"], given["X-Amz-Date"]
    if not (expires.isascii() and expires.isdigit() and len(expires) < 10) or not _TIMESTAMP.fullmatch(timestamp):
        raise _malformed("AuthorizationQueryParametersError")
    if not 1 <= int(expires) <= limits.presign_expiry_max_s:
        raise InvalidCredentials(
            f"X-Amz-Expires must be 1 to {limits.presign_expiry_max_s} seconds",
            reason="AuthorizationQueryParametersError",
        )
    signed_ms = _epoch_ms(timestamp)
    if signed_ms > now_ms + limits.clock_skew_max_s * 1000:
        raise Denied("Request is not valid yet")
    if now_ms > signed_ms + int(expires) * 1000:
        raise Denied("Request has expired")


def _check_payload(payload: str) -> None:
    if payload != UNSIGNED and payload not in STREAMING and not _SHA256.fullmatch(payload):
        raise BadRequest(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value that is supported, or a SHA-256 in hex",
            code="InvalidArgument",
        )


def _check_skew(timestamp: str, now_ms: int, limits: SigningLimits) -> None:
    if abs(now_ms - _epoch_ms(timestamp)) > limits.clock_skew_max_s * 1000:
        raise InvalidCredentials(
            "the request's time differs too much from the server's: set the clock", reason="RequestTimeTooSkewed"
        )


def _epoch_ms(timestamp: str) -> int:
    found = _times.get(timestamp)
    if found is None:
        try:
            found = calendar.timegm(time.strptime(timestamp, "%Y%m%dT%H%M%SZ")) * 1000
        except ValueError as error:
            raise Denied("the request's date is not a date") from error
        if len(_times) >= _TIMES_MAX:
            _times.clear()
        _times[timestamp] = found
    return found


def _scope(claim: _Claim, region: str) -> tuple[str, str, str]:
    """(access key, day, scope). Refuses another region, service or day."""
    access_key, _, scope = claim.credential.partition("/")
    parts = scope.split("/")
    if len(parts) != 4 or parts[3] != "aws4_request" or not access_key:
        raise _malformed(claim.error)
    day, found, service, _ = parts
    if found != region:
        raise InvalidCredentials(
            f"the region {found!r} is wrong; expecting {region!r}", reason="AuthorizationHeaderMalformed", region=region
        )
    if service != "s3" or day != claim.timestamp[:8] or not _SIGNATURE.fullmatch(claim.signature):
        raise _malformed(claim.error)
    return access_key, day, scope


def _check_signed(headers: Mapping[str, str], names: list[str]) -> None:
    signed = set(names)
    if "host" not in signed or len(signed) != len(names):
        raise Denied("the host header must be signed, and no header twice")
    for name in headers:
        if name not in signed and name.startswith("x-amz-"):
            raise Denied(
                "There were headers present in the request which were not signed", code="AccessDenied", header=name
            )


def _malformed(code: str) -> InvalidCredentials:
    return InvalidCredentials("the authorization is malformed or incomplete", reason=code)
