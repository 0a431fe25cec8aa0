"""Requests under way on one connection, and how errors travel.

Rule: every request ends: with an answer, with the error that its handler raised, with the connection, or in time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from edgestore import errors
from edgestore.errors import EdgeStoreError, TooBusy, Unavailable
from edgestore.net.frames import Buffer, Frame, Kind
from edgestore.net.methods import Rights

_FieldValue = str | int | float | bytes | None


class Work(IntEnum):
    """What a call asks of another node: times are compared within one kind only."""

    PROBE = 0
    READ = 1
    WRITE = 2
    """Ends with a sync."""


class Outcome(IntEnum):
    """How a call to another node ended."""

    GOOD = 0
    FAILED = 1
    DAMAGED = 2
    """It answered, and what it sent, or had on its disk, did not check out."""


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who calls. `member` is empty for who showed no certificate of this site."""

    member: str
    rights: Rights = Rights.MEMBER
    address: str = ""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a handler answers."""

    head: bytes = b""
    payload: Sequence[Buffer] = ()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a call brings."""

    head: bytes
    payload: memoryview


class _TravellingError(msgspec.Struct, frozen=True, array_like=True):
    """An error of the tree, by its class."""

    name: str
    message: str
    fields: dict[str, Any] = {}


def encode_error(error: EdgeStoreError) -> bytes:
    """The head of an ERROR frame."""
    fields: dict[str, Any] = {key: value for key, value in error.fields.items() if isinstance(value, _FieldValue)}
    if isinstance(error, Unavailable):
        fields["retry_after_s"] = error.retry_after_s
    return msgspec.msgpack.encode(_TravellingError(type(error).__name__, str(error), fields))


def decode_error(head: bytes) -> EdgeStoreError:
    """What the other side raised; Unavailable for a class that this version has not."""
    try:
        found = msgspec.msgpack.decode(head, type=_TravellingError)
    except msgspec.MsgspecError:
        return Unavailable("a node answered with an error that does not decode")
    kind = getattr(errors, found.name, None)
    if not (isinstance(kind, type) and issubclass(kind, EdgeStoreError)):
        return Unavailable(found.message)
    try:
        return kind(found.message, **found.fields)
    except TypeError:
        return Unavailable(found.message)


class Calls:
    """The requests of one connection that wait for their answers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._next = 1
        self._waiting: dict[int, tuple[asyncio.Future[Answer], float]] = {}
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, timeout_s: float = math.inf) -> tuple[int, asyncio.Future[Answer]]:
        """A number and where its answer comes, or TimeoutError. Raises TooBusy."""
        if len(self._waiting) >= self._most:
            raise TooBusy("too many requests to one node wait for their answers (net.calls_max)")
        number, self._next = self._next, self._next + 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        due_s = self._loop.time() + timeout_s
        self._waiting[number] = (future, due_s)
        if due_s < self._alarm_s:
            self._set_alarm(due_s)
        return number, future

    def _set_alarm(self, due_s: float) -> None:
        """One timer for all calls, set for the first that may be due: nearly all are answered long before."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s, self._alarm = due_s, self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        passed_s, self._alarm, self._alarm_s = max(self._alarm_s, self._loop.time()), None, math.inf
        for number, (future, due_s) in list(self._waiting.items()):
            if due_s <= passed_s:
                del self._waiting[number]
                if not future.done():
                    future.set_exception(TimeoutError())
        first_s = min((due_s for _, due_s in self._waiting.values()), default=math.inf)
        if first_s < math.inf:
            self._set_alarm(first_s)

    def forget(self, number: int) -> None:
        """Nobody waits any more."""
        self._waiting.pop(number, None)

    def answered(self, frame: Frame) -> None:
        """An ANSWER or an ERROR; late and doubled ones are passed over."""
        future, _ = self._waiting.pop(frame.number, (None, 0.0))
        if future is None or future.done():
            return
        if frame.kind is Kind.ERROR:
            future.set_exception(decode_error(frame.head))
        else:
            payload = memoryview(frame.payload[0]) if frame.payload else memoryview(b"")
            future.set_result(Answer(frame.head, payload))

    def fail(self, reason: str) -> None:
        """The connection is gone."""
        waiting, self._waiting = self._waiting, {}
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_s = None, math.inf
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(Unavailable(reason))
