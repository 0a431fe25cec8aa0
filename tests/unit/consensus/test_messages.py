"""Messages between members: what does not decode into exactly one of them is nobody's, and nothing raises but that."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.consensus import messages
from edgestore.consensus.transport import Outbox

MESSAGES = [
    messages.PreVote(0, 1, 2, 3, 4, 5, 6),
    messages.PreVoteAnswer(0, 1, 2, 3, True),
    messages.Vote(0, 1, 2, 3, 4, True),
    messages.VoteAnswer(0, 1, 2, False),
    messages.Append(0, 1, 2, 3, 4, 5, 6, ((7, b"x"), (8, b""))),
    messages.Appended(0, 1, 2, 3, 4, 5, True),
    messages.Behind(0, 1, 2, 3),
    messages.HandOver(0, 1, 2),
    messages.Ended(0, 1, 2, 3),
    messages.ReadAsk(0, 1, 2, 3),
    messages.ReadAnswer(0, 1, 2, 3, 4),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back(message: messages.Message) -> None:
    assert messages.decode_message(messages.encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pickle.dumps({"type": "append_entries"}),
        messages.encode(messages.Fetch(0, 0, 1, 1)),
        messages.encode(messages.Ended(-1, 0, 0, 0)),
        messages.encode(messages.Ended(0, 1 << 40, 0, 0)),
        messages.encode(messages.Ended(0, 0, 0, 1 << 63)),
        messages.encode(messages.Append(0, 0, 1, 1, 1, 1, 1, (("1", b""),))),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        messages.decode_message(data)


@given(st.binary(max_size=64), st.sampled_from(MESSAGES), st.integers(0, 40))
def test_garbage_is_a_message_or_a_value_error(noise: bytes, message: messages.Message, at: int) -> None:
    whole = messages.encode(message)
    for data in (noise, whole[:at] + noise, whole[:at] + noise + whole[at:]):
        try:
            found = messages.decode_message(data)
        except ValueError:
            continue
        assert isinstance(found, messages.Message)


def test_terms_of_a_later_incarnation_are_higher() -> None:
    assert messages.first_term(0) == 0
    assert messages.incarnation_of(messages.first_term(3) + 7) == 3


class Wire:
    """What left."""

    def __init__(self) -> None:
        self.sent: list[messages.Message] = []

    def send(self, member: str, message: messages.Message) -> bool:
        self.sent.append(message)
        return True


def test_what_waits_for_a_sync_leaves_with_the_next_message_whoever_asked_for_the_sync() -> None:
    """That of a snapshot tells the outbox nothing: a follower held its answers for ever, and got no entry any more."""
    wire, synced = Wire(), False
    outbox = Outbox(wire, lambda: synced)  # type: ignore[arg-type]
    first, second, third = (messages.Appended(0, 1, 2, number, number, 5, True) for number in range(3))
    assert outbox.send("a", first)
    assert outbox.send("a", second)
    assert wire.sent == []
    synced = True
    assert outbox.send("a", third)
    assert wire.sent == [first, second, third]
