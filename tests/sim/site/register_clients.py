"""Clients of registers: they ask any machine, follow it to the leader, try again, give up, and write down what they
were told."""

from __future__ import annotations

import asyncio
import random

from edgestore.errors import NotLeader, RetryOperation, StorageFull, TooBusy, Unavailable
from tests.sim.site.linearizability import UNKNOWN, Kind, Operation
from tests.sim.site.lives import NodeDied
from tests.sim.site.machines import Machine, Site
from tests.sim.site.registers import Write

KEYS = ("a", "b", "c")
PATIENCE_S = 1.0


class History:
    """What all clients were told, by key. A place on its time line is a call or an end: no two are the same."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[Operation]] = {}
        self.acknowledged: list[str] = []
        self._places = 0

    def place(self) -> int:
        """Now."""
        self._places += 1
        return self._places

    def add(self, key: str, operation: Operation) -> None:
        """It has ended, or was given up."""
        self.by_key.setdefault(key, []).append(operation)


class NotDone(Exception):
    """It did nothing, certainly."""


class RegisterClient:
    """One thing at a time. `lazy`: gives up early and often, which leaves many outcomes unknown."""

    def __init__(self, site: Site, number: int, history: History) -> None:
        self.site, self.history, self.name = site, history, f"client-{number}"
        self.rng = random.Random(f"{site.seed} {self.name}")
        self.lazy = self.rng.choice((0.0, 0.3, 0.9))
        self.mean_wait_s = self.rng.choice((0.002, 0.02, 0.1))
        self._sent = 0
        self._seen: dict[str, str | None] = {}

    async def run(self) -> None:
        """Until somebody cancels it."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / self.mean_wait_s))
            key = self.rng.choice(KEYS)
            kind = self.rng.choices((Kind.READ, Kind.WRITE, Kind.SWAP), weights=(5, 4, 2))[0]
            if kind is Kind.READ:
                await self.read(key, self.rng.choice(self.site.machines))
            else:
                await self.write(key, kind)

    async def read(self, key: str, machine: Machine) -> None:
        """From this machine, whatever it is in the group. One that fails tells nothing."""
        call = self.history.place()
        service, life = machine.service, machine.life
        if service is None or life is None:
            return
        try:
            async with asyncio.timeout(PATIENCE_S * 6):
                value = await life.ask(service.read(key))
        except (Unavailable, NodeDied, TimeoutError):
            return
        self._seen[key] = value
        self.history.add(key, Operation(call, self.history.place(), Kind.READ, value, who=f"{self.name}@{machine}"))

    async def write(self, key: str, kind: Kind, machine: Machine | None = None) -> bool:
        """A value that nobody else writes, or nothing at all (a delete). `machine`: who is asked first. Returns whether
        it was acknowledged."""
        self._sent += 1
        value = f"{self.name}.{self._sent}" if kind is Kind.SWAP or self.rng.random() < 0.9 else None
        expected = self._seen.get(key) if kind is Kind.SWAP else None
        write = Write(f"{self.name}/{self._sent}", kind.value, key, value, expected)
        call = self.history.place()
        try:
            swapped = await self._send(write, machine or self.rng.choice(self.site.machines))
        except NotDone:
            return False
        except asyncio.CancelledError:
            self.history.add(key, Operation(call, UNKNOWN, kind, value, expected, who=self.name))
            raise
        if swapped is None:
            self.history.add(key, Operation(call, UNKNOWN, kind, value, expected, who=self.name))
            return False
        operation = Operation(call, self.history.place(), kind, value, expected, swapped, self.name)
        self.history.add(key, operation)
        self.history.acknowledged.append(write.operation_id)
        if swapped:
            self._seen[key] = value
        return True

    async def _send(self, write: Write, machine: Machine) -> bool | None:
        """Whether it took effect; None where nobody knows. Raises NotDone."""
        may_be_done = False
        for _ in range(self.rng.randint(1, 12)):
            service, life = machine.service, machine.life
            if service is None or life is None:
                machine = self.rng.choice(self.site.machines)
                await asyncio.sleep(self.rng.uniform(0.001, 0.03))
                continue
            try:
                async with asyncio.timeout(PATIENCE_S):
                    asked = service.propose if self.rng.random() < 0.5 else service.write
                    return await life.ask(asked(write))
            except NotLeader as error:
                leader = self.site.by_member(str(error.fields.get("leader", "")))
                machine = leader if leader is not None else self.rng.choice(self.site.machines)
                await asyncio.sleep(self.rng.uniform(0.001, 0.03))
            except (RetryOperation, TooBusy, StorageFull):
                await asyncio.sleep(self.rng.uniform(0.001, 0.03))
            except (Unavailable, NodeDied, TimeoutError):
                may_be_done = True
                if self.rng.random() < self.lazy:
                    return None
                machine = self.rng.choice(self.site.machines)
        if may_be_done:
            return None
        raise NotDone
