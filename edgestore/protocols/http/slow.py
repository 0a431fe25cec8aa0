"""The slow lane: aiohttp's requests as the handlers know them, and their answers in the front's own rendering."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

from edgestore.chunks import UNIT_WORTH_BYTES, IteratorBody, UnitPool
from edgestore.errors import IncompleteBody
from edgestore.protocols.http.messages import BodyStream, Dates, RequestHead, Response, SlowHandler, render_head
from edgestore.protocols.http.pace import Pace

log = logging.getLogger("edgestore.http")

READ_BYTES = 262_144
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SINGLE = frozenset(
    (
        "authorization",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "expect",
        "host",
        "range",
        "x-amz-content-sha256",
        "x-amz-copy-source",
        "x-amz-date",
        "x-amz-decoded-content-length",
    )
)
"""Headers that mean one thing: given twice, two readers could take different ones."""


class RenderedResponse(web.StreamResponse):
    """An answer that aiohttp passes on as it is."""

    def __init__(
        self,
        response: Response,
        dates: Dates,
        *,
        idle_timeout_s: float = 60.0,
        may_keep_alive: bool = False,
        is_unasked: bool = False,
    ) -> None:
        super().__init__(status=response.status)
        self._response, self._dates, self._idle_timeout_s = response, dates, idle_timeout_s
        self._may_keep_alive, self._is_unasked = may_keep_alive, is_unasked
        self._protocol: Any = None
        self._is_head = self._keeps_alive = self._is_sent = False

    @property
    def keep_alive(self) -> bool:
        """Whether aiohttp waits for another request."""
        return self._keeps_alive

    @property
    def prepared(self) -> bool:
        """Whether aiohttp may not write this answer any more."""
        return self._is_sent

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes the head, and a body that is at hand."""
        keeps_alive = bool(request.keep_alive) and self._may_keep_alive
        self._keeps_alive = keeps_alive
        self._protocol = request.protocol
        self._is_head = request.method == "HEAD"
        transport = request.transport
        if transport is not None:
            if keeps_alive and request.version < HttpVersion11:
                self._response.headers.append(("Connection", "keep-alive"))
            head = render_head(self._response, self._dates.now(), is_head=self._is_head, keeps_alive=keeps_alive)
            body = self._response.body
            transport.write(head if isinstance(body, BodyStream) or self._is_head else head + body)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends a streaming body, at the pace of the client; aiohttp begins the next answer when this one is taken."""
        try:
            await self._finish()
        finally:
            self._protocol.end_answer()

    async def _finish(self) -> None:
        body = self._response.body
        if isinstance(body, BodyStream):
            try:
                if not self._is_head:
                    await send_stream(body, self._protocol, self._idle_timeout_s)
            finally:
                body.close()
        elif self._protocol.writing_paused:
            await drained(self._protocol, self._idle_timeout_s)
        if self._is_unasked:
            self._protocol.force_close()  # aiohttp would wait for the rest of a body that nobody asked for
        self._is_sent = True


async def send_stream(body: BodyStream, protocol: Any, idle_timeout_s: float) -> None:
    """Writes the pieces; a failure in the middle ends the connection, so that the client never takes it for whole."""
    sent = 0
    try:
        async for piece in body.pieces:
            if protocol.transport is None:
                break
            protocol.transport.write(piece)
            sent += len(piece)
            if protocol.writing_paused:
                await _taken(protocol, idle_timeout_s)
    except asyncio.CancelledError:
        protocol.abort()
        raise
    except Exception as error:
        log.warning("response-broken-off sent=%d of=%d error=%r", sent, body.size_bytes, error)
        protocol.abort()
        raise ConnectionResetError("the answer was broken off") from error
    if sent != body.size_bytes or protocol.transport is None:
        protocol.abort()
        raise ConnectionResetError("the client is gone, or the body has another length than it should")


async def drained(protocol: Any, idle_timeout_s: float) -> None:
    """Waits until the client has taken most of what is written; one that takes nothing for too long is cut."""
    try:
        await _taken(protocol, idle_timeout_s)
    except TimeoutError as error:
        log.info("response-not-taken")
        protocol.abort()
        raise ConnectionResetError("the client does not read") from error


async def _taken(protocol: Any, idle_timeout_s: float) -> None:
    """Waits for the client to read, as long as it takes something within each timeout."""
    transport = protocol.transport
    while protocol.writing_paused:
        before = transport.get_write_buffer_size()
        try:
            async with asyncio.timeout(idle_timeout_s):
                await protocol.taken()
        except TimeoutError:
            if transport.get_write_buffer_size() >= before:
                raise


class _Asked:
    """Whether the client was told to send its body (`Expect: 100-continue`), and whether it is still waited for."""

    __slots__ = ("for_body", "gave_up")

    def __init__(self, for_body: bool) -> None:
        self.for_body, self.gave_up = for_body, False


class SlowLane:
    """The request handler given to aiohttp."""

    def __init__(
        self,
        pool: UnitPool,
        dates: Dates,
        *,
        idle_timeout_s: float,
        pace: Callable[[], Pace],
        is_local: bool,
        is_secure: bool,
        is_draining: Callable[[], bool],
    ) -> None:
        self._pool, self._dates = pool, dates
        self._idle_timeout_s, self._is_local, self._is_secure = idle_timeout_s, is_local, is_secure
        self._pace, self._is_draining = pace, is_draining

    def refuse(self, text: str) -> RenderedResponse:
        """An answer of the front's own, and the connection ends."""
        return RenderedResponse(Response(400, [("Content-Type", "text/plain")], f"{text}\n".encode()), self._dates)

    async def respond(self, request: web.BaseRequest, handler_of: Callable[[str], SlowHandler]) -> RenderedResponse:
        """One request."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in request.raw_headers:
            # Latin-1, as the fast lane's: bytes that are no ASCII go in and out unchanged.
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
            if name in headers:
                if name in SINGLE:
                    return self.refuse(f"the header {name} is given twice")
                value = f"{headers[name]},{value}"
            headers[name] = value
        target = _origin_form(request.raw_path, headers)
        if not target.startswith("/"):
            return self.refuse("the target of the request is not a path")
        if "host" not in headers and request.version >= HttpVersion11:
            return self.refuse("the header Host is missing")
        path, _, query = target.partition("?")
        head = RequestHead(
            request.method,
            path,
            query,
            headers,
            request.content_length or 0,
            headers.get("expect", "").lower() == "100-continue",
            self._is_local,
            self._is_secure,
        )
        chunked = request.content_length is None and request.body_exists
        asked = _Asked(not head.expects_continue)
        if head.expects_continue and not chunked and not head.body_bytes and request.transport is not None:
            request.transport.write(CONTINUE)
            asked.for_body = True
        body = IteratorBody(self._pool, self._pieces(request, asked), None if chunked else head.body_bytes)
        response = await handler_of(head.path)(head, body)
        # A client whose body was not asked for may never send it: what it sends next is not to be taken for the body.
        return RenderedResponse(
            response,
            self._dates,
            idle_timeout_s=self._idle_timeout_s,
            # Nothing here is upgraded, and what follows a declined upgrade is not worth telling apart.
            may_keep_alive=asked.for_body and not (asked.gave_up or self._is_draining()) and "upgrade" not in headers,
            is_unasked=not asked.for_body,
        )

    async def _pieces(self, request: web.BaseRequest, asked: _Asked) -> AsyncIterator[bytes]:
        if not asked.for_body and request.transport is not None:
            request.transport.write(CONTINUE)
        asked.for_body = True
        pace, seen, loop = self._pace(), 0, asyncio.get_running_loop()
        while True:
            since_s, piece = loop.time(), None
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pace.left_s):
                        piece = await request.content.read(READ_BYTES)
            except (web.RequestPayloadError, ConnectionError) as error:
                raise IncompleteBody("the body was cut short or is malformed") from error
            except RuntimeError as error:  # what aiohttp says of a read behind the end of the connection
                if request.transport is not None:
                    raise
                raise IncompleteBody("the connection ended before the end of the body") from error
            if piece == b"":
                return
            count = len(piece) if piece else 0
            seen += count
            try:
                pace.waited(loop.time() - since_s, count, holds_unit=seen >= UNIT_WORTH_BYTES)
            except IncompleteBody:
                asked.gave_up = True
                raise
            if piece:
                yield piece


def _origin_form(target: str, headers: dict[str, str]) -> str:
    """The path of an absolute target, whose authority then counts as the host (RFC 9112 section 3.2.2)."""
    if target[:7].lower() not in ("http://", "https:/"):
        return target
    authority = urlsplit(target).netloc
    if not authority or "@" in authority:
        return ""
    headers["host"] = authority
    rest = target[target.find(authority) + len(authority) :]
    return rest if rest.startswith("/") else "/" + rest
