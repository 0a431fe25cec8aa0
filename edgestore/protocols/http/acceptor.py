"""Takes connections from the listening sockets of one address.

Rule: a connection counts from the moment it is accepted, also while its TLS handshake is not over; what is over the
limit is closed at once, so descriptors are left for the disk.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgestore.protocols.http.front import Listener
    from edgestore.protocols.http.unlaned import UnlanedConnection

log = logging.getLogger("edgestore.http")

BACKLOG = 1024
ACCEPTS_AT_ONCE = 64
"""So many are accepted before the loop looks at those who are connected."""
PAUSE_S = 1.0
"""No accepting for so long after it failed, mostly for want of descriptors."""


class Acceptor:
    """The listening sockets of one address."""

    def __init__(self, listener: Listener, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        self._listener, self._sockets, self._tls = listener, sockets, tls
        self._front = listener.front
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.port = int(sockets[0].getsockname()[1])
        for listening in sockets:
            self._listen(listening)

    def _listen(self, listening: socket.socket) -> None:
        if not self._is_closed:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        front = self._front
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("accept-failed error=%s pause_s=%s", error, PAUSE_S)
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE_S, self._listen, listening)
                return
            if front.arriving + len(front.connections) >= front.config.connections_max:
                front.metrics.count("http_connections_refused_total")
                accepted.close()
                continue
            accepted.setblocking(False)
            connection = self._listener()
            connection.arrive()
            task = self._loop.create_task(self._connect(connection, accepted))
            self._arriving.add(task)
            task.add_done_callback(partial(self._arrived, connection, accepted))

    def _arrived(self, connection: UnlanedConnection, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        connection.arrived()
        if task.cancelled():
            accepted.close()  # it may have been cancelled before it began

    async def _connect(self, connection: UnlanedConnection, accepted: socket.socket) -> None:
        """Until the connection is made: with TLS, until the handshake is over."""
        handshake_s = self._front.config.head_timeout_s if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:
            log.info("handshake-failed error=%r", error)

    def close(self) -> None:
        """Accepts no more; unfinished handshakes end."""
        self._is_closed = True
        while self._sockets:
            listening = self._sockets.pop()
            self._loop.remove_reader(listening)
            listening.close()
        for task in self._arriving:
            task.cancel()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of the host; OSError where one is taken."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listening = socket.socket(family, kind, protocol)
            except OSError:  # a family that this system does not have
                log.info("address-family-missing family=%s", family)
                continue
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    if not sockets:
        raise OSError(errno.EAFNOSUPPORT, f"cannot listen on {host}:{port}: no address family for it")
    return sockets
