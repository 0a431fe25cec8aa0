"""The slow lane: aiohttp's requests as the handlers know them, and their answers in the front's own rendering."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from edgestore.chunks import IteratorBody, UnitPool
from edgestore.errors import IncompleteBody
from edgestore.protocols.http.messages import BodyStream, Dates, RequestHead, Response, SlowHandler, render_head

log = logging.getLogger("edgestore.http")

READ_BYTES = 262_144
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RenderedResponse(web.StreamResponse):
    """An answer that aiohttp passes on as it is."""

    def __init__(self, response: Response, dates: Dates, idle_timeout_s: float, *, may_keep_alive: bool) -> None:
        super().__init__(status=response.status)
        self._response, self._dates, self._idle_timeout_s = response, dates, idle_timeout_s
        self._may_keep_alive = may_keep_alive
        self._protocol: Any = None
        self._is_head = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes the head, and a body that is at hand."""
        keeps_alive = bool(request.keep_alive) and self._may_keep_alive
        self._keep_alive = keeps_alive
        self._protocol = request.protocol
        self._is_head = request.method == "HEAD"
        transport = request.transport
        if transport is not None:
            head = render_head(self._response, self._dates.now(), is_head=self._is_head, keeps_alive=keeps_alive)
            body = self._response.body
            transport.write(head if isinstance(body, BodyStream) or self._is_head else head + body)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends a streaming body, at the pace of the client."""
        body = self._response.body
        if isinstance(body, BodyStream):
            try:
                if not self._is_head:
                    await send_stream(body, self._protocol, self._idle_timeout_s)
            finally:
                body.close()
        self._eof_sent = True


def write_piece(protocol: Any, piece: memoryview) -> None:
    """Raises ConnectionResetError where the client is gone."""
    if protocol.transport is None:
        raise ConnectionResetError("the client is gone")
    protocol.transport.write(piece)


async def send_stream(body: BodyStream, protocol: Any, idle_timeout_s: float) -> None:
    """Writes the pieces; a failure in the middle ends the connection, so that the client never takes it for whole."""
    sent = 0
    try:
        async for piece in body.pieces:
            write_piece(protocol, piece)
            sent += len(piece)
            if protocol.writing_paused:
                async with asyncio.timeout(idle_timeout_s):
                    await protocol._drain_helper()
    except BaseException as error:
        if not isinstance(error, ConnectionError):
            log.warning("response-broken-off sent=%d of=%d error=%r", sent, body.size_bytes, error)
        if protocol.transport is not None:
            protocol.transport.abort()
        raise ConnectionResetError("the answer was broken off") from error


class _Asked:
    """Whether the client was told to send its body (`Expect: 100-continue`)."""

    __slots__ = ("for_body",)

    def __init__(self, for_body: bool) -> None:
        self.for_body = for_body


class SlowLane:
    """The request handler given to aiohttp."""

    def __init__(self, pool: UnitPool, dates: Dates, *, idle_timeout_s: float, is_local: bool) -> None:
        self._pool, self._dates = pool, dates
        self._idle_timeout_s, self._is_local = idle_timeout_s, is_local

    async def respond(self, request: web.BaseRequest, handler: SlowHandler) -> web.StreamResponse:
        """One request."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in request.raw_headers:
            # Latin-1, as the fast lane's: bytes that are no ASCII go in and out unchanged.
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        target = request.raw_path
        head = RequestHead(request.method, target, headers, request.content_length, is_local=self._is_local)
        chunked = request.content_length is None and request.body_exists
        asked = _Asked(not head.expects_continue)
        if head.expects_continue and not chunked and not head.body_bytes and request.transport is not None:
            request.transport.write(CONTINUE)
            asked.for_body = True
        body = IteratorBody(self._pool, self._pieces(request, asked), None if chunked else head.body_bytes)
        response = await handler(head, body)
        # A client whose body was not asked for may never send it: what it sends next is not to be taken for the body.
        return RenderedResponse(response, self._dates, self._idle_timeout_s, may_keep_alive=asked.for_body)

    async def _pieces(self, request: web.BaseRequest, asked: _Asked) -> AsyncIterator[bytes]:
        if not asked.for_body and request.transport is not None:
            request.transport.write(CONTINUE)
        asked.for_body = True
        while True:
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    piece = await request.content.read(READ_BYTES)
            except TimeoutError as error:
                raise IncompleteBody("the client sent nothing for too long") from error
            except (web.RequestPayloadError, ConnectionError) as error:
                raise IncompleteBody("the body was cut short or is malformed") from error
            if not piece:
                return
            yield piece
