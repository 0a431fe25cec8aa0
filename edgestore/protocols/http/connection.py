"""One connection: aiohttp's handler with a fast lane in front of it.

Rule: the lane opens only while aiohttp has ended its last answer and waits; answers keep the order of their requests.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.web_protocol import RequestHandler

from edgestore.protocols.http.head import framed_bytes, parse_plain_head
from edgestore.protocols.http.messages import BodyStream, Plan, RequestHead, Response, render_head
from edgestore.protocols.http.receiver import CONTINUE, Receiver
from edgestore.protocols.http.slow import send_stream

if TYPE_CHECKING:
    from edgestore.protocols.http.front import Listener

HELD_MAX_BYTES = 256 * 1024
FOREVER = -1

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
    "_drain_helper",
    "_upgraded",
)


def missing_private_names() -> list[str]:
    """What the lane needs of aiohttp's handler and this aiohttp has not."""
    return [name for name in PRIVATE_NAMES if not hasattr(RequestHandler, name)]


class Connection(RequestHandler):
    """See the module's rule. `_owed`: bytes of the current request that aiohttp still has to get; FOREVER: all of
    them."""

    __slots__ = (
        "_answering",
        "_buffer",
        "_expired",
        "_front",
        "_head",
        "_is_fresh",
        "_is_local",
        "_need",
        "_owed",
        "_paused_by_lane",
        "_receiver",
        "_sent_continue",
        "_timer",
    )

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._front = listener.front
        self._is_local = listener.is_local
        self._owed = 0
        self._buffer = b""
        self._head: RequestHead | None = None
        self._need = 0
        self._is_fresh = True
        self._answering = self._sent_continue = self._paused_by_lane = False
        self._receiver: Receiver | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way."""
        return self._answering or self._request_in_progress or self._receiver is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuses what is over the limit of connections."""
        super().connection_made(transport)
        front = self._front
        if len(front.connections) >= front.config.connections_max or front.is_draining:
            self.force_close()
            return
        front.connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._front.connections.discard(self)
        self._stop_timer()
        self._buffer = b""
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A half-closed connection is closed when its answer is out."""

    # --- bytes -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """aiohttp's bytes to aiohttp, the lane's to the lane."""
        if self._owed == FOREVER or self._front.hot is None or not data:
            # aiohttp itself calls this with nothing, to parse on what it has kept.
            super().data_received(data)
            return
        if self._answering:
            self._hold(data)
            return
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while data and self._may_take():
            if self._owed == FOREVER:
                super().data_received(data)
                return
            if self._owed:
                part, data = data[: self._owed], data[self._owed :]
                self._owed -= len(part)
                super().data_received(part)
            else:
                data = self._begin(data)
        if data:
            self._hold(data)

    def _may_take(self) -> bool:
        """Answers keep the order of their requests: nothing is taken while one is under way."""
        return not self._answering and self._receiver is None

    def _hold(self, data: bytes) -> None:
        """What comes before the lane can go on, bounded by not reading more."""
        self._buffer += data
        if len(self._buffer) > HELD_MAX_BYTES and not self._paused_by_lane:
            self._paused_by_lane = True
            self._pause_transport_reading()

    def _is_open(self) -> bool:
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not self._messages
            and self._current_request is None
            and not self._request_in_progress
            and self._payload_parser is None
            and not (self._upgraded or self._close or self._force_close)
        )

    def _begin(self, data: bytes) -> bytes:
        """The beginning of a request. Returns what is left for the loop; what waits for more bytes goes to
        `_buffer`."""
        if self._head is not None:
            return self._collect(data)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return self._wait_for_head(data)
        self._stop_timer()
        if self._is_fresh:
            self._is_fresh = False
            if not self._is_open():
                # aiohttp's task of a new connection has not come to its wait yet: it does within this turn of the loop.
                self._buffer = data
                self._loop.call_soon(self._take_held)
                return b""
        head = parse_plain_head(data[:end], is_local=self._is_local) if self._is_open() else None
        plan = self._plan(head)
        if head is None or plan is Plan.SLOW:
            self._owed = framed_bytes(data, end) or FOREVER
            return data
        if plan is Plan.STREAM:
            return self._receive(head, data[end + 4 :])
        self._head, self._need = head, end + 4 + head.body_bytes
        return self._collect(data)

    def _plan(self, head: RequestHead | None) -> Plan:
        if head is None or head.path.startswith("/-/") or self._front.hot is None:
            return Plan.SLOW
        plan = self._front.hot.plan(head)
        if plan is Plan.WHOLE and head.body_bytes > self._front.config.fast_body_max_bytes:
            return Plan.SLOW
        return plan

    def _wait_for_head(self, data: bytes) -> bytes:
        """A head in pieces: kept while it is short, and for a bounded time."""
        if not self._is_open() or len(data) > self._front.config.head_max_bytes or b"\n\n" in data:
            self._owed = FOREVER
            return data
        self._buffer = data
        self._start_timer(self._front.config.head_timeout_s)
        return b""

    def _collect(self, data: bytes) -> bytes:
        """The body of a small request, which may come in pieces or after `100 Continue`."""
        head = self._head
        assert head is not None
        is_short = len(data) < self._need
        if head.expects_continue and not self._sent_continue and (is_short or not head.body_bytes):
            # Also where nothing is to come: awscli, once answered without it, misreads the connection's next answer.
            self._sent_continue = True
            if self.transport is not None:
                self.transport.write(CONTINUE)
        if is_short:
            self._buffer = data
            self._start_timer(self._front.config.body_idle_timeout_s, again=True)
            return b""
        self._stop_timer()
        raw, rest = data[: self._need], data[self._need :]
        self._head = None
        self._answer(head, raw, raw[len(raw) - head.body_bytes :] if head.body_bytes else b"")
        return rest

    def _answer(self, head: RequestHead, raw: bytes, body: bytes) -> None:
        hot, sent_continue = self._front.hot, self._sent_continue
        assert hot is not None
        self._sent_continue = False
        self._answering = True
        if not hot.answer(head, body, lambda response: self._reply(head, response)):
            self._answering = False
            if sent_continue:
                raw = _without_expect(raw)
            self._owed = 0
            super().data_received(raw)

    # --- answers -----------------------------------------------------------------------------------------

    def _reply(self, head: RequestHead, response: Response) -> None:
        """Writes the answer; a stream goes on in a task."""
        front = self._front
        front.metrics.count("http_requests_total")
        front.metrics.count("http_fast_requests_total")
        if response.status >= 500:
            front.metrics.count("http_errors_total")
        transport = self.transport
        body = response.body
        if transport is None or transport.is_closing():
            if isinstance(body, BodyStream):
                body.close()
            self._answering = False
            return
        keeps_alive = not front.is_draining
        is_head = head.method == "HEAD"
        rendered = render_head(response, front.dates.now(), is_head=is_head, keeps_alive=keeps_alive)
        if isinstance(body, BodyStream):
            transport.write(rendered)
            task = self._loop.create_task(self._send(body))
            task.add_done_callback(lambda _: body.close())
            return
        transport.write(rendered if is_head or not body else rendered + body)
        self._answered(keeps_alive=keeps_alive)

    async def _send(self, body: BodyStream) -> None:
        try:
            await send_stream(body, self, self._front.config.body_idle_timeout_s)
        except ConnectionError:
            self._answering = False
            return
        self._answered(keeps_alive=not self._front.is_draining)

    def _answered(self, *, keeps_alive: bool) -> None:
        """The lane may go on with what was held."""
        self._answering = False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if not keeps_alive:
            self.close()
            if self.transport is not None:
                self.transport.close()
            return
        if self._paused_by_lane and not self._paused:
            self._paused_by_lane = False
            self._resume_transport_reading()
        if self._buffer and self._head is None:
            self._loop.call_soon(self._take_held)

    def _take_held(self) -> None:
        if self._buffer and not self._answering and self._receiver is None:
            data, self._buffer = self._buffer, b""
            self.data_received(data)

    # --- large bodies ------------------------------------------------------------------------------------

    def _receive(self, head: RequestHead, rest: bytes) -> bytes:
        """Gives the connection to a receiver until the body is in and the answer is out."""
        assert self.transport is not None
        assert self._front.hot is not None
        mine, behind = rest[: head.body_bytes], rest[head.body_bytes :]
        receiver = Receiver(
            self,
            self.transport,
            self._front.pool,
            head.body_bytes,
            idle_timeout_s=self._front.config.body_idle_timeout_s,
            expects_continue=head.expects_continue and not mine,
        )
        self._receiver = receiver
        receiver.begin(mine)
        self._buffer = behind
        self._front.hot.stream(head, receiver, lambda response: self._reply_received(head, response))
        return b""

    def _reply_received(self, head: RequestHead, response: Response) -> None:
        receiver = self._receiver
        assert receiver is not None
        front = self._front
        front.metrics.count("http_requests_total")
        if response.status >= 500:
            front.metrics.count("http_errors_total")
        transport = self.transport
        keeps_alive = receiver.is_whole and not front.is_draining
        if transport is not None and not isinstance(response.body, BodyStream):
            rendered = render_head(response, front.dates.now(), is_head=False, keeps_alive=keeps_alive)
            transport.write(rendered + response.body)
        receiver.end(lambda whole: self._received(keeps_alive=whole and keeps_alive))

    def _received(self, *, keeps_alive: bool) -> None:
        self._receiver = None
        if self.transport is None:
            return
        if not keeps_alive:
            self.close()
            self.transport.close()
            return
        self._resume_transport_reading()
        self._answered(keeps_alive=True)

    # --- time and slow readers ---------------------------------------------------------------------------

    def _start_timer(self, seconds: float, *, again: bool = False) -> None:
        if self._timer is not None:
            if not again:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """A head or a small body took too long."""
        self._timer = None
        self._front.metrics.count("http_timeouts_total")
        if self.transport is not None:
            response = Response(408, [("Content-Type", "text/plain")], b"the request took too long\n")
            self.transport.write(
                render_head(response, self._front.dates.now(), is_head=False, keeps_alive=False)
                + b"the request took too long\n"
            )
        self.force_close()

    def _process_keepalive(self) -> None:
        """aiohttp's timer must not close the connection under an answer of the lane."""
        if self.is_busy and not self._force_close:
            self._keepalive_handle = self._loop.call_later(self._keepalive_timeout, self._process_keepalive)
            return
        super()._process_keepalive()

    def pause_writing(self) -> None:
        """The client does not read: no more requests are taken from it."""
        super().pause_writing()
        if not self._request_in_progress and self._receiver is None:
            self._paused_by_lane = True
            self._pause_transport_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._paused_by_lane and not self._answering:
            self._paused_by_lane = False
            self._resume_transport_reading()


def _without_expect(raw: bytes) -> bytes:
    """The request as aiohttp should see it after the lane has sent `100 Continue`."""
    end = raw.find(b"\r\n\r\n")
    lines = [line for line in raw[:end].split(b"\r\n") if not line.lower().startswith(b"expect:")]
    return b"\r\n".join(lines) + raw[end:]
