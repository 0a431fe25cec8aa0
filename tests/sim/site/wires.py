"""The wires between the machines of a site, at the level of `net.Peers`: for rooms that need messages, not sockets.

Rule: what the contract of `Peers` allows happens: messages, requests and answers are lost, late, doubled and
overtaken, one way and both; and never anything between lives that are not both there.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgestore.errors import EdgeStoreError, Unavailable
from edgestore.net import Answer, Caller, Rights
from tests.sim.network import Weather
from tests.sim.site.lives import LIFE, Life, SiteLoop


@dataclass(frozen=True)
class Late:
    """What has arrived, and is kept back."""

    way: tuple[str, str]
    end: WirePeers
    deliver: Callable[[WirePeers], None]


@dataclass
class Wires:
    """All of a site. `cut`: (from, to) pairs of members between which nothing passes; `slow`: extra seconds; `held`:
    what is kept back, for a script."""

    loop: SiteLoop
    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    usual: Weather = field(default_factory=Weather)
    cut: set[tuple[str, str]] = field(default_factory=set)
    slow: dict[tuple[str, str], float] = field(default_factory=dict)
    ends: dict[str, WirePeers] = field(default_factory=dict)
    held: dict[tuple[str, str], list[Late]] = field(default_factory=dict)
    carried: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Of calls, each once: a connection ends with the life that dialled it, and no answer outlives it."""
    _last_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _told_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def is_open(self, source: str, target: str) -> bool:
        """Whether anything passes that way."""
        return target in self.ends and (source, target) not in self.cut

    def carry(self, source: str, target: str, deliver: Callable[[WirePeers], None]) -> None:
        """Brings it to whoever `target` is when it arrives."""
        self.carried += 1
        weather, way = self.weather, (source, target)
        copies = 1 + (self.rng.random() < weather.doubled)
        for _ in range(copies):
            if self.rng.random() < weather.lost or not self.is_open(source, target):
                continue
            arrival_s = self.loop.now_s + self.rng.expovariate(1 / weather.delay_s) + self.slow.get(way, 0.0)
            if self.rng.random() >= weather.overtaken:
                arrival_s = max(arrival_s, self._last_s.get(way, 0.0))
                self._last_s[way] = arrival_s
            end = self.ends[target]
            self.loop.later(arrival_s - self.loop.now_s, self._arrive, way, end, deliver, life=end.life)

    def _arrive(self, way: tuple[str, str], end: WirePeers, deliver: Callable[[WirePeers], None]) -> None:
        if way in self.cut or self.ends.get(way[1]) is not end:
            return
        if way in self.held:
            self.held[way].append(Late(way, end, deliver))
        else:
            deliver(end)

    def hold(self, pairs: set[tuple[str, str]]) -> None:
        """What arrives there from now on is kept back."""
        for pair in sorted(pairs):
            self.held.setdefault(pair, [])

    def take_held(self, pairs: set[tuple[str, str]]) -> list[Late]:
        """All of it, in its order by wire; what comes from now on is delivered."""
        return [late for pair in sorted(pairs) for late in self.held.pop(pair, ())]

    def bring(self, late: Late) -> None:
        """It comes now, whatever came before it, where who it is for still lives."""
        self.loop.later(0, self._bring, late, life=late.end.life)

    def _bring(self, late: Late) -> None:
        if self.ends.get(late.way[1]) is late.end:
            late.deliver(late.end)

    def peers(self, life: Life, member: str, clock: object) -> WirePeers:
        """Of a new life."""
        return WirePeers(self, life, member)

    async def begin(self, end: WirePeers) -> None:
        """`plug`, as wires have it on which that takes time."""
        self.plug(end)

    def plug(self, end: WirePeers) -> None:
        """A life begins: both sides of each connection hear of it."""
        self.ends[end.member] = end
        for member in list(self.ends):
            if member != end.member:
                self._tell(end.member, member, connected=True)
                self._tell(member, end.member, connected=True)

    def unplug(self, member: str, *, told: bool = False) -> None:
        """A life has ended."""
        self.ends.pop(member, None)
        for other in list(self.ends):
            self._tell(member, other, connected=False)

    def sever(self, pairs: set[tuple[str, str]]) -> None:
        """Nothing passes there from now on; after some seconds connections are given up."""
        self.cut |= pairs
        for source, target in sorted(pairs):
            self.loop.later(self.rng.uniform(0.5, 3), self._give_up, source, target)

    def _give_up(self, source: str, target: str) -> None:
        if (source, target) in self.cut:
            self._tell(source, target, connected=False)
            self._tell(target, source, connected=False)

    def mend(self, pairs: set[tuple[str, str]] | None = None) -> None:
        """All of them, or those. What was kept back is lost then."""
        if pairs is None:
            self.held.clear()
        gone = sorted(self.cut if pairs is None else self.cut & pairs)
        self.cut -= set(gone)
        for source, target in gone:
            if source in self.ends and target in self.ends and (target, source) not in self.cut:
                self._tell(source, target, connected=True)
                self._tell(target, source, connected=True)

    def _tell(self, about: str, member: str, *, connected: bool) -> None:
        end = self.ends.get(member)
        if end is not None:
            at_s = max(self.loop.now_s + self.rng.uniform(0.0005, 0.005), self._told_s.get((about, member), 0.0))
            self._told_s[about, member] = at_s + 1e-6
            self.loop.later(at_s - self.loop.now_s, end.hear, about, connected, life=end.life)


class WirePeers:
    """`net.Peers` of one life."""

    def __init__(self, wires: Wires, life: Life, member: str) -> None:
        self.wires, self.life, self.member = wires, life, member
        self.connected: set[str] = set()
        self.ports: dict[type, Any] = {}
        self._handlers: dict[Any, Callable[..., Awaitable[Any]]] = {}
        self._topics: dict[Any, Callable[[Caller, bytes], None]] = {}
        self._on_connected: list[Callable[[str], None]] = []
        self._on_disconnected: list[Callable[[str], None]] = []
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    def hear(self, member: str, connected: bool) -> None:
        """A connection is there, or has gone."""
        if connected == (member in self.connected):
            return
        (self.connected.add if connected else self.connected.discard)(member)
        for callback in self._on_connected if connected else self._on_disconnected:
            callback(member)

    def serve(self, method: Any, handler: Callable[..., Awaitable[Any]], rights: object = None) -> None:
        """See net.Peers."""
        self._handlers[method] = handler

    def on_message(self, topic: Any, handler: Callable[..., None]) -> None:
        """See net.Peers."""
        self._topics[topic] = handler

    def on_connected(self, callback: Callable[[str], None]) -> None:
        """See net.Peers."""
        self._on_connected.append(callback)

    def on_disconnected(self, callback: Callable[[str], None]) -> None:
        """See net.Peers."""
        self._on_disconnected.append(callback)

    def is_connected(self, member: str) -> bool:
        """See net.Peers."""
        return member in self.connected

    def known(self) -> dict[str, str]:
        """See net.Peers."""
        return {member: "" for member in self.wires.ends if member != self.member}

    def know(self, member: str, address: str) -> None:
        """Everybody is known."""

    def forget(self, member: str) -> None:
        """Everybody is known."""

    def contested(self) -> frozenset[str]:
        """See `Peers.contested`: nobody copies folders here."""
        return frozenset()

    def round_trip_ms(self, member: str) -> float | None:
        """See net.Peers."""
        return 2000 * self.wires.weather.delay_s

    def send(self, member: str, topic: Any, head: bytes) -> bool:
        """See net.Peers."""
        if member not in self.connected:
            return False
        caller = Caller(self.member, Rights.MEMBER, self.life.name)
        self.wires.carry(self.member, member, lambda end: end._take(caller, topic, bytes(head)))
        return True

    def _take(self, caller: Caller, topic: Any, head: bytes) -> None:
        handler = self._topics.get(topic)
        if handler is not None:
            handler(caller, head)

    async def call(
        self, member: str, method: Any, head: bytes, payload: Any = (), *, timeout_s: float, lane: object = None
    ) -> Answer:
        """See net.Peers."""
        if member not in self.connected:
            raise Unavailable(f"{member} is not reachable")
        number, caller = next(self.wires.numbers), Caller(self.member, Rights.MEMBER, self.life.name)
        parts = b"".join(bytes(part) for part in ((payload,) if isinstance(payload, bytes) else payload))
        outcome = self._waiting[number] = asyncio.get_running_loop().create_future()
        request = (caller, number, method, bytes(head), parts)
        self.wires.carry(self.member, member, lambda end: end._begin(*request))
        try:
            async with asyncio.timeout(timeout_s):
                return await outcome
        except TimeoutError as error:
            raise Unavailable(f"{member} has not answered in {timeout_s} s") from error
        finally:
            self._waiting.pop(number, None)

    def _begin(self, caller: Caller, number: int, method: Any, head: bytes, payload: bytes) -> None:
        handler = self._handlers.get(method)
        if handler is not None:
            self.life.start(self._serve(handler, caller, number, head, payload))

    async def _serve(
        self, handler: Callable[..., Awaitable[Any]], caller: Caller, number: int, head: bytes, payload: bytes
    ) -> None:
        try:
            reply, error = await handler(caller, head, memoryview(payload)), None
        except EdgeStoreError as raised:
            reply, error = None, raised
        if LIFE.get() is self.life and not self.life.crashed:
            self.wires.carry(self.member, caller.member, lambda end: end._answer(number, reply, error))

    def _answer(self, number: int, reply: Any, error: EdgeStoreError | None) -> None:
        outcome = self._waiting.get(number)
        if outcome is None or outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        elif isinstance(reply, bytes):
            outcome.set_result(Answer(reply, memoryview(b"")))
        else:
            outcome.set_result(Answer(bytes(reply.head), memoryview(b"".join(bytes(part) for part in reply.payload))))
