"""What operators ask a node: readiness, metrics, status, buckets and keys, below `/-/`."""

from edgestore.protocols.admin.service import Admin

__all__ = ["Admin"]
