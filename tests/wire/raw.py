"""Requests that no client would send: signed by botocore, then changed, then sent byte for byte."""

from __future__ import annotations

import hashlib
import http.client
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.faults.process import ACCESS_KEY, SECRET_KEY


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The S3 code of an error document; empty for no document."""
        return ElementTree.fromstring(self.body).findtext("Code") or "" if self.body.startswith(b"<?xml") else ""


def send(endpoint: str, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """Sends exactly this; only Content-Length is added."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=20)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if method in ("PUT", "POST") and not {"Content-Length", "Transfer-Encoding"} & headers.keys():
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def signed_headers(
    endpoint: str,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    credentials: tuple[str, str] = (ACCESS_KEY, SECRET_KEY),
) -> dict[str, str]:
    """The headers of a request that is signed over `target` exactly as it stands."""
    given = {
        "host": urlsplit(endpoint).netloc,
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        **(headers or {}),
    }
    request = AWSRequest(method, endpoint + target, headers=given, data=body)
    _Auth(Credentials(*credentials), "s3", "us-east-1").add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}


def call(
    endpoint: str, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", **options: Any
) -> Answer:
    """A signed request, sent as it was signed."""
    return send(endpoint, method, target, signed_headers(endpoint, method, target, headers, body, **options), body)


def presigned(endpoint: str, method: str, target: str, expires_s: int = 60) -> str:
    """The target of a pre-signed request."""
    request = AWSRequest(method, endpoint + target)
    S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1", expires=expires_s).add_auth(request)
    return str(request.url).removeprefix(endpoint)


def tampered(text: str) -> str:
    """The same with the last digit of its signature changed."""
    return re.sub(
        r"(Signature=[0-9a-f]{63})([0-9a-f])", lambda found: found[1] + ("0" if found[2] != "0" else "1"), text
    )


class _Auth(S3SigV4Auth):  # type: ignore[misc]
    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        # Keeps the payload hash that the test chose.
        chosen = request.headers["x-amz-content-sha256"]
        super()._modify_request_before_signing(request)
        del request.headers["x-amz-content-sha256"]
        request.headers["x-amz-content-sha256"] = chosen

    def payload(self, request: AWSRequest) -> str:
        return str(request.headers["x-amz-content-sha256"])
