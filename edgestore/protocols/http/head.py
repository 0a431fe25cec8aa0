"""The strict parser of plain request heads: what it refuses goes to aiohttp untouched, which answers or refuses it.

Rule: the fast lane takes a request, and the front counts the bytes of a body, only where no two readers could disagree
about the framing (RFC 9112 sections 2 to 7).
"""

from __future__ import annotations

import re

from edgestore.protocols.http.messages import RequestHead

LENGTH_DIGITS_MAX = 15
PLAIN_HEAD_MAX_BYTES = 8000
"""aiohttp bounds each line; a longer head is left to it, so that both lanes refuse the same."""
FIELDS_MAX = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# As every client writes them: one space behind the colon, none at the end, no empty values, no fragment.
_PLAIN_HEAD = re.compile(
    rb"(?:GET|HEAD|PUT) /[\x21\x22\x24-\x7e]*+ HTTP/1\.1(?:\r\n"
    + _TOKEN
    + rb": [\x21-\x7e][\t\x20-\x7e]*+(?<![\t ]))++"
)
_FRAMED_HEAD = re.compile(
    rb"(?:GET|HEAD|PUT|POST|DELETE|OPTIONS) /[\x21-\x7e]*+ HTTP/1\.1(?:\r\n" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+)*+"
)
_FRAMING = ("transfer-encoding", "upgrade", "te", "trailer", "proxy-connection", "http2-settings")


def parse_plain_head(data: bytes, *, is_local: bool = False, is_secure: bool = False) -> RequestHead | None:
    """A head without its final empty line; None unless everything about it is plain."""
    if len(data) > PLAIN_HEAD_MAX_BYTES or not _PLAIN_HEAD.fullmatch(data):
        return None
    request, *lines = data.decode("ascii").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    if len(headers) != len(lines) or len(lines) > FIELDS_MAX or "host" not in headers:
        return None
    method, target, _ = request.split(" ")
    length = _plain_length(headers)
    if length is None or (method != "PUT" and "content-length" in headers):
        return None
    return RequestHead(method, target, headers, length, is_local=is_local, is_secure=is_secure)


def _plain_length(headers: dict[str, str]) -> int | None:
    """The length of the body; None where the framing is not plain."""
    for name in _FRAMING:
        if name in headers:
            return None
    if "connection" in headers and headers["connection"].lower() != "keep-alive":
        return None
    if "expect" in headers and headers["expect"].lower() != "100-continue":
        return None
    length = headers.get("content-length")
    if length is None:
        return 0
    if not (length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
        return None
    return int(length)


def framed_bytes(data: bytes, end: int) -> int | None:
    """Bytes of a request whose head ends at `end` and that aiohttp takes; None: its framing is aiohttp's own affair,
    and so is the rest of the connection.
    """
    if not _FRAMED_HEAD.fullmatch(data, 0, end):
        return None
    _, *lines = data[:end].decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    length = _plain_length(headers) if len(headers) == len(lines) else None
    return None if length is None else end + 4 + length
