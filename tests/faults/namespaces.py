"""A network of its own for each node: a namespace with one cable to a bridge, and a packet filter of its own."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

from tests.faults.site import SiteNode

S3_PORT, MESH_PORT = 9000, 7946
NETWORK = f"198.18.{os.getpid() % 256}"
"""Of the range that is kept for tests of networks."""
DEVICE = f"es{os.getpid()}"
FILTER = "inet edgestore_faults"


def run(*command: str) -> None:
    """Raises CalledProcessError where the machine does not allow it."""
    subprocess.run(command, check=True, capture_output=True)


class Namespaces:
    """One for each of `count` nodes. The clients stay where they are, and reach all of them over the bridge."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._undo = ExitStack()

    def open(self) -> None:
        """Raises CalledProcessError where the machine does not allow it; then nothing is left behind."""
        with ExitStack() as undo:
            run("ip", "link", "add", f"{DEVICE}b", "type", "bridge")
            undo.callback(run, "ip", "link", "del", f"{DEVICE}b")
            run("ip", "address", "add", f"{NETWORK}.254/24", "dev", f"{DEVICE}b")
            run("ip", "link", "set", f"{DEVICE}b", "up")
            for number in range(self.count):
                run("ip", "netns", "add", _name(number))
                undo.callback(run, "ip", "netns", "del", _name(number))
                self._lay_cable(number)
                for line in (
                    f"add table {FILTER}",
                    f"add chain {FILTER} input {{ type filter hook input priority 0; }}",
                ):
                    _nft(number, line)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Leaves nothing behind: a cable goes with its namespace. Nobody may run in one any more."""
        self._undo.close()

    def place(self, node: SiteNode) -> None:
        """Makes a node that has not started yet run in its namespace."""
        node.host, node.s3, node.mesh = _host(node.number), S3_PORT, MESH_PORT
        node.advertised = f"{node.host}:{node.mesh}"
        node.program = ["ip", "netns", "exec", _name(node.number), *node.program]

    def cut(self, source: str, target: str) -> None:
        """See Cuts. Acknowledgements are dropped too, so that a cut in one direction stalls the other."""
        _nft(_number(target), f"add rule {FILTER} input ip saddr {source} drop")

    def lose(self, percent: int) -> None:
        """Packets between nodes are dropped at random, in each direction."""
        for number in range(self.count):
            others = ", ".join(_host(other) for other in range(self.count) if other != number)
            if percent:
                _nft(
                    number,
                    f"add rule {FILTER} input ip saddr {{ {others} }} numgen random mod 100 < {percent} drop",
                )

    def unplug(self, host: str) -> None:
        """Takes the cable of a node out: not even clients reach it, and it knows that it has no network."""
        run("ip", "link", "set", f"{DEVICE}n{_number(host)}", "down")

    def heal(self) -> None:
        """See Cuts. Cables too."""
        for number in range(self.count):
            _nft(number, f"flush chain {FILTER} input")
            run("ip", "link", "set", f"{DEVICE}n{number}", "up")

    def _lay_cable(self, number: int) -> None:
        near, name = f"{DEVICE}n{number}", _name(number)
        run("ip", "link", "add", near, "type", "veth", "peer", "name", "mesh", "netns", name)
        run("ip", "link", "set", near, "master", f"{DEVICE}b")
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "address", "add", f"{_host(number)}/24", "dev", "mesh")
        for device in ("lo", "mesh"):
            run("ip", "-n", name, "link", "set", device, "up")


def _name(number: int) -> str:
    return f"{DEVICE}-{number}"


def _host(number: int) -> str:
    return f"{NETWORK}.{number + 1}"


def _number(host: str) -> int:
    return int(host.rpartition(".")[2]) - 1


def _nft(number: int, line: str) -> None:
    run("ip", "netns", "exec", _name(number), "nft", line)
