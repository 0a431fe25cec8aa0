"""One other node: a connection that is always wanted, and some for fragments that are made when they are needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from edgestore.clock import Clock, Entropy
from edgestore.config import NetConfig, host_and_port
from edgestore.errors import EdgeStoreError, Unavailable
from edgestore.net.calls import Answer
from edgestore.net.connection import Network
from edgestore.net.frames import Buffer
from edgestore.net.link import Link, open_link
from edgestore.net.methods import Lane, Method, Rights, Topic
from edgestore.net.tls import Credentials
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.net")

SMOOTHING = 0.2


class Peer:
    """A member, and where it is."""

    def __init__(
        self,
        member: str,
        address: str,
        network: Network,
        config: NetConfig,
        credentials: Credentials,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> None:
        self.on_connected: Callable[[str], None] = lambda member: None
        self.on_disconnected: Callable[[str], None] = lambda member: None
        self.member, self.address = member, address
        self.round_trip_ms: float | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self._network, self._config, self._credentials = network, config, credentials
        self._entropy, self._metrics = entropy, metrics
        self._local = ""
        self._link: Link | None = None
        self._bulk: list[Link] = []
        self._dialling_bulk: asyncio.Lock | None = None
        self._up = asyncio.Event()
        self._closed = False

    @property
    def is_connected(self) -> bool:
        """Whether messages can leave."""
        return self._link is not None and self._link.is_open

    def begin(self, local: str) -> None:
        """Dials, and again whenever the connection is lost."""
        self._local = local
        self._dialling_bulk = asyncio.Lock()
        self._begin_task(self._keep_connected())

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)

    async def _keep_connected(self) -> None:
        pause_s = self._config.dial_backoff_min_ms / 1000
        while not self._closed:
            try:
                link = await self._dial(Lane.CONTROL)
            except EdgeStoreError as error:
                log.debug("dial-failed member=%s address=%s reason=%s", self.member, self.address, error)
                pause_s = await self._pause(pause_s)
                continue
            if await self._use(link):
                pause_s = self._config.dial_backoff_min_ms / 1000
            else:  # it shakes hands with whom it has shut out, too
                pause_s = await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> float:
        """How long the next one takes."""
        spread = 0.5 + self._entropy(1)[0] / 256
        await asyncio.sleep(pause_s * spread)
        return min(2 * pause_s, self._config.dial_backoff_max_ms / 1000)

    async def _use(self, link: Link) -> bool:
        """Until it is lost; whether the other side answered as to a member."""
        self._link = link
        self._up.set()
        log.info("peer-connected member=%s address=%s", self.member, self.address)
        self.on_connected(self.member)
        try:
            return await self._ping_while_open(link, self._measured)
        finally:
            self._up.clear()
            self._link = None
            link.close()
            for bulk in self._bulk:
                bulk.close()
            log.info("peer-disconnected member=%s address=%s", self.member, self.address)
            self.on_disconnected(self.member)

    async def _watch_bulk(self, link: Link) -> None:
        """One connection may lose all that is sent on it while the others of its node are well: TCP waits ever longer
        before it sends again, a router has forgotten it. Nothing is heard on it any more, and another is dialled."""
        try:
            await self._ping_while_open(link, lambda round_trip_ms: None)
        finally:
            link.close()

    async def _ping_while_open(self, link: Link, measured: Callable[[float], None]) -> bool:
        """Until it is lost, or nothing was heard for too long; whether anything was answered."""
        is_answered = False
        loop, lost = asyncio.get_running_loop(), asyncio.Event()
        link.on_closed = lost.set
        interval_s = self._config.ping_interval_ms / 1000
        while link.is_open and not self._closed:
            begun = loop.time()
            try:
                async with asyncio.timeout(self._config.silence_max_s):
                    await link.call(Method.PING, b"", ())
            except TimeoutError:
                if loop.time() - link.heard_s >= self._config.silence_max_s:
                    break
            except EdgeStoreError:
                pass  # an error is an answer too, and a lost connection is told by `lost`
            else:
                is_answered = True
                measured((loop.time() - begun) * 1000)
            try:
                async with asyncio.timeout(interval_s):
                    await lost.wait()
            except TimeoutError:
                continue
        return is_answered

    def _measured(self, round_trip_ms: float) -> None:
        before = self.round_trip_ms
        self.round_trip_ms = round_trip_ms if before is None else before + SMOOTHING * (round_trip_ms - before)

    async def _dial(self, lane: Lane) -> Link:
        host, port = host_and_port(self.address)
        link = await open_link(self._network, host, port, self._credentials, self._config, self._local, lane)
        member, rights = self._credentials.rights_of(link.peer_certificate)
        if member != self.member or rights is Rights.NONE:
            link.close()
            raise Unavailable(f"{self.address} is not member {self.member} (it is {member or 'nobody of this site'})")
        return link

    def send(self, topic: Topic, head: bytes) -> bool:
        """See `Peers.send`."""
        return self._link is not None and self._link.send(topic, head)

    async def call(
        self, method: Method, head: bytes, payload: Sequence[Buffer], lane: Lane, timeout_s: float
    ) -> Answer:
        """See `Peers.call`. Raises TimeoutError too."""
        link = self._link
        if lane is Lane.BULK or link is None or not link.is_open:
            now_s = asyncio.get_running_loop().time
            begun_s = now_s()
            try:
                async with asyncio.timeout(min(timeout_s, self._config.dial_timeout_s)):
                    link = await (self._bulk_link() if lane is Lane.BULK else self._control_link())
            except TimeoutError as error:  # an answer may take long; that nobody is there is known sooner
                raise Unavailable(f"node {self.address} cannot be reached", member=self.member) from error
            timeout_s -= now_s() - begun_s
        return await link.call(method, head, payload, timeout_s)

    async def _control_link(self) -> Link:
        while self._link is None or not self._link.is_open:
            if self._closed:
                raise Unavailable("the node is not known any more")
            await self._up.wait()
            if self._link is None or not self._link.is_open:
                await asyncio.sleep(self._config.dial_backoff_min_ms / 1000)
        return self._link

    async def _bulk_link(self) -> Link:
        """The one with the fewest calls; another one is dialled where all have some, up to the limit."""
        await self._control_link()  # who cannot be reached need not be dialled again for each call
        self._bulk = [link for link in self._bulk if link.is_open]
        best = min(self._bulk, key=lambda link: link.waiting, default=None)
        if best is not None and (best.waiting == 0 or len(self._bulk) >= self._config.bulk_connections):
            return best
        assert self._dialling_bulk is not None
        if best is not None and self._dialling_bulk.locked():
            return best
        async with self._dialling_bulk:
            self._bulk = [link for link in self._bulk if link.is_open]  # some may have been lost meanwhile
            if len(self._bulk) < self._config.bulk_connections:
                link = await self._dial(Lane.BULK)
                self._bulk.append(link)
                self._begin_task(self._watch_bulk(link))
                return link
            return min(self._bulk, key=lambda link: link.waiting)

    def redial(self) -> None:
        """Loses its connections; others are made at once."""
        for link in (self._link, *self._bulk):
            if link is not None:
                link.close()

    def close(self) -> None:
        """For good."""
        self._closed = True
        self._up.set()
        for link in (self._link, *self._bulk):
            if link is not None:
                link.close()
        for task in list(self.tasks):
            task.cancel()
