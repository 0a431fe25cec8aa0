"""One connection that this node has made, and the calls on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from edgestore.config import NetConfig
from edgestore.errors import TooBusy, Unavailable
from edgestore.net.calls import Answer, Calls
from edgestore.net.connection import Connection, Network
from edgestore.net.frames import Buffer, Frame, Kind, hello_frame
from edgestore.net.methods import Lane, Method, Topic
from edgestore.net.tls import Credentials


class Link:
    """A connection to one node. `on_closed` is called once when it is gone."""

    def __init__(self, connection: Connection, config: NetConfig) -> None:
        self.on_closed: Callable[[], None] = lambda: None
        self.peer_certificate = connection.peer_certificate
        self._now_s = asyncio.get_running_loop().time
        self.heard_s = self._now_s()
        self.is_open = True
        self._connection, self._config = connection, config
        self._calls = Calls(config.calls_max)
        connection.on_frame, connection.on_closed = self._received, self._lost

    @property
    def waiting(self) -> int:
        """Calls without an answer."""
        return len(self._calls)

    def send(self, topic: Topic, head: bytes) -> bool:
        """One message; False where too much waits to leave."""
        if not self.is_open or self._connection.buffered_bytes + len(head) > self._config.send_buffer_max_bytes:
            return False
        self._connection.send(Frame(Kind.MESSAGE, topic, 0, head))
        return True

    async def call(self, method: Method, head: bytes, payload: Sequence[Buffer], timeout_s: float = math.inf) -> Answer:
        """Raises Unavailable with the connection, TooBusy, TimeoutError, and what the handler raised."""
        if not self.is_open:
            raise Unavailable("the connection to the node is gone")
        if self._connection.buffered_bytes > self._config.send_buffer_high_bytes:
            timeout_s = await self._wait_for_room(timeout_s)
        if self._connection.buffered_bytes > self._config.send_buffer_max_bytes:
            raise TooBusy("too much waits to be sent to one node (net.send_buffer_max_bytes)")
        if not self.is_open:
            raise Unavailable("the connection to the node is gone")
        number, answer = self._calls.begin(timeout_s)
        try:
            self._connection.send(Frame(Kind.REQUEST, method, number, head, payload))
            return await answer
        finally:
            self._calls.forget(number)

    async def _wait_for_room(self, timeout_s: float) -> float:
        """What is left of the time."""
        begun_s = self._now_s()
        async with asyncio.timeout(timeout_s if timeout_s < math.inf else None):
            await self._connection.drain()
        return timeout_s - (self._now_s() - begun_s)

    def _received(self, frame: Frame) -> None:
        self.heard_s = self._now_s()
        if frame.kind is Kind.ANSWER or frame.kind is Kind.ERROR:
            self._calls.answered(frame)
        else:
            self.close()

    def _lost(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._calls.fail("the connection to the node was lost: whether it did what was asked is not known")
        self.on_closed()

    def close(self) -> None:
        """At once."""
        self._connection.close()
        self._lost()


async def open_link(
    network: Network, host: str, port: int, credentials: Credentials, config: NetConfig, local: str, lane: Lane
) -> Link:
    """Dials and says hello. Raises Unavailable."""
    connection = await network.dial(host, port, credentials, config, local)
    link = Link(connection, config)
    connection.send(hello_frame(lane, credentials.start))
    return link
