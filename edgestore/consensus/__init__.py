"""Puts log entries in one order and makes them durable: the `Consensus` interface, and PySyncObj's core behind it."""

from edgestore.consensus.core import RaftConsensus
from edgestore.consensus.interface import Consensus, ConsensusStatus, StateMachine

__all__ = ["Consensus", "ConsensusStatus", "RaftConsensus", "StateMachine"]
