"""A real core behind two fronts, one with the fast lane and one without, and signed requests that go down both."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import uvloop

from edgestore.clock import system_entropy
from edgestore.config import Config, DiskConfig
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.observe import Metrics
from edgestore.protocols.admin import Admin
from edgestore.protocols.http import Front
from edgestore.protocols.s3 import S3Protocol
from edgestore.security import Verified, presign_url, sign_headers
from edgestore.security.canonical import signing_key
from edgestore.tenants import RootKeys
from tests.unit.http.served import Answer, Client
from tests.unit.security.signing import signed_chunks, unsigned_chunks

ROOT = ("AKLANES00000000000001", "lanes-secret-key-0000000000000000000001")
OTHER = ("AKLANES00000000000002", "lanes-secret-key-0000000000000000000002")
REGION = "us-east-1"
ORIGIN = "http://store.example"
FAST = "http_fast_requests_total"
FAST_BODY_BYTES = 131_000
"""Bodies up to here are in the fast lane with their framing."""
PAUSE_S = 0.002
"""Long enough that the two halves of a request arrive apart."""
STREAMING = {
    "signed": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "signed trailer": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "unsigned trailer": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
}
_REQUEST_ID = re.compile(rb"<RequestId>[0-9A-F]{16}</RequestId>")
_TIMES = re.compile(rb"<(ServerTime|LastModified)>[^<]*<")


@dataclass(frozen=True, repr=False)
class Case:
    """One request. `payload`: "sha256", "unsigned", a key of STREAMING, or what x-amz-content-sha256 says. `sign`:
    "header", "query" or "none". `before`: what is stored under the key first, None: nothing. `chunks`: the content of
    an `aws-chunked` body. `tamper` changes the bytes of the finished request. `cuts`: where it pauses on the wire,
    counted from the first byte of the body (so below 0 in the head).
    """

    method: str = "GET"
    target: str = "/lanes/small"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    payload: str = "sha256"
    sign: str = "header"
    keys: tuple[str, str] = ROOT
    age_s: int = 0
    expires_s: int = 300
    before: bytes | None = None
    chunks: tuple[bytes, ...] = ()
    trailers: dict[str, str] | None = None
    tamper: Callable[[bytes], bytes] = bytes
    cuts: tuple[int, ...] = ()
    expects: bool = False

    def __repr__(self) -> str:
        """What is not usual of it; of bodies only the size and the first bytes."""
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        usual = {each.name: getattr(Case(), each.name) for each in fields(self)}
        for name, value in shown.items():
            if isinstance(value, bytes) and len(value) > 40:
                shown[name] = f"{len(value)} bytes {value[:8]!r}..."
        shown["chunks"] = tuple(map(len, self.chunks))
        return f"Case({', '.join(f'{name}={value!r}' for name, value in shown.items() if value != usual[name])})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    @property
    def writes(self) -> bool:
        """Whether the state may change."""
        return self.method not in ("GET", "HEAD")

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]


def wire(case: Case, now_ms: int) -> tuple[bytes, bytes]:
    """Head and body, signed."""
    at_ms = now_ms - case.age_s * 1000
    names = {"access_key": case.keys[0], "secret_key": case.keys[1], "region": REGION, "now_ms": at_ms}
    target, body = case.target, case.body
    sent = {"host": "store.example", **case.headers}
    if case.sign == "header":
        said = {"sha256": hashlib.sha256(body or b"").hexdigest(), "unsigned": "UNSIGNED-PAYLOAD", **STREAMING}
        payload = said.get(case.payload, case.payload)
        if case.payload in STREAMING:
            sent.setdefault("x-amz-decoded-content-length", str(sum(map(len, case.chunks))))
        sent = sign_headers(case.method, ORIGIN + target, sent, payload=payload, **names)  # type: ignore[arg-type]
        if case.payload in STREAMING:
            body = _chunked(case, sent)
    elif case.sign == "query":
        url = presign_url(case.method, ORIGIN + target, expires_s=case.expires_s, **names)  # type: ignore[arg-type]
        target = url.removeprefix(ORIGIN)
    if body is not None:
        sent.setdefault("content-length", str(len(body)))
    if case.expects:
        sent["expect"] = "100-continue"
    lines = [f"{case.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    head = "\r\n".join(lines).encode()
    whole = case.tamper(head + (body or b""))
    end = whole.index(b"\r\n\r\n") + 4
    return whole[:end], whole[end:]


def _chunked(case: Case, sent: dict[str, str]) -> bytes:
    stamp = sent["x-amz-date"]
    if case.payload == "unsigned trailer":
        return unsigned_chunks(list(case.chunks), case.trailers)
    verified = Verified(
        case.keys[0],
        sent["x-amz-content-sha256"],
        signing_key(case.keys[1], stamp[:8], REGION),
        sent["authorization"].rpartition("=")[2],
        stamp,
        f"{stamp[:8]}/{REGION}/s3/aws4_request",
    )
    return signed_chunks(verified, list(case.chunks), case.trailers)


@dataclass
class Outcome:
    """What can be compared of one request: its answer, whether the connection is whole, and what is stored then."""

    status: int
    headers: dict[str, str]
    body: bytes
    goes_on: bool
    after: tuple[int, dict[str, str], bytes] | None


class Lanes:
    """The core, the fronts and their thread. `sections` of the configuration, by name."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.loop = uvloop.new_event_loop()
        self.metrics = Metrics()
        self.ports: dict[str, int] = {}
        self.fronts: dict[str, Front] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.core: Core = self.run(self._open(folder, Config(disk=DiskConfig(reserve_bytes=0), **sections)))

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the loop's thread, to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _open(self, folder: Path, config: Config) -> Core:
        core = await Core.open(SystemFiles(str(folder)), config, root_keys=RootKeys(*ROOT))
        self.s3 = S3Protocol(core.objects, core.tenants, config.s3, core.clock, system_entropy, limits=config.http)
        for lane in ("fast", "slow"):
            front = Front(
                core.chunks.pool,
                self.s3.handle,
                config.http,
                wall_ms=core.clock.wall_ms,
                hot=self.s3 if lane == "fast" else None,
                metrics=self.metrics if lane == "fast" else Metrics(),
            )
            front.route("/-/", Admin(core, self.metrics).handle)
            self.fronts[lane] = front
            self.ports[lane] = await front.start("127.0.0.1", 0)
        await core.tenants.create_key(name="other", access_key=OTHER[0], secret_key=OTHER[1])
        return core

    def close(self) -> None:
        """Drains and stops."""
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    async def _close(self) -> None:
        for front in self.fronts.values():
            await front.drain(1.0)
        await self.s3.close()
        await self.core.close()

    def do(self, method: str, target: str, body: bytes | None = None, **options: Any) -> Answer:
        """A request of the set-up, down the slow lane."""
        return self.send(Case(method, target, body=body, **options), "slow")

    def send(self, case: Case, lane: str) -> Answer:
        """A request on a connection of its own."""
        with Client(self.ports[lane]) as client:
            return self._exchange(client, case)

    def outcome(self, case: Case, lane: str, now_ms: int) -> Outcome:
        """One request down one lane, from the starting state that it names; a plain one is sent behind it."""
        if case.writes:
            self._reset(case)
        with Client(self.ports[lane]) as client:
            self._warm_up(client, case)
            answer = self._exchange(client, case, now_ms)
            goes_on = answer.headers.get("connection") != "close"
            if goes_on:
                self._send_plain(client)
            else:
                assert client.is_closed()
        after = None
        if case.writes:
            stored = self.do("GET", case.path, headers={"x-amz-checksum-mode": "ENABLED"})
            after = (stored.status, _shown(stored.headers, case), _shown_body(stored.body))
        headers = _shown(answer.headers, case)
        is_large = len(case.body or b"") + sum(map(len, case.chunks)) > FAST_BODY_BYTES
        if answer.status >= 400 and (case.expects or is_large):
            # Refused while the body is not asked for, or under way: whether the rest is waited for is no promise.
            headers.pop("connection", None)
            goes_on = True
        return Outcome(answer.status, headers, _shown_body(answer.body), goes_on, after)

    def outcomes(self, case: Case) -> tuple[Outcome, Outcome]:
        """The same bytes down the fast lane and the slow one."""
        now_ms = self.core.clock.wall_ms()
        return self.outcome(case, "fast", now_ms), self.outcome(case, "slow", now_ms)

    def took_fast_lane(self, case: Case) -> bool:
        """Whether the fast lane answers it."""
        if case.writes:
            self._reset(case)
        with Client(self.ports["fast"]) as client:
            self._warm_up(client, case)
            before = self.metrics.value(FAST)
            self._exchange(client, case)
            return self.metrics.value(FAST) > before

    def _warm_up(self, client: Client, case: Case) -> None:
        """The first request of a connection takes the fast lane only where its head comes in one piece."""
        if any(cut < 0 for cut in case.cuts):
            self._send_plain(client)

    def _send_plain(self, client: Client) -> None:
        answer = self._exchange(client, Case(target="/lanes/empty"))
        assert (answer.status, answer.headers["etag"]) == (200, '"d41d8cd98f00b204e9800998ecf8427e"')

    def _reset(self, case: Case) -> None:
        if case.before is not None:
            self.do("PUT", case.path, case.before)
        else:
            self.do("DELETE", case.path)

    def _exchange(self, client: Client, case: Case, now_ms: int | None = None) -> Answer:
        is_head = case.method == "HEAD"
        head, body = wire(case, self.core.clock.wall_ms() if now_ms is None else now_ms)
        if case.expects:
            client.send(head)
            answer = client.answer(is_head=is_head)
            if answer.status != 100:
                return answer
            client.send(body)
            return client.answer(is_head=is_head)
        data, at = head + body, 0
        for cut in sorted(len(head) + cut for cut in case.cuts):
            if at < cut < len(data):
                client.send(data[at:cut])
                at = cut
                time.sleep(PAUSE_S)
        client.send(data[at:])
        return client.answer(is_head=is_head)


def _shown(headers: dict[str, str], case: Case) -> dict[str, str]:
    """Without what differs from one answer to the next; written twice, a version has two ids and two times."""
    masked = {"date", "x-amz-request-id"} | ({"last-modified", "x-amz-version-id"} if case.writes else set())
    return {name: "..." if name in masked else value for name, value in headers.items()}


def _shown_body(body: bytes) -> bytes:
    return _TIMES.sub(rb"<\1>...<", _REQUEST_ID.sub(b"<RequestId/>", body))
