"""Frames between nodes over TLS 1.3 with certificates on both sides: who is where, messages, requests, answers.

Whatever the rooms above say to each other is a frame of a topic or a method; any of them may be lost, late, doubled or
overtaken, and every handler is made for that.
"""

from edgestore.net.calls import Answer, Reply
from edgestore.net.connection import Connection, Listening, Network, SystemNetwork
from edgestore.net.frames import Frame
from edgestore.net.inbound import Caller
from edgestore.net.methods import Lane, Method, Rights, Topic
from edgestore.net.peers import Peers
from edgestore.net.tls import Credentials

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
    "Peers",
    "Reply",
    "Rights",
    "SystemNetwork",
    "Topic",
]
