"""One connection: aiohttp's handler with a fast lane in front of it.

Rule: the lane opens only while aiohttp has ended its last answer and waits; answers keep the order of their requests;
whatever a client does not send or does not read is bounded in bytes and in time.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any

from edgestore.protocols.http.head import framed_bytes, parse_plain_head
from edgestore.protocols.http.messages import BodyStream, Plan, RequestHead, Response, render_head
from edgestore.protocols.http.receiver import CONTINUE, Receiver
from edgestore.protocols.http.slow import send_stream
from edgestore.protocols.http.timed import TimedConnection

if TYPE_CHECKING:
    from edgestore.protocols.http.front import Listener

log = logging.getLogger("edgestore.http")

HELD_MAX_BYTES = 256 * 1024
FOREVER = -1


class Connection(TimedConnection):
    """See the module's rule. `_owed`: bytes of the current request that aiohttp still has to get; FOREVER: all."""

    __slots__ = (
        "_held",
        "_is_fresh",
        "_is_secure",
        "_missing",
        "_owed",
        "_parts",
        "_paused_by_lane",
        "_raw_head",
        "_reserved",
        "_scanned",
        "_sent_continue",
        "_unanswered_bytes",
    )

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._is_secure = listener.is_secure
        self._owed = 0 if self._front.hot is not None else FOREVER
        self._held = b""
        self._scanned = 0
        self._raw_head = b""
        self._parts: list[bytes] = []
        self._missing = self._reserved = self._unanswered_bytes = 0
        self._is_fresh = True
        self._sent_continue = self._paused_by_lane = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._held, self._parts = b"", []
        self._reserve(0)
        self._deadline = inf
        super().connection_lost(exc)

    # --- bytes in ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """aiohttp's bytes to aiohttp, the lane's to the lane."""
        if not data:
            # aiohttp itself calls this with nothing, to parse on what it has kept.
            super().data_received(data)
        elif self._owed == FOREVER:
            self._feed(data)
        elif self._answering is not None or self._receiver is not None:
            self._hold(data)
        else:
            if self._held:
                data, self._held = self._held + data, b""
            self._advance(data)

    def _advance(self, data: bytes) -> None:
        while data:
            if self._owed == FOREVER:
                self._feed(data)
                return
            if self._owed:
                part, data = data[: self._owed], data[self._owed :]
                self._owed -= len(part)
                super().data_received(part)
            elif self._collecting is not None:
                data = self._collect(self._collecting, data)
            elif self._answering is not None or self._paused or self._receiver is not None:
                self._hold(data)
                return
            else:
                data = self._begin(data)

    def _feed(self, data: bytes) -> None:
        """All to aiohttp, which bounds each line but neither the time nor the bytes of a head."""
        super().data_received(data)
        if not self._is_parked():
            self._unanswered_bytes, self._deadline = 0, inf
            return
        if not self._unanswered_bytes:
            self._deadline = self._loop.time() + self._front.config.head_timeout_s
        self._unanswered_bytes += len(data)
        if self._unanswered_bytes > self._front.config.head_max_bytes:
            self._refuse(431, b"the head of the request is too long\n")

    def _hold(self, data: bytes) -> None:
        """What comes before the lane can go on, bounded by not reading more."""
        self._held += data
        if len(self._held) > HELD_MAX_BYTES:
            self._paused_by_lane = True
            self._pause_transport_reading()

    def _go_on(self) -> None:
        """The lane may go on with what was held."""
        if self._paused_by_lane and not self._paused:
            self._paused_by_lane = False
            if not (self._reading_paused or self._buffer_paused):  # else aiohttp has enough of its own
                self._resume_transport_reading()
        if self._held:
            self._loop.call_soon(self._take_held)

    def _take_held(self) -> None:
        if self._held and self._answering is None and not self._paused and self._receiver is None:
            data, self._held = self._held, b""
            self._advance(data)

    # --- the beginning of a request ----------------------------------------------------------------------

    def _begin(self, data: bytes) -> bytes:
        """Chooses the lane. Returns what is left for the loop; a head in pieces is held."""
        end = data.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            return self._wait_for_head(data)
        self._scanned = 0
        self._deadline = inf
        head = None
        if self._is_parked():
            head = parse_plain_head(data[:end], is_local=self._is_local, is_secure=self._is_secure)
        elif self._is_fresh:
            # aiohttp's task of a new connection has not come to its wait yet: it does within this turn of the loop.
            self._is_fresh = False
            self._held = data
            self._loop.call_soon(self._take_held)
            return b""
        self._is_fresh = False
        plan = self._plan(head)
        if head is None or plan is Plan.SLOW:
            self._owed = framed_bytes(data, end) or FOREVER
            return data
        start = end + 4
        size = head.body_bytes
        if len(data) >= start + size and plan is Plan.WHOLE and (size or not head.expects_continue):
            self._answer(head, data[:start], data[start : start + size])
            return data[start + size :]
        if plan is Plan.STREAM or (len(data) - start < size and not self._reserve(size)):
            self._receive(head, data[start:])
            return b""
        self._raw_head, self._collecting, self._missing = data[:start], head, size
        return self._collect(head, data[start:])

    def _plan(self, head: RequestHead | None) -> Plan:
        front = self._front
        if head is None or front.hot is None or head.path.startswith("/-/"):
            return Plan.SLOW
        plan = front.hot.plan(head)
        if plan is Plan.WHOLE and head.body_bytes > front.config.fast_body_max_bytes:
            return Plan.SLOW
        return plan

    def _wait_for_head(self, data: bytes) -> bytes:
        """A head in pieces: kept while it is short and may become plain, and for a bounded time."""
        is_odd = b"\n\n" in data or b"\n\r\n" in data or not (data[:1].isalpha() or data[:1] == b"\r")
        if is_odd or not self._is_parked() or len(data) > self._front.config.head_max_bytes:
            self._scanned, self._deadline, self._owed = 0, inf, FOREVER
            return data
        self._held, self._scanned = data, max(0, len(data) - 3)
        if self._deadline == inf:
            self._deadline = self._loop.time() + self._front.config.head_timeout_s
        return b""

    def _reserve(self, count: int) -> bool:
        """Counts a small body against what all of them may take together; False: they have taken it."""
        front = self._front
        front.collecting_bytes -= self._reserved
        fits = front.collecting_bytes + count <= front.config.fast_bodies_max_bytes
        self._reserved = count if fits else 0
        front.collecting_bytes += self._reserved
        return fits

    def _collect(self, head: RequestHead, data: bytes) -> bytes:
        """The body of a small request, which may come in pieces or after `100 Continue`."""
        missing = self._missing
        if head.expects_continue and not self._sent_continue and (len(data) < missing or not head.body_bytes):
            # Also where nothing is to come: awscli, once answered without it, misreads the connection's next answer.
            self._sent_continue = True
            if self._wire is not None:
                self._wire.write(CONTINUE)
        if len(data) < missing:
            if self._deadline == inf:
                self._deadline = self._loop.time() + self._front.config.body_idle_timeout_s
            self._parts.append(data)
            self._missing = missing - len(data)
            return b""
        body, rest = data[:missing], data[missing:]
        if self._parts:
            body, self._parts = b"".join((*self._parts, body)), []
        if self._reserved:
            self._reserve(0)
        raw, self._raw_head = self._raw_head, b""
        self._collecting, self._deadline = None, inf
        if self._sent_continue:
            self._sent_continue = False
            raw = _without_expect(raw)
        self._answer(head, raw, body)
        return rest

    # --- answers -----------------------------------------------------------------------------------------

    def _answer(self, head: RequestHead, raw: bytes, body: bytes) -> None:
        """`raw`: the head as aiohttp gets it where the request is not hot after all."""
        hot = self._front.hot
        assert hot is not None
        self._answering = head
        try:
            is_hot = hot.answer(head, body, self._reply)
        except Exception:
            log.exception("request-failed method=%s path=%s", head.method, head.path)
            self._refuse(500, b"the request failed\n")
            return
        if not is_hot:
            self._answering = None
            super().data_received(raw + body)

    def _reply(self, head: RequestHead, response: Response) -> None:
        """Writes the answer; a stream goes on in a task."""
        front, wire, body = self._front, self._wire, response.body
        front.count(response.status)
        front.metrics.count("http_fast_requests_total")
        is_head = head.method == "HEAD"
        if wire is None or wire.is_closing():
            self._answering = None
        else:
            keeps_alive = not front.is_draining
            rendered = render_head(response, front.dates.now(), is_head=is_head, keeps_alive=keeps_alive)
            if not isinstance(body, BodyStream):
                wire.write(rendered if is_head or not body else rendered + body)
                self._answered(keeps_alive=keeps_alive)
                return
            wire.write(rendered)
            if not is_head:
                self._sender = self._loop.create_task(self._send(body))
                return
            self._answered(keeps_alive=keeps_alive)
        if isinstance(body, BodyStream):
            body.close()

    async def _send(self, body: BodyStream) -> None:
        try:
            await send_stream(body, self, self._front.config.body_idle_timeout_s)
        except ConnectionError:
            self._answering = None
            return
        finally:
            body.close()
            self._sender = None
        self._answered(keeps_alive=not self._front.is_draining)

    def _answered(self, *, keeps_alive: bool) -> None:
        self._answering = None
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if not keeps_alive:
            self.force_close()
        elif self._held or self._paused_by_lane:
            self._go_on()

    # --- large bodies ------------------------------------------------------------------------------------

    def _receive(self, head: RequestHead, rest: bytes) -> None:
        """Gives the connection to a receiver until the body is in and the answer is out."""
        front = self._front
        assert self._wire is not None
        assert front.hot is not None
        mine, self._held = rest[: head.body_bytes], rest[head.body_bytes :]
        receiver = Receiver(
            self,
            self._wire,
            front.pool,
            head.body_bytes,
            pace=front.pace(),
            expects_continue=head.expects_continue and not mine,
        )
        self._receiver = receiver
        receiver.begin(mine)
        front.hot.stream(head, receiver, self._reply_received)

    def _reply_received(self, head: RequestHead, response: Response) -> None:
        receiver, front, wire = self._receiver, self._front, self._wire
        assert receiver is not None
        front.count(response.status)
        front.metrics.count("http_fast_requests_total")
        keeps_alive = receiver.is_whole and not front.is_draining
        if isinstance(response.body, BodyStream):
            response.body.close()
            self.abort()
        elif wire is not None and not wire.is_closing():
            rendered = render_head(response, front.dates.now(), is_head=False, keeps_alive=keeps_alive)
            wire.write(rendered + response.body)
        receiver.end(lambda whole: self._received(keeps_alive=whole and keeps_alive))

    def _received(self, *, keeps_alive: bool) -> None:
        self._receiver = None
        if self._wire is not None and not self._wire.is_closing():
            if keeps_alive:
                self._paused_by_lane = True  # the receiver has left it paused
            self._answered(keeps_alive=keeps_alive)

    # --- slow readers ------------------------------------------------------------------------------------

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._answering is None and self._receiver is None and (self._held or self._paused_by_lane):
            self._go_on()


def _without_expect(raw: bytes) -> bytes:
    """The head as aiohttp should see it after the lane has sent `100 Continue`."""
    return b"\r\n".join(line for line in raw.split(b"\r\n") if not line.lower().startswith(b"expect:"))
