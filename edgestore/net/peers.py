"""The other nodes: where they are, the connections to them, and what is sent and asked over these.

Rule: a connection is used by who dialled it; a message may be lost, and a call ends in time, whatever the other side
does. Calls that carry fragments have connections of their own, so they never delay a heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from edgestore.clock import Clock, Entropy
from edgestore.config import NetConfig, host_and_port
from edgestore.errors import BadRequest, EdgeStoreError, Unavailable
from edgestore.net.calls import Answer, Caller, Reply
from edgestore.net.connection import Listening, Network
from edgestore.net.frames import Buffer
from edgestore.net.inbound import Handler, MessageHandler, Served, Services
from edgestore.net.link import open_link
from edgestore.net.methods import Lane, Method, Rights, Topic
from edgestore.net.peer import Peer
from edgestore.net.tls import Credentials, check_authority, check_is_node
from edgestore.observe import NO_METRICS, Metrics

log = logging.getLogger("edgestore.net")

ANY_HOST = ("", "0.0.0.0", "::")


class Peers:
    """All other nodes of a site, as this one sees them."""

    def __init__(
        self,
        network: Network,
        config: NetConfig,
        credentials: Credentials,
        *,
        member: str,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self.member = member
        self.ports: dict[type, Any] = {}
        """What the rooms above keep of these peers, one of a class: it ends with them."""
        self._network, self._config, self._credentials = network, config, credentials
        self._clock, self._entropy, self._metrics = clock, entropy, metrics
        self._services = Services(config, credentials, metrics)
        self._peers: dict[str, Peer] = {}
        self._connected: list[Callable[[str], None]] = []
        self._disconnected: list[Callable[[str], None]] = []
        self._listening: Listening | None = None
        self._local = ""
        self._closed = False
        self.serve(Method.PING, self._ping, rights=Rights.EXPIRED)
        self.serve(Method.AUTHORITY, self._tell_authority, rights=Rights.NONE)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listens; returns where. Calls go out from the same address where it is a particular one."""
        try:
            self._listening = await self._network.listen(
                host, port, self._credentials, self._config, self._services.accept
            )
        except OSError as error:
            raise Unavailable(f"{host}:{port} cannot be listened on for other nodes: {error.strerror}") from error
        self._local = "" if host in ANY_HOST else host
        for peer in self._peers.values():
            peer.begin(self._local)
        return self._listening.address

    # --- who is where ----------------------------------------------------------------------------------

    def know(self, member: str, address: str) -> None:
        """A member and its HOST:PORT; a new address replaces the old one."""
        if member == self.member or self._closed:
            return
        known = self._peers.get(member)
        if known is not None and known.address == address:
            return
        host_and_port(address)
        if known is not None:
            known.close()
        peer = Peer(
            member, address, self._network, self._config, self._credentials, self._clock, self._entropy, self._metrics
        )
        peer.on_connected, peer.on_disconnected = self._tell_connected, self._tell_disconnected
        self._peers[member] = peer
        if self._listening is not None:
            peer.begin(self._local)

    def forget(self, member: str) -> None:
        """It is no member any more."""
        peer = self._peers.pop(member, None)
        if peer is not None:
            peer.close()

    def known(self) -> dict[str, str]:
        """Member -> address."""
        return {member: peer.address for member, peer in self._peers.items()}

    def is_connected(self, member: str) -> bool:
        """Whether messages to it can leave."""
        peer = self._peers.get(member)
        return peer is not None and peer.is_connected

    def round_trip_ms(self, member: str) -> float | None:
        """Smoothed; None where nothing is known yet."""
        peer = self._peers.get(member)
        return peer.round_trip_ms if peer is not None else None

    def on_connected(self, callback: Callable[[str], None]) -> None:
        """Called with each member that a connection was made to."""
        self._connected.append(callback)

    def on_disconnected(self, callback: Callable[[str], None]) -> None:
        """Called with each member that the connection to was lost."""
        self._disconnected.append(callback)

    def _tell_connected(self, member: str) -> None:
        for callback in self._connected:
            callback(member)

    def _tell_disconnected(self, member: str) -> None:
        for callback in self._disconnected:
            callback(member)

    def redial(self) -> None:
        """This node has another certificate: every connection is made anew, with it."""
        for peer in self._peers.values():
            peer.redial()

    def review(self) -> None:
        """Who may call has changed: every connection is judged again."""
        self._services.review()

    def contested(self) -> frozenset[str]:
        """Members of which two starts are connected to this node: their identity was copied."""
        return self._services.contested()

    # --- serving ---------------------------------------------------------------------------------------

    def serve(self, method: Method, handler: Handler, *, rights: Rights = Rights.MEMBER) -> None:
        """`handler(caller, head, payload)` answers the method, for callers of at least these rights."""
        self._services.methods[method] = Served(handler, rights)

    def on_message(self, topic: Topic, handler: MessageHandler) -> None:
        """`handler(caller, head)` takes the messages of a topic, straight from the reader."""
        self._services.topics[topic] = handler

    async def _ping(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        return Reply(head)

    async def _tell_authority(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        return Reply(self._credentials.authority)

    # --- asking ----------------------------------------------------------------------------------------

    def send(self, member: str, topic: Topic, head: bytes) -> bool:
        """One message; False where it cannot leave now."""
        peer = self._peers.get(member)
        return peer is not None and peer.send(topic, head)

    async def call(
        self,
        member: str,
        method: Method,
        head: bytes,
        payload: Sequence[Buffer] = (),
        *,
        timeout_s: float,
        lane: Lane = Lane.CONTROL,
    ) -> Answer:
        """Asks and waits. Raises Unavailable, TooBusy, or what the handler raised."""
        peer = self._peers.get(member)
        if peer is None:
            raise Unavailable("the node is not known here", member=member)
        try:
            return await peer.call(method, head, payload, lane, timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"node {peer.address} did not answer within {timeout_s:g} s", member=member) from error

    async def call_address(
        self, address: str, ca_digest: bytes, method: Method, head: bytes, *, timeout_s: float
    ) -> Answer:
        """For who is no member yet: asks whoever listens there, once it has proved that it belongs to the site whose
        authority has this digest. Nothing of `head` leaves before. Raises Denied, Unavailable, BadRequest where no
        node listens."""
        host, port = host_and_port(address)
        try:
            async with asyncio.timeout(timeout_s):
                stranger = Credentials(lambda facts: Rights.NONE)
                link = await open_link(self._network, host, port, stranger, self._config, self._local, Lane.CONTROL)
                try:
                    check_is_node(address, link.peer_certificate)
                    authority = await link.call(Method.AUTHORITY, b"", ())
                    check_authority(authority.head, ca_digest, link.peer_certificate)
                    return await link.call(method, head, ())
                finally:
                    link.close()
        except Unavailable as error:
            if error.fields.get("speaks_tls", True):
                raise
            message = f"{address} is not a mesh address: what answers there speaks no TLS (is it the S3 address?)"
            raise BadRequest(message) from error
        except TimeoutError as error:
            raise Unavailable(f"{address} did not answer within {timeout_s:g} s") from error

    async def close(self) -> None:
        """Ends every connection."""
        self._closed = True
        for peer in self._peers.values():
            peer.close()
        self._services.close()
        if self._listening is not None:
            await self._listening.close()
        tasks = [*self._services.running, *(task for peer in self._peers.values() for task in peer.tasks)]
        for task in tasks:
            with suppress(asyncio.CancelledError, EdgeStoreError):
                await task
