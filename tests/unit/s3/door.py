"""The S3 protocol over a whole core, without a socket: requests signed here, down the lane that is asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from edgestore.chunks import bytes_body
from edgestore.clock import Clock, SystemClock, system_entropy
from edgestore.config import ChunksConfig, Config, DiskConfig, ObjectsConfig
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.protocols.http import BodyStream, RequestHead, Response
from edgestore.protocols.s3 import S3Protocol
from edgestore.security import presign_url, sign_headers

CONFIG = Config(
    disk=DiskConfig(reserve_bytes=0, segment_bytes=16 * 1024 * 1024, journal_file_bytes=8 * 1024 * 1024),
    chunks=ChunksConfig(pool_bytes=8 * 1024 * 1024, pool_read_reserve_bytes=1024 * 1024),
    objects=ObjectsConfig(part_min_bytes=1000),
)
HOST = "http://s3.test"


@dataclass
class Answer:
    """What came back. `code`: of an error document; empty where there is none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.field("Code") if b"<Error>" in self.body else ""

    def field(self, name: str) -> str:
        """The text of the first element of that name; empty for none."""
        found = (node.text for node in ElementTree.fromstring(self.body).iter() if node.tag.rpartition("}")[2] == name)
        return next(found, "") or ""


class Door:
    """Signs as root."""

    def __init__(
        self, core: Core, clock: Clock | None = None, site_time_ms: Callable[[], int | None] = lambda: None
    ) -> None:
        self.core = core
        self._protocol = S3Protocol(
            core.objects,
            core.tenants,
            core.config.s3,
            clock or SystemClock(),
            system_entropy,
            site_time_ms=site_time_ms,
        )

    async def send(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        payload: str = "",
        lane: str = "slow",
    ) -> Answer:
        """A request that is signed in its headers. `payload`: what x-amz-content-sha256 says, by default the truth."""
        keys = self.core.root_keys
        sent = sign_headers(
            method,
            HOST + target,
            headers or {},
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            region="us-east-1",
            now_ms=SystemClock().wall_ms(),
            payload=payload or hashlib.sha256(body).hexdigest(),
        )
        return await self._through(method, target, sent, body, lane)

    async def send_presigned(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", *, lane: str = "slow"
    ) -> Answer:
        """A pre-signed request; the query of the target is signed with it."""
        keys = self.core.root_keys
        signed = urlsplit(
            presign_url(
                method,
                HOST + target,
                access_key=keys.access_key,
                secret_key=keys.secret_key,
                region="us-east-1",
                now_ms=SystemClock().wall_ms(),
                expires_s=60,
            )
        )
        sent = {**(headers or {}), "host": signed.netloc}
        return await self._through(method, f"{signed.path}?{signed.query}", sent, body, lane)

    async def _through(self, method: str, target: str, headers: dict[str, str], body: bytes, lane: str) -> Answer:
        path, _, query = target.partition("?")
        head = RequestHead(method, path, query, headers, len(body), False)
        if lane == "fast":
            answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            assert self._protocol.answer(head, body, lambda _, response: answered.set_result(response))
            return await _read(await answered)
        return await _read(await self._protocol.handle(head, bytes_body(self.core.chunks.pool, body)))


async def _read(response: Response) -> Answer:
    body = response.body
    if isinstance(body, BodyStream):
        data = b"".join([bytes(piece) async for piece in body.pieces])
        body.close()
    else:
        data = bytes(body)
    return Answer(response.status, {name.lower(): value for name, value in response.headers}, data)


@asynccontextmanager
async def opened(folder: Path, *, reserve_bytes: int = 0) -> AsyncIterator[Door]:
    """A core with the bucket `bucket`."""
    config = replace(CONFIG, disk=replace(CONFIG.disk, reserve_bytes=reserve_bytes))
    core = await Core.open(SystemFiles(str(folder)), config)
    try:
        door = Door(core)
        assert (await door.send("PUT", "/bucket")).status == 200
        yield door
    finally:
        await core.close()
