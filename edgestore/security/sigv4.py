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

import msgspec

from edgestore.errors import BadRequest, Denied, InvalidCredentials
from edgestore.security.canonical import (
    ALGORITHM,
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
# A pre-signed query with nothing else in it, as SDKs write it: it is canonical and in order as it stands.
_PLAIN_PRESIGN = re.compile(
    r"(X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=([A-Za-z0-9\-._~]++(?:%2F[A-Za-z0-9\-._~]++)++)"
    r"&X-Amz-Date=([0-9]{8}T[0-9]{6}Z)&X-Amz-Expires=([0-9]{1,9})&X-Amz-SignedHeaders=([a-z0-9\-]++(?:%3B[a-z0-9\-]++)*+))"
    r"&X-Amz-Signature=([0-9a-f]{64})",
    re.ASCII,
)
_CACHED_MAX = 1024
_CACHED_TEXT_MAX = 512
_times: dict[str, int] = {}


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


class Verified(msgspec.Struct, frozen=True, gc=False):
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


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a request says of its signature. `query`: what was signed of it, canonical; `credential` and
    `signed_headers` of a pre-signed one are still encoded; `payload`: None where it is not named. The signature has
    the form of one.
    """

    query: str
    credential: str
    timestamp: str
    expires: str
    signed_headers: str
    signature: str
    payload: str | None = None


class _Scope(msgspec.Struct, frozen=True, gc=False):
    """A credential and the headers signed with it, taken apart; requests with the same share it."""

    access_key: str
    day: str
    text: str
    signed_headers: str
    names: tuple[str, ...]
    signed: frozenset[str]


_LIMITS = SigningLimits()
_scopes: dict[tuple[str, str, str], _Scope] = {}
"""By form, credential and signed headers as they came: only a pre-signed query is decoded."""


def verify_request(
    request: SignedRequest,
    *,
    now_ms: int,
    region: str,
    lookup: Callable[[str], str | None],
    limits: SigningLimits = _LIMITS,
    presign: Claim | None = None,
) -> Verified:
    """Raises InvalidCredentials (`reason` is S3's code), Denied, or BadRequest. `lookup`: access key to secret;
    `presign`: what `read_plain_presign` found in the query, where the caller has asked it.
    """
    headers = request.headers
    if "authorization" in headers:
        error = _HEADER_ERROR
        claim = _from_header(headers, request.raw_query)
        if abs(now_ms - _epoch_ms(claim.timestamp)) > limits.clock_skew_max_s * 1000:
            raise InvalidCredentials(
                "the request's time differs too much from the server's: set the clock", reason="RequestTimeTooSkewed"
            )
    else:
        error = _QUERY_ERROR
        claim = presign or read_plain_presign(request.raw_query) or _read_presign(request.raw_query)
        _check_expiry(claim.expires, claim.timestamp, now_ms, limits)
    payload = headers.get("x-amz-content-sha256") or (UNSIGNED if claim.payload is None else claim.payload)
    if payload != UNSIGNED:
        _check_payload(payload)
    scope = _scopes.get((error, claim.credential, claim.signed_headers))
    if scope is None or scope.text[9:-16] != region:
        scope = _read_scope(claim, region, error)
    if scope.day != claim.timestamp[:8]:
        raise _malformed(error)
    signed = scope.signed
    for name in headers:
        if name not in signed and name.startswith("x-amz-"):
            raise Denied(
                "There were headers present in the request which were not signed", code="AccessDenied", header=name
            )
    secret = lookup(scope.access_key)
    if secret is None:
        message = "the access key does not exist"
        raise InvalidCredentials(message, reason="InvalidAccessKeyId", access_key=scope.access_key)
    key = signing_key(secret, scope.day, region)
    try:
        lines = canonical_headers(headers, scope.names)
    except KeyError as missing:
        raise _mismatch(scope.access_key) from missing
    path = canonical_path(request.raw_path)
    canonical = f"{request.method}\n{path}\n{claim.query}\n{lines}\n{scope.signed_headers}\n{payload}"
    expected = signature(key, claim.timestamp, scope.text, canonical.encode("latin-1", "replace"))
    if not hmac.compare_digest(expected, claim.signature):
        raise _mismatch(scope.access_key)
    return Verified(scope.access_key, payload, key, expected, claim.timestamp, scope.text)


def _mismatch(access_key: str) -> InvalidCredentials:
    return InvalidCredentials(
        "the signature does not match: check the secret key and how the request was signed",
        reason="SignatureDoesNotMatch",
        access_key=access_key,
    )


def _malformed(code: str) -> InvalidCredentials:
    return InvalidCredentials("the authorization is malformed or incomplete", reason=code)


# --- the header form --------------------------------------------------------------------------------------


def _from_header(headers: Mapping[str, str], raw_query: str) -> Claim:
    query = ""
    if raw_query:
        pairs = raw_pairs(raw_query)
        for name, _ in pairs:
            if name == "X-Amz-Signature" or name == "X-Amz-Algorithm":
                raise BadRequest("only one way of signing a request is allowed", code="InvalidArgument")
        query = canonical_query(pairs)
    credential, signed_headers, claimed = _authorization(headers["authorization"])
    payload = headers.get("x-amz-content-sha256")
    if payload is None:
        raise BadRequest("Missing required header for this request: x-amz-content-sha256", code="InvalidRequest")
    _check_payload(payload)
    return Claim(query, credential, _header_time(headers), "", signed_headers, claimed, payload)


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
    if not _HEX_64.fullmatch(fields["Signature"]):
        raise _malformed(_HEADER_ERROR)
    return fields["Credential"], fields["SignedHeaders"], fields["Signature"]


def _header_time(headers: Mapping[str, str]) -> str:
    """x-amz-date, else Date. A request without either could be replayed for ever."""
    given = headers.get("x-amz-date")
    if given is not None and (given in _times or is_timestamp(given)):
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


def read_plain_presign(raw_query: str) -> Claim | None:
    """The signature of a query that holds nothing else and stands as SDKs write it; None for all others."""
    found = _PLAIN_PRESIGN.fullmatch(raw_query)
    return None if found is None else Claim(*found.groups())


def _read_presign(raw_query: str) -> Claim:
    """The signature of any pre-signed query."""
    pairs = raw_pairs(raw_query) if raw_query else []
    given = dict(pairs)
    if len(given) != len(pairs):
        raise BadRequest("a query parameter appears twice", code="InvalidArgument")
    claimed = given.get("X-Amz-Signature", "")
    try:
        algorithm, credential, timestamp, expires, signed_headers = [given[name] for name in PRESIGN_NAMES]
    except KeyError as error:
        raise _malformed(_QUERY_ERROR) from error
    if algorithm != ALGORITHM or not _HEX_64.fullmatch(claimed) or not is_timestamp(timestamp):
        raise _malformed(_QUERY_ERROR)
    pairs.remove(("X-Amz-Signature", claimed))
    payload = given.get("X-Amz-Content-Sha256")
    return Claim(canonical_query(pairs), credential, timestamp, expires, signed_headers, claimed, payload)


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


def _read_scope(claim: Claim, region: str, error: str) -> _Scope:
    """Refuses another region or service, and what does not sign the host."""
    credential, signed_headers = claim.credential, claim.signed_headers
    if error == _QUERY_ERROR:
        credential, signed_headers = _decoded(credential), _decoded(signed_headers)
    access_key, _, text = credential.partition("/")
    parts = text.split("/")
    if len(parts) == 4 and parts[1] != region:
        raise InvalidCredentials(f"the region {parts[1]!r} is wrong; expecting {region!r}", reason=error, region=region)
    if not access_key or text != f"{parts[0]}/{region}/s3/aws4_request" or len(parts[0]) != 8:
        raise _malformed(error)
    names = tuple(signed_headers.split(";"))
    scope = _Scope(access_key, parts[0], text, signed_headers, names, frozenset(names))
    if "host" not in scope.signed or len(scope.signed) != len(names):
        raise Denied("the host header must be signed, and no header twice")
    if len(_scopes) >= _CACHED_MAX:
        _scopes.clear()
    if len(claim.credential) + len(claim.signed_headers) <= _CACHED_TEXT_MAX:
        _scopes[error, claim.credential, claim.signed_headers] = scope
    return scope
