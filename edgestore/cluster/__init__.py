"""What makes several nodes one site: tokens, joining, certificates, presence, and what operators see of it."""

from edgestore.cluster.certificates import Admission, Certifier, Renewal
from edgestore.cluster.join import JoinAnswer, JoinRequest, JoinServer, ask_to_join
from edgestore.cluster.presence import Presence
from edgestore.cluster.service import Site
from edgestore.cluster.tokens import Token, parse_token

__all__ = [
    "Admission",
    "Certifier",
    "JoinAnswer",
    "JoinRequest",
    "JoinServer",
    "Presence",
    "Renewal",
    "Site",
    "Token",
    "ask_to_join",
    "parse_token",
]
