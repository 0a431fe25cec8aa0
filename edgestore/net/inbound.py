"""The connections that others have made: their messages and requests, handed to the rooms that serve them.

Rule: whatever comes in is somebody else's: it is checked for its rights, counted, and bounded before a room sees it;
nothing that it makes a handler raise reaches the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from edgestore.config import NetConfig
from edgestore.errors import Corrupt, Denied, EdgeStoreError, TooBusy, Unavailable
from edgestore.net.calls import Caller, Reply, encode_error
from edgestore.net.connection import Connection
from edgestore.net.frames import Frame, Hello, Kind, decode_hello
from edgestore.net.methods import SWORN, Lane, Method, Rights, Topic
from edgestore.net.tls import Credentials
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.net")

EMPTY = memoryview(b"")
RIVAL_S = 3.0
"""A start that was not heard for so long is over: its connection only looks open. Who lives pings more often."""
LATE_S = 1.5
"""What a start said may come in this long after it has ended."""


Handler = Callable[[Caller, bytes, memoryview], Awaitable[Reply]]
MessageHandler = Callable[[Caller, bytes], None]


@dataclass(frozen=True, slots=True)
class Served:
    """A method and who may call it."""

    handler: Handler
    rights: Rights


class Services:
    """What this node answers to."""

    def __init__(self, config: NetConfig, credentials: Credentials, metrics: Metrics) -> None:
        self.config, self.credentials, self.metrics = config, credentials, metrics
        self.methods: dict[int, Served] = {}
        self.topics: dict[int, MessageHandler] = {}
        self.running: dict[asyncio.Task[Any], None] = {}
        self._inbound: dict[Inbound, None] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def accept(self, connection: Connection) -> None:
        """Takes a connection, or closes it where there are too many."""
        strangers = sum(1 for one in self._inbound if one.caller.rights < Rights.MEMBER)
        inbound = Inbound(self, connection)
        is_stranger = inbound.caller.rights < Rights.MEMBER
        if len(self._inbound) >= self.config.connections_max or (
            is_stranger and strangers >= self.config.strangers_max
        ):
            self.metrics.count("net_refused_total")
            log.warning("connection-refused address=%s reason=too many", connection.address)
            connection.close()
            return
        self._inbound[inbound] = None
        inbound.begin()
        if self._sweeping is None:
            self._sweep()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for inbound in list(self._inbound):
            inbound.check_time(loop.time())
        self._sweeping = loop.call_later(self.config.ping_interval_ms / 1000, self._sweep)

    def left(self, inbound: Inbound) -> None:
        """A connection has ended."""
        self._inbound.pop(inbound, None)
        for rival in inbound.rivals:
            rival.rivals = tuple(other for other in rival.rivals if other is not inbound)

    def greeted(self, inbound: Inbound) -> None:
        """Another start of the same member may be connected: a copied folder, or the start before that died."""
        for other in self._inbound:
            if (
                other is not inbound
                and inbound.start
                and other.start not in (b"", inbound.start)
                and other.caller.member == inbound.caller.member
            ):
                other.rivals, inbound.rivals = (*other.rivals, inbound), (*inbound.rivals, other)
                log.warning("member-starts-twice member=%s address=%s", inbound.caller.member, inbound.caller.address)

    def contested(self) -> frozenset[str]:
        """Members of which two starts are connected and live: both were heard well after the later one came."""
        return frozenset(inbound.caller.member for inbound in self._inbound if inbound.rivals and inbound.lives_twice())

    def review(self) -> None:
        """Judges all callers anew."""
        for inbound in list(self._inbound):
            inbound.review()

    def close(self) -> None:
        """Ends all connections and what is being answered."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for inbound in list(self._inbound):
            inbound.close()
        for task in self.running:
            task.cancel()


class Inbound:
    """One connection that another node has made."""

    def __init__(self, services: Services, connection: Connection) -> None:
        self._services, self._connection = services, connection
        self._serving = self._serving_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._lane: Lane | None = None
        self.start = b""
        self.rivals: tuple[Inbound, ...] = ()
        self._heard_s = self._greeted_s = 0.0
        self.caller = self._judge()
        self._stranger_timer: asyncio.TimerHandle | None = None

    def _judge(self) -> Caller:
        member, rights = self._services.credentials.rights_of(self._connection.peer_certificate)
        return Caller(member, rights, self._connection.address)

    def begin(self) -> None:
        """From here on frames come."""
        self._heard_s = self._loop.time()
        self._connection.on_frame = self._received
        self._connection.on_closed = self._closed
        if self.caller.rights < Rights.MEMBER:
            self._connection.frame_max_bytes = self._services.config.stranger_frame_max_bytes
            self._stranger_timer = self._loop.call_later(self._services.config.stranger_life_s, self.close)

    def review(self) -> None:
        """A member that was shut out is cut off at once."""
        rights = self._judge().rights
        if rights is not self.caller.rights:
            log.info("connection-reviewed member=%s rights=%s", self.caller.member, rights.name)
            self.close()

    def check_time(self, now_s: float) -> None:
        """Who dials asks for a sign of life again and again; a silent one is gone, or plays for time."""
        is_silent = now_s - self._heard_s > 2 * self._services.config.silence_max_s
        if is_silent or self._connection.is_stuck:
            self._services.metrics.count("net_timeouts_total")
            log.info("connection-timed-out address=%s member=%s", self.caller.address, self.caller.member)
            self.close()

    def close(self) -> None:
        """At once."""
        self._connection.close()

    def _closed(self) -> None:
        if self._stranger_timer is not None:
            self._stranger_timer.cancel()
        self._services.left(self)

    def _received(self, frame: Frame) -> None:
        try:
            self._heard_s = self._loop.time()
            if self._lane is None or frame.kind is Kind.HELLO:
                self._greet(decode_hello(frame))
            elif frame.kind is Kind.MESSAGE:
                self._message(frame)
            else:
                self._request(frame)
        except Exception as error:
            self._services.metrics.count("net_refused_total")
            if isinstance(error, EdgeStoreError | msgspec.MsgspecError):
                log.warning("connection-refused address=%s reason=%s", self.caller.address, error)
            else:
                log.exception("message-failed address=%s code=%d", self.caller.address, frame.code)
            self.close()

    def _greet(self, hello: Hello) -> None:
        self._lane, self.start, self._greeted_s = Lane(hello.lane), hello.start, self._heard_s
        if self._lane is Lane.CONTROL and self.caller.member and not self.rivals:
            self._services.greeted(self)

    def _has_rival(self) -> bool:
        """Both starts live: neither can be told from the member itself."""
        heard_s = asyncio.get_running_loop().time() - RIVAL_S
        return any(rival._heard_s > heard_s for rival in self.rivals)

    def lives_twice(self) -> bool:
        """No start that is over says anything so long after another has come."""
        return any(
            min(self._heard_s, rival._heard_s) > max(self._greeted_s, rival._greeted_s) + LATE_S
            for rival in self.rivals
        )

    def _message(self, frame: Frame) -> None:
        handler = self._services.topics.get(frame.code)
        if self.caller.rights is Rights.EXPIRED:
            return  # it renews its certificate on this connection
        if self.caller.rights < Rights.MEMBER:
            raise Denied("only members send messages")
        if self.rivals and frame.code in SWORN and self._has_rival():
            self._services.metrics.count("net_rival_messages_total")
            return
        if handler is None:
            if frame.code in set(Topic):
                return  # the room that takes it is not open yet
            raise Corrupt(f"there is no topic {frame.code}")
        handler(self.caller, frame.head)

    def _request(self, frame: Frame) -> None:
        services = self._services
        if frame.kind is not Kind.REQUEST:
            raise Corrupt("who dials gets answers, and sends none")
        size_bytes = frame.size_bytes
        if (
            self._serving >= services.config.served_max
            or self._serving_bytes + size_bytes > services.config.served_bytes_max
        ):
            self._answer_error(frame, TooBusy("too much of one connection is being served (net.served_max)"))
            return
        served = services.methods.get(frame.code)
        if served is None:
            if frame.code not in set(Method):
                raise Corrupt(f"there is no method {frame.code}")
            self._answer_error(frame, Unavailable("the node does not serve this yet: try again later"))
            return
        if self.caller.rights < served.rights:
            self._answer_error(frame, Denied("this is for members of the site"))
            return
        self._serving += 1
        self._serving_bytes += size_bytes
        task = self._loop.create_task(self._serve(frame, served.handler, size_bytes))
        services.running[task] = None

    async def _serve(self, frame: Frame, handler: Handler, size_bytes: int) -> None:
        payload = memoryview(frame.payload[0]) if frame.payload else EMPTY
        try:
            reply = await handler(self.caller, frame.head, payload)
        except EdgeStoreError as error:
            self._answer_error(frame, error)
        except TimeoutError:
            self._answer_error(frame, Unavailable("the node did not get to it in time"))
        except (ValueError, msgspec.MsgspecError) as error:
            log.warning("request-malformed address=%s code=%d reason=%s", self.caller.address, frame.code, error)
            self.close()
        except Exception:
            log.exception("request-failed address=%s code=%d", self.caller.address, frame.code)
            self._answer_error(frame, Unavailable("the node failed to answer: see its log"))
        else:
            self._connection.send(Frame(Kind.ANSWER, frame.code, frame.number, reply.head, reply.payload))
            if self._connection.buffered_bytes > self._services.config.send_buffer_high_bytes:
                await self._connection.drain()  # a slow reader holds its own place among `served_max`
        finally:
            self._serving -= 1
            self._serving_bytes -= size_bytes
            self._services.running.pop(cast("asyncio.Task[Any]", asyncio.current_task()), None)

    def _answer_error(self, frame: Frame, error: EdgeStoreError) -> None:
        self._connection.send(Frame(Kind.ERROR, frame.code, frame.number, encode_error(error)))
