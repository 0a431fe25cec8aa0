"""Operations that wait for their commit, and what goes into one entry.

Rule: what a leader would refuse is told to its proposer before it is sent: others travel in the same batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from edgestore.catalog import commands
from edgestore.errors import EdgeStoreError
from edgestore.meta.wire import encode

log = logging.getLogger("edgestore.meta")

Done = Callable[[Any, BaseException | None], None]
OPERATION_OVERHEAD_BYTES = 512
ENTRY_OVERHEAD_BYTES = 64
"""Its header, and the length of the array."""

Header = tuple[int, int, int, int]
"""Feature level, group, incarnation, log time."""


class Waiting(msgspec.Struct, eq=False):
    """One operation on its way. `raw`: as it goes into the entry; `until_s`: when its proposer is told that nothing is
    known; `unsent_until_s`: when it is told that nothing happened, where nobody leads who could be sent it. All only
    where there are peers."""

    operation: commands.Operation
    done: Done
    size_bytes: int
    until_s: float = 0.0
    unsent_until_s: float = 0.0
    raw: bytes = b""
    is_answered: bool = False


class Batch(msgspec.Struct, eq=False):
    """What goes into one entry. `sent_to`: the leader it was last sent to, empty where that has to be done again;
    `sendings`: how often it was handed to anybody. At 0 it is in nobody's log."""

    ones: list[Waiting]
    left: int
    sent_to: str = ""
    sent_s: float = 0.0
    sendings: int = 0


def split(ones: list[Waiting], limit_bytes: int) -> tuple[list[Waiting], list[Waiting], list[Waiting]]:
    """Those that go into one entry, those that go into none, and the rest."""
    fits: list[Waiting] = []
    too_large: list[Waiting] = []
    size_bytes = ENTRY_OVERHEAD_BYTES
    for place, one in enumerate(ones):
        if ENTRY_OVERHEAD_BYTES + len(one.raw) > limit_bytes:
            too_large.append(one)
        elif size_bytes + len(one.raw) > limit_bytes:
            return fits, too_large, ones[place:]
        else:
            size_bytes += len(one.raw)
            fits.append(one)
    return fits, too_large, []


def encode_ones(header: Header, ones: list[Waiting]) -> bytes:
    """The entry of these operations."""
    return commands.encode_entry(commands.Entry(*header, tuple([one.operation for one in ones])))


def checked(operation: commands.Operation) -> bytes:
    """As it goes to the leader, who would refuse the whole batch for one that breaks its bounds."""
    raw = encode(operation)
    commands.check_operation(raw)
    return raw


def answer_outcome(one: Waiting, outcome: object) -> None:
    """Of an operation that was applied."""
    if isinstance(outcome, EdgeStoreError):
        answer(one, None, outcome)
    else:
        answer(one, outcome, None)


def answer(one: Waiting, value: Any, error: BaseException | None) -> None:
    """A caller that raises is its own affair: the others of its entry are answered."""
    try:
        one.done(value, error)
    except Exception:
        log.exception("callback-failed sequence=%d", one.operation.sequence)


def size_bytes(command: commands.Command) -> int:
    """About what the command adds to its entry."""
    if isinstance(command, commands.PutObject):
        return OPERATION_OVERHEAD_BYTES + len(command.content.inline) + 64 * len(command.content.extents)
    if isinstance(command, commands.CompleteUpload):
        return OPERATION_OVERHEAD_BYTES + 48 * len(command.parts)
    return OPERATION_OVERHEAD_BYTES
