"""A site of real nodes, each a process with a loopback address of its own, made by tokens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeRefusedError
from tests.faults.proxy import Proxies

KEYS = {"EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}
READY_LIMIT_S = 60.0
WHOLE_LIMIT_S = 120.0


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class SiteNode:
    """One node: `serve` or `join` in a process. Address and ports are kept over restarts."""

    def __init__(self, folder: Path, number: int, *, zone: str = "", settings: tuple[str, ...] = ()) -> None:
        self.number, self.zone, self.settings = number, zone, settings
        self.host = f"127.0.1.{number + 1}"
        self.data = folder / f"node-{number}"
        self.log = folder / f"node-{number}.log"
        self.s3, self.mesh = _free_port(self.host), _free_port(self.host)
        self.advertised = f"{self.host}:{self.mesh}"
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The S3 endpoint."""
        return f"http://{self.host}:{self.s3}"

    @property
    def is_running(self) -> bool:
        """Whether the process is there, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def begin(self, *verb: str) -> None:
        """Starts the process: `serve`, or `join` with its token and peer."""
        command = [sys.executable, "-m", "edgestore", *(verb or ("serve",)), "--data", str(self.data)]
        command += ["--s3", f"{self.host}:{self.s3}", "--mesh", f"{self.host}:{self.mesh}", *self.settings]
        if self.zone and verb and verb[0] == "join":
            command += ["--zone", self.zone]
        environment = {**os.environ, **KEYS, **self.environment}
        if self.advertised != f"{self.host}:{self.mesh}":
            environment["EDGESTORE_NET_ADVERTISE"] = self.advertised
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)

    def wait_ready(self) -> None:
        """Returns when the node says that it is ready. Raises NodeRefusedError where it ends before."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("edgestore ready"):
            code = self.process.wait(READY_LIMIT_S)
            self.process.stdout.close()
            raise NodeRefusedError(code, self.log.read_text()[-4000:])

    def start(self, *verb: str) -> float:
        """`begin` and `wait_ready`; returns the seconds."""
        started = time.monotonic()
        self.begin(*verb)
        self.wait_ready()
        return time.monotonic() - started

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: alive, and not running."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def command(self, *arguments: str) -> str:
        """`edgestore ARGUMENTS --data DIR`; its standard output. Raises RuntimeError with what it complained of."""
        command = [sys.executable, "-m", "edgestore", *arguments, "--data", str(self.data)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **KEYS})
        if result.returncode:
            raise RuntimeError(f"{arguments} failed with {result.returncode}: {result.stderr}")
        return result.stdout

    def status(self) -> dict[str, Any]:
        """`edgestore status --json`."""
        found: dict[str, Any] = json.loads(self.command("status", "--json"))
        return found

    def client(self) -> Any:
        """A boto3 client that never retries: an operation is acknowledged once or not at all."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=60, max_pool_connections=16
            ),
        )


class Site:
    """Several nodes that are one store. `proxied`: connections between them go through proxies that can be cut."""

    def __init__(
        self, folder: Path, count: int, *, proxied: bool = False, settings: tuple[str, ...] = (), zones: int = 0
    ) -> None:
        self.folder = folder
        self.proxies = Proxies() if proxied else None
        self.nodes: list[SiteNode] = []
        for number in range(count):
            self.add_node(zone=f"zone-{number % zones}" if zones else "", settings=settings)

    def add_node(self, *, zone: str = "", settings: tuple[str, ...] = ()) -> SiteNode:
        """One more node, not started."""
        node = SiteNode(self.folder, len(self.nodes), zone=zone, settings=settings)
        if self.proxies is not None:
            host = f"127.0.2.{node.number + 1}"
            node.advertised = f"{host}:{_free_port(host)}"
            self.proxies.add((host, int(node.advertised.rpartition(":")[2])), (node.host, node.mesh))
        self.nodes.append(node)
        return node

    def found(self) -> None:
        """Starts the first node and joins all the others."""
        self.nodes[0].start()
        for node in self.nodes[1:]:
            self.join(node)
        self.wait_until(lambda status: status["live_nodes"] == len(self.nodes), READY_LIMIT_S)

    def join(self, node: SiteNode) -> float:
        """One token, one command; returns the seconds from the command to the ready line."""
        member = next(other for other in self.nodes if other is not node and other.is_running)
        token = member.command("token", "create").strip()
        return node.start("join", "--token", token, "--peer", member.advertised)

    def running(self) -> list[SiteNode]:
        """The nodes whose process is there."""
        return [node for node in self.nodes if node.is_running]

    def restart(self, nodes: list[SiteNode]) -> None:
        """All at once: none of them may have to wait for another one's ready line."""
        for node in nodes:
            node.begin()
        for node in nodes:
            node.wait_ready()

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], limit_s: float = WHOLE_LIMIT_S) -> dict[str, Any]:
        """Waits until the status that a running node reports is as wanted. Raises TimeoutError with the last one."""
        deadline, found = time.monotonic() + limit_s, {}
        while time.monotonic() < deadline:
            for node in self.running():
                try:
                    found = node.status()
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    found = {"error": str(error)}
                    continue
                if holds(found):
                    return found
            time.sleep(0.2)
        raise TimeoutError(f"after {limit_s} s: {found}")

    def wait_whole(self, limit_s: float = WHOLE_LIMIT_S) -> None:
        """Waits until all nodes are live and nothing is left to repair."""
        count = len(self.running())
        self.wait_until(lambda status: status["live_nodes"] == count and status["repair_left"] == 0, limit_s)

    def close(self) -> None:
        """Kills everything that runs."""
        for node in self.nodes:
            if node.is_running:
                node.resume()
                node.kill()
        if self.proxies is not None:
            self.proxies.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
