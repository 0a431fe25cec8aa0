"""The bytes between nodes: a frame is a header, a head of msgpack, and a payload. Pure.

Rule: lengths are judged before anything is allocated, and whatever is not exactly as it should be raises Corrupt.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from edgestore.errors import Corrupt

FORMAT = 1
MAGIC = 0xE5
HEADER = struct.Struct("<BBHIIQ")
HEADER_BYTES = HEADER.size
HEAD_MAX_BYTES = 4 * 1024 * 1024

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a frame is. HELLO is the first one of each side of a connection."""

    HELLO = 1
    MESSAGE = 2
    REQUEST = 3
    ANSWER = 4
    ERROR = 5


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame. `code`: the topic or method; `number`: which request it belongs to."""

    kind: Kind
    code: int
    number: int
    head: bytes
    payload: Sequence[Buffer] = ()

    @property
    def size_bytes(self) -> int:
        """Of the whole frame."""
        return HEADER_BYTES + len(self.head) + (size_of(self.payload) if self.payload else 0)


class Header(msgspec.Struct, frozen=True, gc=False):
    """What the first bytes of a frame say."""

    kind: Kind
    code: int
    head_bytes: int
    payload_bytes: int
    number: int


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=False):
    """Who dials says what the connection is for, and which start of the member it is (random bytes)."""

    format: int = FORMAT
    lane: int = 0
    start: bytes = b""


_KINDS = {FORMAT << 4 | kind: kind for kind in Kind}


def size_of(payload: Sequence[Buffer]) -> int:
    """Of all its parts."""
    return sum(memoryview(part).nbytes for part in payload)


def encode_header(frame: Frame) -> bytes:
    """What stands before head and payload."""
    size_bytes = size_of(frame.payload) if frame.payload else 0
    return HEADER.pack(MAGIC, FORMAT << 4 | frame.kind, frame.code, len(frame.head), size_bytes, frame.number)


def decode_header(data: Buffer, frame_max_bytes: int, at: int = 0) -> Header:
    """The header at `at`. Raises Corrupt for another format, an unknown kind, and lengths over the limit."""
    magic, tag, code, head_bytes, payload_bytes, number = HEADER.unpack_from(data, at)
    kind = _KINDS.get(tag)
    if magic != MAGIC or kind is None:
        raise Corrupt(f"the peer sends no frames of format {FORMAT}: another version of edgestore, or no edgestore")
    if head_bytes > HEAD_MAX_BYTES or head_bytes + payload_bytes > frame_max_bytes:
        raise Corrupt(f"the peer announces a frame of {head_bytes + payload_bytes} bytes (net.frame_max_bytes)")
    return Header(kind, code, head_bytes, payload_bytes, number)


def decode_hello(frame: Frame) -> Hello:
    """The first frame of a connection. Raises Corrupt."""
    if frame.kind is not Kind.HELLO:
        raise Corrupt("the peer does not say hello first")
    try:
        hello = msgspec.msgpack.decode(frame.head, type=Hello)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"the peer's hello does not decode: {error}") from error
    if hello.format != FORMAT:
        raise Corrupt(f"the peer speaks format {hello.format}, this node {FORMAT}: upgrade the older one")
    if hello.lane not in (0, 1):
        raise Corrupt(f"the peer asks for lane {hello.lane}, which this version does not know")
    return hello


def hello_frame(lane: int, start: bytes = b"") -> Frame:
    """What a dialling node sends first."""
    return Frame(Kind.HELLO, 0, 0, msgspec.msgpack.encode(Hello(FORMAT, lane, start)))
