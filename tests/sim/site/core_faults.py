"""What else goes wrong where nodes keep bytes: a bit or a sector of a platter; and what operators do: nodes are
drained, removed, replaced, and leaders hand over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from edgestore.core import INDEX_FOLDER
from edgestore.disk.segment_files import segment_path
from edgestore.disk.segment_rows import CHUNK_ID_BYTES, FRAGMENTS, FRAGMENTS_END, PLACE
from edgestore.errors import EdgeStoreError
from tests.sim.sectors import bad_sector_in_a_segment
from tests.sim.site.core_clients import Ledger
from tests.sim.site.cores import CoreSite
from tests.sim.site.faults import Fault, Faults
from tests.sim.site.lives import NodeDied
from tests.sim.site.machines import Machine

NODES_TO_SPARE = 3
"""A machine is replaced only where so many are left to vote and to make its fragments anew."""

TRIES = 20
"""Until a page is found all of whose fragments may be damaged."""


class CoreFaults(Faults):
    """Faults and turns of one run. A run either damages fragments or loses a disk: both at once may be more than was
    promised to be survived."""

    def __init__(
        self, site: CoreSite, ledger: Ledger, kinds: tuple[Fault, ...] = (), turns: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(site, site.leaders)
        self.cores, self.ledger = site, ledger
        self.loses_a_disk = self.rng.random() < 0.4
        self.has_lost = False
        self.working = 0
        """Operators that have not done yet what they began."""
        known = {
            "yield": self.yield_leadership,
            "flip": self.damage_a_fragment,
            "replace": self.replace_one,
            "drain": self.drain_one,
        }
        names = turns if turns is not None else ("yield", "replace" if self.loses_a_disk else "flip", "drain")
        self.turns = tuple(known[name] for name in names)
        if kinds:
            self.kinds = list(kinds)

    async def yield_leadership(self) -> None:
        """As a node that drains does."""
        for leader in self.cores.leaders()[:1]:
            assert leader.life is not None
            leader.life.call(leader.service.core.meta._consensus.yield_leadership)

    async def damage_a_fragment(self) -> None:
        """On the platter, in one fragment of a chunk: never in two of one chunk."""
        machine = self.victim()
        if len(self.site.machines) < 2:
            return
        if self.rng.random() < 0.5:
            self._flip_a_bit(machine)
        else:
            self._spoil_a_sector(machine)

    def _spoil_a_sector(self, machine: Machine) -> None:
        """Or those that are bad can be read again, with what was made anew elsewhere meanwhile. Some machines lose
        their power with it: the start has to go round."""
        disk, now_s = machine.disk, self.site.loop.now_s
        if self.rng.random() < 0.2:
            self.log.append(f"{now_s:.4f} all sectors of {machine} can be read")
            for content in disk.entries.values():
                content.unreadable.clear()
            return
        found = (bad_sector_in_a_segment(disk, self.rng) for _ in range(TRIES))
        bad = next((bad for bad in found if bad is not None and not bad.chunk_ids & self.ledger.flips), None)
        if bad is None:
            return
        self.ledger.flips |= bad.chunk_ids
        self.log.append(f"{now_s:.4f} on {machine} a sector is bad: {bad.path} at {bad.page}")
        bad.apply(disk)
        if self.rng.random() < 0.5:
            machine.kill(power=True)

    def _flip_a_bit(self, machine: Machine) -> None:
        disk, rng = machine.disk, self.rng
        store = disk.stores.get(INDEX_FOLDER)
        keys = list(store.flushed.irange(FRAGMENTS, FRAGMENTS_END)) if store is not None else []
        if not keys:
            return
        key = rng.choice(keys)
        number, offset, reserved = PLACE.unpack_from(store.flushed[key])  # type: ignore[union-attr]
        chunk_id = key[1 : 1 + CHUNK_ID_BYTES]
        content = disk.entries.get(segment_path("segments", number))
        at, bit = offset + rng.randrange(reserved), rng.randrange(8)
        if content is None or at >= min(len(content.durable), len(content.cached)) or chunk_id in self.ledger.flips:
            return
        self.ledger.flips.add(chunk_id)
        self.log.append(f"{self.site.loop.now_s:.4f} a bit of {chunk_id.hex()} on {machine} is flipped")
        content.durable[at] ^= 1 << bit
        content.cached[at] ^= 1 << bit

    async def replace_one(self) -> None:
        """A machine loses its disk, or is taken out while it runs; its node is removed, and it joins as another."""
        site = self.cores
        if self.has_lost or len(site.machines) <= NODES_TO_SPARE - 1:
            return
        victim = self.rng.choice(site.machines)
        number = site.number_of(victim.member)
        if not number or not self._may_lose():
            return
        self.has_lost = True
        fate = site.fates[victim.number]
        fate.is_removed = True
        self.log.append(f"{site.loop.now_s:.4f} {victim}, node {number}, is replaced")
        try:
            if self.rng.random() < 0.6:
                victim.stays_down = True
                victim.kill(power=True)
                await asyncio.sleep(self.rng.choice((0.0, 0.5, 3.0)))
        finally:
            self._begin(lambda: self._replace(victim, number))

    async def drain_one(self) -> None:
        """A node gives away what it holds, while it serves. It stays in the site, or is removed when it is empty, and
        its machine joins anew."""
        site = self.cores
        victim = self.rng.choice(site.machines)
        number = site.number_of(victim.member)
        if self.has_lost or len(site.machines) < NODES_TO_SPARE or not number or not self._may_lose():
            return
        self.has_lost = True
        is_removed = self.rng.random() < 0.5
        self.log.append(f"{site.loop.now_s:.4f} {victim}, node {number}, is drained, and removed: {is_removed}")
        self._begin(lambda: self._drain(victim, number, is_removed=is_removed))

    async def _drain(self, victim: Machine, number: int, *, is_removed: bool) -> None:
        while not await self._is_now(number, "draining"):
            await asyncio.sleep(0.2)
        self.cores.fates[victim.number].is_drained = True
        if not is_removed:
            return
        while victim.service is None or list(victim.service.core.segments.chunk_ids()):
            await asyncio.sleep(0.5)
        self.cores.fates[victim.number].is_removed = True
        await self._replace(victim, number)

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Operators go on when the faults have stopped."""
        self.working += 1

        async def done() -> None:
            await work()
            self.working -= 1

        self.cores.loop.later(0, lambda: asyncio.get_running_loop().create_task(self._carry_out(done)))

    async def _replace(self, victim: Machine, number: int) -> None:
        site = self.cores
        while not await self._is_now(number, "removed", but=victim):
            await asyncio.sleep(0.2)
        victim.stays_down = True
        await asyncio.sleep(0.5)
        site.wipe(victim)
        await site.give_token(victim)
        victim.stays_down = False
        victim.start()

    async def _is_now(self, number: int, state: str, but: Machine | None = None) -> bool:
        with suppress(EdgeStoreError, NodeDied, TimeoutError, AssertionError):
            await self.cores.ask_somebody(lambda core: core.site.set_state(number, state), but)
        return any(
            row.number == number and row.state.name == state.upper()
            for machine in self.cores.serving()
            if machine is not but
            for row in machine.service.core.meta.state.nodes()
        )

    def _may_lose(self) -> bool:
        """Whether a majority is left of the voters, as everybody knows them."""
        voters = {machine.service.core.meta.status().voters for machine in self.cores.serving()}
        return bool(voters) and all(len(some) >= NODES_TO_SPARE for some in voters)
