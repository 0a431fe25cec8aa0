"""Puts log entries in one order and makes them durable: the `Consensus` interface, and PySyncObj's core behind it."""

from edgestore.consensus.applying import NotAppliedError
from edgestore.consensus.forced import log_end, make_sole_voter
from edgestore.consensus.group import RaftConsensus
from edgestore.consensus.interface import (
    Consensus,
    ConsensusStatus,
    Readable,
    Role,
    Snapshot,
    SnapshotBase,
    StateMachine,
)
from edgestore.consensus.recovery import first_folder, machine_folder
from edgestore.consensus.salvage import salvage_entries

__all__ = [
    "Consensus",
    "ConsensusStatus",
    "NotAppliedError",
    "RaftConsensus",
    "Readable",
    "Role",
    "Snapshot",
    "SnapshotBase",
    "StateMachine",
    "first_folder",
    "log_end",
    "machine_folder",
    "make_sole_voter",
    "salvage_entries",
]
