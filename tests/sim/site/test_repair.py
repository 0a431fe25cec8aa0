"""Repair on simulated disks and wires: in the end every fragment is at its owner, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from edgestore.catalog import commands
from edgestore.chunks import Need, Repair, sources_of
from edgestore.errors import Unavailable
from edgestore.records import ExtentRecord, NodeState
from tests.sim.site.chunk_lives import ChunkSite
from tests.sim.site.net_wires import NetWires
from tests.sim.site.wires import Wires

Work = Callable[[ChunkSite], Awaitable[None]]


def run(site: ChunkSite, work: Work) -> None:
    """To its end, and nothing may have failed in between."""

    async def main() -> None:
        for machine in site.machines:
            machine.start()
        await site.serve_all()
        await work(site)

    try:
        site.loop.run(main())
        assert not site.loop.failures, site.loop.failures
    finally:
        site.loop.abandon()


async def fill(site: ChunkSite, count: int = 6, *, through: int = 3) -> None:
    """Objects of all kinds: copies, one stripe, several. `through`: the first so many nodes."""
    for number in range(count):
        size = (20_000, 300_000, 1_000_000, 130_000)[number % 4]
        await site.put(number % through + 1, f"key-{number}", site.rng.randbytes(size))


@pytest.mark.parametrize("nodes", [3, 6])
def test_a_node_that_stays_down_is_made_anew_elsewhere_and_comes_back_to_nothing_left_over(nodes: int) -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site)
        await site.until_whole()
        victim = site.machines[-1]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(nodes, NodeState.DOWN)
        before = site.catalog.proposed["PlaceExtent"]
        await asyncio.sleep(20)
        if nodes == 6:
            assert site.catalog.proposed["PlaceExtent"] == before, "a short absence costs nothing"
        await asyncio.sleep(30)
        if nodes == 6:
            assert site.catalog.proposed["PlaceExtent"] > before
        await site.check_reads()
        victim.stays_down = False
        victim.start()
        await site.serve_all()
        site.catalog.turn(nodes, NodeState.UP)
        await site.until_whole()

    run(ChunkSite(1, nodes), work)


def test_a_removed_node_is_made_good_for_at_once() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site)
        victim = site.machines[4]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(5, NodeState.REMOVED)
        await site.until_whole(15)
        await site.check_reads()
        assert site.catalog.proposed["PlaceExtent"] > 0

    run(ChunkSite(2, 6), work)


def test_every_node_sees_soon_that_others_have_mended_the_last_of_it() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site, 24)
        victim = site.machines[4]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(5, NodeState.REMOVED)
        while set(site.needs()) != {Need.NOTHING}:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        for machine in site.serving():
            progress = site.life(machine.number).repair.progress
            assert (progress.extents_left, progress.bytes_left, progress.is_current) == (0, 0, True)

    run(ChunkSite(2, 6), work)


def test_a_drained_node_is_empty_in_the_end() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site)
        site.catalog.turn(2, NodeState.DRAINING)
        await site.until_whole(30)
        assert not list(site.life(2).segments.chunk_ids())

    run(ChunkSite(3, 6), work)


def test_a_node_that_joins_gets_its_share_and_hardly_more_moves() -> None:
    async def work(site: ChunkSite) -> None:
        for number in range(24):
            await site.put(number % 6 + 1, f"key-{number}", site.rng.randbytes(140_000))
        moved = site.fragments()
        site.join(7)
        await site.until_whole(60)
        assert list(site.life(7).segments.chunk_ids())
        kept = sum((moved & site.fragments()).values())
        assert kept >= 0.75 * sum(moved.values()), "about a seventh moves"

    run(ChunkSite(4, 6, spare=1), work)


@pytest.mark.parametrize("nodes", [3, 5, 6])
def test_what_a_lone_node_wrote_is_encoded_anew_as_others_join(nodes: int) -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site, through=1)
        assert site.schemes() == {(1, 0)}
        for number in range(2, nodes + 1):
            site.join(number)
            await asyncio.sleep(site.rng.uniform(0, 2))
        await site.until_whole(60)
        assert site.schemes() == {3: {(2, 1), (1, 1)}, 5: {(3, 2), (1, 2)}, 6: {(4, 2), (1, 2)}}[nodes]

    run(ChunkSite(5, 1, spare=nodes - 1), work)


def test_another_policy_of_a_bucket_encodes_it_anew() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site)
        for tolerate, scheme, kinds in ((1, "3+1", {(3, 1), (1, 1)}), (None, "", {(4, 2), (1, 2)})):
            site.catalog.do(commands.SetBucketPolicy(site.bucket.bucket_id, tolerate, scheme))
            await site.until_whole(60)
            assert site.schemes() == kinds

    run(ChunkSite(6, 6), work)


def test_copies_written_while_a_node_was_away_are_encoded_anew_when_it_is_back() -> None:
    async def work(site: ChunkSite) -> None:
        victim = site.machines[2]
        victim.stays_down = True
        victim.kill(power=False)
        site.catalog.turn(3, NodeState.DOWN)
        for number in range(4):
            await site.put(number % 2 + 1, f"key-{number}", site.rng.randbytes(400_000))
        assert site.schemes() == {(1, 1)}
        victim.stays_down = False
        victim.start()
        await site.serve_all()
        site.catalog.turn(3, NodeState.UP)
        await site.until_whole(60)
        assert site.schemes() == {(2, 1)}

    run(ChunkSite(7, 3), work)


def test_damaged_and_lost_fragments_are_made_anew_without_a_command() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site)
        await site.until_whole()
        before = site.catalog.proposed["PlaceExtent"]
        life, site.is_spoilt = site.life(2), True
        names = [(chunk, shard) for chunk in life.segments.chunk_ids() for shard in life.segments.shards(chunk)]
        for turn, (chunk_id, shard) in enumerate(names):
            if turn % 2:
                life.segments.mark_damaged(chunk_id, shard, "a flipped bit")
            else:
                life.segments.delete(chunk_id, shard)
        assert site.complaints()
        await site.until_whole(60)
        assert site.catalog.proposed["PlaceExtent"] == before

    run(ChunkSite(8, 5), work)


def test_what_is_deleted_goes_from_every_disk_also_from_one_that_was_away() -> None:
    async def work(site: ChunkSite) -> None:
        await fill(site, 8)
        victim = site.machines[3]
        victim.stays_down = True
        victim.kill(power=True)
        site.catalog.turn(4, NodeState.DOWN)
        for number in range(0, 8, 2):
            site.delete(f"key-{number}")
        await asyncio.sleep(5)
        site.finish_reclaim()
        assert not site.catalog.state.condemned(1), "who is down is not waited for"
        victim.stays_down = False
        victim.start()
        await site.serve_all()
        site.catalog.turn(4, NodeState.UP)
        await site.until_whole(60)

    run(ChunkSite(9, 4), work)


async def lost_but_for(site: ChunkSite, gone: list[int]) -> None:
    """The nodes go at once, for ever as far as anybody knows, and repair has had its time."""
    site.is_spoilt = True
    for number in gone:
        machine = site.machines[number - 1]
        machine.stays_down = True
        machine.kill(power=True)
    for number in gone:
        site.catalog.turn(number, NodeState.DOWN)
    await asyncio.sleep(60)


async def comes_back(site: ChunkSite, number: int, key: str) -> bool:
    """With the last of what there was. Whether another node reads it, and nothing counts as lost."""
    machine = site.machines[number - 1]
    machine.stays_down = False
    machine.start()
    await asyncio.sleep(3)
    site.catalog.turn(number, NodeState.UP)
    await asyncio.sleep(30)
    via = next(one.number for one in site.serving() if one.number != number)
    return await site.get(via, key) == site.objects[key].data and not site.needs()[Need.LOST]


def only_extent(site: ChunkSite) -> ExtentRecord:
    """Of the one object there is."""
    return site.catalog.state.all_extents(b"", 2).extents[0][1]


async def with_an_exception(site: ChunkSite) -> tuple[int, list[int]]:
    """Three copies, the first of them on a node that is not its owner: that one, and the owners."""
    await site.put(1, "key", site.rng.randbytes(20_000))
    extent, state = only_extent(site), site.catalog.state
    placement, chunk_id = state.placement(extent.layout_epoch), extent.chunks[0].chunk_id
    owners = list(placement.owners(chunk_id, 3))
    spare = next(node for node in placement.ranking(chunk_id) if node not in owners)
    life = site.machines[spare - 1].life
    assert life is not None
    await life.ask(site.life(spare).mover.pull(sources_of(extent)[0], 0))
    site.is_spoilt = True
    site.life(owners[0]).segments.delete(chunk_id, 0)
    site.catalog.do(
        commands.PlaceExtent(
            7, extent.extent_id, extent.generation, extent.revision, extent.layout_epoch, ((0, 0, spare),), ()
        )
    )
    return spare, owners


def test_an_exception_on_a_node_that_was_away_is_found_again() -> None:
    async def work(site: ChunkSite) -> None:
        spare, owners = await with_an_exception(site)
        await lost_but_for(site, [spare, *owners[1:]])
        assert await comes_back(site, spare, "key")

    run(ChunkSite(1, 6), work)


def test_an_owner_that_was_away_while_another_joined_is_found_again() -> None:
    """Whichever of the owners it is: the layout may give its shards to the one that joined."""

    async def work(site: ChunkSite) -> None:
        await site.put(1, "key", site.rng.randbytes(20_000))
        extent = only_extent(site)
        owners = site.catalog.state.placement(extent.layout_epoch).owners(extent.chunks[0].chunk_id, 3)
        site.join(7)
        site.catalog.do(commands.SetNodeWeight(7, 10_000))
        await lost_but_for(site, list(owners))
        assert await comes_back(site, owners[site.rng.randrange(3)], "key")

    for seed in range(3):
        run(ChunkSite(seed, 6, spare=1), work)


def test_a_node_says_that_it_has_what_the_record_calls_missing() -> None:
    async def work(site: ChunkSite) -> None:
        spare, owners = await with_an_exception(site)
        extent = only_extent(site)
        await lost_but_for(site, [spare, *owners[1:]])
        site.catalog.do(
            commands.PlaceExtent(
                7,
                extent.extent_id,
                extent.generation,
                only_extent(site).revision,
                site.catalog.state.layout().epoch,
                (),
                ((0, 0), (0, 1), (0, 2)),
            )
        )
        assert len(only_extent(site).missing) == 3
        assert await comes_back(site, spare, "key")

    run(ChunkSite(1, 6), work)


def test_what_others_have_mended_is_not_looked_at_for_ever() -> None:
    async def work(site: ChunkSite) -> None:
        await site.put(1, "key", site.rng.randbytes(20_000))
        await site.until_whole()
        extent = only_extent(site)

        async def put_off(repair: Repair) -> None:
            repair._put_off((7, extent.extent_id), Unavailable("a test says so"))

        for machine in site.serving():
            assert machine.life is not None
            await machine.life.ask(put_off(site.life(machine.number).repair))
        await asyncio.sleep(30)
        assert not any(site.life(machine.number).repair._later for machine in site.serving())

    run(ChunkSite(1, 6), work)


async def deaths(site: ChunkSite, chance: random.Random) -> None:
    """Lives end in the middle of a step or of a call of the disk, and begin again."""
    for turn in range(12):
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        alive = site.serving()
        if len(alive) >= 6:
            chance.choice(alive).plan_death()
        site.check_claims()
        if turn in (2, 7):
            site.delete(f"key-{turn}")
        if turn % 4 == 3:
            site.catalog.do(commands.SetNodeWeight(chance.randint(3, 6), chance.choice((30, 100, 300))))
    for machine in site.machines:
        machine.forget_plans()
    await site.serve_all()


async def absence(site: ChunkSite, chance: random.Random) -> None:
    """A node is away for a while, short or long, and the site goes on."""
    number = chance.randint(3, 6)
    victim = site.machines[number - 1]
    victim.stays_down = True
    victim.kill(power=True)
    site.catalog.turn(number, NodeState.DOWN)
    await asyncio.sleep(chance.uniform(1, 45))
    for turn in range(2):
        size = chance.choice((20_000, 300_000))
        await site.put(1, f"late-{number}-{turn}-{site.loop.now_s}", site.rng.randbytes(size))
    victim.stays_down = False
    victim.start()
    await site.serve_all()
    site.catalog.turn(number, NodeState.UP)
    await asyncio.sleep(chance.uniform(0, 6))
    site.check_claims()


def storm(seed: int) -> Counter[Need]:
    """Nodes come and go, policies and weights change, and wires lose, double and overtake. What the extents need when
    it is over."""
    left: Counter[Need] = Counter()

    async def work(site: ChunkSite) -> None:
        chance = random.Random(seed)
        await fill(site, 8)
        site.wires.weather.lost, site.wires.weather.doubled, site.wires.weather.overtaken = 0.02, 0.02, 0.05
        site.join(7)
        if seed % 2:
            site.catalog.turn(2, NodeState.DRAINING)
        if seed % 3 == 0:
            site.catalog.do(commands.SetBucketPolicy(site.bucket.bucket_id, 1, "3+1"))
        await deaths(site, chance)
        for _ in range(chance.randint(1, 3)):
            await absence(site, chance)
        site.wires.weather.lost = site.wires.weather.doubled = site.wires.weather.overtaken = 0.0
        await site.until_whole(180)
        left.update(site.needs())

    run(ChunkSite(seed, 6, spare=1, wires=Wires if seed % 4 else NetWires), work)
    return left


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_step_the_site_becomes_whole(seed: int) -> None:
    assert set(storm(seed)) == {Need.NOTHING}
