"""Puts log entries in one order and makes them durable: the `Consensus` interface, and PySyncObj's core behind it."""

from edgestore.consensus.applying import NotAppliedError
from edgestore.consensus.by_hand import apply_log, force_members, log_end
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
from edgestore.consensus.salvage import salvage_entries, salvage_folder

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
    "apply_log",
    "first_folder",
    "force_members",
    "log_end",
    "machine_folder",
    "salvage_entries",
    "salvage_folder",
]
