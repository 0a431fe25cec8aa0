"""What `doctor` looks at: each check is a name, whether it is well, and what to do."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from edgestore.cli.site import CLOCK_ADVICE, clock_apart
from edgestore.cli.target import read_keys, run
from edgestore.clock import system_entropy
from edgestore.config import Config, load_config
from edgestore.disk import SystemFiles, open_identity, recover
from edgestore.errors import EdgeStoreError, InUse
from edgestore.kernels import active_kernel

EPOCH_OF_THE_RELEASE_S = 1_760_000_000


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    advice: str = ""

    def row(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def examine(folder: str | None, url: str | None) -> list[Check]:
    """Looks without changing anything. A node that runs is asked; one elsewhere knows its own machine only."""
    if url or not folder:
        return list(_node(folder, url))
    config, settings = _settings(folder)
    return [*_folder(folder), *_store(folder), _space(folder, config), _clock(), _kernels(), settings]


def _node(folder: str | None, url: str | None) -> Iterator[Check]:
    """What a running node knows of its disk."""
    status = run(folder, url, lambda target: target.ask("GET", "status", {}))
    serves = status["serves"] or (status.get("site") is not None and status["site"]["leader"] > 0)
    advice = "" if serves else "look at the other nodes: too few of them answer for a decision"
    yield Check("node", serves, "serves" if serves else "has no leader: reads and writes wait", advice)
    if apart := clock_apart(status):
        yield Check("clock of the node", False, apart, CLOCK_ADVICE)
    damaged, quarantined = status["damaged_fragments"], status["quarantined_segments"]
    unreadable, scrubbed = status["unreadable_segments"], status["scrubbed_ms"]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(scrubbed // 1000)) if scrubbed else "not yet"
    is_well = not (damaged or quarantined or unreadable)
    advice = "" if is_well else "restore the objects that fail to read from a copy, and replace the disk"
    found = f"{damaged} damaged fragments, {quarantined} quarantined segments, {unreadable} that cannot be read whole"
    yield Check("disk", is_well, f"{found}; read through: {when}", advice)


def _store(folder: str) -> Iterator[Check]:
    """What a start would refuse. The lock tells whether a node runs, and keeps one from starting meanwhile."""
    if not os.path.isfile(os.path.join(folder, "identity")):
        return
    files = SystemFiles(folder)
    try:
        lock = files.lock("lock")
    except InUse:
        yield from _running(folder)
        return
    try:
        for name, check in (
            ("identity", lambda: open_identity(files, system_entropy)),
            ("journal", lambda: recover(files, "journal")),
        ):
            try:
                check()
                yield Check(name, True, "checks out")
            except (EdgeStoreError, OSError) as error:
                yield Check(name, False, str(error), "restore it from a copy, or save what is left with --salvage")
    finally:
        lock.release()


def _running(folder: str) -> Iterator[Check]:
    try:
        yield from _node(folder, None)
    except (EdgeStoreError, OSError) as error:
        yield Check("node", False, str(error), "stop the process that has the folder open, or wait until it serves")


def _credentials(folder: str, path: str) -> Check:
    mode = os.stat(path).st_mode & 0o777
    if mode & 0o077:
        return Check("credentials", False, f"mode {mode:o}", f"chmod 600 {path}")
    try:
        read_keys(folder)
    except EdgeStoreError as error:
        return Check("credentials", False, str(error), "restore it, or write access_key and secret_key again")
    return Check("credentials", True, f"mode {mode:o}")


def _folder(folder: str) -> Iterator[Check]:
    if not os.path.isdir(folder):
        yield Check("data folder", False, f"{folder} is missing", "start a node on it, or name the right folder")
        return
    missing = [name for name in ("journal", "segments", "index") if not os.path.isdir(os.path.join(folder, name))]
    if not any(name == "catalog" or name.startswith("catalog.") for name in os.listdir(folder)):
        missing.append("catalog")  # a received one has a name of its own
    if not os.path.isfile(os.path.join(folder, "identity")):
        missing.append("identity")
    writable = os.access(folder, os.W_OK)
    found = f"missing: {', '.join(missing)}" if missing else "complete" if writable else "not writable"
    advice = "restore the missing folders from a copy, or save what is left with --salvage" if missing else ""
    yield Check(
        "data folder",
        not missing and writable,
        found,
        advice or ("" if writable else "give this user the right to write"),
    )
    path = os.path.join(folder, "credentials.toml")
    if os.path.exists(path):
        yield _credentials(folder, path)


def _space(folder: str, config: Config) -> Check:
    existing = os.path.abspath(folder)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    reserve = config.disk.reserve_bytes
    ok = free > 2 * reserve
    advice = "" if ok else f"free some space: below {reserve} bytes writes are refused; deleting objects works"
    return Check("disk space", ok, f"{free} bytes free, {reserve} reserved", advice)


def _clock() -> Check:
    now = time.time_ns() // 1_000_000_000
    ok = now > EPOCH_OF_THE_RELEASE_S
    advice = "" if ok else "set the clock: clients sign with the time, and more than 15 minutes apart is refused"
    return Check("clock", ok, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)), advice)


def _kernels() -> Check:
    ok = active_kernel != "reference"
    advice = "" if ok else "install a C compiler and python3-dev, then reinstall edgestore: checksums are slow without"
    return Check("kernels", ok, f"{active_kernel} on Python {sys.version.split()[0]}", advice)


def _settings(folder: str) -> tuple[Config, Check]:
    """The settings, the usual ones where they do not read."""
    try:
        config = load_config(folder)
    except EdgeStoreError as error:
        return Config(), Check("settings", False, str(error), "mend config.toml or the variable")
    found = "config.toml reads" if os.path.exists(os.path.join(folder, "config.toml")) else "defaults"
    return config, Check("settings", True, found)
