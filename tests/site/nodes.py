"""Nodes of one site as processes of their own: founded, joined by tokens, asked through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.ports import free_port

COMMAND_LIMIT_S = 60


def edgestore(
    *words: str, expect: int | None = 0, typed: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command line."""
    keys = {"EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}
    result = subprocess.run(
        [sys.executable, "-m", "edgestore", *words],
        capture_output=True,
        text=True,
        input=typed,
        env={**os.environ, **keys, **environment},
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert expect is None or result.returncode == expect, result.stderr
    return result


class SiteNode(NodeProcess):
    """One node. `mesh`: where it listens for the others."""

    def __init__(self, data: Path, *, configuration: str = "", zone: str = "") -> None:
        super().__init__(data, configuration=configuration)
        self.mesh = f"127.0.0.1:{free_port()}"
        self.place = ["--mesh", self.mesh, *(["--zone", zone] if zone else [])]

    def found(self) -> float:
        """As the first node of a site."""
        return self.start("serve", *self.place)

    def join(self, token: str, *peers: SiteNode, more: tuple[str, ...] = ()) -> float:
        """As a further node. `more`: options of the command line."""
        named = [word for peer in peers for word in ("--peer", peer.mesh)]
        return self.start("join", "--token", token, *named, *self.place, *more)

    def ask(self, *words: str) -> Any:
        """A subcommand on this node, as a document."""
        return json.loads(edgestore(*words, "--json", "--data", str(self.data)).stdout)

    def token(self, ttl: str = "1h") -> str:
        """A new join token."""
        return str(self.ask("token", "create", "--ttl", ttl)["token"])


def make_site(folder: Path, count: int, *, configuration: str = "") -> list[SiteNode]:
    """That many nodes, all serving."""
    nodes = [
        SiteNode(folder / f"node{number}", configuration=configuration, zone=f"z{number}")
        for number in range(1, count + 1)
    ]
    nodes[0].found()
    for node in nodes[1:]:
        node.join(nodes[0].token(), nodes[0])
    return nodes


def stop_all(nodes: list[SiteNode]) -> None:
    """Those that still run."""
    for node in nodes:
        if node.process is not None and node.process.poll() is None:
            node.kill()


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Polls; fails when the time is up."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.1)


def rows(node: SiteNode) -> dict[int, dict[str, Any]]:
    """What `node list` says there, by number."""
    return {row["number"]: row for row in node.ask("node", "list")}


def voters(node: SiteNode) -> list[int]:
    """Who votes, by number."""
    return sorted(number for number, row in rows(node).items() if row["voter"])
