"""One running node: the core, its listeners, its signals. THE wiring of the server, once.

Rule: a node whose disk failed stops with a message and a non-zero exit code; it never serves on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from dataclasses import dataclass

from edgestore.clock import SystemClock, system_entropy
from edgestore.config import Config
from edgestore.core import Core, root_keys_of_environment
from edgestore.disk import SystemFiles
from edgestore.observe import Metrics
from edgestore.protocols.admin import Admin
from edgestore.protocols.http import Front
from edgestore.protocols.s3 import S3Protocol

log = logging.getLogger("edgestore.node")

SOCKET_NAME = "node.sock"
SWITCH_INTERVAL_S = 0.0005
"""A thread that gives the GIL up gets it back within this: the loop never waits long for a worker."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a node listens, and with which certificate."""

    host: str
    port: int
    certificate: str = ""
    key: str = ""


class Node:
    """A core with an S3 endpoint, an admin socket and signals."""

    def __init__(self, folder: str, config: Config, listen: Listen) -> None:
        self._folder, self._config, self._listen = folder, config, listen
        self._stop: asyncio.Event
        self._metrics = Metrics()

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT, or until the disk fails. Returns the exit code."""
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        files = SystemFiles(self._folder)
        clock = SystemClock()
        core = await Core.open(
            files, self._config, clock=clock, root_keys=root_keys_of_environment(), metrics=self._metrics
        )
        core.on_failure = lambda error: self._stop.set()
        s3 = S3Protocol(
            core.objects,
            core.tenants,
            self._config.s3,
            clock,
            system_entropy,
            limits=self._config.http,
            metrics=self._metrics,
        )
        front = Front(
            core.chunks.pool, s3.handle, self._config.http, wall_ms=clock.wall_ms, hot=s3, metrics=self._metrics
        )
        admin = Admin(core, self._metrics)
        front.route("/-/", admin.handle)
        port = await front.start(self._listen.host, self._listen.port, self._tls())
        local = _bind_local(self._folder)
        await front.start_local(local)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        _settle_interpreter()
        scheme = "https" if self._listen.certificate else "http"
        sys.stdout.write(f"edgestore ready s3={scheme}://{self._listen.host}:{port}\n")
        sys.stdout.flush()
        await self._stop.wait()
        log.info("node-stopping")
        await front.drain(self._config.http.drain_timeout_s)
        await s3.close()
        await core.close()
        if os.path.exists(os.path.join(self._folder, SOCKET_NAME)):
            os.unlink(os.path.join(self._folder, SOCKET_NAME))
        if core.failed is not None:
            log.critical("node-stopped reason=%s", core.failed)
            return 1
        return 0

    def _tls(self) -> ssl.SSLContext | None:
        if not self._listen.certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._listen.certificate, self._listen.key or None)
        return context


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


def _settle_interpreter() -> None:
    """Collections are rare once everything is loaded; threads hand the GIL over quickly."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def serve(folder: str, config: Config, listen: Listen) -> int:
    """Runs a node until it stops; uvloop where it is installed."""
    node = Node(folder, config, listen)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(node.run())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(node.run())
