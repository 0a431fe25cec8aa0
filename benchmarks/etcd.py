"""etcd as the peer of the replicated benchmarks: three members on loopback with fsync on, driven over gRPC.

Rule: the load is a process of its own, as ours is, and its messages are encoded by hand, so that the peer pays for a
client that is as lean as Python allows.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.servers import wait_for_port
from tests.ports import free_port

MEMBERS = 3
PUT = "/etcdserverpb.KV/Put"
STATUS = "/etcdserverpb.Maintenance/Status"
LEADER_LIMIT_S = 20.0
KEYS = 1000


@dataclass
class Etcd:
    """A running cluster: the client port and the process of each member."""

    ports: list[int]
    processes: list[subprocess.Popen[bytes]]

    def leader(self) -> int:
        """Position of the member that leads and knows it. Raises TimeoutError."""
        deadline = time.monotonic() + LEADER_LIMIT_S
        while time.monotonic() < deadline:
            for position, port in enumerate(self.ports):
                if self.processes[position].poll() is None and _leads(port):
                    return position
            time.sleep(0.01)
        raise TimeoutError("etcd has no leader")

    def kill(self, position: int) -> None:
        """kill -9 of one member."""
        self.processes[position].send_signal(signal.SIGKILL)
        self.processes[position].wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Etcd]:
    """Three members with their data below `folder`."""
    program = shutil.which("etcd")
    if program is None:
        raise RuntimeError("etcd is not installed: apt-get install etcd-server")
    peers, ports = [free_port() for _ in range(MEMBERS)], [free_port() for _ in range(MEMBERS)]
    initial = ",".join(f"m{position}=http://127.0.0.1:{port}" for position, port in enumerate(peers))
    processes = []
    for position, (peer, port) in enumerate(zip(peers, ports, strict=True)):
        command = [program, "--name", f"m{position}", "--data-dir", str(folder / f"etcd-{position}")]
        command += ["--initial-cluster", initial, "--initial-cluster-state", "new", "--log-level", "error"]
        for kind, at in (("peer", peer), ("client", port)):
            listen = "peer" if kind == "peer" else "client"
            command += [f"--listen-{listen}-urls", f"http://127.0.0.1:{at}"]
        command += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
        command += ["--advertise-client-urls", f"http://127.0.0.1:{port}"]
        with (folder / f"etcd-{position}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ)))
    try:
        for port, process in zip(ports, processes, strict=True):
            wait_for_port(port, process)
        yield Etcd(ports, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest: key = 1, value = 2."""
    return b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The fields of a protobuf message by number: varints and byte strings."""
    found: dict[int, int | bytes] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            found[tag >> 3] = varint()
        elif tag & 7 == 2:
            length = varint()
            found[tag >> 3] = message[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {tag & 7} is not expected")
    return found


def _same(data: bytes) -> bytes:
    return data


def _leads(port: int) -> bool:
    """StatusResponse: header = 1 {member_id = 2}, leader = 4."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        status = channel.unary_unary(STATUS, request_serializer=_same, response_deserializer=_same)
        try:
            answer = _fields(status(b"", timeout=0.3))
        except grpc.RpcError:
            return False
    header = answer.get(1, b"")
    member = _fields(header).get(2) if isinstance(header, bytes) else None
    return bool(member) and answer.get(4) == member


async def _put_all(port: int, outstanding: int, seconds: float, value_bytes: int) -> tuple[int, float, list[float]]:
    latencies: list[float] = []
    value, turn = os.urandom(value_bytes), 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        put = channel.unary_unary(PUT, request_serializer=_same, response_deserializer=_same)

        async def worker() -> None:
            nonlocal turn
            while time.perf_counter() < end:
                turn += 1
                begun = time.perf_counter()
                await put(put_request(b"key-%d" % (turn % KEYS), value))
                latencies.append(time.perf_counter() - begun)

        started = time.perf_counter()
        end = started + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(outstanding):
                group.create_task(worker())
    return len(latencies), time.perf_counter() - started, sorted(latencies)


@dataclass(frozen=True)
class Puts:
    """What one run measured."""

    per_second: float
    p50_ms: float
    p99_ms: float


def drive_elsewhere(port: int, *, outstanding: int, seconds: float, value_bytes: int) -> Puts:
    """Puts to one member, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.etcd", str(port), str(outstanding), str(seconds), str(value_bytes)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return Puts(**json.loads(result.stdout))


def first_put_after(port_of: list[int], begun: float, *, limit_s: float = 30.0) -> float:
    """Seconds from `begun` (time.monotonic) to the first acknowledged put through any of the ports."""
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}") for port in port_of]
    puts = [channel.unary_unary(PUT, request_serializer=_same, response_deserializer=_same) for channel in channels]
    try:
        while time.monotonic() - begun < limit_s:
            for put in puts:
                try:
                    put(put_request(b"first", b"x"), timeout=0.2)
                except grpc.RpcError:
                    continue
                return time.monotonic() - begun
        raise TimeoutError("etcd acknowledges nothing")
    finally:
        for channel in channels:
            channel.close()


def main() -> None:
    """`python -m benchmarks.etcd PORT OUTSTANDING SECONDS VALUE_BYTES`: one JSON document on stdout."""
    port, outstanding, seconds, value_bytes = sys.argv[1:]
    count, elapsed, latencies = asyncio.run(_put_all(int(port), int(outstanding), float(seconds), int(value_bytes)))
    p50, p99 = latencies[count // 2] * 1000, latencies[int(count * 0.99)] * 1000
    print(json.dumps({"per_second": count / elapsed, "p50_ms": p50, "p99_ms": p99}))


if __name__ == "__main__":
    main()
