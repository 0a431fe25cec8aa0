"""Every setting and limit of every room, from TOML and the environment."""

from edgestore.config.reading import host_and_port, load_config, parse_config
from edgestore.config.settings import (
    ChunksConfig,
    Config,
    DiskConfig,
    HttpConfig,
    MetaConfig,
    ObjectsConfig,
    S3Config,
)
from edgestore.config.site_settings import ClusterConfig, ConsensusConfig, NetConfig, RepairConfig

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
