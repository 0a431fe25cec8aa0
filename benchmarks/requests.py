"""Prepared S3 requests, signed by botocore: pre-signed ones, and ones byte for byte as boto3 sends them over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest
from botocore.client import Config

from benchmarks.load import Request


def client(endpoint: str, access_key: str, secret_key: str) -> Any:
    """A boto3 client as a user would make it, without retries."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1}),
    )


def presigned(s3: Any, method: str, bucket: str, keys: list[str], body: bytes = b"") -> list[Request]:
    """One pre-signed GET or PUT for each key."""
    operation = {"GET": "get_object", "PUT": "put_object"}[method]
    requests = []
    for key in keys:
        url = urlsplit(s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key}, ExpiresIn=3600))
        length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
        head = f"{method} {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n{length}\r\n"
        requests.append(Request(head.encode(), body))
    return requests


class _Recorded(Exception):
    """Raised in place of sending."""


def as_boto3_sends(s3: Any, method: str, bucket: str, keys: list[str], body: bytes = b"") -> list[Request]:
    """What boto3 itself would put on the wire for each key: header signature, checksum header, Expect."""
    recorded: list[AWSPreparedRequest] = []

    def record(request: AWSPreparedRequest, **_: object) -> None:
        recorded.append(request)
        raise _Recorded

    s3.meta.events.register("before-send.s3", record, unique_id="benchmarks")
    try:
        for key in keys:
            try:
                if method == "GET":
                    s3.get_object(Bucket=bucket, Key=key)
                else:
                    s3.put_object(Bucket=bucket, Key=key, Body=body)
            except _Recorded:
                pass
    finally:
        s3.meta.events.unregister("before-send.s3", unique_id="benchmarks")
    return [_serialised(request, body) for request in recorded]


def _serialised(request: AWSPreparedRequest, body: bytes) -> Request:
    url = urlsplit(request.url)
    lines = [
        f"{request.method} {url.path}{'?' + url.query if url.query else ''} HTTP/1.1",
        f"Host: {url.netloc}",
        "Accept-Encoding: identity",
    ]
    expects = False
    for name, value in request.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        expects = expects or (name.lower() == "expect" and "100-continue" in text.lower())
        lines.append(f"{name}: {text}")
    return Request(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body, expects)
