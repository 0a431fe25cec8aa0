"""Requests and responses as both lanes know them, and the one rendering of a response.

Rule: an answer has the same bytes whichever lane it takes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol

import msgspec

from edgestore.chunks import Body
from edgestore.errors import EdgeStoreError

SERVER = "edgestore"
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset((204, 304))
_LINE_ENDS = re.compile(r"[\r\n\0]")


class RequestHead(msgspec.Struct, gc=False):
    """A request without its body. `path` and `query` are as they came; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body_bytes: int
    expects_continue: bool
    is_local: bool = False
    is_secure: bool = False


@dataclass(slots=True)
class BodyStream:
    """A body that is read while it is sent. `close` is called once, when it is sent or given up.

    The transport keeps pieces until the client has taken them: their memory is never written again.
    """

    pieces: AsyncIterator[memoryview]
    size_bytes: int
    close: Callable[[], None] = lambda: None


class Response(msgspec.Struct):
    """An answer. Content-Length is added here, unless the handler of a HEAD request gave it. Values are latin-1."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | memoryview | BodyStream = b""


class Plan(Enum):
    """What the fast lane may do with a request."""

    SLOW = auto()
    """Nothing: aiohttp takes it."""
    WHOLE = auto()
    """Collect the whole (small) body, then `answer`."""
    STREAM = auto()
    """Receive the body into units, then `stream`."""


HotReply = Callable[[RequestHead, Response], None]


class HotHandler(Protocol):
    """What answers in the fast lane."""

    def plan(self, head: RequestHead) -> Plan:
        """Decides from the head alone, in microseconds."""
        ...

    def answer(self, head: RequestHead, body: bytes, reply: HotReply) -> bool:
        """Answers now or later through `reply`, once. False: not hot after all, nothing happened."""
        ...

    def stream(self, head: RequestHead, body: Body, reply: HotReply) -> bool:
        """Takes a large body; `reply` once."""
        ...

    def refuse(self, head: RequestHead, error: EdgeStoreError) -> Response:
        """The words in which a request is refused that the front gives up: its body stopped, or its answer."""
        ...


SlowHandler = Callable[[RequestHead, Body], Awaitable[Response]]


class Dates:
    """The Date header, made once a second."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms, self._second, self._text = wall_ms, -1, ""

    def now(self) -> str:
        """RFC 9110 IMF-fixdate."""
        second = self._wall_ms() // 1000
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


def render_head(response: Response, date: str, *, is_head: bool, keeps_alive: bool) -> bytes:
    """Status line and headers."""
    status, body, given = response.status, response.body, response.headers
    fields = "".join([f"{name}: {value}\r\n" for name, value in given])
    if fields.count("\n") != len(given) or fields.count("\r") != len(given) or "\0" in fields:
        # A value with a line end in it would be a header, or an answer, of its own.
        fields = "".join([f"{_LINE_ENDS.sub(' ', f'{name}: {value}')}\r\n" for name, value in given])
    length = ""
    if status not in _BODILESS and not (is_head and any(name == "Content-Length" for name, _ in given)):
        length = f"Content-Length: {body.size_bytes if isinstance(body, BodyStream) else len(body)}\r\n"
    close = "" if keeps_alive else "Connection: close\r\n"
    reason = _REASONS.get(status, "Unknown")
    text = f"HTTP/1.1 {status} {reason}\r\n{fields}{length}Date: {date}\r\nServer: {SERVER}\r\n{close}\r\n"
    return text.encode("latin-1", "replace")
