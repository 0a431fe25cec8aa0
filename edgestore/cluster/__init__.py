"""What makes several nodes one site: joining and certificates, who is alive and how well each does, and what the leader
makes of it."""

from edgestore.cluster.certificates import Admission, Certifier, Renewal
from edgestore.cluster.control import ChangeVoters, Control, HandOver, SeenStatus, SiteView, StepLogTime
from edgestore.cluster.detector import Detector, Facts
from edgestore.cluster.join import JoinAnswer, JoinRequest, JoinServer, ask_to_join
from edgestore.cluster.leader import GroupStatus, Leader, SiteGroup
from edgestore.cluster.members import Standing
from edgestore.cluster.messages import Kind, NodeStatus, PeerView, SwimMessage
from edgestore.cluster.presence import Presence
from edgestore.cluster.quality import Observer, Scores
from edgestore.cluster.service import Site
from edgestore.cluster.swim import Swim
from edgestore.cluster.tokens import Token, parse_token

__all__ = [
    "Admission",
    "Certifier",
    "ChangeVoters",
    "Control",
    "Detector",
    "Facts",
    "GroupStatus",
    "HandOver",
    "JoinAnswer",
    "JoinRequest",
    "JoinServer",
    "Kind",
    "Leader",
    "NodeStatus",
    "Observer",
    "PeerView",
    "Presence",
    "Renewal",
    "Scores",
    "SeenStatus",
    "Site",
    "SiteGroup",
    "SiteView",
    "Standing",
    "StepLogTime",
    "Swim",
    "SwimMessage",
    "Token",
    "ask_to_join",
    "parse_token",
]
