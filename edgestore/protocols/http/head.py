"""The strict parser of plain request heads: what it refuses goes to aiohttp untouched, which answers or refuses it.

Rule: the fast lane takes a request only where no two readers could disagree about its framing (RFC 9112 sections 2
to 7).
"""

from __future__ import annotations

import re

from edgestore.protocols.http.messages import RequestHead

METHODS = frozenset(("GET", "HEAD", "PUT"))
LENGTH_DIGITS_MAX = 15

_REQUEST_LINE = re.compile(r"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.1")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_FRAMING = frozenset(("transfer-encoding", "upgrade", "te", "trailer", "proxy-connection", "http2-settings"))


def parse_plain_head(data: bytes, *, is_local: bool) -> RequestHead | None:
    """A head without its final empty line; None unless everything about it is plain."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    request, *lines = text.split("\r\n")
    match = _REQUEST_LINE.fullmatch(request)
    if match is None or "\n" in text.replace("\r\n", "") or "\r" in text.replace("\r\n", ""):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        name = name.lower()
        if not separator or name in headers or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        headers[name] = value.strip(" \t")
    length = _body_bytes(headers)
    if length is None or match[1] not in METHODS or "host" not in headers:
        return None
    if match[1] != "PUT" and (length or "content-length" in headers):
        return None
    return RequestHead(match[1], match[2], headers, length, is_local=is_local)


def _body_bytes(headers: dict[str, str]) -> int | None:
    """The length of the body; None where the framing is not plain."""
    if not _FRAMING.isdisjoint(headers):
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    if headers.get("expect", "100-continue").lower() != "100-continue":
        return None
    length = headers.get("content-length", "0")
    if not (length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
        return None
    return int(length)


def framed_bytes(data: bytes, end: int) -> int | None:
    """Bytes of a request whose head ends at `end` and that is plain but for its method; None: aiohttp keeps the
    rest."""
    head = data[:end]
    if b"\n" in head.replace(b"\r\n", b"") or b"\r\n " in head or b"\r\n\t" in head:
        return None
    lengths = []
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        lowered = name.lower()
        if lowered.strip() in (b"transfer-encoding", b"upgrade", b"connection") or lowered != lowered.strip():
            return None
        # An answer that does not ask for the body closes the connection, so its bytes can be counted all the same.
        if lowered == b"expect" and value.strip(b" \t").lower() != b"100-continue":
            return None
        if lowered == b"content-length":
            lengths.append(value.strip(b" \t"))
    if not lengths:
        return end + 4
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS_MAX:
        return None
    return end + 4 + int(lengths[0])
