"""Requests signed by botocore, and ours, as the verifier sees them."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from edgestore.security import SignedRequest, Verified, verify_request

ACCESS_KEY = "AKIDEXAMPLE0000000001"
SECRET_KEY = "a secret/key+with=odd characters"
REGION = "us-east-1"
HOST = "store.example:9000"
NOW = datetime.datetime(2026, 11, 24, 9, 15, 0, tzinfo=datetime.UTC)
NOW_MS = int(NOW.timestamp()) * 1000
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@contextmanager
def botocore_at(moment: datetime.datetime) -> Iterator[None]:
    """botocore signs as of this moment."""
    with patch("botocore.auth.get_current_datetime", lambda: moment.replace(tzinfo=None)):
        yield


class _Payload(S3SigV4Auth):
    """Signs what the test says of the payload."""

    said: str

    def payload(self, request: AWSRequest) -> str:
        return self.said


def signed(
    method: str = "GET",
    target: str = "/bucket/key",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    payload: str | None = None,
    moment: datetime.datetime = NOW,
    region: str = REGION,
    service: str = "s3",
    credentials: tuple[str, str] = (ACCESS_KEY, SECRET_KEY),
) -> SignedRequest:
    """A request with an Authorization header made by botocore."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers={"host": HOST, **(headers or {})}, data=body)
    auth = _Payload(Credentials(*credentials), service, region)
    auth.said = payload or hashlib.sha256(body).hexdigest()
    with botocore_at(moment):
        auth.add_auth(request)
    return as_received(method, target, {name: str(value) for name, value in request.headers.items()})


def presigned(
    method: str = "GET",
    target: str = "/bucket/key",
    headers: dict[str, str] | None = None,
    *,
    expires_s: int = 3600,
    moment: datetime.datetime = NOW,
    region: str = REGION,
) -> SignedRequest:
    """A request pre-signed by botocore."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers={"host": HOST, **(headers or {})})
    with botocore_at(moment):
        S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", region, expires=expires_s).add_auth(request)
    url = urlsplit(str(request.url))
    return as_received(method, f"{url.path}?{url.query}", {"host": HOST, **(headers or {})})


def as_received(method: str, target: str, headers: dict[str, str]) -> SignedRequest:
    """Names in lower case, values as latin-1 text of the UTF-8 bytes on the wire."""
    path, _, query = target.partition("?")
    wire = {name.lower(): value.encode().decode("latin-1") for name, value in headers.items()}
    return SignedRequest(method, path, query, wire)


def verify(request: SignedRequest, *, now_ms: int = NOW_MS, region: str = REGION) -> Verified:
    """As a store with one key would."""
    return verify_request(request, now_ms=now_ms, region=region, lookup={ACCESS_KEY: SECRET_KEY}.get)


def with_header(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    """The request with a header changed, added or (None) taken away."""
    headers = {key: text for key, text in request.headers.items() if key != name}
    return request._replace(headers=headers if value is None else {**headers, name: value})


def chunk_signature(verified: Verified, kind: str, previous: str, rest: str) -> str:
    """The signature of one chunk or trailer, by the letter of the specification."""
    text = f"AWS4-HMAC-SHA256-{kind}\n{verified.timestamp}\n{verified.scope}\n{previous}\n{rest}"
    return hmac.new(verified.key, text.encode(), hashlib.sha256).hexdigest()


def signed_chunks(verified: Verified, chunks: list[bytes], trailers: dict[str, str] | None = None) -> bytes:
    """An `aws-chunked` body with its chain of signatures; an empty last chunk is added."""
    body, previous = b"", verified.seed_signature
    for chunk in [*chunks, b""]:
        digest = hashlib.sha256(chunk).hexdigest()
        previous = chunk_signature(verified, "PAYLOAD", previous, f"{EMPTY_SHA256}\n{digest}")
        body += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailers is not None:
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        proof = chunk_signature(verified, "TRAILER", previous, hashlib.sha256(lines.encode()).hexdigest())
        body += "".join(f"{name}:{value}\r\n" for name, value in trailers.items()).encode()
        body += f"x-amz-trailer-signature:{proof}\r\n".encode()
    return body + b"\r\n"


def unsigned_chunks(chunks: list[bytes], trailers: dict[str, str] | None = None) -> bytes:
    """An `aws-chunked` body without signatures."""
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks) + b"0\r\n"
    return body + "".join(f"{name}:{value}\r\n" for name, value in (trailers or {}).items()).encode() + b"\r\n"
