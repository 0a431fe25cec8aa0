"""Connections that carry frames: THE seam that the simulator replaces, and TCP and TLS of the system behind it.

Rule: who has not shaken hands in time is cut off, and takes one of `handshakes_max` places until then.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from edgestore.config import NetConfig
from edgestore.errors import Unavailable
from edgestore.kernels import Buffers
from edgestore.net.frames import Frame
from edgestore.net.secure import SecureConnection
from edgestore.net.tls import Credentials

log = logging.getLogger("edgestore.net")

ACCEPT_PAUSE_S = 0.1
NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"))
"""What OpenSSL calls an answer that is no TLS at all."""


class Connection(Protocol):
    """One connection. `on_frame` and `on_closed` are set by its owner before anything arrives."""

    on_frame: Callable[[Frame], None]
    on_closed: Callable[[], None]
    peer_certificate: bytes
    """What the other side has proved to hold; empty: it showed none."""
    address: str
    """Of the other side, for people."""
    frame_max_bytes: int
    """What the other side may send at once; its owner may lower it."""

    @property
    def is_stuck(self) -> bool:
        """A frame has been on its way in for longer than `frame_timeout_s`."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """What was sent and has not left."""
        ...

    def send(self, frame: Frame) -> None:
        """Sends behind everything sent before. Payloads may not change until they have left."""
        ...

    async def drain(self) -> None:
        """Returns when little is left to leave, or the connection is closed."""
        ...

    def close(self) -> None:
        """At once; what has not left is lost."""
        ...


class Listening(Protocol):
    """A listener. `address`: (host, port) where it listens."""

    address: tuple[str, int]

    async def close(self) -> None:
        """Takes no more connections."""
        ...


class Network(Protocol):
    """Makes connections."""

    async def listen(
        self,
        host: str,
        port: int,
        credentials: Credentials,
        config: NetConfig,
        accepted: Callable[[Connection], None],
    ) -> Listening:
        """`accepted` gets each connection whose handshake is done."""
        ...

    async def dial(self, host: str, port: int, credentials: Credentials, config: NetConfig, local: str) -> Connection:
        """`local`: the address to call from; empty: any. Raises Unavailable."""
        ...


class _Listening:
    """Accepts, within the limit of handshakes, and shakes hands with the certificate that counts then."""

    def __init__(
        self,
        listener: socket.socket,
        credentials: Credentials,
        config: NetConfig,
        accepted: Callable[[Connection], None],
        buffers: Buffers,
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener, self._credentials, self._config, self._accepted = listener, credentials, config, accepted
        self._buffers, self._loop = buffers, asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._not_begun: set[socket.socket] = set()
        """Of handshakes whose task has not run yet: one that is cancelled before it does closes nothing itself."""
        self._accepting = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        """Until cancelled. Whoever comes while `handshakes_max` are under way waits in the backlog."""
        room = asyncio.Semaphore(self._config.handshakes_max)
        while True:
            await room.acquire()
            try:
                connected, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, or the caller is gone already
                log.warning("accept-failed error=%s", error)
                room.release()
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            self._not_begun.add(connected)
            task = self._loop.create_task(self._shake(connected))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            task.add_done_callback(lambda _: room.release())

    async def _shake(self, connected: socket.socket) -> None:
        self._not_begun.discard(connected)
        secure: SecureConnection | None = None
        context = self._credentials.server_context()
        try:
            async with asyncio.timeout(self._config.handshake_timeout_s):
                _, secure = await self._loop.connect_accepted_socket(
                    lambda: SecureConnection(self._config, context, self._buffers, self._accepted, is_server=True),
                    connected,
                )
                await secure.shaken
        except (OSError, TimeoutError) as error:
            log.info("handshake-failed error=%s", str(error) or "too slow")
        finally:
            if secure is None:
                connected.close()
            elif not secure.is_shaken:
                secure.close()

    async def close(self) -> None:
        """See `Listening`."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for connected in self._not_begun:
            connected.close()
        self._listener.close()


class SystemNetwork:
    """TCP and TLS of the system."""

    def __init__(self) -> None:
        self._buffers: Buffers | None = None

    def _room(self, config: NetConfig) -> Buffers:
        """Of all connections of this node."""
        self._buffers = self._buffers or Buffers(config.buffers_kept_bytes)
        return self._buffers

    async def listen(
        self,
        host: str,
        port: int,
        credentials: Credentials,
        config: NetConfig,
        accepted: Callable[[Connection], None],
    ) -> Listening:
        """See `Network`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(config.connections_max)
        except OSError:
            listener.close()
            raise
        return _Listening(listener, credentials, config, accepted, self._room(config))

    async def dial(self, host: str, port: int, credentials: Credentials, config: NetConfig, local: str) -> Connection:
        """See `Network`."""
        secure: SecureConnection | None = None
        loop, local_address = asyncio.get_running_loop(), (local, 0) if local else None
        context, buffers = credentials.client_context(), self._room(config)
        try:
            async with asyncio.timeout(config.dial_timeout_s):
                _, secure = await loop.create_connection(
                    lambda: SecureConnection(config, context, buffers, lambda one: None, is_server=False),
                    host,
                    port,
                    local_addr=local_address,
                )
                await secure.shaken
        except ssl.SSLError as error:
            speaks_tls = error.reason not in NO_TLS
            raise Unavailable(f"{host}:{port} cannot be reached: {error}", speaks_tls=speaks_tls) from error
        except (OSError, TimeoutError, UnicodeError) as error:
            reason = str(error) or f"no answer within {config.dial_timeout_s} s"
            raise Unavailable(f"{host}:{port} cannot be reached: {reason}") from error
        finally:
            if secure is not None and not secure.is_shaken:
                secure.close()
        return secure
