"""Opens a node of a site: one that founds it, one that joins it now, or one that has joined before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgestore.config import Config
from edgestore.core.opening import Core
from edgestore.disk import Files
from edgestore.errors import ConfigError
from edgestore.observe import Metrics
from edgestore.tenants import RootKeys

if TYPE_CHECKING:
    from edgestore.cluster import Token


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What the operator says of a node's place among others. `listen`: HOST:PORT, empty: as remembered."""

    listen: str = ""
    zone: str = ""
    capacity_bytes: int = 0
    witness: bool = False


@dataclass(frozen=True, slots=True)
class Joining:
    """How to become a member: the token, and the mesh addresses of members to ask."""

    token: Token
    peers: tuple[str, ...]


async def open_in_site(
    files: Files,
    config: Config,
    options: MeshOptions,
    joining: Joining | None,
    *,
    s3: str,
    root_keys: RootKeys | None,
    metrics: Metrics,
) -> Core:
    """As `Core.open`, which it ends in."""
    raise ConfigError("this build has no mesh: a site of several nodes cannot be opened")
