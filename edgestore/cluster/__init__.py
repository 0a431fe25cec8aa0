"""Who is alive, how well each node does, and what the leader makes of it: SWIM, status gossip, quality, control."""

from edgestore.cluster.control import ChangeVoters, Control, SeenStatus, SiteView, StepLogTime
from edgestore.cluster.detector import Detector, Facts
from edgestore.cluster.leader import GroupStatus, Leader, SiteGroup
from edgestore.cluster.members import Standing
from edgestore.cluster.messages import Kind, NodeStatus, PeerView, SwimMessage
from edgestore.cluster.quality import Observer, Outcome, Scores
from edgestore.cluster.swim import Swim

__all__ = [
    "ChangeVoters",
    "Control",
    "Detector",
    "Facts",
    "GroupStatus",
    "Kind",
    "Leader",
    "NodeStatus",
    "Observer",
    "Outcome",
    "PeerView",
    "Scores",
    "SeenStatus",
    "SiteGroup",
    "SiteView",
    "Standing",
    "StepLogTime",
    "Swim",
    "SwimMessage",
]
