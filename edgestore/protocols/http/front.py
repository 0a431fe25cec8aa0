"""The listeners: connections with a fast lane, routes below `/-/`, limits, draining."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from aiohttp import web

from edgestore.chunks import Body, UnitPool
from edgestore.config import HttpConfig
from edgestore.observe import NO_METRICS, Metrics
from edgestore.protocols.http.acceptor import Acceptor, bind
from edgestore.protocols.http.connection import Connection
from edgestore.protocols.http.messages import Dates, HotHandler, RequestHead, Response, SlowHandler
from edgestore.protocols.http.pace import Pace
from edgestore.protocols.http.receiver import LINGER_S
from edgestore.protocols.http.slow import SlowLane
from edgestore.protocols.http.unlaned import UnlanedConnection, missing_private_names

log = logging.getLogger("edgestore.http")

ROUTES_PREFIX = "/-/"
SWEEP_S = 1.0
DRAIN_POLL_S = 0.02
ABORT_S, ABORT_TURNS = 0.5, 1000
"""Both: on a busy machine half a second may be less than a turn."""
FIELD_MAX_BYTES = 8190


class Listener(web.Server):
    """Makes the connections of one address."""

    def __init__(self, front: Front, *, is_local: bool, is_secure: bool = False) -> None:
        self.front, self.is_local, self.is_secure = front, is_local, is_secure
        self._lane = SlowLane(
            front.pool,
            front.dates,
            idle_timeout_s=front.config.body_idle_timeout_s,
            pace=front.pace,
            is_local=is_local,
            is_secure=is_secure,
            is_draining=lambda: front.is_draining,
        )
        super().__init__(self._handle, access_log=None)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(UnlanedConnection, request.protocol)
        connection.begin_answer()
        try:
            response = await self._lane.respond(request, self.front.route_of)
        except BaseException:
            connection.end_answer()
            raise
        self.front.count(response.status)
        return response

    def __call__(self) -> UnlanedConnection:
        """A new connection."""
        config = self.front.config
        kind = UnlanedConnection if self.front.is_lane_shut else Connection
        return kind(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=config.keepalive_timeout_s,
            max_line_size=config.head_max_bytes,
            max_field_size=FIELD_MAX_BYTES,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )


class Front:
    """All listeners of a node. `hot` None: everything takes the slow lane."""

    def __init__(
        self,
        pool: UnitPool,
        slow: SlowHandler,
        config: HttpConfig,
        *,
        wall_ms: Callable[[], int],
        hot: HotHandler | None = None,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self.pool, self.config, self.metrics, self.hot = pool, config, metrics, hot
        self.dates = Dates(wall_ms)
        self.connections: set[UnlanedConnection] = set()
        self.is_draining = False
        self.arriving = 0
        """Accepted, but not connected yet: TLS handshakes, mostly."""
        self.collecting_bytes = 0
        self._slow = slow
        self._routes: list[tuple[str, SlowHandler]] = []
        self._listeners: list[Listener] = []
        self._servers: list[Acceptor | asyncio.Server] = []
        missing = missing_private_names()
        if missing:
            log.warning("fast-lane-shut missing=%s", ",".join(missing))
            self.hot = None
        self.is_lane_shut = bool(missing)
        self._sweeper: asyncio.TimerHandle | None = None
        metrics.set("http_fast_lane_shut", float(self.is_lane_shut))
        metrics.watch("http_connections", lambda: float(len(self.connections)))

    def pace(self) -> Pace:
        """What is asked of the client of a body that begins."""
        return Pace(self.config.body_idle_timeout_s, self.config.body_min_bytes_per_s, lambda: self.pool.is_short)

    def count(self, status: int) -> None:
        """One answer."""
        self.metrics.count("http_requests_total")
        if status >= 500:
            self.metrics.count("http_errors_total")

    def route(self, prefix: str, handler: SlowHandler) -> None:
        """Gives paths below `/-/` to a handler; the longest prefix wins."""
        self._routes.append((prefix, handler))
        self._routes.sort(key=lambda row: -len(row[0]))

    def route_of(self, path: str) -> SlowHandler:
        """The handler of a path."""
        if path.startswith(ROUTES_PREFIX):
            for prefix, handler in self._routes:
                if path.startswith(prefix):
                    return handler
            return _no_such_route
        return self._slow

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> int:
        """Listens on TCP; returns the port. OSError where the address is taken."""
        listener = Listener(self, is_local=False, is_secure=ssl_context is not None)
        acceptor = Acceptor(listener, await bind(host, port), ssl_context)
        self._listen(listener, acceptor)
        return acceptor.port

    async def start_local(self, listening: socket.socket) -> None:
        """Serves a bound unix socket, whose peers are trusted by its file mode."""
        listener = Listener(self, is_local=True)
        self._listen(listener, await asyncio.get_running_loop().create_unix_server(listener, sock=listening))

    def _listen(self, listener: Listener, server: Acceptor | asyncio.Server) -> None:
        self._listeners.append(listener)
        self._servers.append(server)
        if self._sweeper is None:
            self._sweep()

    def _sweep(self) -> None:
        """Every connection is asked once a second whether something takes too long: no timer a request."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection in list(self.connections):
            connection.check(now_s)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    async def drain(self, timeout_s: float) -> None:
        """Takes no more connections, lets answers end, then cuts what is left: no socket is open when it returns."""
        self.is_draining = True
        for server in self._servers:
            server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        for connection in list(self.connections):
            if not connection.is_busy:
                connection.force_close()
        while any(connection.is_busy for connection in self.connections) and loop.time() < deadline:
            await asyncio.sleep(DRAIN_POLL_S)
        for connection in list(self.connections):
            connection.force_close()
        for listener in self._listeners:
            await listener.shutdown(0.5)
        for connection in list(self.connections):
            connection.abort()
        deadline, turns = loop.time() + ABORT_S, 0
        while (self.connections or self.arriving) and (loop.time() < deadline or turns < ABORT_TURNS):
            turns += 1
            await asyncio.sleep(0)  # a cut connection closes its socket in the next turn
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None


async def _no_such_route(head: RequestHead, body: Body) -> Response:
    return Response(404, [("Content-Type", "text/plain")], f"nothing answers at {head.path}\n".encode())
