"""Puts log entries in one order and makes them durable: the `Consensus` interface, and PySyncObj's core behind it."""

from edgestore.consensus.core import RaftConsensus
from edgestore.consensus.interface import Consensus, ConsensusStatus, Role, Snapshot, SnapshotBase, StateMachine
from edgestore.consensus.salvage import salvage_entries

__all__ = [
    "Consensus",
    "ConsensusStatus",
    "RaftConsensus",
    "Role",
    "Snapshot",
    "SnapshotBase",
    "StateMachine",
    "salvage_entries",
]
