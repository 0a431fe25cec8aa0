"""Nodes with the real peers, detector, leader and catalog on one virtual loop and a simulated network.

The group is one catalog that the node which leads may change, as if consensus took 5 ms.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from edgestore.catalog import State, Table, commands
from edgestore.cluster import Detector, Facts, Leader
from edgestore.config import ClusterConfig
from edgestore.errors import Unavailable
from edgestore.net import Peers
from edgestore.observe import Metrics
from edgestore.records import Member, NodeState
from tests.sim.loop import SimClock, SimLoop
from tests.sim.network import SimNetwork, Weather
from tests.unit.catalog.site import Site
from tests.unit.net.site import Site as Certified

COMMIT_S = 0.005


@dataclass
class Status:
    is_leader: bool
    term: int
    incarnation: int
    voters: tuple[str, ...]
    applied_index: int


@dataclass
class Group:
    """What one node sees of the group."""

    village: Village
    name: str

    @property
    def state(self) -> State:
        return self.village.site.state

    def status(self) -> Status:
        village = self.village
        leads = village.leader == self.name
        return Status(leads, village.term, village.incarnation, village.voters, village.applied_index)

    def can_read_now(self) -> bool:
        return self.village.leader == self.name

    def log_time_ms(self) -> int:
        return self.village.site.time_ms

    def watch(self, tables: Iterable[Table], changed: Callable[[int], None]) -> Callable[[], None]:
        self.village.watchers.append(changed)
        return lambda: self.village.watchers.remove(changed)

    def on_role_changed(self, changed: Callable[[], None]) -> None:
        self.village.role_watchers[self.name] = changed

    async def propose(self, _tenant: int, command: commands.Command) -> Any:
        await asyncio.sleep(COMMIT_S)
        if self.village.leader != self.name:
            raise Unavailable("it does not lead")
        return self.village.apply(command)

    async def step_log_time(self, to_ms: int) -> None:
        self.village.site.time_ms = to_ms

    async def change_members(self, members: tuple[Member, ...]) -> None:
        await asyncio.sleep(COMMIT_S)
        self.village.voters = tuple(member.member for member in members)
        self.village.incarnation += 1
        self.village.tell_roles()

    def yield_leadership(self, to: tuple[str, ...]) -> bool:
        self.village.term += 1
        self.village.leader = to[0]
        return True


@dataclass
class Village:
    """Make it inside a SimLoop; `start` a node for each name."""

    count: int
    seed: int = 1
    loss: float = 0.0
    config: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.names = [f"{number:032x}" for number in range(1, self.count + 1)]
        self.role_watchers: dict[str, Callable[[], None]] = {}
        self._leader, self.term, self.incarnation = self.names[0], 1, 0
        self.voters: tuple[str, ...] = (self.names[0],)
        self.site = Site()
        self.watchers: list[Callable[[int], None]] = []
        self.network = SimNetwork(self.random, Weather(lost=self.loss))
        self.certified = Certified(self.seed)
        self.peers: dict[str, Peers] = {}
        self.history: list[tuple[float, commands.Command]] = []
        self.detectors: dict[str, Detector] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.metrics = {name: Metrics() for name in self.names}
        self.facts = {name: Facts(reclaimed_index=0) for name in self.names}
        for number, name in enumerate(self.names):
            self._join(number, name)

    def _join(self, number: int, name: str) -> None:
        node = commands.NewNode(name, f"{number}", "", "", 1 << 40, bytes(32), b"start", 1)
        if number == 0:
            self.site.do(commands.FoundNode(node))
            return
        token = bytes([number]) * 16
        self.site.do(commands.CreateToken(token, bytes(32), 3_600_000))
        self.site.do(commands.AddNode(node, token, bytes(32)))

    @property
    def leader(self) -> str:
        return self._leader

    @leader.setter
    def leader(self, name: str) -> None:
        self._leader = name
        self.tell_roles()

    def tell_roles(self) -> None:
        for changed in self.role_watchers.values():
            changed()

    @property
    def loop(self) -> SimLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        return loop

    @property
    def applied_index(self) -> int:
        return self.site.applier.applied_index

    async def start(self, *names: str) -> None:
        for name in names or self.names:
            number = self.names.index(name) + 1
            entropy = random.Random(f"{self.seed}{name}{self.loop.now_s}").randbytes
            peers = self.certified.peers(number, self.network.machine(name), clock=SimClock(self.loop))
            self.peers[name] = peers
            detector = self.detectors[name] = Detector(
                peers,
                self.config,
                start_nonce=entropy(16),
                facts=lambda name=name: self.facts[name],
                clock=SimClock(self.loop),
                entropy=entropy,
                metrics=self.metrics[name],
            )
            await peers.start(f"10.0.0.{number}", 7000)
            for other in range(1, self.count + 1):
                peers.know(self.names[other - 1], f"10.0.0.{other}:7000")
            detector.start(self.names)
            leader = Leader(Group(self, name), detector, self.config, self.metrics[name], lambda: 1)
            self.tasks[name] = self.loop.create_task(leader.run())

    async def kill(self, name: str, *, told: bool = False) -> None:
        """`told`: the kernel of its machine lives, and breaks its connections."""
        self.network.kill(name, told=told)
        self.detectors[name].close()
        self.tasks[name].cancel()
        await self.peers[name].close()

    async def stop(self) -> None:
        for name in self.names:
            await self.kill(name)

    def apply(self, command: commands.Command) -> Any:
        result = self.site.do(command)
        self.history.append((self.loop.now_s, command))
        for watcher in list(self.watchers):
            watcher(self.applied_index)
        return result

    def states(self) -> list[NodeState]:
        return [node.state for node in self.site.state.nodes()]

    async def until(self, condition: Callable[[], bool], limit_s: float) -> float:
        """Seconds until it holds."""
        begun_s = self.loop.now_s
        while not condition():
            assert self.loop.now_s - begun_s < limit_s, f"not within {limit_s} s"
            await asyncio.sleep(0.005)
        return self.loop.now_s - begun_s
