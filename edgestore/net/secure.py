"""One TLS connection of the system that carries frames.

Rule: what is sent in one turn of the loop leaves in one write; nothing is buffered beyond a named limit. TLS runs here
on the bytes of a plain transport, so that what arrives is deciphered straight into the memory of its frame. It does so
on the loop: a thread takes the same CPU for 1 MB (0.6 to 0.9 ms, measured beside a busy loop), but `ssl` gives the GIL
away for each record of 16 KiB, so the two wait for each other 64 times for 1 MiB.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from edgestore.config import NetConfig
from edgestore.errors import Corrupt
from edgestore.kernels import Buffers
from edgestore.net import tcp
from edgestore.net.assembly import Assembler
from edgestore.net.frames import Buffer, Frame, encode_header

log = logging.getLogger("edgestore.net")

JOIN_PARTS_BYTES = 16 * 1024
"""Smaller parts are copied together: a record of TLS holds no more."""
PIECE_BYTES = 7 * 16 * 1024
"""What is enciphered before it is handed to the transport, which passes it on at once, since it is above its limit.
Whole records, and together with what TLS adds to them below 128 KiB, beyond which malloc asks the kernel for pages."""
TRANSPORT_HIGH_BYTES = 64 * 1024
TURN_BYTES = 1024 * 1024
"""What is enciphered in one turn of the loop: less than half a millisecond of it."""
READ_BYTES = 128 * 1024
_read_buffer = memoryview(bytearray(READ_BYTES))
"""Of all connections: what a transport has put there is taken out before it is asked for the next place."""


class SecureConnection(asyncio.BufferedProtocol):
    """See `Connection`. `shaken` resolves when the handshake is done; `made` is called before any frame comes."""

    def __init__(
        self,
        config: NetConfig,
        context: ssl.SSLContext,
        buffers: Buffers,
        made: Callable[[SecureConnection], None],
        *,
        is_server: bool,
    ) -> None:
        self.on_closed: Callable[[], None] = lambda: None
        self.peer_certificate, self.address = b"", ""
        self.is_shaken = False
        self._loop = asyncio.get_running_loop()
        self.shaken: asyncio.Future[None] = self._loop.create_future()
        self._config, self._made, self._is_server = config, made, is_server
        self._transport: asyncio.Transport | None = None
        self._bytes_in, self._bytes_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._bytes_in, self._bytes_out, server_side=is_server)
        self._assembler = Assembler(config.frame_max_bytes, buffers)
        self._frame_begun_s, self._frames_seen = math.inf, 0
        self._out: deque[Buffer] = deque()
        self._out_bytes = 0
        self._is_flushing = self._is_paused = self._closed = False
        self._room: asyncio.Future[None] | None = None

    # --- the transport's calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is connected."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        if self._closed:
            transport.abort()
            return
        self.address = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        transport.set_write_buffer_limits(high=TRANSPORT_HIGH_BYTES)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            tcp.prepare(connected, self._config)
        if not self._is_server:
            self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self._closed:
            return
        self._bytes_in.write(_read_buffer[:nbytes])
        if not self.is_shaken and not self._shake():
            return
        try:
            self._decipher()
        except Corrupt as error:
            log.warning("connection-refused address=%s reason=%s", self.address, error)
            self.close()
        except ssl.SSLError as error:  # the other side has ended, or plays tricks
            log.debug("connection-ended address=%s reason=%s", self.address, error)
            self.close()

    def _shake(self) -> bool:
        """Goes on with the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._hand_over()
            return False
        except ssl.SSLError as error:
            self._hand_over()  # the alert, for as much as the kernel takes at once
            self._fail(error)
            self.close()
            return False
        self._hand_over()
        self.is_shaken = True
        self.peer_certificate = self._tls.getpeercert(binary_form=True) or b""
        self._made(self)
        if not self.shaken.done():
            self.shaken.set_result(None)
        return True

    def _fail(self, error: Exception) -> None:
        if not self.shaken.done():
            self.shaken.set_exception(error)
            self.shaken.exception()  # who waited for it may have given up

    def _decipher(self) -> None:
        assembler, bytes_in, tls = self._assembler, self._bytes_in, self._tls
        read = cast("Callable[[int, memoryview], int]", tls.read)
        try:
            while not self._closed and (bytes_in.pending or tls.pending()):
                room = assembler.room()
                size_bytes = read(len(room), room)
                if not size_bytes:
                    self.close()
                    return
                assembler.filled(size_bytes)
        except ssl.SSLWantReadError:
            pass  # a part of a record
        if self._bytes_out.pending:
            self._hand_over()  # TLS itself has something to say: new keys, as often as the other side wants them
            if self.buffered_bytes > self._config.send_buffer_max_bytes:
                self.close()
        if not assembler.is_within_frame:
            self._frame_begun_s = math.inf
        elif self._frame_begun_s == math.inf or assembler.frames != self._frames_seen:
            self._frame_begun_s, self._frames_seen = self._loop.time(), assembler.frames

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_paused = False
        self._flush()

    def eof_received(self) -> bool:
        """The other side has ended."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """For whatever reason."""
        self._stop()
        self._fail(error or ConnectionResetError("the other side has ended the handshake"))
        on_closed, self.on_closed = self.on_closed, lambda: None
        self.on_frame = lambda frame: None
        on_closed()

    # --- the owner's calls -----------------------------------------------------------------------------

    @property
    def on_frame(self) -> Callable[[Frame], None]:
        """See `Connection`."""
        return self._assembler.on_frame

    @on_frame.setter
    def on_frame(self, value: Callable[[Frame], None]) -> None:
        self._assembler.on_frame = value

    @property
    def frame_max_bytes(self) -> int:
        """See `Connection`."""
        return self._assembler.frame_max_bytes

    @frame_max_bytes.setter
    def frame_max_bytes(self, value: int) -> None:
        self._assembler.frame_max_bytes = value

    @property
    def is_stuck(self) -> bool:
        """See `Connection`."""
        return self._loop.time() - self._frame_begun_s > self._config.frame_timeout_s

    @property
    def buffered_bytes(self) -> int:
        """See `Connection`."""
        if self._closed or self._transport is None:
            return 0
        return self._out_bytes + self._transport.get_write_buffer_size()

    def send(self, frame: Frame) -> None:
        """See `Connection`."""
        if self._closed:
            return
        if not self._is_flushing and not self._is_paused:
            self._flush_soon()
        header = encode_header(frame)
        self._out.append(header + frame.head)
        self._out_bytes += len(header) + len(frame.head)
        for part in frame.payload:
            view = memoryview(part).cast("B")
            self._out_bytes += len(view)
            self._out.append(view)

    def _flush_soon(self) -> None:
        self._is_flushing = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hands over what has been sent, for as long as the other side keeps up."""
        self._is_flushing = False
        out, small, small_bytes, left_bytes = self._out, [], 0, TURN_BYTES
        while out and not self._is_paused and not self._closed:
            if left_bytes <= 0:
                self._flush_soon()
                break
            part = out.popleft()
            if len(part) < JOIN_PARTS_BYTES:
                small.append(part)
                small_bytes += len(part)
                if small_bytes < PIECE_BYTES:
                    continue
            elif len(part) > PIECE_BYTES:
                out.appendleft(part[PIECE_BYTES:])
                part = part[:PIECE_BYTES]
            left_bytes -= PIECE_BYTES
            self._encipher(small, part if len(part) >= JOIN_PARTS_BYTES else b"")
            small, small_bytes = [], 0
        if small:
            self._encipher(small, b"")
        if self._room is not None and self.buffered_bytes <= self._config.send_buffer_high_bytes:
            self._make_room()

    def _encipher(self, small: list[Buffer], large: Buffer) -> None:
        try:
            if small:
                joined = b"".join(small)
                self._out_bytes -= len(joined)
                self._tls.write(joined)
            if large:
                self._out_bytes -= len(large)
                self._tls.write(large)
        except ssl.SSLError as error:
            log.warning("connection-failed address=%s reason=%s", self.address, error)
            self.close()
            return
        self._hand_over()

    def _hand_over(self) -> None:
        if self._transport is not None and not self._closed and self._bytes_out.pending:
            self._transport.write(self._bytes_out.read())

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def drain(self) -> None:
        """See `Connection`."""
        while not self._closed and self.buffered_bytes > self._config.send_buffer_high_bytes:
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)

    def _stop(self) -> None:
        self._closed = True
        self._out.clear()
        self._out_bytes = 0
        self._assembler.stop()
        self._make_room()

    def close(self) -> None:
        """See `Connection`."""
        self._stop()
        if self._transport is not None:
            self._transport.abort()
