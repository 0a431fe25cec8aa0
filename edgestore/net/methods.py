"""What nodes say to each other: stable numbers of every topic and method.

Rule: numbers are the wire format: append only, never reused.
"""

from __future__ import annotations

from enum import IntEnum


class Topic(IntEnum):
    """Messages: one way, any of them may be lost."""

    RAFT = 1
    SWIM = 2


SWORN = frozenset({Topic.RAFT})
"""Topics whose messages bind the member: while two starts of it are connected here, neither is heard on them."""


class Method(IntEnum):
    """Requests: answered once, or the caller's time runs out."""

    PING = 1
    AUTHORITY = 2
    """The certificate of the site's authority, for whoever asks: a joiner checks its digest before it says anything."""
    JOIN = 3
    RENEW = 4
    STATUS = 5
    RAFT_FETCH = 10
    PROPOSE = 12
    SNAPSHOT_OPEN = 13
    SNAPSHOT_READ = 14
    SNAPSHOT_CLOSE = 15
    FRAGMENT_PUT = 22
    FRAGMENT_READ = 23
    FRAGMENT_DROP = 25
    FRAGMENT_REPAIR = 26


class Lane(IntEnum):
    """Which connection carries a call: fragments never delay heartbeats."""

    CONTROL = 0
    BULK = 1


class Rights(IntEnum):
    """What a caller may do; each includes those below it."""

    NONE = 0
    EXPIRED = 1
    """A member whose certificate ran out: it may renew it."""
    MEMBER = 2
