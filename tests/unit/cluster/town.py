"""Nodes that run the real Swim over a network of events: loss, delay, stalls and deaths, in virtual time.

Only messages and time are simulated, so that a day of nine nodes takes seconds. Each run is a function of its seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edgestore.cluster import Standing, Swim, SwimMessage
from edgestore.config import ClusterConfig


@dataclass
class House:
    """One node: stalled until a time, or dead. `inbox` holds what came while it was stalled."""

    swim: Swim
    dead: bool = False
    stalled_until_ms: float = 0.0
    planned_ms: float = float("inf")
    inbox: list[tuple[str, SwimMessage]] = field(default_factory=list)


class Town:
    """`cut` says which way is closed: (sender, receiver) -> bool."""

    def __init__(self, count: int, seed: int, *, loss: float = 0.0, config: ClusterConfig | None = None) -> None:
        self.random = random.Random(seed)
        self.loss, self.config = loss, config or ClusterConfig()
        self.now_ms = 1000.0
        self.delay_ms = (0.2, 5.0)
        self.cut: Callable[[str, str], bool] | None = None
        self.failed: list[tuple[float, str, str]] = []
        self.suspected = 0
        self.messages = 0
        self.names = [f"{number:032x}" for number in range(1, count + 1)]
        self._events: list[tuple[float, int, str, str, SwimMessage | None]] = []
        self._order = 0
        self.starts = 0
        self.houses: dict[str, House] = {}
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> House:
        """A first or another start of a node."""
        self.starts += 1
        uniform = self.random.random
        swim = Swim(self.config, name, 1000 + self.starts, lambda count: int(uniform() * count))
        house = self.houses[name] = House(swim)
        swim.set_members(self.names, self.now_ms)
        self._plan(name, house)
        return house

    def stall(self, name: str, length_ms: float) -> None:
        """The node does nothing; what is sent to it waits."""
        house = self.houses[name]
        house.stalled_until_ms = self.now_ms + length_ms
        self._push(house.stalled_until_ms, name, "")

    def kill(self, name: str) -> None:
        """For good."""
        self.houses[name].dead = True

    def hint(self, name: str) -> None:
        """Everybody's connection to a node broke."""
        for other, house in self.houses.items():
            if other != name and not house.dead:
                self._send(other, house.swim.hint(name, self.now_ms))
                self._after(other, house)

    def run(self, until_ms: float, stop: Callable[[], bool] | None = None) -> None:
        """Until a time, or until `stop` says so after an event."""
        events, houses = self._events, self.houses
        while events and events[0][0] <= until_ms:
            self.now_ms, _, name, sender, message = heapq.heappop(events)
            house = houses[name]
            if message is None and self.now_ms >= house.planned_ms:
                house.planned_ms = float("inf")
            if house.dead:
                continue
            if house.stalled_until_ms > self.now_ms:
                if message is not None:
                    house.inbox.append((sender, message))
                continue
            if house.inbox:
                self._drain(name, house)
            if message is not None:
                self._send(name, house.swim.handle(sender, message, self.now_ms))
            elif house.swim.due_ms <= self.now_ms:
                self._send(name, house.swim.tick(self.now_ms))
            self._after(name, house)
            if stop is not None and stop():
                return
        self.now_ms = max(self.now_ms, until_ms) if until_ms != float("inf") else self.now_ms

    def _drain(self, name: str, house: House) -> None:
        inbox, house.inbox = house.inbox, []
        if self.random.random() < 0.5:
            self._send(name, house.swim.tick(self.now_ms))
        for sender, message in inbox:
            self._send(name, house.swim.handle(sender, message, self.now_ms))

    def _after(self, name: str, house: House) -> None:
        for member, standing in house.swim.take_changes():
            if standing is Standing.FAILED:
                self.failed.append((self.now_ms, name, member))
            self.suspected += standing is Standing.SUSPECTED
        self._plan(name, house)

    def _plan(self, name: str, house: House) -> None:
        due_ms = house.swim.due_ms
        if due_ms < house.planned_ms:
            house.planned_ms = due_ms
            self._push(max(due_ms, self.now_ms), name, "")

    def _push(self, at_ms: float, name: str, sender: str, message: SwimMessage | None = None) -> None:
        self._order += 1
        heapq.heappush(self._events, (at_ms, self._order, name, sender, message))

    def _send(self, sender: str, sends: list[tuple[str, SwimMessage]]) -> None:
        uniform = self.random.random
        least, most = self.delay_ms
        for to, message in sends:
            self.messages += 1
            if uniform() < self.loss or (self.cut is not None and self.cut(sender, to)):
                continue
            self._push(self.now_ms + least + (most - least) * uniform(), to, sender, message)

    def views(self, member: str) -> list[Standing]:
        """What the living others make of one."""
        return [house.swim.standing(member) for name, house in self.houses.items() if name != member and not house.dead]
