"""Proposing to the catalog and reading it: operations gathered into log entries and taken to the leader, log time,
flushes, snapshots, the applied state."""

from edgestore.meta.service import Meta
from edgestore.meta.setup import GroupSetup

__all__ = ["GroupSetup", "Meta"]
