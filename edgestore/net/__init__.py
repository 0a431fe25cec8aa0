"""Frames between nodes over TLS 1.3 with certificates on both sides: who is where, messages, requests, answers.

Whatever the rooms above say to each other is a frame of a topic or a method; any of them may be lost, late, doubled or
overtaken, and every handler is made for that. What opens connections is loaded when it is first asked for: the rooms
above name methods and answers on a lone node too.
"""

from typing import TYPE_CHECKING

from edgestore.later import later
from edgestore.net.calls import Answer, Caller, Outcome, Reply, Work
from edgestore.net.frames import Frame
from edgestore.net.methods import Lane, Method, Rights, Topic

if TYPE_CHECKING:
    from edgestore.net.connection import Connection, Listening, Network, SystemNetwork
    from edgestore.net.peers import Peers
    from edgestore.net.tls import Credentials
else:
    __getattr__ = later(
        __name__,
        {
            "connection": ("Connection", "Listening", "Network", "SystemNetwork"),
            "peers": ("Peers",),
            "tls": ("Credentials",),
        },
    )

__all__ = [
    "Answer",
    "Caller",
    "Connection",
    "Credentials",
    "Frame",
    "Lane",
    "Listening",
    "Method",
    "Network",
    "Outcome",
    "Peers",
    "Reply",
    "Rights",
    "SystemNetwork",
    "Topic",
    "Work",
]
