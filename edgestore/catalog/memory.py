"""Operation memory: an operation id is applied once, its outcome remembered while it may be asked for again (rule 9).

Rule: outcomes are kept from the proposer's `settled` mark on, and for `OPERATION_MEMORY_MS` of log time at most.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgestore import errors
from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, number, read_number, row, successor
from edgestore.catalog.view import OrderedView
from edgestore.records import (
    SITE_TENANT,
    BucketRecord,
    KeyRecord,
    PartRecord,
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
)
_KINDS = {outcome: kind for kind, outcome in enumerate(OUTCOMES)}
_DECODERS: list[msgspec.msgpack.Decoder[Any]] = [
    msgspec.msgpack.Decoder(tuple[str, str] if kind == 0 else outcome) for kind, outcome in enumerate(OUTCOMES)
]


@dataclass(slots=True)
class _Session:
    """One proposer: where the outcomes from `settled` on lie."""

    settled: int = 0
    last_ms: int = 0
    rows: deque[tuple[int, int, tuple[int, ...]]] = field(default_factory=deque)
    """(log index, highest sequence, all sequences) of each row."""
    places: dict[int, int] = field(default_factory=dict)
    """Sequence -> log index."""


class OperationMemory:
    """A RAM index over table OPERATIONS: everything in it is in the rows too."""

    def __init__(self, view: OrderedView, group: int) -> None:
        self._group = group
        self._sessions: dict[int, _Session] = {}
        prefix = row(group, Table.OPERATIONS, SITE_TENANT)
        for key, value in view.scan(prefix, successor(prefix)):
            session = self._sessions.setdefault(read_number(key[len(prefix) : len(prefix) + 8]), _Session())
            self._remember(session, read_number(key[-8:]), rows.remembered(value))
            session.settled = min(session.places, default=0)

    @staticmethod
    def _remember(session: _Session, index: int, outcomes: tuple[rows.RememberedOutcome, ...]) -> None:
        sequences = tuple(outcome.sequence for outcome in outcomes)
        session.rows.append((index, max(sequences), sequences))
        session.places.update(dict.fromkeys(sequences, index))

    def earlier(self, context: Context, operation: commands.Operation) -> rows.RememberedOutcome | None:
        """The outcome of an operation that was applied before. Raises AlreadyApplied where it is no longer known."""
        session = self._sessions.get(operation.session)
        index = session.places.get(operation.sequence) if session is not None else None
        if index is not None:
            data = context.get(Table.OPERATIONS, SITE_TENANT, number(operation.session) + number(index))
            for outcome in rows.remembered(data) if data is not None else ():
                if outcome.sequence == operation.sequence:
                    return outcome
        too_old = operation.born_ms + OPERATION_MEMORY_MS < context.log_time_ms
        if too_old or (session is not None and operation.sequence < session.settled):
            raise errors.AlreadyApplied("the operation is too old to tell whether it was applied: read, then decide")
        return None

    def write(
        self,
        context: Context,
        operations: tuple[commands.Operation, ...],
        fresh: dict[int, list[rows.RememberedOutcome]],
    ) -> None:
        """Adds the entry's outcomes and drops what is settled or too old."""
        for session_id, outcomes in fresh.items():
            session = self._sessions.setdefault(session_id, _Session())
            session.last_ms = context.log_time_ms
            place = number(session_id) + number(context.index)
            context.put(Table.OPERATIONS, SITE_TENANT, place, rows.encode(tuple(outcomes)))
            self._remember(session, context.index, tuple(outcomes))
        for operation in operations:
            session = self._sessions.setdefault(operation.session, _Session(last_ms=context.log_time_ms))
            session.settled = max(session.settled, operation.settled)
        for session_id, session in list(self._sessions.items()):
            expired = session.last_ms + OPERATION_MEMORY_MS < context.log_time_ms
            while session.rows and (expired or session.rows[0][1] < session.settled):
                index, _, sequences = session.rows.popleft()
                context.delete(Table.OPERATIONS, SITE_TENANT, number(session_id) + number(index))
                for sequence in sequences:
                    session.places.pop(sequence, None)
            if expired:
                del self._sessions[session_id]


def encode_outcome(sequence: int, outcome: object) -> rows.RememberedOutcome:
    """For the row."""
    if isinstance(outcome, errors.EdgeStoreError):
        return rows.RememberedOutcome(sequence, 0, rows.encode((type(outcome).__name__, str(outcome))))
    return rows.RememberedOutcome(sequence, _KINDS[type(outcome)], rows.encode(outcome))


def decode_outcome(remembered: rows.RememberedOutcome) -> object:
    """The reverse; an error comes back as its class with its message."""
    value = _DECODERS[remembered.kind].decode(remembered.payload)
    if remembered.kind == 0:
        name, message = value
        return getattr(errors, name, errors.EdgeStoreError)(message)
    return value
