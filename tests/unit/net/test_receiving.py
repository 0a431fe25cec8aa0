"""Frames come out whole however the bytes are cut on their way in, and nothing else ever comes out."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgestore.errors import Corrupt
from edgestore.kernels import Buffers
from edgestore.net import Frame, Method
from edgestore.net.assembly import SCRATCH_BYTES, Assembler
from edgestore.net.frames import HEADER_BYTES, Kind, encode_header

LIMIT_BYTES = 1024 * 1024


def encoded(frame: Frame) -> bytes:
    return b"".join((encode_header(frame), frame.head, *frame.payload))


def said(frame: Frame) -> tuple[Kind, int, int, bytes, bytes]:
    return (frame.kind, frame.code, frame.number, frame.head, b"".join(frame.payload))


def receive(stream: bytes, steps: list[int], limit_bytes: int = LIMIT_BYTES) -> tuple[list[Frame], str]:
    """What comes out of the stream where it arrives in these steps (the last one again and again), and why it ended."""
    assembler, heard, at, turn = Assembler(limit_bytes, Buffers(4 * SCRATCH_BYTES)), [], 0, 0
    assembler.on_frame = heard.append
    while at < len(stream):
        room = assembler.room()
        taken = min(len(room), steps[min(turn, len(steps) - 1)], len(stream) - at)
        assert taken
        room[:taken] = stream[at : at + taken]
        at, turn = at + taken, turn + 1
        try:
            assembler.filled(taken)
        except Corrupt as error:
            return heard, str(error)
    return heard, "within" if assembler.is_within_frame else ""


@pytest.mark.parametrize("step_bytes", [1, 7, 4096, 131_072, 262_144, 10_000_000])
def test_frames_of_all_sizes_arrive_whole(step_bytes: int) -> None:
    near = [SCRATCH_BYTES - HEADER_BYTES - 4 + offset for offset in (-1, 0, 1)]
    sizes = [0, 1, 300, 131_056, *near, 200_000, 1, 400_000] if step_bytes >= 4096 else [0, 1, 300]
    sent = [Frame(Kind.REQUEST, Method.PING, 1, b"head", (bytes([size % 251]) * size,)) for size in sizes]
    heard, end = receive(b"".join(map(encoded, sent)), [step_bytes])
    assert [said(frame) for frame in heard] == [said(frame) for frame in sent]
    assert not end


frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=80),
    st.one_of(st.just(()), st.tuples(st.binary(min_size=1, max_size=200))),
)
sizes_and_marks = st.tuples(
    st.one_of(st.integers(0, 300), st.integers(SCRATCH_BYTES - 300, SCRATCH_BYTES + 50_000)), st.integers(0, 255)
)
cuts = st.lists(st.integers(1, 400), min_size=1, max_size=30)
wide_cuts = st.lists(st.integers(2_000, 3 * SCRATCH_BYTES), min_size=1, max_size=8)


@given(st.lists(frames, max_size=12), cuts)
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Frame], steps: list[int]) -> None:
    heard, end = receive(b"".join(map(encoded, sent)), steps)
    assert [said(frame) for frame in heard] == [said(frame) for frame in sent]
    assert not end


@settings(max_examples=40, deadline=None)
@given(st.lists(sizes_and_marks, max_size=5), wide_cuts)
def test_long_and_short_frames_may_follow_each_other(kinds: list[tuple[int, int]], steps: list[int]) -> None:
    sent = [Frame(Kind.ANSWER, 1, 2, b"h" * mark, (bytes([mark]) * size,)) for size, mark in kinds]
    heard, end = receive(b"".join(map(encoded, sent)), steps)
    assert [said(frame) for frame in heard] == [said(frame) for frame in sent]
    assert not end


@given(st.binary(max_size=600), cuts)
def test_any_bytes_give_the_same_frames_or_the_same_refusal_however_they_are_cut(data: bytes, steps: list[int]) -> None:
    whole = receive(data, [len(data) or 1])
    assert [said(frame) for frame in whole[0]] == [said(frame) for frame in receive(data, steps)[0]]
    assert whole[1] == receive(data, steps)[1] == receive(data, [1])[1]


@given(st.lists(frames, min_size=1, max_size=5), st.data(), cuts)
def test_a_flipped_byte_gives_frames_or_a_refusal_and_never_another_error(
    sent: list[Frame], data: st.DataObject, steps: list[int]
) -> None:
    stream = bytearray(b"".join(map(encoded, sent)))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    whole, cut = receive(bytes(stream), [len(stream)], 4096), receive(bytes(stream), steps, 4096)
    assert [said(frame) for frame in whole[0]] == [said(frame) for frame in cut[0]]
    assert whole[1] == cut[1]


@example(LIMIT_BYTES)
@given(st.integers(1, LIMIT_BYTES))
def test_a_frame_over_the_limit_is_refused_by_its_header(limit_bytes: int) -> None:
    header = encode_header(Frame(Kind.REQUEST, 1, 1, b"", (bytes(limit_bytes + 1),)))
    assert "frame_max_bytes" in receive(header, [len(header)], limit_bytes)[1]


def test_nothing_is_delivered_once_the_owner_has_had_enough() -> None:
    assembler, heard = Assembler(LIMIT_BYTES, Buffers(0)), []

    def take(frame: Frame) -> None:
        heard.append(frame)
        assembler.stop()

    assembler.on_frame = take
    stream = encoded(Frame(Kind.MESSAGE, 1, 0, b"one")) + encoded(Frame(Kind.MESSAGE, 1, 0, b"two"))
    assembler.room()[: len(stream)] = stream
    assembler.filled(len(stream))
    assembler.room()[:1] = b"x"
    assembler.filled(1)
    assert [frame.head for frame in heard] == [b"one"]


def test_memory_of_long_frames_is_used_again_once_nobody_has_a_view_of_it() -> None:
    buffers = Buffers(3 * SCRATCH_BYTES)
    first, second = buffers.take(SCRATCH_BYTES), buffers.take(SCRATCH_BYTES)
    first[:4], kept = b"once", first[2:4]
    owner = first.obj
    del first
    assert buffers.take(SCRATCH_BYTES).obj is not owner  # `kept` still looks at it
    assert bytes(kept) == b"ce"
    del kept
    owner_id = id(owner)
    del owner
    again = buffers.take(SCRATCH_BYTES - 7)
    assert (id(again.obj), len(again)) == (owner_id, SCRATCH_BYTES - 7)
    assert second.obj is not again.obj


def test_memory_that_is_kept_is_bounded_and_other_sizes_take_its_place() -> None:
    buffers = Buffers(3 * SCRATCH_BYTES)
    held = [buffers.take(SCRATCH_BYTES) for _ in range(8)]
    assert buffers._kept_bytes == 3 * SCRATCH_BYTES
    held.clear()
    large = buffers.take(2 * SCRATCH_BYTES + 1)
    assert [len(one) for one in buffers._kept].count(len(large)) == 1
    assert buffers._kept_bytes <= 3 * SCRATCH_BYTES
    assert len(buffers.take(100 * SCRATCH_BYTES)) == 100 * SCRATCH_BYTES
