"""Puts log entries in one order and makes them durable: the `Consensus` interface, and PySyncObj's core behind it."""

from edgestore.consensus.core import RaftConsensus
from edgestore.consensus.interface import Consensus, ConsensusStatus, StateMachine
from edgestore.consensus.salvage import salvage_entries

__all__ = ["Consensus", "ConsensusStatus", "RaftConsensus", "StateMachine", "salvage_entries"]
