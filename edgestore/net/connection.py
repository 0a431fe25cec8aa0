"""Connections that carry frames: THE seam that the simulator replaces, and asyncio TLS behind it.

Rule: requests and answers of one turn of the loop leave in one write, messages at once, for votes and acknowledgements
wait for nothing; nothing is buffered beyond a named limit, and a frame of the other side is judged by its header before
memory is taken for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from edgestore.config import NetConfig
from edgestore.errors import Corrupt, Unavailable
from edgestore.net.frames import HEADER_BYTES, Buffer, Frame, Header, Kind, decode_header, encode_header
from edgestore.net.tls import Credentials

log = logging.getLogger("edgestore.net")

SCRATCH_BYTES = 128 * 1024
JOIN_PARTS_BYTES = 64 * 1024
"""Smaller payloads are copied into the write of their header."""


SHUTDOWN_S = 1.0
ACCEPT_PAUSE_S = 0.1


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


class _FrameProtocol(asyncio.BufferedProtocol):
    """Frames over one transport: small ones out of a scratch buffer, long ones straight into memory of their own."""

    def __init__(self, config: NetConfig, made: Callable[[_FrameProtocol], None]) -> None:
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.on_closed: Callable[[], None] = lambda: None
        self.peer_certificate, self.address = b"", ""
        self.frame_max_bytes = config.frame_max_bytes
        self._frame_begun_s = math.inf
        self._config, self._made = config, made
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._filled = 0
        self._header: Header | None = None
        self._body = memoryview(b"")
        self._body_filled = 0
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._paused: asyncio.Future[None] | None = None
        self._closed = False

    # --- the transport's calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        secure = transport.get_extra_info("ssl_object")
        self.peer_certificate = secure.getpeercert(binary_form=True) or b""
        self.address = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        transport.set_write_buffer_limits(high=self._config.send_buffer_high_bytes)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        if self._header is not None and len(self._body) - self._body_filled > len(self._scratch):
            return self._body[self._body_filled :]
        return self._scratch[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self._header is not None and len(self._body) - self._body_filled > len(self._scratch):
            self._body_filled += nbytes
            if self._body_filled == len(self._body):
                self._deliver()
            return
        self._filled += nbytes
        try:
            self._take()
        except Corrupt as error:
            log.warning("connection-refused address=%s reason=%s", self.address, error)
            self.close()

    def _take(self) -> None:
        at = 0
        while not self._closed:
            if self._header is None:
                if self._filled - at < HEADER_BYTES:
                    break
                self._frame_begun_s = self._loop.time()
                self._header = decode_header(self._scratch[at : at + HEADER_BYTES], self.frame_max_bytes)
                self._body = memoryview(bytearray(self._header.head_bytes + self._header.payload_bytes))
                self._body_filled = 0
                at += HEADER_BYTES
            taken = min(self._filled - at, len(self._body) - self._body_filled)
            self._body[self._body_filled : self._body_filled + taken] = self._scratch[at : at + taken]
            self._body_filled += taken
            at += taken
            if self._body_filled < len(self._body):
                break
            self._deliver()
        if at:
            left = self._filled - at
            self._scratch[:left] = self._scratch[at : self._filled]
            self._filled = left

    def _deliver(self) -> None:
        header, body = self._header, self._body
        assert header is not None
        self._header = None
        self._frame_begun_s = math.inf
        payload = (body[header.head_bytes :],) if header.payload_bytes else ()
        self.on_frame(Frame(header.kind, header.code, header.number, bytes(body[: header.head_bytes]), payload))

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        self._paused = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)
        self._paused = None

    def eof_received(self) -> bool:
        """The other side has ended."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """For whatever reason."""
        self._closed = True
        self._out.clear()
        self.resume_writing()
        on_closed, self.on_closed = self.on_closed, lambda: None
        self.on_frame = lambda frame: None
        on_closed()

    # --- the owner's calls -----------------------------------------------------------------------------

    @property
    def is_stuck(self) -> bool:
        """See `Connection`."""
        return self._loop.time() - self._frame_begun_s > self._config.frame_timeout_s

    @property
    def buffered_bytes(self) -> int:
        """See `Connection`."""
        return self._out_bytes + (0 if self._closed else self._transport.get_write_buffer_size())

    def send(self, frame: Frame) -> None:
        """See `Connection`."""
        if self._closed:
            return
        if frame.kind is Kind.MESSAGE and not self._out:
            if not self._transport.is_closing():
                self._write((encode_header(frame), frame.head))
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(encode_header(frame))
        self._out.append(frame.head)
        self._out.extend(frame.payload)
        self._out_bytes += frame.size_bytes

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if not (self._closed or self._transport.is_closing()):
            self._write(out)

    def _write(self, parts: Sequence[Buffer]) -> None:
        small: list[Buffer] = []
        for part in parts:
            if len(part) < JOIN_PARTS_BYTES:
                small.append(part)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(part)
        if small:
            self._transport.write(b"".join(small))

    async def drain(self) -> None:
        """See `Connection`."""
        if self._out:
            await asyncio.sleep(0)
        while self._paused is not None and not self._closed:
            await asyncio.shield(self._paused)

    def close(self) -> None:
        """See `Connection`."""
        self._closed = True
        self._transport.abort()


class _Listening:
    """Accepts, within the limit of handshakes, and shakes hands with the certificate that counts then."""

    def __init__(
        self,
        listener: socket.socket,
        credentials: Credentials,
        config: NetConfig,
        accepted: Callable[[Connection], None],
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener, self._credentials, self._config, self._accepted = listener, credentials, config, accepted
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
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
            task = self._loop.create_task(self._shake(connected))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            task.add_done_callback(lambda _: room.release())

    async def _shake(self, connected: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _FrameProtocol(self._config, self._accepted),
                connected,
                ssl=self._credentials.server_context(),
                ssl_handshake_timeout=self._config.handshake_timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            log.info("handshake-failed error=%s", error)
            connected.close()

    async def close(self) -> None:
        """See `Listening`."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._listener.close()


class SystemNetwork:
    """TCP and TLS of the system."""

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
        return _Listening(listener, credentials, config, accepted)

    async def dial(self, host: str, port: int, credentials: Credentials, config: NetConfig, local: str) -> Connection:
        """See `Network`."""
        made: list[_FrameProtocol] = []
        try:
            async with asyncio.timeout(config.dial_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: _FrameProtocol(config, made.append),
                    host,
                    port,
                    ssl=credentials.client_context(),
                    server_hostname="",
                    local_addr=(local, 0) if local else None,
                    ssl_handshake_timeout=config.handshake_timeout_s,
                    ssl_shutdown_timeout=SHUTDOWN_S,
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {config.dial_timeout_s} s"
            raise Unavailable(f"{host}:{port} cannot be reached: {reason}") from error
        return made[0]
