"""What ends a connection that takes too long: judged once a second for all of them, so no timer is set for a request.

Rule: whatever a client does not send or does not take is bounded in time, and so is what it waits for.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from edgestore.errors import EdgeStoreError, IncompleteBody, Unavailable
from edgestore.protocols.http.messages import RequestHead, Response, render_head
from edgestore.protocols.http.unlaned import UnlanedConnection

if TYPE_CHECKING:
    import asyncio

    from edgestore.protocols.http.front import Listener
    from edgestore.protocols.http.receiver import Receiver

CLOSING_S = 5.0
"""A connection that was closed and still has bytes to send is cut after this."""


class TimedConnection(UnlanedConnection):
    """See the module's rule. `_answering`: the request that the fast lane owes an answer; `_collecting`: the one whose
    small body comes in; `_watched`: the one that was owed an answer at the last look.
    """

    __slots__ = ("_abort_at", "_answering", "_collecting", "_deadline", "_due_at", "_receiver", "_sender", "_watched")

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._answering: RequestHead | None = None
        self._collecting: RequestHead | None = None
        self._watched: RequestHead | None = None
        self._receiver: Receiver | None = None
        self._sender: asyncio.Task[None] | None = None
        self._deadline = self._due_at = self._abort_at = inf

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way."""
        return (
            self._answering is not None
            or self._request_in_progress
            or self._receiver is not None
            or bool(self._messages)
        )

    def check(self, now_s: float) -> None:
        """Asked once a second: ends what is too slow, idle for too long, or does not end by itself."""
        wire = self._wire
        if wire is None:
            return
        if wire.is_closing():
            if now_s >= self._abort_at:
                wire.abort()
            self._abort_at = min(self._abort_at, now_s + CLOSING_S)
        elif now_s >= self._deadline:
            self._deadline = inf
            self._end_request()
        elif self._answering is not None:
            self._watch(self._answering, now_s)
        elif now_s >= self._next_keepalive_close_time and self._is_idle():
            self.force_close()

    def _end_request(self) -> None:
        """The client is too slow with its request."""
        if self._collecting is not None:
            error = IncompleteBody("the client sent its body too slowly", code="RequestTimeout")
            self._refuse_by_service(self._collecting, error)
        elif self._is_parked():
            self._front.metrics.count("http_timeouts_total")
            self._refuse(408, b"the request took too long\n")

    def _watch(self, head: RequestHead, now_s: float) -> None:
        """Ends the wait for an answer that does not come: a disk may hang in a sync for ever."""
        if self._watched is not head:
            self._watched, self._due_at = head, now_s + self._front.config.answer_timeout_s
        elif now_s >= self._due_at and self._sender is None:
            message = "the answer takes too long: whether it happened is not known yet; read, then decide"
            self._refuse_by_service(head, Unavailable(message))

    def _is_idle(self) -> bool:
        return self._deadline == inf and not self.is_busy and self._is_parked()

    def _is_parked(self) -> bool:
        """Whether aiohttp has ended its last answer and waits for a request."""
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

    def _process_keepalive(self) -> None:
        """aiohttp's timer must not close the connection under an answer of the lane: `check` does it."""

    def _refuse_by_service(self, head: RequestHead, error: EdgeStoreError) -> None:
        """A refusal in the service's own words, after which the connection ends; a later answer finds it closed."""
        hot = self._front.hot
        assert hot is not None
        self._front.metrics.count("http_timeouts_total")
        self._end_with(hot.refuse(head, error))

    def _refuse(self, status: int, text: bytes) -> None:
        """An answer of the front's own, after which the connection ends."""
        self._end_with(Response(status, [("Content-Type", "text/plain")], text))

    def _end_with(self, response: Response) -> None:
        self._deadline = inf
        self._front.count(response.status)
        if self._wire is not None and not self._wire.is_closing():
            assert isinstance(response.body, bytes)
            head = render_head(response, self._front.dates.now(), is_head=False, keeps_alive=False)
            self._wire.write(head + response.body)
        self.force_close()
