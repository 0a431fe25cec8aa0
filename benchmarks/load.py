"""The load of the small-object benchmarks: one process, many keep-alive connections, requests that were made before
the clock starts.

Rule: the generator does as little as it can per request (send, receive, count), because it shares the two cores with
the
server; and it checks every answer's status, so that a fast error never counts.
"""

from __future__ import annotations

import json
import math
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

CONTINUE = b"HTTP/1.1 100"
HEAD_END = b"\r\n\r\n"
NO_BODY = b"\r\nContent-Length: 0\r\n"
_received = memoryview(bytearray(262_144))
"""Of all connections: a new one for each answer would cost more than all other work on it."""


@dataclass
class Request:
    """One prepared request. `body` is sent after `100 Continue` when `expects` is set, else together with the head."""

    head: bytes
    body: bytes = b""
    expects: bool = False

    def __post_init__(self) -> None:
        self.whole = self.head if self.expects else self.head + self.body
        """What is sent at once."""


@dataclass
class Outcome:
    """What one run measured. `latencies_ms` is sorted."""

    requests: int
    seconds: float
    failures: int
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers with a 2xx status per second."""
        return (self.requests - self.failures) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of the requests stayed below."""
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(len(self.latencies_ms) * share))]


class Connection:
    """One keep-alive connection with one request outstanding."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.need = -1
        self.started = 0.0
        self.body = b""

    def send(self, request: Request) -> None:
        """Begins the next request."""
        self.received, self.need, self.started = b"", -1, time.perf_counter()
        self.body = request.body if request.expects else b""
        self.socket.sendall(request.whole)

    def receive(self) -> int:
        """Takes what has come. Returns the status when the answer is whole, 0 before."""
        size_bytes = self.socket.recv_into(_received)
        if not size_bytes:
            raise ConnectionError("the server closed the connection")
        data = bytes(_received[:size_bytes])
        if not (self.received or self.body) and data.endswith(HEAD_END) and NO_BODY in data:
            return int(data[9:12])
        self.received = self.received + data if self.received else data
        if self.body and self.received.startswith(CONTINUE):
            self.received = self.received[self.received.index(b"\r\n\r\n") + 4 :]
            body, self.body = self.body, b""
            self.socket.sendall(body)
            if not self.received:
                return 0
        if self.need < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return 0
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.need = end + 4 + length
        if len(self.received) < self.need:
            return 0
        return int(self.received[9:12])


def drive(
    addresses: list[tuple[str, int]],
    requests: list[Request],
    *,
    connections: int,
    seconds: float,
    turns_max: float = math.inf,
) -> Outcome:
    """Sends `requests` in turn, again and again, over `connections` connections for `seconds`, each at most
    `turns_max` times. The connections are shared out over the addresses."""
    limit = turns_max * len(requests)
    links = [Connection(addresses[number % len(addresses)]) for number in range(connections)]
    poller = select.epoll()
    by_fileno = {link.socket.fileno(): link for link in links}
    for fileno in by_fileno:
        poller.register(fileno, select.EPOLLIN)
    done = failures = position = 0
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds
    for link in links:
        link.send(requests[position % len(requests)])
        position += 1
    now = started
    while now < end and done < limit:
        for fileno, _ in poller.poll(1.0):
            link = by_fileno[fileno]
            status = link.receive()
            if not status:
                continue
            now = time.perf_counter()
            latencies.append(now - link.started)
            done += 1
            failures += status >= 300
            link.send(requests[position % len(requests)])
            position += 1
        now = time.perf_counter()
    elapsed = now - started
    for link in links:
        link.socket.close()
    latencies.sort()
    return Outcome(done, elapsed, failures, [value * 1000 for value in latencies])


def drive_elsewhere(
    address: tuple[str, int] | list[tuple[str, int]],
    requests: list[Request],
    folder: Path,
    *,
    connections: int = 64,
    seconds: float = 5.0,
    turns_max: float = math.inf,
) -> Outcome:
    """`drive` in a second process, so that the load and a server in this process never share an interpreter."""
    addresses = address if isinstance(address, list) else [address]
    path = folder / "requests.json"
    path.write_text(
        json.dumps([[r.head.decode("latin-1"), r.body.decode("latin-1"), r.expects] for r in requests]),
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        ",".join(f"{host}:{port}" for host, port in addresses),
        str(path),
        str(connections),
        str(seconds),
        str(turns_max),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 120)
    return Outcome(**json.loads(result.stdout))


def main() -> None:
    """`python -m benchmarks.load HOST:PORT,... REQUESTS.json CONNECTIONS SECONDS TURNS`: JSON on stdout."""
    addresses = [(host, int(port)) for host, _, port in (one.rpartition(":") for one in sys.argv[1].split(","))]
    rows = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    requests = [Request(head.encode("latin-1"), body.encode("latin-1"), expects) for head, body, expects in rows]
    outcome = drive(
        addresses,
        requests,
        connections=int(sys.argv[3]),
        seconds=float(sys.argv[4]),
        turns_max=float(sys.argv[5]),
    )
    step = max(1, len(outcome.latencies_ms) // 10_000)
    kept = outcome.latencies_ms[::step]
    print(
        json.dumps(
            {
                "requests": outcome.requests,
                "seconds": outcome.seconds,
                "failures": outcome.failures,
                "latencies_ms": kept,
            }
        )
    )


if __name__ == "__main__":
    main()
