"""One simulated run of a replicated log: real consensus on simulated disks and wires, registers on top, faults by the
seed, and then a time without faults in which everything must come back.

Rule: everything follows from the seed; a run that fails prints it, and the same seed fails again in the same way.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

from edgestore.config import ConsensusConfig
from edgestore.consensus import ConsensusStatus
from edgestore.errors import Conflict, EdgeStoreError, NotLeader, TooBusy, Unavailable
from edgestore.records import Member
from tests.sim.disk import SimFiles
from tests.sim.model import Crashed, Lost, NotLinearizable, Overfull, Stalled, Violation
from tests.sim.site.faults import Fault, Faults
from tests.sim.site.linearizability import Kind, contradiction
from tests.sim.site.lives import Life, NodeDied
from tests.sim.site.machines import Machine, Site
from tests.sim.site.net_wires import NetWires
from tests.sim.site.register_clients import KEYS, History, RegisterClient
from tests.sim.site.registers import Registers
from tests.sim.site.wires import Wires

CONFIG = ConsensusConfig(
    entry_operations_max=8,
    entry_bytes_max=64 * 1024,
    log_kept_bytes=4 * 1024,
    log_behind_max_bytes=64 * 1024,
    catch_up_entries=16,
    fetch_wait_ms=200,
    read_timeout_ms=1000,
)
PACES: tuple[dict[str, int], ...] = (
    {},
    {"heartbeat_ms": 10, "election_min_ms": 40, "election_max_ms": 80},
    {"heartbeat_ms": 20, "election_min_ms": 100, "election_max_ms": 120},
    {"heartbeat_ms": 30, "election_min_ms": 100, "election_max_ms": 800},
)
"""As configured; quick; voters that stand at about the same time; a leader that is slow to give up."""
SIZES: tuple[dict[str, int], ...] = (
    {},
    {"append_bytes_max": 1, "append_in_flight_bytes_max": 64},
    {"log_kept_bytes": 256},
)
"""As configured; one entry a message; logs so short that many need a snapshot."""
SHORT_LOG = {"log_kept_bytes": 256, "log_behind_max_bytes": 512}
BACK_WITHIN_S = 20.0
"""After the last fault: elections, snapshots and the longest back-off together."""
TASKS_OF_A_NODE_MAX = 400
PROBE = 98
QUIET_WAIT_S = 0.3


@dataclass(frozen=True)
class Aim:
    """Of everything that a seed may draw only this, to find sooner what few runs meet. Empty, zero: whatever comes."""

    kinds: tuple[Fault, ...] = ()
    voters: int = 0
    paces: tuple[dict[str, int], ...] = PACES
    sizes: tuple[dict[str, int], ...] = SIZES
    changes_members: bool = True
    changes_leaders: bool = True
    doubled: float = 0.0
    is_quiet: bool = False
    """One client, which takes its time: logs stay as they are for a while."""
    has_a_short_log: bool = False
    """The machine of the lowest name keeps hardly any of its log."""


ANYTHING = Aim()


class GroupSite(Site):
    """A site whose nodes are registers on one group."""

    def __init__(self, seed: int, aim: Aim) -> None:
        nodes = aim.voters or random.Random(f"{seed} nodes").choice((1, 2, 3, 3, 3, 3, 4, 5, 5))
        super().__init__(seed, nodes, wires=NetWires if seed % 4 == 0 and aim is ANYTHING else Wires)
        voters = aim.voters or self.rng.choice([count for count in (1, 2, 3, 5) if count <= nodes][-2:])
        founders = tuple(Member(machine.member) for machine in self.machines[:voters])
        self.told = {machine.number: founders for machine in self.machines}
        """Who votes, as each machine is told when it starts on an empty disk."""
        self.open_service = self._open
        self.config = replace(CONFIG, **self.rng.choice(aim.paces), **self.rng.choice(aim.sizes))
        self.has_a_short_log = aim.has_a_short_log
        self.probe: RegisterClient
        """Asks where a script has it ask."""

    async def _open(self, machine: Machine, life: Life, files: SimFiles) -> Registers:
        config = self.config
        if self.has_a_short_log and machine is min(self.machines, key=lambda one: one.member):
            config = replace(config, **SHORT_LOG)
        registers = Registers(machine, life, files, config)
        await registers.open()
        return registers

    def leaders(self) -> list[Machine]:
        """Who thinks that it leads."""
        return [machine for machine in self.serving() if machine.service.consensus.is_leader]


class GroupWorld:
    """A run. `run` returns the digest of everything that happened."""

    def __init__(self, seed: int, aim: Aim = ANYTHING) -> None:
        self.seed = seed
        self.site = GroupSite(seed, aim)
        self.history = History()
        rng = random.Random(f"{seed} world")
        self.clients = [RegisterClient(self.site, number, self.history) for number in range(rng.randint(2, 6))]
        if aim.is_quiet:
            del self.clients[1:]
            self.clients[0].mean_wait_s = QUIET_WAIT_S
        self.site.probe = RegisterClient(self.site, PROBE, self.history)
        self.faults_s = rng.uniform(1, 6)
        turns = (self.yield_leadership,) if aim.changes_leaders else ()
        if aim.changes_members:
            turns += (self.change_members, self.replace_one)
        self.faults = Faults(self.site, self.site.leaders, turns)
        if aim.kinds:
            self.faults.kinds = list(aim.kinds)
        self.site.wires.usual.doubled = self.site.wires.weather.doubled = aim.doubled
        self.rng = rng
        self.is_changing = False
        self.changes = 0

    def run(self) -> str:
        """Raises the Violation that it met."""
        loop = self.site.loop
        try:
            loop.run(self._main())
            for context in loop.failures:
                raise Crashed(f"unhandled: {context}") from context.get("exception")
        finally:
            self.steps, self.now_s = loop.steps, loop.now_s
            self.trace = f"{loop.trace} {loop.steps} {loop.now_s:.9f} {len(self.history.acknowledged)}"
            loop.abandon()
        return self.trace

    @property
    def acknowledged(self) -> int:
        """Writes that were answered."""
        return len(self.history.acknowledged)

    async def _main(self) -> None:
        for machine in self.site.machines:
            machine.start()
        running = [asyncio.ensure_future(client.run()) for client in self.clients]
        await self.faults.run(self.faults_s)
        await self._wait_for_all()
        await asyncio.sleep(0.5)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for task in running:
            if not task.cancelled():
                task.result()
        await self._check_end()

    # --- what the site is asked for ----------------------------------------------------------------------

    async def change_members(self) -> None:
        """Other voters: one, two, three or five of the machines."""
        machines = self.site.machines
        count = self.rng.choice([count for count in (1, 2, 3, 5) if count <= len(machines)])
        await self._change(self.rng.sample(machines, count))

    async def _change(self, machines: list[Machine]) -> tuple[Member, ...]:
        """The new voters; empty where they are not, or nobody knows. One change at a time."""
        leaders = self.site.leaders()
        if not leaders or self.is_changing:
            return ()
        members = tuple(Member(machine.member) for machine in machines)
        leader = self.rng.choice(leaders)
        assert leader.life is not None
        self.faults.log.append(f"{self.site.loop.now_s:.4f} {leader} makes voters of {sorted(machines, key=str)}")
        self.is_changing = True
        try:
            await leader.life.ask(leader.service.consensus.change_members(members))
            if leader.service is None:
                return ()
            self.changes += 1
            return members if await self._have_begun(leader.service.consensus.status()) else ()
        except (NotLeader, Conflict, TooBusy, Unavailable, NodeDied):
            return ()
        finally:
            self.is_changing = False

    async def _have_begun(self, ended: ConsensusStatus) -> bool:
        """Whether a majority of the next holds the stop-sign: a leader of theirs has committed something behind it."""
        for _ in range(100):
            for machine in self.site.leaders():
                status = machine.service.consensus.status()
                if status.incarnation >= ended.incarnation and status.committed_index > ended.applied_index:
                    return True
            await asyncio.sleep(0.02)
        return False

    async def replace_one(self) -> None:
        """A machine that has no vote any more loses its disk, and comes back as another member."""
        machines = self.site.machines
        if len(machines) < 2:
            return
        gone = self.rng.choice(machines)
        rest = [machine for machine in machines if machine is not gone]
        count = self.rng.choice([count for count in (1, 2, 3) if count <= len(rest)])
        members = await self._change(self.rng.sample(rest, count))
        if members:
            self.faults.log.append(f"{self.site.loop.now_s:.4f} {gone} is wiped")
            self.site.told[gone.number] = members
            gone.wipe()

    async def yield_leadership(self) -> None:
        """As a node that drains does."""
        for leader in self.site.leaders()[:1]:
            assert leader.life is not None
            leader.life.call(leader.service.consensus.yield_leadership)

    # --- when the faults have stopped --------------------------------------------------------------------

    async def _wait_for_all(self) -> None:
        """Every machine serves, one of them writes, and all of them read it."""
        loop, client = self.site.loop, RegisterClient(self.site, 99, self.history)
        client.lazy = 0.0
        deadline_s = loop.now_s + BACK_WITHIN_S
        while loop.now_s < deadline_s:
            await asyncio.sleep(0.05)
            if len(self.site.serving()) == len(self.site.machines) and await client.write(KEYS[0], Kind.WRITE):
                break
        else:
            raise Stalled(f"no write for {BACK_WITHIN_S} s without faults: {self._standing()}")
        for machine in self.site.machines:
            await self._read_at(machine, deadline_s)

    async def _read_at(self, machine: Machine, deadline_s: float) -> None:
        loop = self.site.loop
        while True:
            try:
                async with asyncio.timeout(5):
                    await machine.life.ask(machine.service.read(KEYS[0]))  # type: ignore[union-attr]
            except (EdgeStoreError, TimeoutError, NodeDied) as error:
                if loop.now_s > deadline_s:
                    message = f"{machine} does not read {BACK_WITHIN_S} s after the last fault: {error!r}"
                    raise Stalled(f"{message}: {self._standing()}") from error
                await asyncio.sleep(0.05)
            else:
                return

    def _standing(self) -> str:
        states = []
        for machine in self.site.machines:
            if machine.service is None:
                states.append(f"{machine}: does not serve (up: {machine.is_up})")
            else:
                states.append(f"{machine} {machine.member[:4]}: {machine.service.consensus.status()}")
        return "\n  ".join(states)

    async def _check_end(self) -> None:
        reader = RegisterClient(self.site, 100, self.history)
        for machine in self.site.machines:
            for key in KEYS:
                await reader.read(key, machine)
        await self._check_states()
        self._check_acknowledged()
        self._check_bounds()
        for key, operations in sorted(self.history.by_key.items()):
            if (found := contradiction(operations)) is not None:
                raise NotLinearizable(f"register {key}: {found}")

    async def _check_states(self) -> None:
        """Without writers all come to the same index and hold the same."""
        deadline_s = self.site.loop.now_s + 10
        while True:
            found = [
                (machine.name, machine.service.registers.applied_index, machine.service.registers.chain)
                for machine in self.site.machines
            ]
            if len({index for _, index, _ in found}) == 1:
                break
            if self.site.loop.now_s > deadline_s:
                raise Stalled(f"10 s after the last write members have applied {found}: {self._standing()}")
            await asyncio.sleep(0.05)
        self.site.watch.agree(found)

    def _check_acknowledged(self) -> None:
        for machine in self.site.machines:
            registers = machine.service.registers
            missing = [known for known in self.history.acknowledged if not registers.knows(known)]
            if missing:
                raise Lost(f"{machine} does not know {len(missing)} acknowledged operations: {missing[:5]}")

    def _check_bounds(self) -> None:
        tasks = len(asyncio.all_tasks(self.site.loop))
        if tasks > TASKS_OF_A_NODE_MAX * len(self.site.machines):
            raise Overfull(f"{tasks} tasks on {len(self.site.machines)} nodes at rest")


def run_seed(seed: int, aim: Aim = ANYTHING) -> GroupWorld:
    """One run. Raises with the seed in the message."""
    world = GroupWorld(seed, aim)
    try:
        world.run()
    except Violation as error:
        raise type(error)(f"seed {seed}: {error}") from error
    except Exception as error:
        raise Crashed(f"seed {seed}: {error!r}") from error
    return world
