"""What members of a group say to each other, as bytes. Pure.

Rule: a message names its group and incarnation and carries its sender's term; what does not decode into exactly one of
these is nobody's message. Whoever reads one may have it twice, late, or out of order.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from edgestore.records import Member

Group = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Incarnation = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF)]
Counted = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""Terms and indices, and numbers that only count."""

INCARNATION_SHIFT = 32


def first_term(incarnation: int) -> int:
    """Terms of an incarnation are above it: (term, index) is unique over all of them (rule 4)."""
    return incarnation << INCARNATION_SHIFT


def incarnation_of(term: int) -> int:
    """The incarnation that an entry of this term belongs to."""
    return term >> INCARNATION_SHIFT


class PreVote(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Would you vote for me in `next_term`? `attempt` comes back."""

    group: Group
    incarnation: Incarnation
    term: Counted
    next_term: Counted
    attempt: Counted
    last_index: Counted
    last_term: Counted


class PreVoteAnswer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Nothing is promised by it."""

    group: Group
    incarnation: Incarnation
    term: Counted
    attempt: Counted
    is_granted: bool


class Vote(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Vote for me in `term`. `is_handed_over`: the leader itself asked for it, so it does not hold you."""

    group: Group
    incarnation: Incarnation
    term: Counted
    last_index: Counted
    last_term: Counted
    is_handed_over: bool = False


class VoteAnswer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Leaves when the vote is synced."""

    group: Group
    incarnation: Incarnation
    term: Counted
    is_granted: bool


class Append(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Entries (term, command) behind the one named; without any it is a heartbeat. `round` comes back."""

    group: Group
    incarnation: Incarnation
    term: Counted
    previous_index: Counted
    previous_term: Counted
    commit_index: Counted
    round: Counted
    entries: tuple[tuple[Counted, bytes], ...] = ()


class Appended(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Accepted: everything up to `match_index` is as the leader's, and synced. Refused: what lies at `previous_index`
    is not, and what lies up to `match_index` may be."""

    group: Group
    incarnation: Incarnation
    term: Counted
    previous_index: Counted
    match_index: Counted
    round: Counted
    is_accepted: bool


class Behind(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """My log begins at `first_index`: you need a snapshot."""

    group: Group
    incarnation: Incarnation
    term: Counted
    first_index: Counted


class HandOver(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """I have stopped leading: stand at once."""

    group: Group
    incarnation: Incarnation
    term: Counted


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Your incarnation has ended: `incarnation` goes on behind `stop_index`. Fetch it."""

    group: Group
    incarnation: Incarnation
    term: Counted
    stop_index: Counted


class ReadAsk(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """What must I have applied to read what is acknowledged by now?"""

    group: Group
    incarnation: Incarnation
    term: Counted
    number: Counted


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Everything up to `index`; 0: I do not lead."""

    group: Group
    incarnation: Incarnation
    term: Counted
    number: Counted
    index: Counted


Message = (
    PreVote | PreVoteAnswer | Vote | VoteAnswer | Append | Appended | Behind | HandOver | Ended | ReadAsk | ReadAnswer
)


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Give me what is committed behind the entry named, and wait a while for it."""

    group: Group
    incarnation: Incarnation
    previous_index: Counted
    previous_term: Counted


class Fetched(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Committed entries behind the one asked for. `first_index` beyond it: the log begins there, take a snapshot."""

    incarnation: Incarnation
    voters: tuple[str, ...]
    leader: str
    commit_index: Counted
    first_index: Counted
    entries: tuple[tuple[Counted, bytes], ...] = ()


class StopSign(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """The command of a stop-sign: who votes in the next incarnation."""

    next_incarnation: Incarnation
    members: tuple[Member, ...]


T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()
_message = msgspec.msgpack.Decoder(Message)


def encode(message: msgspec.Struct) -> bytes:
    """Any of the above."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """Raises ValueError for whatever is no message."""
    return _message.decode(data)  # type: ignore[no-any-return]


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """Raises ValueError for whatever is not of this kind."""
    return msgspec.msgpack.decode(data, type=kind)
