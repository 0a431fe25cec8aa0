"""Two nodes over loopback: round trips, calls and messages a second, MB/s of fragments both ways and what they cost.

Rule: CPU is counted in both processes, user and system, because two nodes and their clients share what there is: MB/s
of an idle machine are worth less than CPU left over. The peer is a plain echo over TLS streams of the same event loop.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import resource
import ssl
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from multiprocessing.connection import Connection as Pipe
from typing import Any

import uvloop

from benchmarks import report
from edgestore.clock import SystemClock
from edgestore.config import NetConfig
from edgestore.net import Caller, Credentials, Lane, Method, Peers, Reply, Rights, SystemNetwork, Topic
from edgestore.node import SWITCH_INTERVAL_S
from edgestore.security import issue, load_key, new_authority, new_key

SITE = bytes(16)
NOW_MS, LIFE_MS = 1_760_000_000_000, 90 * 86_400_000
NAMES = tuple(f"{number:032x}" for number in (1, 2))
ROUNDS = 3
SMALL = b"x" * 100
CALLS, AT_ONCE = 2_000, 32
MESSAGES, MESSAGES_A_TURN = 20_000, 50
FRAGMENT_BYTES = 1024 * 1024
FRAGMENTS, FRAGMENTS_AT_ONCE = 300, 4
LIMIT_S = 60.0
MB = 1_000_000
COST = struct.Struct("<dQ")
"""Seconds of CPU so far, and messages heard: what the serving node answers to STATUS."""


def cpu_s() -> float:
    """Of this process, so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def credentials(number: int) -> Credentials:
    """Of a member; the site is the same in both processes."""
    authority = new_authority(random.Random(1).randbytes, SITE, NOW_MS)
    key = new_key(os.urandom)
    found = Credentials(lambda facts: Rights.MEMBER)
    certificate = issue(authority, NAMES[number], SITE, load_key(key).public_key(), NOW_MS, LIFE_MS)
    found.load(key, certificate, authority.certificate_der)
    return found


def new_peers(number: int) -> Peers:
    """What a node has."""
    return Peers(
        SystemNetwork(),
        NetConfig(),
        credentials(number),
        member=NAMES[number],
        clock=SystemClock(),
        entropy=os.urandom,
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    """As a node runs."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def serve(pipe: Pipe) -> None:
    """The other node, until the pipe says something."""
    peers, heard = new_peers(1), 0
    fragment = os.urandom(FRAGMENT_BYTES)

    async def status(caller: Caller, head: bytes, payload: memoryview) -> Reply:
        return Reply(COST.pack(cpu_s(), heard))

    async def echo(caller: Caller, head: bytes, payload: memoryview) -> Reply:
        return Reply(head)

    async def read(caller: Caller, head: bytes, payload: memoryview) -> Reply:
        return Reply(head, (fragment,))

    def hear(caller: Caller, head: bytes) -> None:
        nonlocal heard
        heard += 1

    peers.serve(Method.STATUS, status)
    peers.serve(Method.PROPOSE, echo)
    peers.serve(Method.FRAGMENT_PUT, echo)
    peers.serve(Method.FRAGMENT_READ, read)
    peers.on_message(Topic.RAFT, hear)
    address = await peers.start("127.0.0.1", 0)
    echoing = await asyncio.start_server(echo_bytes, "127.0.0.1", 0, ssl=credentials(1).server_context())
    pipe.send((address, echoing.sockets[0].getsockname()))
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    echoing.close()
    await peers.close()


async def echo_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The peer's other side."""
    try:
        while True:
            writer.write(await reader.readexactly(len(SMALL)))
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        writer.close()


class Driver:
    """The node that asks."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.figures: dict[str, list[float]] = {}

    def note(self, name: str, value: float) -> None:
        """One round's."""
        self.figures.setdefault(name, []).append(value)

    async def ask(self, method: Method, payload: tuple[bytes, ...] = (), lane: Lane = Lane.CONTROL) -> Any:
        """One call."""
        return await self.peers.call(NAMES[1], method, SMALL, payload, timeout_s=LIMIT_S, lane=lane)

    async def other(self) -> tuple[float, int]:
        """CPU seconds of the other node, and the messages that it has heard."""
        return COST.unpack((await self.ask(Method.STATUS)).head)  # type: ignore[return-value]

    async def timed(self, name: str, count: float, work: Callable[[], Awaitable[None]]) -> None:
        """Notes `count` a second, and microseconds of CPU for each on both sides."""
        theirs, ours, begun = (await self.other())[0], cpu_s(), time.perf_counter()
        await work()
        took_s, ours = time.perf_counter() - begun, cpu_s() - ours
        theirs = (await self.other())[0] - theirs
        self.note(name, count / took_s)
        self.note(f"{name} cpu", (ours + theirs) / count * 1e6)

    async def sequential(self) -> None:
        """One after the other."""
        for _ in range(CALLS):
            await self.ask(Method.PROPOSE)

    async def spread(self, count: int, at_once: int, *asked: Any) -> None:
        """`count` calls, `at_once` under way."""

        async def some() -> None:
            for _ in range(count // at_once):
                await self.ask(*asked)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())

    async def messages(self) -> None:
        """Some in each turn of the loop, until all are heard."""
        target = (await self.other())[1] + MESSAGES
        for sent in range(MESSAGES):
            if not self.peers.send(NAMES[1], Topic.RAFT, SMALL):
                raise RuntimeError("a message was dropped")
            if sent % MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)
        while (await self.other())[1] < target:
            await asyncio.sleep(0)

    async def beats(self, work: Awaitable[None]) -> None:
        """Round trips of small calls while `work` runs."""
        waits, running = [], asyncio.ensure_future(work)
        while not running.done():
            begun = time.perf_counter()
            await self.ask(Method.PROPOSE)
            waits.append(time.perf_counter() - begun)
            await asyncio.sleep(0.002)
        await running
        self.note("beat", statistics.quantiles(waits, n=100)[98] * 1000)

    async def round(self, peer: tuple[str, int]) -> None:
        """Everything once."""
        written = (Method.FRAGMENT_PUT, (bytes(FRAGMENT_BYTES),), Lane.BULK)
        read = (Method.FRAGMENT_READ, (), Lane.BULK)
        size = FRAGMENTS * FRAGMENT_BYTES / MB
        await self.echo(peer)
        await self.timed("sequential", CALLS, self.sequential)
        await self.timed("calls", CALLS * 4, lambda: self.spread(CALLS * 4, AT_ONCE, Method.PROPOSE))
        await self.timed("messages", MESSAGES, self.messages)
        await self.timed("write", size, lambda: self.spread(FRAGMENTS, FRAGMENTS_AT_ONCE, *written))
        await self.timed("read", size, lambda: self.spread(FRAGMENTS, FRAGMENTS_AT_ONCE, *read))
        await self.beats(self.spread(FRAGMENTS, FRAGMENTS_AT_ONCE, *written))

    async def echo(self, address: tuple[str, int]) -> None:
        """The peer."""
        reader, writer = await asyncio.open_connection(*address, ssl=credentials(0).client_context())
        begun = time.perf_counter()
        for _ in range(CALLS):
            writer.write(SMALL)
            await reader.readexactly(len(SMALL))
        self.note("echo", CALLS / (time.perf_counter() - begun))
        writer.transport.abort()


async def drive(address: tuple[str, int], peer: tuple[str, int]) -> dict[str, float]:
    """Medians of the rounds, after one to warm up."""
    peers = new_peers(0)
    await peers.start("127.0.0.1", 0)
    peers.know(NAMES[1], f"{address[0]}:{address[1]}")
    try:
        await Driver(peers).round(peer)
        driver = Driver(peers)
        for _ in range(ROUNDS):
            await driver.round(peer)
    finally:
        await peers.close()
    return {name: statistics.median(values) for name, values in driver.figures.items()}


def measure() -> list[report.Row]:
    """Two processes."""
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe()
    other = context.Process(target=lambda: run(serve(far)))
    other.start()
    found: dict[str, float] = {}

    async def work() -> None:
        found.update(await drive(*near.recv()))

    try:
        run(work())
    finally:
        near.send(None)
        other.join(LIMIT_S)
    rows = [
        report.Row("round trips, one after the other", found["sequential"], "1/s", ">= 5000", "echo", found["echo"]),
        report.Row("... CPU of both nodes", found["sequential cpu"], "us", "<= 70"),
        report.Row("calls, 32 at once", found["calls"], "1/s", ">= 20000"),
        report.Row("... CPU of both nodes", found["calls cpu"], "us", "<= 18"),
        report.Row("messages, 50 in a turn of the loop", found["messages"], "1/s", ">= 150000"),
        report.Row("... CPU of both nodes", found["messages cpu"], "us", "<= 4"),
    ]
    for name, text in (("write", "fragments of 1 MiB, written"), ("read", "fragments of 1 MiB, read")):
        rows.append(report.Row(text, found[name], "MB/s", ">= 800"))
        rows.append(report.Row("... CPU of both nodes for 1 MB", found[f"{name} cpu"], "us", "<= 1500"))
    rows.append(report.Row("round trip while fragments are written, p99", found["beat"], "ms", "<= 10"))
    return rows


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
