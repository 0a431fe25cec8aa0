"""Who is alive, how well each node does, and what the leader makes of it: SWIM, status gossip, quality, control."""

from edgestore.cluster.members import Standing
from edgestore.cluster.messages import Kind, NodeStatus, PeerView, SwimMessage
from edgestore.cluster.swim import Swim

__all__ = ["Kind", "NodeStatus", "PeerView", "Standing", "Swim", "SwimMessage"]
