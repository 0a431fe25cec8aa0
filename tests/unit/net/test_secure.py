"""A connection over wires of memory: any cut of what TLS sends gives the same frames, and what was tampered with ends
the connection, never with an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.config import NetConfig
from edgestore.kernels import Buffers
from edgestore.net import Frame
from edgestore.net.frames import Kind
from edgestore.net.secure import PIECE_BYTES, SecureConnection
from tests.unit.net.site import Site

SITE = Site()
SERVER, CLIENT = (SITE.credentials(number) for number in (1, 2))
CONFIG = NetConfig()


class Wire(asyncio.Transport):
    """What is written lies in `sent`. `is_paused`: nobody takes it out."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.is_open = True

    def write(self, data: Any) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.is_open = False


class End:
    """One side."""

    def __init__(self, *, is_server: bool) -> None:
        context = SERVER.server_context() if is_server else CLIENT.client_context()
        self.heard: list[tuple[Kind, int, int, bytes, bytes]] = []
        self.made: list[SecureConnection] = []
        self.wire = Wire()
        self.secure = SecureConnection(CONFIG, context, Buffers(1 << 20), self.made.append, is_server=is_server)
        self.secure.on_frame = lambda frame: self.heard.append(said(frame))
        self.secure.connection_made(self.wire)

    def take(self, data: bytes, steps: list[int]) -> None:
        """In these steps, the last one again and again, until the connection is closed."""
        at = turn = 0
        while at < len(data) and self.wire.is_open:
            room = self.secure.get_buffer(-1)
            size_bytes = min(len(room), steps[min(turn, len(steps) - 1)], len(data) - at)
            room[:size_bytes] = data[at : at + size_bytes]
            self.secure.buffer_updated(size_bytes)
            at, turn = at + size_bytes, turn + 1


def said(frame: Frame) -> tuple[Kind, int, int, bytes, bytes]:
    return (frame.kind, frame.code, frame.number, frame.head, b"".join(frame.payload))


def taken(end: End) -> bytes:
    data = bytes(end.wire.sent)
    end.wire.sent.clear()
    return data


def over_a_wire(frames: list[Frame], steps: list[int], spoil: Callable[[bytearray], None] = lambda data: None) -> End:
    """The side that hears these frames, after a handshake in the same steps."""

    async def work() -> End:
        near, far = End(is_server=False), End(is_server=True)
        while not (near.made and far.made):
            far.take(taken(near), steps)
            near.take(taken(far), steps)
        assert far.secure.peer_certificate == CLIENT.certificate
        for frame in frames:
            near.secure.send(frame)
        stream = bytearray()
        while near.secure._out or near.secure._is_flushing:
            await asyncio.sleep(0)
            stream += taken(near)
        assert near.secure.buffered_bytes == 0
        spoil(stream)
        far.take(bytes(stream), steps)
        return far

    return asyncio.run(work())


payloads = st.one_of(
    st.just(()),
    st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=3),
    st.builds(
        lambda size, mark: (bytes([mark]) * size,), st.integers(16_000, 3 * PIECE_BYTES), st.sampled_from((1, 2))
    ),
)
frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from(Kind),
        st.integers(0, 0xFFFF),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=50),
        payloads,
    ),
    min_size=1,
    max_size=6,
)
cuts = st.lists(st.integers(300, 200_000), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(frames, cuts)
def test_what_is_sent_arrives_whole_however_it_is_cut(sent: list[Frame], steps: list[int]) -> None:
    far = over_a_wire(sent, steps)
    assert far.heard == [said(frame) for frame in sent]
    assert far.wire.is_open


def test_one_byte_at_a_time_will_do() -> None:
    sent = [Frame(Kind.REQUEST, 1, number, b"head", (bytes(200),)) for number in range(3)]
    assert over_a_wire(sent, [1]).heard == [said(frame) for frame in sent]


@settings(max_examples=50, deadline=None)
@given(frames, cuts, st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_ends_the_connection_or_leaves_it_waiting(
    sent: list[Frame], steps: list[int], place: float, flip: int
) -> None:
    def spoil(stream: bytearray) -> None:
        stream[int(place * len(stream))] ^= flip

    far = over_a_wire(sent, steps, spoil)
    whole = [said(frame) for frame in sent]
    assert far.heard == whole[: len(far.heard)]
    assert len(far.heard) < len(whole)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=3000), cuts, st.booleans())
def test_garbage_instead_of_a_handshake_ends_it(data: bytes, steps: list[int], is_server: bool) -> None:
    async def work() -> None:
        end = End(is_server=is_server)
        end.take(data, steps)
        assert not end.made
        assert not end.heard
        end.secure.connection_lost(None)
        assert end.secure.shaken.exception() is not None

    asyncio.run(work())
