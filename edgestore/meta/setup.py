"""Which group a meta is of, and with whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgestore.meta.machine import OpenFolder
from edgestore.records import Member

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.net import Peers


@dataclass(frozen=True)
class GroupSetup:
    """Which group it is and with whom. `founders`: who forms it where this journal is empty (nobody named: this member
    alone); a member that joins names the voters it was told of. `open_folder` opens a catalog that was received."""

    group: int = 0
    peers: Peers | None = None
    founders: tuple[Member, ...] = ()
    open_folder: OpenFolder | None = None


LONE = GroupSetup()
