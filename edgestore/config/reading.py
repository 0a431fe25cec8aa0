"""Reads the settings from TOML tables named after the rooms, and from the environment.

Rule: an unknown key is an error, and names the nearest known one.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from edgestore.config.settings import Config
from edgestore.config.site_settings import ClusterConfig
from edgestore.errors import ConfigError

VARIABLES = frozenset(
    f"EDGESTORE_{name}"
    for name in (
        "ACCESS_KEY",
        "SECRET_KEY",
        "KERNEL",
        "FAIL_SYNC",
        "KILL_ROUNDS",
        "POWER_ROUNDS",
        "REQUIRE_ALL",
        "SEED",
        "SITE_ROUNDS",
    )
)
"""What is no setting: the root keys, the kernel, and what the tests understand."""


def load_config(folder: str, file: str | None = None) -> Config:
    """The settings of a data folder: environment over the file given, over DIR/config.toml, over defaults."""
    path = file or os.path.join(folder, "config.toml")
    tables: dict[str, Any] = {}
    if file is not None or os.path.exists(path):
        try:
            with open(path, "rb") as opened:
                tables = tomllib.load(opened)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
    return parse_config(tables, os.environ, path)


def parse_config(tables: Mapping[str, Any], environment: Mapping[str, str], path: str = "") -> Config:
    """Checks every key and value. Raises ConfigError with the nearest known name for an unknown one."""
    sections: dict[str, Any] = {}
    rooms = {room.name: room for room in fields(Config)}
    for name in tables:
        if name not in rooms:
            raise ConfigError(f"{path}: there is no table [{name}]{_nearest(name, rooms)}")
    for name in rooms:
        defaults = getattr(Config(), name)
        table = tables.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: [{name}] must be a table")
        sections[name] = _section(name, defaults, table, environment, path)
    _check_environment(environment, rooms)
    return _consistent(Config(**sections))


def _check_environment(environment: Mapping[str, str], rooms: Iterable[str]) -> None:
    """A variable of a table that there is not would be passed over in silence. Raises ConfigError."""
    tables = tuple(f"EDGESTORE_{name.upper()}_" for name in rooms)
    for variable in environment:
        if variable.startswith("EDGESTORE_") and variable not in VARIABLES and not variable.startswith(tables):
            known = [
                f"EDGESTORE_{room.name}_{setting.name}".upper()
                for room in fields(Config)
                for setting in fields(getattr(Config(), room.name))
            ]
            raise ConfigError(f"environment: there is no setting {variable}{_nearest(variable, [*known, *VARIABLES])}")


def _section(name: str, defaults: Any, table: Mapping[str, Any], environment: Mapping[str, str], path: str) -> Any:
    known = {setting.name: getattr(defaults, setting.name) for setting in fields(defaults)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: there is no setting {name}.{key}{_nearest(key, known)}")
        values[key] = _checked(f"{name}.{key}", value, known[key])
    prefix = f"EDGESTORE_{name.upper()}_"
    for variable, text in environment.items():
        if variable.startswith(prefix):
            key = variable.removeprefix(prefix).lower()
            if key not in known:
                names = [prefix + setting.upper() for setting in known]
                raise ConfigError(f"environment: there is no setting {variable}{_nearest(variable, names)}")
            values[key] = _checked(f"{name}.{key}", _parsed(text, known[key]), known[key])
    return replace(defaults, **values)


def _parsed(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        return float(text) if isinstance(default, float) else int(text)
    except ValueError:
        return text


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name} = {value!r}: it must be {_KINDS[type(default)]}")
    if not isinstance(value, str):
        least, most = RANGES.get(name, (1, math.inf) if isinstance(value, int) else (0.001, 1e9))
        if not least <= value <= most:
            bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise ConfigError(f"{name} = {value!r}: it must be {bounds}")
    return value


def _consistent(config: Config) -> Config:
    """What one range cannot say. Raises ConfigError."""
    if config.chunks.pool_read_reserve_bytes >= config.chunks.pool_bytes:
        raise ConfigError(
            "chunks.pool_read_reserve_bytes must be smaller than chunks.pool_bytes: uploads need the rest"
        )
    host_and_port(config.http.listen)
    if config.net.served_bytes_max < 2 * config.net.frame_max_bytes:
        raise ConfigError("net.served_bytes_max must be at least twice net.frame_max_bytes")
    if config.net.send_buffer_max_bytes < 2 * config.net.frame_max_bytes:
        raise ConfigError("net.send_buffer_max_bytes must be at least twice net.frame_max_bytes")
    if config.net.advertise:
        host_and_port(config.net.advertise)
    if config.http.key and not config.http.certificate:
        raise ConfigError("http.key needs http.certificate: the node would serve without TLS")
    if config.http.fast_body_max_bytes > config.http.fast_bodies_max_bytes:
        raise ConfigError("http.fast_body_max_bytes must not be larger than http.fast_bodies_max_bytes")
    journal_needs = 2 * config.disk.journal_file_bytes + config.meta.catalog_write_buffer_bytes
    if config.disk.reserve_bytes < journal_needs:
        raise ConfigError(
            f"disk.reserve_bytes = {config.disk.reserve_bytes} must be at least {journal_needs}: two files of the "
            "journal (disk.journal_file_bytes) and a flush of the catalog (meta.catalog_write_buffer_bytes), or a full "
            "disk could not even take deletes"
        )
    if 4 * config.consensus.entry_bytes_max > config.disk.journal_file_bytes:
        raise ConfigError("consensus.entry_bytes_max must be at most a quarter of disk.journal_file_bytes")
    if config.objects.put_max_bytes > config.objects.object_max_bytes:
        raise ConfigError("objects.put_max_bytes must not be larger than objects.object_max_bytes")
    _check_cluster(config.cluster)
    return config


def _check_cluster(cluster: ClusterConfig) -> None:
    if 4 * cluster.suspicion_min_ms > cluster.suspicion_max_ms:
        raise ConfigError("cluster.suspicion_min_ms must be at most a quarter of cluster.suspicion_max_ms")
    if cluster.accusers_min > cluster.accusers_full:
        raise ConfigError("cluster.accusers_min must not be larger than cluster.accusers_full")


def host_and_port(text: str) -> tuple[str, int]:
    """Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(f"{text!r} is not HOST:PORT")
    host = host.strip("[]")
    if not _is_host(host):
        raise ConfigError(f"{text!r} is not HOST:PORT: no host can have this name; check it for a typing error")
    return host, int(port)


def _is_host(host: str) -> bool:
    """Whether the system may be asked for it: for a name with an empty or a long label it raises UnicodeError."""
    if not all(0 < len(label) < 64 and label.isprintable() for label in host.removesuffix(".").split(".")):
        return False
    try:
        return host.isascii() or bool(host.encode("idna"))
    except UnicodeError:
        return False


_KINDS = {int: "a whole number", float: "a number", str: "a text"}
_MIB = 1024 * 1024
RANGES: Mapping[str, tuple[float, float]] = {
    "disk.reserve_bytes": (0, math.inf),
    "disk.journal_file_bytes": (4 * _MIB, 1024 * _MIB),
    "meta.row_cache_bytes": (0, math.inf),
    "disk.segment_bytes": (16 * _MIB, 4096 * _MIB),
    "disk.segment_dead_ratio": (0.05, 1.0),
    "disk.reader_threads": (1, 256),
    "net.frame_max_bytes": (5 * _MIB, 1024 * _MIB),
    "net.bulk_connections": (1, 16),
    "net.retransmit_min_ms": (1, 200),
    "net.retransmit_max_ms": (1000, 120_000),
    "chunks.pool_bytes": (8 * _MIB, math.inf),
    "chunks.slab_bytes": (64 * _MIB, math.inf),
    "chunks.intake_bytes": (8 * _MIB, math.inf),
    "chunks.decode_bytes": (8 * _MIB, math.inf),
    "chunks.chunks_in_flight": (1, 64),
    "chunks.copies_max_bytes": (0, 256 * 1024),
    "chunks.hedge_share": (0.0, 1.0),
    "chunks.compression_level": (1, 19),
    "repair.lazy_wait_s": (0, math.inf),
    "repair.critical_wait_s": (0, math.inf),
    "repair.bytes_per_s": (0, math.inf),
    "repair.memory_bytes": (24 * _MIB, math.inf),
    "repair.page_extents": (1, 1024),
    "chunks.compression_saving_min": (0.0, 1.0),
    "chunks.worker_threads": (1, 256),
    "chunks.sweep_interval_ms": (1000, math.inf),
    "cluster.probe_interval_ms": (10, 60_000),
    "cluster.probe_timeout_ms": (10, 60_000),
    "cluster.suspicion_retry_ms": (10, 60_000),
    "cluster.indirect_probes": (0, 16),
    "cluster.health_max": (0, 64),
    "cluster.status_bytes_max": (256, _MIB),
    "cluster.statuses_per_message_max": (1, 64),
    "cluster.words_per_message_max": (1, 256),
    "cluster.quality_floor": (1, 100),
    "cluster.quality_slow_ratio": (1.5, 1000.0),
    "cluster.quality_failed_share": (0.001, 1.0),
    "cluster.quality_damaged_share": (0.0001, 1.0),
    "cluster.quality_step": (1, 100),
    "objects.parts_max": (1, 10_000),
    "http.head_max_bytes": (1024, _MIB),
    "http.fast_body_max_bytes": (0, 4 * _MIB),
    "http.drain_timeout_s": (0.0, 9.0),
    "s3.clock_skew_max_s": (1, 86_400),
    "s3.presign_expiry_max_s": (1, 604_800),
}
"""Least and most, where it is not the usual: at least 1 for whole numbers, over 0 for others."""


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {found[0]!r}?" if found else ""
