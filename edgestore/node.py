"""One running node: the core, its listeners, its signals. THE wiring of the server, once.

Rule: a node whose disk failed stops with a message and a non-zero exit code; it never serves on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgestore.clock import SystemClock, system_entropy
from edgestore.config import Config, HttpConfig, host_and_port
from edgestore.core import SITE_FILE, Core, read_site, root_keys_of_environment
from edgestore.disk import Files, SystemFiles
from edgestore.errors import Closing, ConfigError
from edgestore.observe import Metrics
from edgestore.protocols.admin import Admin
from edgestore.protocols.http import Front
from edgestore.protocols.s3 import S3Protocol
from edgestore.tenants import CREDENTIALS, RootKeys

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.core import Joining, MeshOptions

log = logging.getLogger("edgestore.node")

SOCKET_NAME = "node.sock"
SETTINGS = """\
# The settings of this node: one table a room, read at the start, all of them optional. docs/reference/config.md lists
# them with their defaults. For example:
#
# [http]
# listen = "127.0.0.1:9000"
"""
"""What a new data folder gets as config.toml."""
STOP_LIMIT_S = 9.5
"""From the signal to the exit: draining and closing together."""
DESCRIPTORS_KEPT = 512
"""For files that will be opened: two stores of up to 128 each, journal, segments, and sockets of this machine."""
CONNECTIONS_LEAST = 16
SWITCH_INTERVAL_S = 0.002
"""A thread that gives the GIL up gets it back within this: the loop never waits long for a worker."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where S3 listens, HOST:PORT, and with which certificate. Empty: as when the node joined, or `http.listen`."""

    address: str = ""
    certificate: str = ""
    key: str = ""


class Node:
    """A core with an S3 endpoint, an admin socket and signals."""

    def __init__(
        self,
        folder: str,
        config: Config,
        listen: Listen,
        mesh: MeshOptions | None = None,
        joining: Joining | None = None,
    ) -> None:
        _raise_descriptor_limit()
        self._folder, self._config, self._listen = folder, config, listen
        self._mesh, self._joining = mesh, joining
        self._stop: asyncio.Event
        self._stopped_at: float | None = None
        self._was_ready = False
        self._metrics = Metrics()

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT, or until the disk fails. Returns the exit code."""
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        tls, root_keys = self._tls(), root_keys_of_environment()
        credentials = os.path.join(self._folder, CREDENTIALS)
        is_first = not os.path.exists(credentials)
        if is_first and self._joining is None and not os.path.exists(os.path.join(self._folder, SITE_FILE)):
            self._check_addresses()
        files = self._files()
        core = await self._open(files, root_keys)
        core.on_failure = lambda error: self._stop.set()
        if is_first and not files.exists("config.toml"):
            files.replace("config.toml", SETTINGS.encode())
        try:
            await self._serve(core, tls, credentials if is_first else "")
        finally:
            await self._close(core)
        if core.failed is not None:
            log.critical("node-stopped reason=%s", core.failed)
            return 1
        if self._joining is not None and not self._was_ready:
            raise Closing(
                f"joined the site, and stopped before it served: go on with `edgestore serve --data {self._folder}`"
            )
        return 0

    def _check_addresses(self) -> None:
        """Before a store is founded: with it in the folder, the node could not join a site any more."""
        from edgestore.core import check_addresses

        mesh = self._mesh.listen if self._mesh is not None else ""
        check_addresses(self._listen.address or self._config.http.listen, mesh)

    def _files(self) -> SystemFiles:
        try:
            return SystemFiles(self._folder)
        except OSError as error:
            raise ConfigError(
                f"the data folder {self._folder} cannot be made or read ({error.strerror}): name another with --data"
            ) from error

    async def _open(self, files: Files, root_keys: RootKeys | None) -> Core:
        """A lone node, one of several as the folder says, or one that joins now."""
        if self._joining is not None:
            await self._join(files, self._joining)
        remembered = read_site(files)
        if (self._mesh is not None and self._mesh.listen) or remembered is not None:
            from edgestore.core import MeshOptions, open_in_site

            return await open_in_site(
                files,
                self._config,
                self._mesh or MeshOptions(),
                s3=self._listen.address,
                root_keys=root_keys,
                metrics=self._metrics,
            )
        clock = SystemClock()
        return await Core.open(files, self._config, clock=clock, root_keys=root_keys, metrics=self._metrics)

    async def _join(self, files: Files, joining: Joining) -> None:
        """Becomes a member, or hears that it shall stop. Raises Closing."""
        from edgestore.core import MeshOptions, join_site

        work = join_site(files, self._config, self._mesh or MeshOptions(), joining, s3=self._listen.address)
        joined, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((joined, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            joined.cancel()
        if not joined.done():
            await asyncio.wait((joined,))
        if joined.cancelled():
            raise Closing("stopped before the node has joined: the same token can be shown again")
        joined.result()

    async def _serve(self, core: Core, tls: ssl.SSLContext | None, credentials: str) -> None:
        """Listens until told to stop, then drains."""
        if not core.tenants.list_keys() and not await self._arrives(core):
            return  # a new member cannot even tell who signs before it has the catalog
        limits = _fit_to_descriptors(self._config.http)
        s3 = S3Protocol(
            core.objects,
            core.tenants,
            self._config.s3,
            core.clock,
            system_entropy,
            limits=limits,
            metrics=self._metrics,
            site_time_ms=core.site_time_ms,
        )
        front = Front(core.chunks.pool, s3.handle, limits, wall_ms=core.clock.wall_ms, hot=s3, metrics=self._metrics)
        front.route("/-/", Admin(core, self._metrics).handle)
        host, port = host_and_port(core.s3_listen or self._listen.address or self._config.http.listen)
        try:
            port = await front.start(host, port, tls)
        except OSError as error:
            raise ConfigError(f"{error.strerror}: choose another address for S3 with --s3") from error
        path = os.path.join(self._folder, SOCKET_NAME)
        await front.start_local(_bind_local(self._folder))
        _settle_interpreter()
        try:
            if await self._arrives(core):
                if credentials:
                    sys.stderr.write(f"edgestore: the root keys are in {credentials}\n")
                host = f"[{host}]" if ":" in host else host
                mesh = f" mesh={core.mesh.address}" if core.mesh is not None else ""
                sys.stdout.write(f"edgestore ready s3={'https' if tls else 'http'}://{host}:{port}{mesh}\n")
                sys.stdout.flush()
                self._was_ready = True
                await self._stop.wait()
            self._stopped_at = asyncio.get_running_loop().time()
            log.info("node-stopping")
            await front.drain(self._config.http.drain_timeout_s)
            await s3.close()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    async def _arrives(self, core: Core) -> bool:
        """Waits until the node can read and write; False where it is stopped before."""
        if core.arrived.is_set():
            return True
        arrived, stopped = (asyncio.ensure_future(event.wait()) for event in (core.arrived, self._stop))
        try:
            await asyncio.wait({arrived, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()
            stopped.cancel()
        return core.arrived.is_set() and not self._stop.is_set()

    async def _close(self, core: Core) -> None:
        """Bounded: what was acknowledged is in the journal already, a flush only shortens the next start."""
        stopped_at = self._stopped_at or asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(stopped_at + STOP_LIMIT_S):
                await core.close()
        except TimeoutError:
            log.warning("close-cut-short limit_s=%s", STOP_LIMIT_S)

    def _tls(self) -> ssl.SSLContext | None:
        certificate, key = self._listen.certificate, self._listen.key or self._listen.certificate
        if not certificate:
            return None
        _require_pem(certificate, b"CERTIFICATE-----")
        _require_pem(key, b"PRIVATE KEY-----")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")  # never asks a terminal
        except ssl.SSLError as error:
            raise ConfigError(
                f"the certificate {certificate} and the key {key} do not load ({error.reason or error}): the key must "
                "be the one of the certificate, and have no pass phrase"
            ) from error
        return context


def _require_pem(path: str, label: bytes) -> None:
    """OpenSSL does not say which of the files it cannot read. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            found = label in file.read()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        raise ConfigError(f"{path} holds no PEM block {label.decode().rstrip('-')}: name the right file")


def _bind_local(folder: str) -> socket.socket:
    """The unix socket of the data folder, mode 0600. Bound through /proc/self/fd, so that long paths work."""
    path = os.path.join(folder, SOCKET_NAME)
    if os.path.exists(path):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        listening.bind(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
    finally:
        os.umask(mask)
        os.close(descriptor)
    listening.setblocking(False)
    return listening


def _raise_descriptor_limit() -> None:
    """To what the system allows: the usual soft limit of 1,024 is for programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("descriptors-not-raised soft=%d hard=%d error=%s", soft, hard, error)


def _fit_to_descriptors(http: HttpConfig) -> HttpConfig:
    """Clients never get the descriptors that the disk will need: a journal that cannot open its next file is fatal."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return http
    most = max(CONNECTIONS_LEAST, limit - len(os.listdir("/proc/self/fd")) - DESCRIPTORS_KEPT)
    if http.connections_max <= most:
        return http
    log.warning(
        "connections-clamped from=%d to=%d descriptors=%d: raise the limit of open files (ulimit -n, LimitNOFILE=)",
        http.connections_max,
        most,
        limit,
    )
    return replace(http, connections_max=most)


def _settle_interpreter() -> None:
    """Collections are rare once everything is loaded; threads hand the GIL over quickly."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def serve(folder: str, config: Config, listen: Listen, mesh: MeshOptions | None = None) -> int:
    """Runs a node until it stops. With an address in `mesh` a new folder founds a site."""
    return _run(Node(folder, config, listen, mesh))


def join(folder: str, config: Config, listen: Listen, mesh: MeshOptions, joining: Joining) -> int:
    """Makes the folder a member of a site, then serves."""
    return _run(Node(folder, config, listen, mesh, joining))


def _run(node: Node) -> int:
    """uvloop where it is installed. What RocksDB and others write is nobody else's: it holds the keys of the site."""
    os.umask(0o077)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(node.run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(node.run())
