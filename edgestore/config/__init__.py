"""Every setting and limit of every room, from TOML and the environment."""

from edgestore.config.reading import host_and_port, load_config, parse_config
from edgestore.config.settings import (
    ChunksConfig,
    ClusterConfig,
    Config,
    ConsensusConfig,
    DiskConfig,
    HttpConfig,
    MetaConfig,
    NetConfig,
    ObjectsConfig,
    RepairConfig,
    S3Config,
)

__all__ = [
    "ChunksConfig",
    "ClusterConfig",
    "Config",
    "ConsensusConfig",
    "DiskConfig",
    "HttpConfig",
    "MetaConfig",
    "NetConfig",
    "ObjectsConfig",
    "RepairConfig",
    "S3Config",
    "host_and_port",
    "load_config",
    "parse_config",
]
