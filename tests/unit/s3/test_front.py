"""The S3 face behind the front, on a real core: what the fast lane does where a disk or a client is slow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from edgestore.chunks import bytes_body
from edgestore.clock import system_entropy
from edgestore.config import Config, DiskConfig, HttpConfig
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.disk.system_files import SystemFile
from edgestore.errors import DiskFailed
from edgestore.objects import PutRequest
from edgestore.observe import Metrics
from edgestore.protocols.http import Front
from edgestore.protocols.s3 import S3Protocol
from edgestore.tenants import RootKeys
from tests.faults.process import ACCESS_KEY, SECRET_KEY
from tests.wire import raw

FAST = "http_fast_requests_total"
SIZE = 100_000
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@asynccontextmanager
async def served(folder: Path, metrics: Metrics, *, lane: str = "fast") -> AsyncIterator[tuple[Core, str]]:
    """A core, and the endpoint of its S3 face."""
    config = Config(disk=DiskConfig(reserve_bytes=0), http=HttpConfig(body_idle_timeout_s=1.0))
    core = await Core.open(SystemFiles(str(folder)), config, root_keys=RootKeys(ACCESS_KEY, SECRET_KEY))
    s3 = S3Protocol(
        core.objects, core.tenants, config.s3, core.clock, system_entropy, limits=config.http, metrics=metrics
    )
    front = Front(
        core.chunks.pool,
        s3.handle,
        config.http,
        wall_ms=core.clock.wall_ms,
        hot=s3 if lane == "fast" else None,
        metrics=metrics,
    )
    port = await front.start("127.0.0.1", 0)
    try:
        await core.objects.create_bucket(core.tenants.root(), "bucket")
        yield core, f"http://127.0.0.1:{port}"
    finally:
        await front.drain(0.5)
        await s3.close()
        await core.close()


def on(loop: str, main: Callable[[], object]) -> None:
    """Runs a coroutine function on a loop."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())  # type: ignore[arg-type]


async def get(endpoint: str, headers: dict[str, str] | None = None) -> raw.Answer:
    """A signed GET, from a thread."""
    return await asyncio.to_thread(raw.call, endpoint, "GET", "/bucket/key", headers)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_compressible", [False, True])
def test_what_the_page_cache_has_not_is_read_by_a_thread_inside_the_fast_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str, is_compressible: bool
) -> None:
    body = b"0123456789" * (SIZE // 10) if is_compressible else os.urandom(SIZE)
    metrics = Metrics()

    async def main() -> None:
        async with served(tmp_path, metrics) as (core, endpoint):
            request = PutRequest("bucket", "key")
            etag = (await core.objects.put(core.tenants.root(), request, bytes_body(core.chunks.pool, body))).etag
            monkeypatch.setattr(SystemFile, "read_cached", lambda *_: None)
            whole = await get(endpoint)
            assert (whole.status, whole.body) == (200, body)
            ranged = await get(endpoint, {"Range": "bytes=1000-1999"})
            assert (ranged.status, ranged.body) == (206, body[1000:2000])
            known = await get(endpoint, {"If-None-Match": f'"{etag}"'})
            assert (known.status, known.body) == (304, b"")
            beyond = await get(endpoint, {"Range": f"bytes={SIZE}-"})
            assert (beyond.status, beyond.code) == (416, "InvalidRange")
            assert metrics.value(FAST) == 4
            assert core.chunks.pool.taken_bytes == 0

    on(loop, main)


def test_cold_read_that_fails_is_answered_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise DiskFailed("no such sector")

    metrics = Metrics()

    async def main() -> None:
        async with served(tmp_path, metrics) as (core, endpoint):
            request = PutRequest("bucket", "key")
            await core.objects.put(core.tenants.root(), request, bytes_body(core.chunks.pool, os.urandom(SIZE)))
            with monkeypatch.context() as broken:
                broken.setattr(SystemFile, "read_cached", lambda *_: None)
                broken.setattr(SystemFile, "read_at", fail)
                answer = await get(endpoint)
            assert (answer.status, answer.code) == (500, "InternalError")
            assert b"sector" not in answer.body
            assert metrics.value(FAST) == 1

    on("asyncio", main)


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("lane", ["fast", "slow"])
def test_body_that_stops_is_a_request_timeout_in_both_lanes(tmp_path: Path, lane: str, size: int) -> None:
    async def main() -> None:
        async with served(tmp_path, Metrics(), lane=lane) as (core, endpoint):
            target = raw.signed_headers(
                endpoint,
                "PUT",
                "/bucket/key",
                {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "content-length": str(size)},
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))
            fields = "".join(f"{name}: {value}\r\n" for name, value in target.items())
            writer.write(f"PUT /bucket/key HTTP/1.1\r\n{fields}\r\n".encode() + b"x" * 10)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
            assert head.startswith("http/1.1 400 ")
            assert "\r\nx-amz-request-id: " in head
            assert "\r\nconnection: close\r\n" in head
            assert b"<Code>RequestTimeout</Code>" in await asyncio.wait_for(reader.read(4096), 10)
            writer.close()
            await writer.wait_closed()
            assert core.chunks.pool.taken_bytes == 0

    on("asyncio", main)
