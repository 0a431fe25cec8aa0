"""Operation memory: an operation id is applied once, its outcome remembered while it may be asked for again (rule 9).

Rule: what is in RAM here is a function of table OPERATIONS, so that a replica that restarted decides as one that did
not. A session's newest row stays until it is too old: it carries `settled` and the session's last log time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgestore import errors
from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import PREFIX_BYTES, Table, number, read_number, row, successor
from edgestore.catalog.view import OrderedView
from edgestore.records import (
    SITE_TENANT,
    BucketRecord,
    ExtentRecord,
    KeyRecord,
    NodeRecord,
    PartRecord,
    SiteSettings,
    TenantRecord,
    UploadRecord,
    VersionRecord,
    WriterRecord,
)

OPERATION_MEMORY_MS = 600_000

OUTCOMES: tuple[type, ...] = (
    errors.EdgeStoreError,
    type(None),
    bool,
    bytes,
    list,
    VersionRecord,
    commands.Deleted,
    BucketRecord,
    UploadRecord,
    PartRecord,
    WriterRecord,
    TenantRecord,
    KeyRecord,
    NodeRecord,
    rows.TokenRecord,
    SiteSettings,
    ExtentRecord,
    int,
)
_KINDS = {outcome: kind for kind, outcome in enumerate(OUTCOMES)}
_FieldValue = str | int | float | bytes | None
_DECODERS: list[msgspec.msgpack.Decoder[Any]] = [
    msgspec.msgpack.Decoder(tuple[str, str, dict[str, Any]] if kind == 0 else outcome)
    for kind, outcome in enumerate(OUTCOMES)
]


@dataclass(slots=True)
class _Row:
    """One row of a session."""

    index: int
    log_time_ms: int
    sequences: tuple[int, ...]


@dataclass(slots=True)
class _Session:
    """One proposer: where the outcomes from `settled` on lie, oldest row first."""

    settled: int = 0
    rows: deque[_Row] = field(default_factory=deque)
    places: dict[int, int] = field(default_factory=dict)
    """Sequence -> log index."""

    def add(self, added: _Row) -> None:
        """The newest row."""
        self.rows.append(added)
        for sequence in added.sequences:
            self.places[sequence] = added.index

    def drop_oldest(self) -> int:
        """Returns the log index of the row that goes."""
        oldest = self.rows.popleft()
        for sequence in oldest.sequences:
            if self.places.get(sequence) == oldest.index:
                del self.places[sequence]
        return oldest.index


class OperationMemory:
    """A RAM index over table OPERATIONS, and the outcomes of the entry that is being applied."""

    def __init__(self, view: OrderedView, group: int) -> None:
        self._group = group
        self._sessions: dict[int, _Session] = {}
        self._fresh: dict[int, dict[int, object]] = {}
        prefix = row(group, Table.OPERATIONS, SITE_TENANT)
        for key, value in view.scan(prefix, successor(prefix)):
            session = self._sessions.setdefault(read_number(key[PREFIX_BYTES : PREFIX_BYTES + 8]), _Session())
            remembered = rows.remembered(value)
            sequences = tuple(outcome.sequence for outcome in remembered.outcomes)
            session.add(_Row(read_number(key[-8:]), remembered.log_time_ms, sequences))
            session.settled = remembered.settled

    def begin(self, operations: tuple[commands.Operation, ...]) -> None:
        """A new entry: every session that takes part in it gets a row."""
        self._fresh = {operation.session: {} for operation in operations}

    def is_known(self, context: Context, operation: commands.Operation) -> bool:
        """Whether it was applied before. Raises AlreadyApplied where that is no longer known."""
        session = self._sessions.get(operation.session)
        if operation.sequence in self._fresh[operation.session]:
            return True
        if session is not None:
            if operation.sequence in session.places:
                return True
            if operation.sequence < session.settled:
                raise errors.AlreadyApplied("the proposer knew the outcome of this operation already")
        if operation.born_ms + OPERATION_MEMORY_MS < context.log_time_ms:
            raise errors.AlreadyApplied("the operation is too old to tell whether it was applied: read, then decide")
        return False

    def outcome(self, context: Context, operation: commands.Operation) -> object:
        """The outcome of an operation that is known."""
        fresh = self._fresh[operation.session]
        if operation.sequence in fresh:
            return fresh[operation.sequence]
        index = self._sessions[operation.session].places[operation.sequence]
        data = context.get(Table.OPERATIONS, SITE_TENANT, number(operation.session) + number(index))
        if data is None:
            raise errors.Corrupt("a row of the operation memory is missing", session=operation.session, index=index)
        remembered = rows.remembered(data).outcomes
        return decode_outcome(next(one for one in remembered if one.sequence == operation.sequence))

    def remember(self, operation: commands.Operation, outcome: object) -> None:
        """The outcome of an operation of this entry."""
        self._fresh[operation.session][operation.sequence] = outcome

    def write(self, context: Context, operations: tuple[commands.Operation, ...]) -> None:
        """Adds the entry's outcomes and drops what is settled or too old."""
        for operation in operations:
            session = self._sessions.setdefault(operation.session, _Session())
            if operation.settled > session.settled:
                session.settled = operation.settled
        for session_id, outcomes in self._fresh.items():
            session = self._sessions[session_id]
            value = (context.log_time_ms, session.settled, [_encodable(*one) for one in outcomes.items()])
            place = number(session_id) + number(context.index)
            context.put(Table.OPERATIONS, SITE_TENANT, place, rows.encode(value))
            session.add(_Row(context.index, context.log_time_ms, tuple(outcomes)))
        for session_id, session in list(self._sessions.items()):
            for index in _leaving(session, context.log_time_ms - OPERATION_MEMORY_MS):
                context.delete(Table.OPERATIONS, SITE_TENANT, number(session_id) + number(index))
            if not session.rows:
                del self._sessions[session_id]
        self._fresh = {}


def _leaving(session: _Session, horizon_ms: int) -> list[int]:
    """Takes out the rows older than the horizon, and the settled ones but the newest; returns their log indices."""
    leaving = []
    while session.rows:
        oldest = session.rows[0]
        is_settled = len(session.rows) > 1 and max(oldest.sequences, default=0) < session.settled
        if oldest.log_time_ms >= horizon_ms and not is_settled:
            break
        leaving.append(session.drop_oldest())
    return leaving


def _encodable(sequence: int, outcome: object) -> tuple[int, int, object]:
    """As `rows.RememberedOutcome`."""
    if isinstance(outcome, errors.EdgeStoreError):
        fields = {key: value for key, value in outcome.fields.items() if isinstance(value, _FieldValue)}
        return sequence, 0, (type(outcome).__name__, str(outcome), fields)
    return sequence, _KINDS[type(outcome)], outcome


def decode_outcome(remembered: rows.RememberedOutcome) -> object:
    """The value; an error comes back as its class with its message and fields."""
    value = _DECODERS[remembered.kind].decode(remembered.outcome)
    if remembered.kind == 0:
        name, message, fields = value
        return getattr(errors, name, errors.EdgeStoreError)(message, **fields)
    return value
