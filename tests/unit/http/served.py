"""A front on a port of its own, in a thread, an echo service behind both lanes, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvloop

from edgestore.chunks import Body, UnitPool
from edgestore.config import HttpConfig
from edgestore.errors import EdgeStoreError, Unavailable
from edgestore.observe import Metrics
from edgestore.protocols.http import BodyStream, Front, HotReply, Plan, RequestHead, Response
from edgestore.records import UNIT_BYTES

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
"""What a node runs on without and with the extra `server`: they differ in when they pause, read and hand over."""
WALL_MS = 1_795_511_700_000
BIG_PIECE = bytes(1 << 20)
STREAM_PIECE = memoryview(bytes(range(256)) * 4096)


class Echo:
    """Answers with what it was asked. The path says how:

    `/slow-lane` is not hot, `/late` is answered when `release_late` is called (`/slow-lane/late` too),
    `/not-hot-after-all` goes back to aiohttp, `/stream/N` sends N MiB, `/big/N` N KiB at once (`/slow-lane/big/N` too),
    `/early` answers a large body without reading it, all else is answered at once.
    """

    def __init__(self) -> None:
        self.late: list[Callable[[], None]] = []
        self.seen: list[str] = []

    def plan(self, head: RequestHead) -> Plan:
        """By the path; large bodies are streamed."""
        if head.path.startswith("/slow-lane"):
            return Plan.SLOW
        return Plan.STREAM if head.body_bytes > 128 * 1024 else Plan.WHOLE

    def answer(self, head: RequestHead, body: bytes, reply: HotReply) -> bool:
        """The fast lane."""
        if head.path.startswith("/not-hot-after-all"):
            return False
        if head.path.startswith("/late"):
            self.late.append(lambda: reply(head, echo(head, body)))
            return True
        self.seen.append(head.path)
        if head.path.startswith("/broken"):
            raise RuntimeError("a secret of the inside")
        reply(head, streamed(head) if head.path.startswith("/stream/") else echo(head, body))
        return True

    def stream(self, head: RequestHead, body: Body, reply: HotReply) -> bool:
        """Large bodies."""
        task = asyncio.get_running_loop().create_task(self.handle(head, body))
        task.add_done_callback(lambda done: reply(head, done.result()))
        return True

    def refuse(self, head: RequestHead, error: EdgeStoreError) -> Response:
        """What both lanes say."""
        status = 503 if isinstance(error, Unavailable) else 400
        text = f"{type(error).__name__} {error.fields.get('code', '')}\n"
        return Response(status, [("Content-Type", "text/plain")], text.encode())

    async def handle(self, head: RequestHead, body: Body) -> Response:
        """The slow lane, and what stands behind `stream`."""
        self.seen.append(head.path)
        if head.path.startswith("/stream/"):
            return streamed(head)
        if head.path.startswith("/broken"):
            raise RuntimeError("a secret of the inside")
        if head.path.startswith("/early"):
            return Response(403, [("Content-Type", "text/plain")], b"early\n")
        if head.path.startswith("/slow-lane/late"):
            late = asyncio.Event()
            self.late.append(late.set)
            await late.wait()
        if head.path.startswith("/slow-lane/wait"):
            await asyncio.sleep(0.2)
        pieces = []
        try:
            while (unit := await body.next_unit()) is not None:
                pieces.append(bytes(unit.view))
                unit.release()
        except EdgeStoreError as error:
            return self.refuse(head, error)
        return echo(head, b"".join(pieces))


def echo(head: RequestHead, body: bytes) -> Response:
    """Everything a service can see of a request."""
    if head.path.startswith("/not-modified"):
        return Response(304, [("ETag", '"x"')])
    if "/big/" in head.path:
        return Response(200, [], BIG_PIECE[: int(head.path.rsplit("/", 1)[1]) << 10])
    headers = [("Content-Type", "application/json"), ("x-amz-request-id", "0123456789ABCDEF")]
    if "x-echo" in head.headers:
        headers.append(("x-echo", head.headers["x-echo"]))
    if head.path.startswith("/inject"):
        headers.append(("x-injected", "a\r\nSet-Cookie: b\r\n\r\nHTTP/1.1 200 OK"))
    seen = {
        "method": head.method,
        "path": head.path,
        "query": head.query,
        "headers": {k: v for k, v in head.headers.items() if k not in ("transfer-encoding", "expect")},
        "body_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    text = json.dumps(seen, sort_keys=True).encode()
    if head.method == "HEAD":
        return Response(200, [*headers, ("Content-Length", str(len(text)))])
    return Response(200, headers, text)


def streamed(head: RequestHead) -> Response:
    """A body of N MiB."""
    count = int(head.path.rsplit("/", 1)[1])

    async def pieces() -> AsyncIterator[memoryview]:
        for _ in range(count):
            yield STREAM_PIECE

    return Response(200, [("x-amz-request-id", "0123456789ABCDEF")], BodyStream(pieces(), count * len(STREAM_PIECE)))


@dataclass
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def seen(self) -> dict[str, Any]:
        """What the echo saw."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class Served:
    """The front and its thread. `lane`: "fast" or "slow" (no handler for the fast lane). `loop`: one of `LOOPS`."""

    def __init__(
        self,
        lane: str,
        pool_bytes: int = 16 * UNIT_BYTES,
        tls: ssl.SSLContext | None = None,
        loop: str = "uvloop",
        **limits: Any,
    ):
        self.echo = Echo()
        self.metrics = Metrics()
        self.loop: asyncio.AbstractEventLoop = LOOPS[loop]()
        self.pool = UnitPool(pool_bytes)
        self.config = HttpConfig(**limits)
        self._tls = tls
        self.front: Front
        self.port = 0
        self._lane = lane
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self._end())
        self.loop.close()

    async def _end(self) -> None:
        """As `asyncio.run` does: what still waits is cancelled."""
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.sleep(0.05)

    async def _start(self) -> None:
        self.front = Front(
            self.pool,
            self.echo.handle,
            self.config,
            wall_ms=lambda: WALL_MS,
            hot=self.echo if self._lane == "fast" else None,
            metrics=self.metrics,
        )
        self.port = await self.front.start("127.0.0.1", 0, self._tls)

    def close(self, timeout_s: float = 1.0) -> None:
        """Drains and stops."""
        self.run(self.front.drain(timeout_s))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine on the loop's thread, to its end."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def call(self, work: Callable[[], None]) -> None:
        """Runs on the loop's thread."""
        self.loop.call_soon_threadsafe(work)

    def release_late(self) -> None:
        """Lets the answer go that `/late` waits for, when it has begun to wait."""
        until(lambda: bool(self.echo.late))
        self.call(self.echo.late.pop())

    def connect(self) -> Client:
        """A connection to it."""
        return Client(self.port)


class Client:
    """A raw connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        self.received += data

    def answer(self, *, is_head: bool = False) -> Answer:
        """The next answer. EOFError where the connection ended instead."""
        while b"\r\n\r\n" not in self.received:
            self._more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), f"a header twice: {lines}"
        size = 0 if is_head or status in (204, 304) or status < 200 else int(headers["content-length"])
        while len(self.received) < size:
            self._more()
        body, self.received = self.received[:size], self.received[size:]
        return Answer(status, headers, body)

    def is_closed(self, timeout_s: float = 5.0) -> bool:
        """Whether the server has ended the connection, without a byte more."""
        self.socket.settimeout(timeout_s)
        try:
            return self.received == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(10)


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Waits for the other thread."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def request(
    method: str = "GET", target: str = "/bucket/key", headers: list[str] | None = None, body: bytes | None = None
) -> bytes:
    """A plain request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: store.example", *(headers or [])]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
