"""Runs the membership protocol over the connections between nodes, and keeps what every node says of itself.

Rule: nothing here waits. A message is handled where it is read, the timer is one, and what cannot be sent is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edgestore.clock import Clock, Entropy
from edgestore.cluster.control import SeenStatus, time_of
from edgestore.cluster.members import Standing
from edgestore.cluster.messages import NodeStatus, decode_message, decode_status, encode
from edgestore.cluster.quality import Observer
from edgestore.cluster.swim import Sends, Swim
from edgestore.config import ClusterConfig
from edgestore.net import Caller, Outcome, Peers, Topic, Work
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.cluster")

NONCE_BYTES = 8
TIMER_DELAY_MAX_S = 3600.0
STATUS_COUNTS_FOR = 4
"""So many intervals of statuses what a node says of its clients is true."""
TIMER_SLACK_S = 0.0001
"""A timer that fires a rounding error too early would fire again at once, and again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rooms of this node say for its status."""

    applied_index: int = 0
    pin_floor_index: int = 0
    reclaimed_index: int = 0
    disk_free_bytes: int = 0
    damaged_fragments: int = 0
    feature_level: int = 0
    serves_clients: bool = False
    is_full: bool = False


class Detector:
    """One node's view of the others. `observer`: where the other rooms report how calls went."""

    def __init__(
        self,
        peers: Peers,
        config: ClusterConfig,
        *,
        start_nonce: bytes,
        facts: Callable[[], Facts],
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> None:
        self.observer = Observer(config)
        self._peers, self._config, self._clock, self._metrics = peers, config, clock, metrics
        self._facts = facts
        self._swim = Swim(config, peers.member, int.from_bytes(start_nonce[:NONCE_BYTES], "big"), _below(entropy))
        self._swim.answered = self._probe_answered
        self._statuses: dict[str, SeenStatus] = {}
        self._full: set[str] = set()
        self._version = clock.wall_ms()
        self._watchers: list[Callable[[str, Standing], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._status_timer: asyncio.TimerHandle | None = None
        self._closed = True
        peers.on_message(Topic.SWIM, self._received)
        peers.on_disconnected(self._disconnected)

    def start(self, members: Iterable[str]) -> None:
        """Begins to watch."""
        self._closed = False
        self.set_members(members)
        self._say_status()

    def close(self) -> None:
        """Falls silent; the others will notice."""
        self._closed = True
        for timer in (self._timer, self._status_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._status_timer = None

    def set_members(self, members: Iterable[str]) -> None:
        """Who belongs to the site, as the catalog says: all but the removed."""
        watched = set(members)
        self._swim.set_members(watched, self.now_ms())
        self.observer.keep(watched)
        self._statuses = {member: seen for member, seen in self._statuses.items() if member in watched}
        self._full &= watched
        self._done([])

    # -- what others ask --------------------------------------------------------------------------------------

    @property
    def member(self) -> str:
        """This node."""
        return self._swim.member

    def now_ms(self) -> float:
        """The time that everything here is counted in: it stands still while the machine sleeps."""
        return asyncio.get_running_loop().time() * 1000

    def standing(self, member: str) -> Standing:
        """What this node makes of a member."""
        return self._swim.standing(member)

    def is_suspected(self, member: str) -> bool:
        """Whether to avoid it: suspected or failed."""
        return self._swim.standing(member) is not Standing.ALIVE

    def standings(self) -> dict[str, Standing]:
        """Of all others."""
        return {member: entry.standing for member, entry in self._swim.members.entries.items()}

    def contested(self) -> frozenset[str]:
        """Members whose identity two living nodes use."""
        return frozenset(self._swim.contested()) | self._peers.contested()

    def time_ms(self, voters: Sequence[str]) -> int | None:
        """See `time_of`; a single clock agrees with nobody."""
        if len(voters) < 2:
            return None
        return time_of(voters, self._statuses, self.now_ms(), self._config.clock_agreement_ms)

    def statuses(self) -> dict[str, SeenStatus]:
        """What every node last said of itself, this one included."""
        return dict(self._statuses)

    def pin_floor_index(self, members: Iterable[str]) -> int:
        """No reader on any of these nodes needs a chunk that was condemned at or before this index; 0 where one of them
        has not been heard."""
        floors = [
            seen.status.pin_floor_index if (seen := self._statuses.get(member)) is not None else 0 for member in members
        ]
        return min(floors, default=0)

    def are_clients_served(self) -> bool:
        """Whether a node of the site has said so lately."""
        since_ms = self.now_ms() - STATUS_COUNTS_FOR * self._config.status_interval_ms
        return any(seen.status.serves_clients and seen.received_ms >= since_ms for seen in self._statuses.values())

    def has_room(self, voters: Callable[[], Sequence[str]]) -> bool:
        """Whether a majority of the voters is there and takes content: every command of it goes into their journals,
        and what lets a full site be emptied must find room there too."""
        if not self._full:
            return True
        names = voters()
        able = sum(
            name not in self._full and (name == self.member or self.standing(name) is Standing.ALIVE) for name in names
        )
        return 2 * able > len(names)

    def on_changed(self, callback: Callable[[str, Standing], None]) -> None:
        """Called with each change of a standing, in order, on the loop."""
        self._watchers.append(callback)

    def saw(self, member: str, work: Work, outcome: Outcome, seconds: float, size_bytes: int) -> None:
        """How a call to another node went. That a suspect fails is told by its standing already."""
        if outcome is not Outcome.FAILED or not self.is_suspected(member):
            self.observer.saw(member, outcome, seconds * 1e6, self.now_ms(), size_bytes=size_bytes, work=work)

    # -- what happens -----------------------------------------------------------------------------------------

    def _received(self, caller: Caller, head: bytes) -> None:
        if self._closed:
            return
        message = decode_message(head)
        if message is None:
            self._metrics.count("cluster_messages_dropped_total")
            return
        self._done(self._swim.handle(caller.member, message, self.now_ms()))

    def _disconnected(self, member: str) -> None:
        """That alone proves nothing, but it is worth a question."""
        if not self._closed:
            self._done(self._swim.hint(member, self.now_ms()))

    def _tick(self) -> None:
        self._timer = None
        self._done(self._swim.tick(self.now_ms()))

    def _done(self, sends: Sends) -> None:
        """Sends, notes what has changed, and sets the timer."""
        for member, message in sends:
            self._peers.send(member, Topic.SWIM, encode(message))
        for word in self._swim.statuses.drain():
            status = decode_status(word.body)
            if status is not None:
                self._learn(word.member, status)
        for member, standing in self._swim.take_changes():
            self._note(member, standing)
        if not self._closed:
            self._plan()

    def _learn(self, member: str, status: NodeStatus) -> None:
        self._statuses[member] = SeenStatus(status, self.now_ms())
        if status.is_full != (member in self._full):
            log.warning("node-%s member=%s", "full" if status.is_full else "has-room", member)
            self._full ^= {member}

    def _note(self, member: str, standing: Standing) -> None:
        if standing is Standing.FAILED:
            self._metrics.count("cluster_failures_total")
            self.observer.forget(member)
        elif standing is Standing.SUSPECTED:
            self._metrics.count("cluster_suspicions_total")
        level = logging.INFO if standing is Standing.SUSPECTED else logging.WARNING
        log.log(level, "node-standing member=%s standing=%s", member, standing.name.lower())
        for watcher in self._watchers:
            watcher(member, standing)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = min(TIMER_DELAY_MAX_S, max(0.0, self._swim.due_ms / 1000 - loop.time()))
        due_s = loop.time() + delay_s + TIMER_SLACK_S
        if self._timer is not None:
            if self._timer_due_s == due_s:
                return
            self._timer.cancel()  # an early tick would wake the node for nothing but to plan again
        self._timer = loop.call_at(due_s, self._tick)
        self._timer_due_s = due_s  # uvloop's handles do not tell where they are due at once

    def _probe_answered(self, member: str, took_ms: float) -> None:
        self.observer.saw(member, Outcome.GOOD, took_ms * 1000, self.now_ms())

    def _say_status(self) -> None:
        """Made anew at each interval, so that the others can tell a fresh one from an old one."""
        self._version += 1
        facts = self._facts()
        status = NodeStatus(
            boot_ms=self._clock.boot_ms(),
            wall_ms=self._clock.wall_ms(),
            applied_index=facts.applied_index,
            pin_floor_index=facts.pin_floor_index,
            reclaimed_index=facts.reclaimed_index,
            disk_free_bytes=facts.disk_free_bytes,
            damaged_fragments=facts.damaged_fragments,
            feature_level=facts.feature_level,
            views=self.observer.views(self.now_ms()),
            serves_clients=facts.serves_clients,
            is_full=facts.is_full,
        )
        body = encode(status)
        if len(body) > self._config.status_bytes_max:
            status = msgspec.structs.replace(status, views=())
            body = encode(status)
        self._swim.set_status(body, self._version)
        self._learn(self.member, status)
        loop = asyncio.get_running_loop()
        self._status_timer = loop.call_later(self._config.status_interval_ms / 1000, self._say_status)


def _below(entropy: Entropy) -> Callable[[int], int]:
    """A number from 0 to count - 1."""
    return lambda count: int.from_bytes(entropy(4), "big") % count
