"""What nodes tell each other about themselves and about third ones: probes, accusations, status.

Rule: fields are only appended, each with a default; a message that does not decode is dropped and counted, never
raised.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

FORMAT_VERSION = 1
Number = Annotated[int, msgspec.Meta(ge=0)]
Incarnation = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
KnownIncarnation = Annotated[int, msgspec.Meta(ge=-1, lt=1 << 62)]
"""-1: of a member that was never heard, and may be accused nevertheless."""
"""Bounded, so that the next one always fits the wire, whatever a member says."""


class Kind(IntEnum):
    """What a message asks or answers."""

    PING = 1
    ACK = 2
    PING_FOR = 3
    """Probe `target` for me: my own probe of it was not answered."""
    NEWS = 4
    """Nothing but news: an accusation or its refutation, sent at once."""


class Word(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a third member. `nonce` names its start; a higher `incarnation` wins; `accusers` could not reach
    it in this incarnation."""

    member: str
    nonce: Number
    incarnation: KnownIncarnation
    accusers: tuple[str, ...] = ()


class StatusWord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The encoded `NodeStatus` of a member, as it last made it: a higher version of the same start wins."""

    member: str
    nonce: Number
    version: Number
    body: bytes


class SwimMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One frame of Topic.SWIM. `nonce` and `incarnation` are the sender's own: any message of it tells them."""

    version: int
    kind: Kind
    sequence: Number
    nonce: Number
    incarnation: Incarnation
    target: str = ""
    words: tuple[Word, ...] = ()
    statuses: tuple[StatusWord, ...] = ()


class PeerView(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one node has found another lately at one kind of work, fading: answers, how many of them failed, were
    damaged, and how long the good ones took."""

    member: str
    answers: float
    failed: float = 0.0
    damaged: float = 0.0
    answer_us: float = 0.0
    work: int = 0


class NodeStatus(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What every node gossips about itself. Indexes are of group 0."""

    boot_ms: int
    wall_ms: int
    applied_index: int = 0
    pin_floor_index: int = 0
    """No reader of this node needs a chunk that was condemned at or before this index."""
    reclaimed_index: int = 0
    """This node holds no fragment of any chunk that was condemned at or before this index."""
    disk_free_bytes: int = 0
    damaged_fragments: int = 0
    feature_level: int = 0
    views: tuple[PeerView, ...] = ()
    serves_clients: bool = False
    """It did so lately."""
    is_full: bool = False
    """Its disk takes deletes, and no more content."""


_message_decoder = msgspec.msgpack.Decoder(SwimMessage)
_status_decoder = msgspec.msgpack.Decoder(NodeStatus)
_encoder = msgspec.msgpack.Encoder()


def encode(record: SwimMessage | NodeStatus) -> bytes:
    """The bytes of a message or of a status."""
    return _encoder.encode(record)


def decode_message(head: bytes) -> SwimMessage | None:
    """None for what is no message of a version that is known here."""
    try:
        message = _message_decoder.decode(head)
    except msgspec.MsgspecError:
        return None
    return message if message.version == FORMAT_VERSION else None


def decode_status(body: bytes) -> NodeStatus | None:
    """None for what is no status."""
    try:
        return _status_decoder.decode(body)
    except msgspec.MsgspecError:
        return None
