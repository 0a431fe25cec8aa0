"""Repair keeps to its rates, to a lower one where the site has clients, and looks no oftener than it has to."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edgestore.chunks import Need
from edgestore.chunks.survey import Survey
from edgestore.records import NodeState
from tests.sim.site.chunk_lives import REPAIR, ChunkSite
from tests.sim.site.test_repair import run

NODES = 7
OBJECTS, OBJECT_BYTES = 12, 1_000_000
FAST, SLOW = 800_000, 200_000


def repaired_bytes_and_s(*, has_clients: bool) -> tuple[int, float]:
    """What the survivors had to read when one of seven nodes was removed, and how long that took."""
    found: list[float] = []

    async def work(site: ChunkSite) -> None:
        for number in range(OBJECTS):
            await site.put(number % 3 + 1, f"key-{number}", site.rng.randbytes(OBJECT_BYTES))
        await site.until_whole()
        before = site.fragments()
        victim = site.machines[NODES - 1]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(NODES, NodeState.REMOVED)
        begun_s = site.loop.now_s
        async with asyncio.timeout(600):
            while set(site.needs()) != {Need.NOTHING}:
                await asyncio.sleep(0.1)
        made = sum((site.fragments() - before).values())
        found.extend((made * OBJECT_BYTES, site.loop.now_s - begun_s))

    site = ChunkSite(1, NODES)
    site.config = replace(REPAIR, bytes_per_s=FAST, beside_clients_bytes_per_s=SLOW, piece_bytes=64 * 1024)
    site.has_clients = lambda: has_clients
    run(site, work)
    return int(found[0]), found[1]


def test_no_node_reads_more_for_repair_than_it_may_and_less_where_clients_are_served() -> None:
    for has_clients, bytes_per_s in ((False, FAST), (True, SLOW)):
        read_bytes, took_s = repaired_bytes_and_s(has_clients=has_clients)
        fastest_s = read_bytes / (6 * bytes_per_s)  # six nodes share it
        assert fastest_s > 2
        assert fastest_s - 1 <= took_s <= 5 * fastest_s, "what a second left unused may be made up for"


def test_a_node_looks_oftener_only_while_the_last_of_it_is_being_mended() -> None:
    async def work(site: ChunkSite) -> None:
        def surveys() -> list[Survey]:
            return [site.life(machine.number).repair._survey for machine in site.serving()]

        for number in range(2 * OBJECTS):
            await site.put(1, f"key-{number}", site.rng.randbytes(OBJECT_BYTES))
        await site.until_whole()
        victim = site.machines[NODES - 1]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(NODES, NodeState.DOWN)
        await asyncio.sleep(10)
        assert all(survey.progress.extents_left > 0 for survey in surveys())
        assert not any(survey.is_near_end for survey in surveys()), "it waits for the node"
        site.catalog.turn(NODES, NodeState.REMOVED)
        near_end = False
        async with asyncio.timeout(60):
            while set(site.needs()) != {Need.NOTHING}:
                await asyncio.sleep(0.05)
                near_end |= any(survey.is_near_end for survey in surveys())
        assert near_end
        await asyncio.sleep(5)
        assert not any(survey.is_near_end or survey.progress.extents_left for survey in surveys())

    site = ChunkSite(1, NODES)
    site.config = replace(REPAIR, lazy_wait_s=1000, critical_wait_s=1000, bytes_per_s=SLOW)
    run(site, work)
