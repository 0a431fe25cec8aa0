"""A site of real nodes, each a process with a loopback address of its own, made by tokens."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config

from edgestore.security import sign_headers
from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeRefusedError
from tests.faults.proxy import Cuts, NoCuts, Proxies
from tests.ports import free_port

KEYS = {"EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}
READY_LIMIT_S = 60.0
WHOLE_LIMIT_S = 120.0
VOTERS_MAX = 5
SAID = ("error", "leader", "term", "incarnation", "epoch", "applied_index", "repair_left", "distance")
"""What of a status helps to see why it never came to be as wanted."""

COMPLAINT = re.compile(r"\S+ \S+ (ERROR|CRITICAL) ")


class SiteNode:
    """One node: `serve` or `join` in a process. Address and ports are kept over restarts."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.host = f"127.0.1.{number + 1}"
        self.data = folder / f"node-{number}"
        self.log = folder / f"node-{number}.log"
        self.s3, self.mesh = free_port(self.host), free_port(self.host)
        self.advertised = f"{self.host}:{self.mesh}"
        self.program = [sys.executable, "-m", "edgestore"]
        self.environment: dict[str, str] = {}
        self.is_witness = False
        self.clock_ahead_s = 0
        """By how much the node's wall clock is wrong."""
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
        command = [*self.program, *(verb or ("serve",)), "--data", str(self.data)]
        command += ["--s3", f"{self.host}:{self.s3}", "--mesh", f"{self.host}:{self.mesh}"]
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
        """What `edgestore status --json` says of the site, without a process for it. Raises OSError, RuntimeError."""
        path = "/-/admin/v1/status"
        headers = sign_headers(
            "GET",
            self.endpoint + path,
            {},
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region="us-east-1",
            now_ms=int((time.time() + self.clock_ahead_s) * 1000),
            payload=hashlib.sha256(b"").hexdigest(),
        )
        connection = http.client.HTTPConnection(self.host, self.s3, timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise RuntimeError(f"node {self.number} broke off: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"node {self.number} answered {answer.status}: {body!r}")
        found: dict[str, Any] = json.loads(body)
        return {**found, **found["site"]}

    def complaints(self) -> list[str]:
        """What the node itself took for wrong, over all its starts."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [f"node {self.number}: {line[:300]}" for line in lines if COMPLAINT.match(line)]

    def client(self, tries: int = 1) -> Any:
        """A boto3 client that never retries unless told to: an operation is acknowledged once or not at all."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": tries}, connect_timeout=2, read_timeout=60, max_pool_connections=16
            ),
        )


def _status_or_error(node: SiteNode) -> dict[str, Any]:
    try:
        return node.status()
    except (OSError, RuntimeError) as error:
        return {"error": repr(error)}


def _live(status: dict[str, Any]) -> set[str]:
    """The addresses of the nodes that are up and that nobody doubts."""
    return {row["address"] for row in status["nodes"] if row["state"] == "up" and not row["suspected"]}


def _voters(status: dict[str, Any]) -> set[str]:
    return {row["address"] for row in status["nodes"] if row["voter"]}


class Site:
    """Several nodes that are one store. `proxied`: connections between them go through proxies that can be cut;
    `cuts`: something else that cuts them."""

    def __init__(self, folder: Path, count: int, *, proxied: bool = False, cuts: Cuts | None = None) -> None:
        self.folder = folder
        self.proxies = Proxies() if proxied else None
        self.cuts: Cuts = cuts or (self.proxies.cuts if self.proxies is not None else NoCuts())
        self.nodes: list[SiteNode] = []
        for _ in range(count):
            self.add_node()

    def add_node(self) -> SiteNode:
        """One more node, not started."""
        node = SiteNode(self.folder, len(self.nodes))
        if self.proxies is not None:
            host = f"127.0.2.{node.number + 1}"
            node.advertised = f"{host}:{free_port(host)}"
            self.proxies.add((host, int(node.advertised.rpartition(":")[2])), (node.host, node.mesh))
        self.nodes.append(node)
        return node

    def found(self) -> None:
        """Starts the first node and joins all the others."""
        self.nodes[0].start()
        for node in self.nodes[1:]:
            self.join(node)
        self.wait_live(READY_LIMIT_S)

    def join(self, node: SiteNode) -> float:
        """One token, one command; returns the seconds from the command to the ready line."""
        member = next(other for other in self.nodes if other is not node and other.is_running)
        token = member.command("token", "create").strip()
        kind = ("--witness",) if node.is_witness else ()
        return node.start("join", *kind, "--token", token, "--peer", member.advertised)

    def running(self) -> list[SiteNode]:
        """The nodes whose process is there."""
        return [node for node in self.nodes if node.is_running]

    def kill(self, nodes: list[SiteNode]) -> None:
        """SIGKILL to all of them before any is waited for."""
        for node in nodes:
            assert node.process is not None
            node.process.kill()
        for node in nodes:
            node.kill()

    def restart(self, nodes: list[SiteNode]) -> None:
        """All at once: none of them may have to wait for another one's ready line."""
        for node in nodes:
            node.begin()
        for node in nodes:
            node.wait_ready()

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], limit_s: float = WHOLE_LIMIT_S) -> dict[str, Any]:
        """Waits until every running node says of the site what is wanted. Raises TimeoutError with what they say."""
        deadline = time.monotonic() + limit_s
        found: dict[int, Any] = {}
        while time.monotonic() < deadline:
            for node in self.running():
                found[node.number] = _status_or_error(node)
            if all("error" not in one and holds(one) for one in found.values()):
                return found[self.running()[0].number]
            time.sleep(0.1)
        said = {number: {name: one.get(name) for name in SAID} for number, one in found.items()}
        raise TimeoutError(f"after {limit_s} s: {said}")

    def wait_live(self, limit_s: float = WHOLE_LIMIT_S) -> None:
        """Waits until every node that runs takes part again, in every node's eyes."""
        ends = {node.advertised for node in self.running()}
        self.wait_until(lambda status: bool(status["leader"]) and ends <= _live(status), limit_s)

    def wait_whole(self, limit_s: float = WHOLE_LIMIT_S) -> None:
        """Waits until all nodes are live, as many of them as may vote do, and nothing is left to repair: only then as
        many as the site tolerates may be lost for ever."""
        self.wait_live(limit_s)
        ends = {node.advertised for node in self.running()}
        voters = min(len(ends), VOTERS_MAX)

        def is_whole(status: dict[str, Any]) -> bool:
            return bool(status["repair_left"] == 0 and len(ends & _voters(status)) >= voters)

        self.wait_until(is_whole, limit_s)

    def leader(self) -> SiteNode:
        """Who leads, as soon as all agree that somebody does."""
        status = self.wait_until(lambda found: bool(found["leader"]))
        address = next(row["address"] for row in status["nodes"] if row["leader"])
        return next(node for node in self.nodes if node.advertised == address)

    def close(self) -> None:
        """Kills everything that runs."""
        self.cuts.heal()
        self.kill(self.running())
        if self.proxies is not None:
            self.proxies.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
