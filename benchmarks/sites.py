"""A site of several nodes on this machine, each a process with a loopback address of its own, joined by tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import requests, servers
from tests.faults.process import ACCESS_KEY, SECRET_KEY
from tests.faults.site import Site, SiteNode

SETTLE_LIMIT_S = 60.0


@contextmanager
def site(folder: Path, count: int, *, settings: tuple[str, ...] = ()) -> Iterator[Site]:
    """`count` nodes, all up, with the voters that a site of this size keeps; killed at the end."""
    with Site(folder, count, settings=settings) as running:
        start(running)
        yield running


def start(running: Site) -> None:
    """Founds the site and joins all others."""
    running.nodes[0].start()
    for node in running.nodes[1:]:
        running.join(node)
    settle(running)


def nodes_of(running: Site) -> list[dict[str, Any]]:
    """What the first running node says of all."""
    found: list[dict[str, Any]] = running.running()[0].status()["site"]["nodes"]
    return found


def settle(running: Site) -> None:
    """Returns when every node that runs is up and nothing has changed for a second. Raises TimeoutError."""
    deadline, since = time.monotonic() + SETTLE_LIMIT_S, time.monotonic()
    before: list[tuple[object, ...]] = []
    while time.monotonic() - since < 1.0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the site does not settle: {before}")
        now = [tuple(row[name] for name in ("number", "state", "voter", "leader")) for row in nodes_of(running)]
        up = sum(row[1] == "up" for row in now)
        if now != before or up != len(running.running()) or not any(row[3] for row in now):
            since, before = time.monotonic(), now
        time.sleep(0.1)


def leader(running: Site) -> SiteNode:
    """The node that leads, as the others know it. Raises TimeoutError."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while time.monotonic() < deadline:
        addresses = {row["address"] for row in nodes_of(running) if row["leader"]}
        for node in running.running():
            if node.advertised in addresses:
                return node
        time.sleep(0.05)
    raise TimeoutError("the site has no leader")


def followers(running: Site) -> list[SiteNode]:
    """All others."""
    leads = leader(running)
    return [node for node in running.running() if node is not leads]


def address(node: SiteNode) -> tuple[str, int]:
    """Where it serves S3."""
    return node.host, node.s3


def client(node: SiteNode) -> Any:
    """A boto3 client as `requests.client` makes it."""
    return requests.client(node.endpoint, ACCESS_KEY, SECRET_KEY)


def pid(node: SiteNode) -> int:
    """Of a running one."""
    assert node.process is not None
    return node.process.pid


def server(node: SiteNode) -> servers.Server:
    """As the benchmarks of one node know it."""
    return servers.Server(node.endpoint, address(node), pid(node))
