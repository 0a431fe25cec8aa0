"""Frames come out whole however the bytes are cut on their way in."""

from __future__ import annotations

import asyncio

import pytest

from edgestore.config import NetConfig
from edgestore.net import Frame, Method
from edgestore.net.connection import _FrameProtocol
from edgestore.net.frames import Kind, encode_header


@pytest.mark.parametrize("step_bytes", [1, 7, 4096, 131_072, 262_144, 10_000_000])
def test_frames_of_all_sizes_arrive_whole(step_bytes: int) -> None:
    async def work() -> None:
        protocol = _FrameProtocol(NetConfig(), lambda one: None)
        heard: list[bytes] = []
        protocol.on_frame = lambda frame: heard.append(frame.head + b"".join(frame.payload))
        sizes = [0, 1, 300, 131_056, 200_000, 1, 400_000] if step_bytes >= 4096 else [0, 1, 300]
        sent = [b"head" + bytes([size % 251]) * size for size in sizes]
        stream = b""
        for data in sent:
            frame = Frame(Kind.REQUEST, Method.PING, 1, data[:4], (data[4:],))
            stream += encode_header(frame) + data
        while stream:
            room = protocol.get_buffer(-1)
            taken = min(len(room), step_bytes, len(stream))
            room[:taken], stream = stream[:taken], stream[taken:]
            protocol.buffer_updated(taken)
        assert heard == sent

    asyncio.run(work())
