"""One simulated run of a whole site: real cores that join each other, clients through any node, faults by the seed, and
then a time without faults in which everything must come back and be whole again.

Rule: everything follows from the seed; a run that fails prints it, and the same seed fails again in the same way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from edgestore.config import Config
from edgestore.core import Core
from edgestore.errors import BucketExists, EdgeStoreError
from edgestore.records import Versioning
from tests.sim.model import Crashed, Lost, NotLinearizable, Overfull, Refused, Stalled, Violation
from tests.sim.site.core_checks import check_acknowledged, check_counts, check_rest, check_rush, complaints
from tests.sim.site.core_clients import KEYS, REGISTERS, VERSIONS, CoreClient, Ledger
from tests.sim.site.core_faults import CoreFaults
from tests.sim.site.cores import CONFIG, TIGHT, CoreSite
from tests.sim.site.faults import Fault
from tests.sim.site.linearizability import contradiction
from tests.sim.site.lives import NodeDied
from tests.sim.site.machines import Machine

JOINED_WITHIN_S = 30.0
BACK_WITHIN_S = 40.0
"""After the last fault: elections, snapshots, another voter in place of a lost one, and the longest back-off."""
WHOLE_WITHIN_S = 45.0
"""... and then until every fragment is where it belongs."""
WHOLE_TIGHT_WITHIN_S = 120.0
"""Where lines hold eight, one is gone through in four seconds, and more than a hundred fragments may be misplaced."""
TASKS_OF_A_NODE_MAX = 400


@dataclass(frozen=True)
class CoreAim:
    """Of everything that a seed may draw only this. Empty, zero: whatever comes."""

    kinds: tuple[Fault, ...] = ()
    nodes: int = 0
    turns: tuple[str, ...] | None = None
    config: Config = CONFIG


ANYTHING = CoreAim()


class CoreWorld:
    """A run. `run` returns the digest of everything that happened."""

    def __init__(self, seed: int, aim: CoreAim = ANYTHING) -> None:
        self.seed = seed
        rng = self.rng = random.Random(f"{seed} core world")
        nodes = aim.nodes or rng.choice((1, 2, 3, 3, 3, 4, 5, 6))
        self.is_tight = aim.config.chunks.slab_bytes == TIGHT.chunks.slab_bytes or (
            aim is ANYTHING and random.Random(f"{seed} tight").random() < 0.4
        )
        self.site = CoreSite(seed, nodes, TIGHT if self.is_tight and aim is ANYTHING else aim.config)
        self.ledger = Ledger()
        self.clients = [CoreClient(self.site, number, self.ledger) for number in range(rng.randint(2, 5))]
        self.faults_s = rng.uniform(2, 10)
        self.faults = CoreFaults(self.site, self.ledger, aim.kinds, aim.turns)

    def run(self) -> str:
        """Raises the Violation that it met."""
        loop = self.site.loop
        try:
            loop.run(self._main())
            for context in loop.failures:
                raise Crashed(f"unhandled: {context}") from context.get("exception")
        finally:
            self.steps, self.now_s = loop.steps, loop.now_s
            self.trace = f"{loop.trace} {loop.steps} {loop.now_s:.9f} {self.ledger.acknowledged}"
            loop.abandon()
        return self.trace

    @property
    def acknowledged(self) -> int:
        """Operations that were answered."""
        return self.ledger.acknowledged

    async def _main(self) -> None:
        await self._gather()
        await self._prepare()
        running = [asyncio.ensure_future(self._client(client)) for client in self.clients]
        await self.faults.run(self.faults_s)
        await self._wait_for_all()
        await asyncio.sleep(0.5)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await self._check_end()

    async def _client(self, client: CoreClient) -> None:
        try:
            await client.run()
        except Violation as violation:
            self.site.loop.blame(violation)
        except Exception as error:
            violation = Crashed(f"{client.name} met {error!r}")
            violation.__cause__ = error
            self.site.loop.blame(violation)

    async def _gather(self) -> None:
        """The site is founded, and the others join: one after the other, or all at once."""
        site, at_once = self.site, self.rng.random() < 0.5
        for machine in site.machines:
            machine.start()
            if machine.number > 1:
                await site.give_token(machine)
            if not at_once:
                await self._until(lambda number=machine.number: len(site.arrived()) >= number, JOINED_WITHIN_S)  # type: ignore[misc]
        await self._until(self._has_its_voters, JOINED_WITHIN_S)

    def _has_its_voters(self) -> bool:
        site = self.site
        if len(site.arrived()) < len(site.machines):
            return False
        wanted = {1: 1, 2: 2}.get(len(site.machines), 3)
        return any(len(machine.service.core.meta.status().voters) >= wanted for machine in site.leaders())

    async def _prepare(self) -> None:
        """The buckets."""

        async def make(core: Core) -> None:
            root = core.tenants.root()
            for name in (REGISTERS, VERSIONS):
                try:
                    await core.objects.create_bucket(root, name)
                except BucketExists:
                    continue
            await core.objects.set_versioning(root, VERSIONS, Versioning.ENABLED)

        await self._insist(lambda: self.site.ask_somebody(make), JOINED_WITHIN_S)

    async def _until(self, condition: Callable[[], bool], limit_s: float) -> None:
        deadline_s = self.site.loop.now_s + limit_s
        while not condition():
            if self.site.loop.now_s > deadline_s:
                raise Stalled(f"not within {limit_s} s: {self.standing()}")
            await asyncio.sleep(0.05)

    async def _insist(self, work: Callable[[], Awaitable[Any]], limit_s: float) -> Any:
        deadline_s = self.site.loop.now_s + limit_s
        while True:
            try:
                return await work()
            except (EdgeStoreError, NodeDied, TimeoutError) as error:
                if self.site.loop.now_s > deadline_s:
                    raise Stalled(f"not within {limit_s} s: {error!r}: {self.standing()}") from error
                await asyncio.sleep(0.05)

    # --- when the faults have stopped --------------------------------------------------------------------

    async def _wait_for_all(self) -> None:
        """Every machine has arrived, and each of them writes."""
        site = self.site
        await self._until(lambda: not self.faults.working and self._all_arrived(), BACK_WITHIN_S)
        writer = CoreClient(site, 99, self.ledger)
        for machine in site.machines:
            before = self.ledger.acknowledged
            deadline_s = site.loop.now_s + BACK_WITHIN_S
            while self.ledger.acknowledged == before:
                await writer.put_version(machine)
                if site.loop.now_s > deadline_s:
                    raise Stalled(f"{machine} writes nothing for {BACK_WITHIN_S} s: {self.standing()}")
                await asyncio.sleep(0.05)

    def _all_arrived(self) -> bool:
        return len(self.site.arrived()) == len(self.site.machines)

    def standing(self) -> str:
        """Where everybody is."""
        states = []
        for machine in self.site.machines:
            if machine.service is None:
                states.append(f"{machine} {machine.member[:4]}: does not serve (up: {machine.is_up})")
                continue
            core = machine.service.core
            status = core.meta.status()
            rows = [(row.number, row.member[:4], row.state.name) for row in core.meta.state.nodes()]
            states.append(
                f"{machine} {machine.member[:4]}: arrived {core.arrived.is_set()}, {status.role.name} of "
                f"{status.leader[:4]!r} in {status.incarnation}/{status.term & 0xFFFFFFFF}, voters "
                f"{[voter[:4] for voter in status.voters]}, {status.applied_index} of {status.committed_index} of "
                f"{status.last_index}, nodes {rows}"
            )
        return "\n  ".join(states)

    async def _check_end(self) -> None:
        if self.is_tight:
            await check_rush(self.site, self.ledger)
        await self._check_whole()
        await self._check_reads()
        await self._check_states()
        for machine in self.site.machines:
            check_acknowledged(machine, self.ledger)
            check_counts(machine)
        await check_rest(self.site)
        tasks = len(asyncio.all_tasks(self.site.loop))
        if tasks > TASKS_OF_A_NODE_MAX * len(self.site.machines):
            raise Overfull(f"{tasks} tasks on {len(self.site.machines)} nodes at rest")
        for key, operations in sorted(self.ledger.history.by_key.items()):
            if (found := contradiction(operations)) is not None:
                raise NotLinearizable(f"{REGISTERS}/{key}: {found}")

    async def _check_whole(self) -> None:
        """Every chunk is back at full redundancy where it belongs, and nothing is left over."""
        loop = self.site.loop
        within_s = WHOLE_TIGHT_WITHIN_S if self.is_tight else WHOLE_WITHIN_S
        deadline_s = loop.now_s + within_s
        while found := complaints(self.site):
            if loop.now_s > deadline_s:
                lines = "\n  ".join(found[:8])
                raise Stalled(f"not whole after {within_s} s, {len(found)} complaints:\n  {lines}\n{self.standing()}")
            await asyncio.sleep(0.5)

    async def _check_reads(self) -> None:
        """Every node reads every register and every version that was acknowledged, by its bytes."""
        reader = CoreClient(self.site, 100, self.ledger)
        there = sorted(self.ledger.versions.keys() - self.ledger.gone - self.ledger.maybe_gone)
        for machine in self.site.machines:
            for key in KEYS:
                await self._read(machine, lambda key=key, machine=machine: reader.read_key(machine, key))  # type: ignore[misc]
            for place in there:
                await self._read(machine, lambda place=place, machine=machine: reader.read_place(machine, place))  # type: ignore[misc]

    async def _read(self, machine: Machine, work: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(5):
            if await work():
                return
            await asyncio.sleep(0.2)
        raise Lost(f"{machine} does not read what was acknowledged, and no fault is left: {self.standing()}")

    async def _check_states(self) -> None:
        """Without writers all come to the same index and hold the same; housekeeping may still write."""
        deadline_s = self.site.loop.now_s + 20
        while True:
            found = []
            for machine in self.site.machines:
                if machine.service is None:
                    raise Refused(f"{machine} died, and no fault is left")
                meta = machine.service.core.meta
                found.append((machine.name, meta.applied_index, meta.store.digest.to_bytes(8, "big")))
            if len({index for _, index, _ in found}) == 1:
                break
            if self.site.loop.now_s > deadline_s:
                raise Stalled(f"20 s after the last write members have applied {found}: {self.standing()}")
            await asyncio.sleep(0.01)
        self.site.watch.agree(found)


def run_seed(seed: int, aim: CoreAim = ANYTHING) -> CoreWorld:
    """One run. Raises with the seed in the message."""
    world = CoreWorld(seed, aim)
    try:
        world.run()
    except Violation as error:
        raise type(error)(f"seed {seed}: {error}") from error
    except Exception as error:
        raise Crashed(f"seed {seed}: {error!r}") from error
    return world
