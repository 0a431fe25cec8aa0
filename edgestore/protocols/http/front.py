"""The listeners: connections with a fast lane, routes below `/-/`, limits, draining."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from aiohttp import web

from edgestore.chunks import Body, UnitPool
from edgestore.config import HttpConfig
from edgestore.observe import NO_METRICS, Metrics
from edgestore.protocols.http.connection import Connection, missing_private_names
from edgestore.protocols.http.messages import Dates, HotHandler, RequestHead, Response, SlowHandler
from edgestore.protocols.http.slow import SlowLane

log = logging.getLogger("edgestore.http")

ROUTES_PREFIX = "/-/"
BACKLOG = 1024


class Listener(web.Server):
    """Makes the connections of one address."""

    def __init__(self, front: Front, *, is_local: bool) -> None:
        self.front, self.is_local = front, is_local
        self._lane = SlowLane(
            front.pool, front.dates, idle_timeout_s=front.config.body_idle_timeout_s, is_local=is_local
        )
        super().__init__(self._handle, access_log=None)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.front.metrics.count("http_requests_total")
        return await self._lane.respond(request, self.front.route_of(request.raw_path))

    def __call__(self) -> Connection:
        """A new connection."""
        config = self.front.config
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=config.keepalive_timeout_s,
            max_line_size=config.head_max_bytes,
            max_field_size=config.head_max_bytes,
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
        self.connections: set[Connection] = set()
        self.is_draining = False
        self._slow = slow
        self._routes: list[tuple[str, SlowHandler]] = []
        self._listeners: list[Listener] = []
        self._servers: list[asyncio.Server] = []
        missing = missing_private_names()
        if missing:
            log.warning("fast-lane-shut missing=%s", ",".join(missing))
            self.hot = None
        metrics.set("http_fast_lane_shut", float(bool(missing)))
        metrics.watch("http_connections", lambda: float(len(self.connections)))

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
        listener = Listener(self, is_local=False)
        server = await asyncio.get_running_loop().create_server(
            listener, host, port, ssl=ssl_context, backlog=BACKLOG, reuse_address=True
        )
        self._listeners.append(listener)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def start_local(self, listening: socket.socket) -> None:
        """Serves a bound unix socket, whose peers are trusted by its file mode."""
        listener = Listener(self, is_local=True)
        server = await asyncio.get_running_loop().create_unix_server(listener, sock=listening)
        self._listeners.append(listener)
        self._servers.append(server)

    async def drain(self, timeout_s: float) -> None:
        """Takes no more connections, lets answers end, then closes what is left."""
        self.is_draining = True
        for server in self._servers:
            server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while any(connection.is_busy for connection in self.connections) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.force_close()
        for listener in self._listeners:
            await listener.shutdown(0.5)


async def _no_such_route(head: RequestHead, body: Body) -> Response:
    return Response(404, [("Content-Type", "text/plain")], f"nothing answers at {head.path}\n".encode())
