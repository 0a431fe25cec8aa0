"""What a subcommand acts on: the node that runs on a folder, the folder itself, or a node elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tomllib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import click
from yarl import URL

from edgestore.aio import Store
from edgestore.client import RemoteBackend
from edgestore.clock import SystemClock
from edgestore.embedded import EmbeddedBackend
from edgestore.errors import ConfigError, Denied, EdgeStoreError, InUse, Unavailable
from edgestore.security import sign_headers

SOCKET_NAME = "node.sock"
ADMIN_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
DEFAULT_REGION = "us-east-1"


class Target(Protocol):
    """Administration, and the store itself."""

    async def ask(self, method: str, name: str, question: dict[str, str]) -> Any:
        """One call of `/-/admin/v1`."""
        ...

    @property
    def store(self) -> Store:
        """Buckets and objects."""
        ...


class NodeTarget:
    """A running node, over its socket or its endpoint."""

    def __init__(
        self,
        url: str,
        keys: tuple[str, str],
        region: str,
        connector: aiohttp.UnixConnector | None = None,
        folder: str = "",
    ) -> None:
        self._url, self._keys, self._connector = url.rstrip("/"), keys, connector
        self._folder = folder
        self._backend = RemoteBackend(self._url, *keys, region=region, connector=connector)
        self.store = Store(self._backend)

    async def ask(self, method: str, name: str, question: dict[str, str]) -> Any:
        """See Target. Where it is refused the backend may learn that the node has another region."""
        before = self._backend.region
        try:
            return await self._ask(method, name, question)
        except Denied:
            with suppress(EdgeStoreError):
                await self.store.buckets()
            if self._backend.region == before:
                raise
        return await self._ask(method, name, question)

    async def _ask(self, method: str, name: str, question: dict[str, str]) -> Any:
        body = json.dumps(question).encode() if method == "PUT" else b""
        query = f"?{urlencode(question, quote_via=quote)}" if question and method != "PUT" else ""
        url = f"{self._url}/-/admin/v1/{name}{query}"
        headers = sign_headers(
            method,
            url,
            {},
            access_key=self._keys[0],
            secret_key=self._keys[1],
            region=self._backend.region,
            now_ms=SystemClock().wall_ms(),
            payload=hashlib.sha256(body).hexdigest(),
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=self._connector, connector_owner=self._connector is None, timeout=ADMIN_TIMEOUT
                ) as session,
                session.request(method, URL(url, encoded=True), headers=headers, data=body or None) as response,
            ):
                return _answer(self._url, response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            if self._folder:
                raise Unavailable(
                    f"the node of {self._folder} does not answer: where it is starting or stopping, try again shortly"
                ) from error
            raise Unavailable(f"{self._url} does not answer: {error}") from error


def _answer(url: str, status: int, data: bytes) -> Any:
    """The document of an answer. Raises EdgeStoreError with what the node said."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise Unavailable(f"{url} answered {status} with no JSON: is it the S3 endpoint of a node?") from error
    if status == 200:
        return document
    message = document.get("message") if isinstance(document, dict) else None
    kind = Denied if status == 403 else EdgeStoreError
    raise kind(message or f"{url} answered {status}")


class FolderTarget:
    """A data folder that no node has open."""

    def __init__(self, backend: EmbeddedBackend) -> None:
        from edgestore.observe import NO_METRICS
        from edgestore.protocols.admin import Admin

        self.store = Store(backend)
        self._admin = Admin(backend.core, NO_METRICS)

    async def ask(self, method: str, name: str, question: dict[str, str]) -> Any:
        """See Target."""
        return await self._admin.ask(method, name, question)


def read_keys(folder: str) -> tuple[str, str]:
    """The root keys of a data folder."""
    path = os.path.join(folder, "credentials.toml")
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
        return str(table["access_key"]), str(table["secret_key"])
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): is this the data folder of a node?") from error


@asynccontextmanager
async def open_target(folder: str | None, url: str | None, *, founds: bool = False):  # type: ignore[no-untyped-def]
    """The target that the options name. Raises UsageError, ConfigError, InUse."""
    if bool(url) == bool(folder):
        raise click.UsageError("say what to act on, once: --data DIR or --node URL")
    if url:
        _check_url(url)
        keys = os.environ.get("EDGESTORE_ACCESS_KEY", ""), os.environ.get("EDGESTORE_SECRET_KEY", "")
        if not all(keys):
            raise ConfigError("--node needs the root keys in EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY")
        node = NodeTarget(url, keys, os.environ.get("EDGESTORE_S3_REGION", DEFAULT_REGION))
        try:
            yield node
        finally:
            await node.store.close()
        return
    assert folder
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder} is no folder: start a node on it first, or give another --data")
    if not founds and not _holds_store(folder):
        raise ConfigError(
            f"{folder} holds no store: is it the right folder? `serve`, `bucket create` and `key create` begin one"
        )
    running = await _running(folder)
    if running is not None:
        try:
            yield running
        finally:
            await running.store.close()
        return
    try:
        backend = await EmbeddedBackend.open(folder)
    except InUse as error:
        raise InUse(f"{error}; its node does not answer on {SOCKET_NAME}") from error
    try:
        yield FolderTarget(backend)
    finally:
        await backend.close()


def _check_url(url: str) -> None:
    try:
        parsed = URL(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.path in ("", "/")
    except ValueError:
        good = False
    if not good:
        raise click.UsageError(f"--node {url!r} is not the URL of a node, such as http://127.0.0.1:9000")


def _holds_store(folder: str) -> bool:
    """Or the rest of one, which is refused with what to do when it is opened."""
    return os.path.exists(os.path.join(folder, "identity")) or os.path.exists(os.path.join(folder, "journal"))


async def _running(folder: str) -> NodeTarget | None:
    """The node that answers on the folder's socket. The path goes through /proc/self/fd: it may be long."""
    path = os.path.join(folder, SOCKET_NAME)
    if not os.path.exists(path):
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    short = f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    try:
        _, writer = await asyncio.open_unix_connection(short)
    except OSError:
        os.close(descriptor)
        return None
    writer.close()
    keys, connector = read_keys(folder), aiohttp.UnixConnector(path=short)
    node = NodeTarget("http://localhost", keys, DEFAULT_REGION, connector, folder)
    try:
        region = (await node.ask("GET", "status", {})).get("region", DEFAULT_REGION)
    except EdgeStoreError:
        await node.store.close()
        raise
    return node if region == DEFAULT_REGION else NodeTarget("http://localhost", keys, region, connector, folder)


def run(folder: str | None, url: str | None, work: Callable[[Any], Awaitable[Any]], *, founds: bool = False) -> Any:
    """Opens the target, does the work, closes it. `founds`: an empty folder becomes a store."""

    async def main() -> Any:
        async with open_target(folder, url, founds=founds) as target:
            return await work(target)

    return asyncio.run(main())
