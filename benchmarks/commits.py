"""A replicated log with the smallest state machine on it, a dictionary: three members and a client, processes of their
own, mutual TLS between all of them. What `benchmarks.replicated` drives.

Rule: the client is a member-like peer: what its callers have waiting leaves in one request, as a gateway's does; an
operation counts as done when its answer is here, after commit and apply.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.servers import wait_for_port
from edgestore.clock import SystemClock, system_entropy
from edgestore.config import DiskConfig, NetConfig
from edgestore.consensus import RaftConsensus
from edgestore.disk import Journal, SystemFiles
from edgestore.errors import NotLeader
from edgestore.net import Caller, Credentials, Method, Peers, Reply, Rights, SystemNetwork
from edgestore.records import Member
from edgestore.security import issue, load_key, new_authority, new_key
from tests.ports import free_port

MEMBERS = 3
REQUESTS_IN_FLIGHT = 2
KEYS = 1000
LEADER_LIMIT_S = 20.0
TIMEOUT_S = 10.0
LIFE_MS = 86_400_000
SWITCH_INTERVAL_S = 0.002
"""As a node has it."""


class Node(msgspec.Struct, frozen=True):
    """One process: `papers` are its key, its certificate, and the authority's."""

    member: str
    address: str
    papers: tuple[bytes, bytes, bytes]


class Dictionary:
    """The state machine: the newest value of each key."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.values: dict[bytes, bytes] = {}
        self._decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode

    def apply(self, index: int, _term: int, payload: bytes | memoryview) -> list[object]:
        """See `StateMachine.apply`."""
        self.applied_index = index
        if payload:
            self.values.update(self._decode(payload))
        return []

    def begin_incarnation(self, index: int, _term: int, _incarnation: int) -> None:
        """See `StateMachine.begin_incarnation`."""
        self.applied_index = index


def make_nodes(folder: Path, count: int) -> None:
    """Writes the papers and addresses of the members and of the client, the last one."""
    site_id, now_ms = os.urandom(16), SystemClock().wall_ms()
    authority = new_authority(system_entropy, site_id, now_ms)
    nodes = []
    for number in range(count + 1):
        key, member = new_key(system_entropy), bytes([number] * 16).hex()
        certificate = issue(authority, member, site_id, load_key(key).public_key(), now_ms, LIFE_MS)
        nodes.append(Node(member, f"127.0.0.1:{free_port()}", (key, certificate, authority.certificate_der)))
    (folder / "nodes").write_bytes(msgspec.msgpack.encode(nodes))


async def _connected(folder: Path, number: int) -> tuple[Peers, list[Node]]:
    nodes = msgspec.msgpack.decode((folder / "nodes").read_bytes(), type=list[Node])
    credentials = Credentials(lambda facts: Rights.MEMBER)
    credentials.load(*nodes[number].papers)
    peers = Peers(
        SystemNetwork(),
        NetConfig(),
        credentials,
        member=nodes[number].member,
        clock=SystemClock(),
        entropy=system_entropy,
    )
    host, _, port = nodes[number].address.rpartition(":")
    await peers.start(host, int(port))
    for node in nodes[:-1]:
        peers.know(node.member, node.address)
    return peers, nodes


async def serve(folder: Path, number: int) -> None:
    """One member, until it is killed."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    peers, nodes = await _connected(folder, number)
    data = folder / f"member-{number}"
    data.mkdir()
    consensus = RaftConsensus(
        Journal.open(SystemFiles(str(data)), "journal", DiskConfig(), system_entropy),
        Dictionary(),  # type: ignore[arg-type] # no snapshots in a run of seconds
        member=nodes[number].member,
        peers=peers,
        founders=tuple(Member(node.member, True, node.address) for node in nodes[:-1]),
    )
    loop = asyncio.get_running_loop()

    async def propose(_caller: Caller, _head: bytes, payload: memoryview) -> Reply:
        applied: asyncio.Future[None] = loop.create_future()

        def done(_outcomes: list[object] | None, error: BaseException | None) -> None:
            if error is None:
                applied.set_result(None)
            else:
                applied.set_exception(error)

        consensus.propose(bytes(payload), done)
        await applied
        return Reply(b"")

    peers.serve(Method.PROPOSE, propose)
    await consensus.start()
    await asyncio.Event().wait()


class _Load:
    """Operations of 200 bytes, `outstanding` at a time."""

    def __init__(self, peers: Peers, leader: str, seconds: float, value_bytes: int) -> None:
        self._peers, self._leader, self._value = peers, leader, os.urandom(value_bytes)
        self._turn = 0
        self._waiting: list[tuple[float, tuple[bytes, bytes]]] = []
        self._came = asyncio.Event()
        self.latencies: list[float] = []
        self._end = time.perf_counter() + seconds

    def begin(self, now: float) -> None:
        """The next operation of one of those who wait."""
        self._turn += 1
        self._waiting.append((now, (b"key-%d" % (self._turn % KEYS), self._value)))
        self._came.set()

    async def run(self) -> None:
        """One request after the other, each with all that waits."""
        while time.perf_counter() < self._end:
            await self._came.wait()
            taken, self._waiting = self._waiting, []
            self._came.clear()
            if not taken:
                continue
            payload = msgspec.msgpack.encode([operation for _, operation in taken])
            await self._peers.call(self._leader, Method.PROPOSE, b"", (payload,), timeout_s=TIMEOUT_S)
            now = time.perf_counter()
            for begun, _ in taken:
                self.latencies.append(now - begun)
                self.begin(now)
        self._came.set()


async def _find_leader(peers: Peers, nodes: list[Node]) -> str:
    deadline = time.monotonic() + LEADER_LIMIT_S
    while time.monotonic() < deadline:
        for node in nodes[:-1]:
            try:
                payload = msgspec.msgpack.encode([(b"first", b"")])
                await peers.call(node.member, Method.PROPOSE, b"", (payload,), timeout_s=1.0)
            except (NotLeader, TimeoutError, ConnectionError):
                continue
            except Exception:  # not connected yet
                await asyncio.sleep(0.05)
                continue
            return node.member
    raise TimeoutError("the members have no leader")


async def drive(folder: Path, outstanding: int, seconds: float, value_bytes: int) -> dict[str, float]:
    """The client's process."""
    peers, nodes = await _connected(folder, MEMBERS)
    leader = await _find_leader(peers, nodes)
    load, started = _Load(peers, leader, seconds, value_bytes), time.perf_counter()
    for _ in range(outstanding):
        load.begin(started)
    async with asyncio.TaskGroup() as group:
        for _ in range(REQUESTS_IN_FLIGHT):
            group.create_task(load.run())
    elapsed, latencies = time.perf_counter() - started, sorted(load.latencies)
    await peers.close()
    return {
        "per_second": len(latencies) / elapsed,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


@dataclass(frozen=True)
class Commits:
    """What one run measured."""

    per_second: float
    p50_ms: float
    p99_ms: float


def drive_elsewhere(folder: Path, *, outstanding: int, seconds: float, value_bytes: int) -> Commits:
    """Operations to the leader, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.commits", "drive", str(folder)]
    command += [str(outstanding), str(seconds), str(value_bytes)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 60)
    return Commits(**json.loads(result.stdout))


@contextmanager
def members(folder: Path) -> Iterator[Path]:
    """Three members with their data below `folder`."""
    make_nodes(folder, MEMBERS)
    nodes = msgspec.msgpack.decode((folder / "nodes").read_bytes(), type=list[Node])
    processes = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.commits", "serve", str(folder), str(number)])
        for number in range(MEMBERS)
    ]
    try:
        for node, process in zip(nodes, processes, strict=False):
            wait_for_port(int(node.address.rpartition(":")[2]), process)
        yield folder
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """`python -m benchmarks.commits serve FOLDER NUMBER`, or `drive FOLDER OUTSTANDING SECONDS VALUE_BYTES`."""
    import uvloop

    verb, folder, *rest = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if verb == "serve":
            runner.run(serve(Path(folder), int(rest[0])))
        else:
            figures = runner.run(drive(Path(folder), int(rest[0]), float(rest[1]), int(rest[2])))
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
