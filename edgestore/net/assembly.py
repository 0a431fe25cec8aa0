"""Frames out of a stream of bytes, however it is cut. Pure.

Rule: a frame is judged by its header before memory is taken for it; short ones are cut out of one scratch buffer, long
ones are read straight into memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from edgestore.kernels import Buffers
from edgestore.net.frames import HEADER_BYTES, Frame, Header, decode_header

SCRATCH_BYTES = 128 * 1024


class Assembler:
    """Bytes go into `room()`, then `filled` says how many; whole frames go to `on_frame`."""

    def __init__(self, frame_max_bytes: int, buffers: Buffers) -> None:
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.frame_max_bytes = frame_max_bytes
        self._buffers = buffers
        self.frames = 0
        """Whole ones so far."""
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._filled = 0
        self._header: Header | None = None
        """Of the long frame that is coming in."""
        self._body = memoryview(b"")
        self._stopped = False

    @property
    def is_within_frame(self) -> bool:
        """Whether a part of a frame is here and the rest is not."""
        return self._filled > 0 or self._header is not None

    def stop(self) -> None:
        """Nothing is delivered any more."""
        self._stopped = True
        self._scratch = self._body = memoryview(bytearray(1))
        self._filled, self._header = 0, None

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._header is not None:
            return self._body[self._filled :]
        return self._scratch[self._filled :]

    def filled(self, size_bytes: int) -> None:
        """So many bytes of `room()` have come. Raises Corrupt; then nothing more may come."""
        if self._stopped:
            return
        self._filled += size_bytes
        header = self._header
        if header is None:
            self._cut()
        elif self._filled == len(self._body):
            body = self._body
            self._header, self._body, self._filled = None, memoryview(b""), 0
            self.frames += 1
            head = bytes(body[: header.head_bytes])
            self.on_frame(Frame(header.kind, header.code, header.number, head, (body[header.head_bytes :],)))

    def _cut(self) -> None:
        at, scratch, end = 0, self._scratch, self._filled
        while end - at >= HEADER_BYTES:
            header = decode_header(scratch, self.frame_max_bytes, at)
            head_at = at + HEADER_BYTES
            payload_at = head_at + header.head_bytes
            next_at = payload_at + header.payload_bytes
            if next_at > end:
                if next_at - at > SCRATCH_BYTES:
                    self._begin_long(header, scratch[head_at:end])
                    return
                break
            payload = (memoryview(bytearray(scratch[payload_at:next_at])),) if header.payload_bytes else ()
            at = next_at
            self.frames += 1
            head = bytes(scratch[head_at:payload_at])
            self.on_frame(Frame(header.kind, header.code, header.number, head, payload))
            if self._stopped:
                return
        if at:
            self._filled = end - at
            if at < end:
                scratch[: end - at] = bytes(scratch[at:end])

    def _begin_long(self, header: Header, begun: memoryview) -> None:
        self._body = self._buffers.take(header.head_bytes + header.payload_bytes)
        self._body[: len(begun)] = begun
        self._header, self._filled = header, len(begun)
