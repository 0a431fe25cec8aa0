"""Proposing to the catalog and reading it: operations gathered into log entries, log time, flushes, the applied
state."""

from edgestore.meta.service import Meta

__all__ = ["Meta"]
