"""What both kinds of connection share, and all that is left of one where aiohttp's inside is not as the lane needs it.

Rule: the private names of aiohttp that the lane uses are listed here and checked when a front is made.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from edgestore.protocols.http.messages import Response
from edgestore.protocols.http.slow import RenderedResponse

if TYPE_CHECKING:
    from edgestore.protocols.http.front import Listener

log = logging.getLogger("edgestore.http")

PRIVATE_NAMES = (
    "_messages",
    "_waiter",
    "_current_request",
    "_request_in_progress",
    "_payload_parser",
    "_force_close",
    "_close",
    "_keepalive_timeout",
    "_next_keepalive_close_time",
    "_process_keepalive",
    "_upgraded",
    "_paused",
    "_reading_paused",
    "_buffer_paused",
    "_loop",
    "_pause_transport_reading",
    "_resume_transport_reading",
)


def missing_private_names() -> list[str]:
    """What the lane needs of aiohttp's handler and this aiohttp has not."""
    return [name for name in PRIVATE_NAMES if not hasattr(RequestHandler, name)]


class UnlanedConnection(RequestHandler):
    """A connection that is all aiohttp's: what is served with where its inside is not as the lane needs it."""

    __slots__ = ("_answers", "_front", "_is_arriving", "_is_local", "_taken", "_wire")

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._front = listener.front
        self._is_local = listener.is_local
        self._is_arriving = False
        self._answers = 0
        self._wire: asyncio.Transport | None = None
        self._taken: asyncio.Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way."""
        return self._answers > 0

    def begin_answer(self) -> None:
        """The slow lane has a request of it."""
        self._answers += 1

    def end_answer(self) -> None:
        """The answer is written, or there will be none."""
        self._answers -= 1

    def arrive(self) -> None:
        """It is accepted: it takes a place before it is made."""
        self._is_arriving = True
        self._front.arriving += 1

    def arrived(self) -> None:
        """It is made, or never will be."""
        if self._is_arriving:
            self._is_arriving = False
            self._front.arriving -= 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Joins the connections of the front, unless it drains."""
        super().connection_made(transport)
        self.arrived()
        front = self._front
        self._wire = self.transport
        if front.is_draining:
            self.force_close()
            return
        if self._wire is not None:
            self._wire.set_write_buffer_limits(high=front.config.write_buffer_max_bytes)
        front.connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._front.connections.discard(self)
        self._wire = None
        super().connection_lost(exc)
        self._rouse()

    async def taken(self) -> None:
        """Waits until the client has taken most of what is written. Raises ConnectionResetError where it is gone."""
        if self._wire is None:
            raise ConnectionResetError("the client is gone")
        if self._taken is None:
            self._taken = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._taken)
        if self._wire is None:
            raise ConnectionResetError("the client is gone")

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._rouse()

    def _rouse(self) -> None:
        if self._taken is not None:
            self._taken.set_result(None)
            self._taken = None

    def check(self, now_s: float) -> None:
        """Asked once a second whether something takes too long."""

    def abort(self) -> None:
        """Cuts the connection."""
        if self._wire is not None:
            self._wire.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp answers by itself, in the front's own rendering: nothing of the inside is shown."""
        if status >= 500:
            log.error("request-failed status=%d", status, exc_info=exc)
        else:
            log.info("request-malformed status=%d error=%s", status, type(exc).__name__)
        self._front.count(status)
        text = b"the request is malformed\n" if status < 500 else b"the request failed\n"
        return RenderedResponse(Response(status, [("Content-Type", "text/plain")], text), self._front.dates)
