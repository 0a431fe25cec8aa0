"""Plain request heads: what is not plain goes to aiohttp untouched, which answers or refuses it.

Rule: the fast lane takes a request, and the front counts the bytes of a body, only where no two readers could disagree
about the framing (RFC 9112 sections 2 to 7).
"""

from __future__ import annotations

import re

from edgestore.kernels import parse_head, plain_length
from edgestore.protocols.http.messages import RequestHead

_FRAMED_HEAD = re.compile(
    rb"(?:GET|HEAD|PUT|POST|DELETE|OPTIONS) /[\x21-\x7e]*+ HTTP/1\.1"
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)


def parse_plain_head(data: bytes, *, is_local: bool = False, is_secure: bool = False) -> RequestHead | None:
    """A head without its final empty line; None unless everything about it is plain."""
    found = parse_head(data)
    return None if found is None else RequestHead(*found, is_local, is_secure)


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
    length = plain_length(headers) if len(headers) == len(lines) else None
    return None if length is None else end + 4 + length
