"""What may be removed from a site, by the fragments that are there; on simulated disks and wires."""

from __future__ import annotations

from edgestore.catalog import commands
from edgestore.chunks import Loss
from edgestore.errors import Conflict
from edgestore.records import NodeState
from tests.sim.site.chunk_lives import ChunkSite
from tests.sim.site.test_repair import only_extent, run


async def loss_without(site: ChunkSite, number: int, via: int) -> Loss:
    """As a node sees it."""
    life = site.machines[via - 1].life
    assert life is not None
    return await life.ask(site.life(via).repair.loss_without(number))


async def two_copies(site: ChunkSite) -> tuple[int, int, int]:
    """The two nodes that hold the object, and one that does not."""
    site.catalog.do(commands.SetBucketPolicy(site.bucket.bucket_id, 1, ""))
    await site.put(1, "key", site.rng.randbytes(20_000))
    extent = only_extent(site)
    first, second = site.catalog.state.placement(extent.layout_epoch).owners(extent.chunks[0].chunk_id, 2)
    return first, second, next(number for number in range(1, 5) if number not in (first, second))


def test_the_last_holder_speaks_against_its_removal_until_others_have_it() -> None:
    async def work(site: ChunkSite) -> None:
        first, second, other = await two_copies(site)
        before = await loss_without(site, second, other)
        assert before.extents == 0
        site.catalog.turn(first, NodeState.REMOVED)
        assert (await loss_without(site, second, other)).extents == 1
        assert (await loss_without(site, other, other)).extents == 0
        late = commands.SetNodeState(second, NodeState.REMOVED, NodeState.UP, before.epoch)
        assert isinstance(site.catalog.do(late), Conflict), "two that are removed at once"
        site.machines[first - 1].stays_down = True
        site.machines[first - 1].kill(power=True)
        await site.until_whole(30)
        assert (await loss_without(site, second, other)).extents == 0

    run(ChunkSite(1, 4), work)


def test_a_node_whose_return_is_waited_for_speaks_against_its_removal() -> None:
    async def work(site: ChunkSite) -> None:
        first, second, other = await two_copies(site)
        for number in (first, second):
            site.machines[number - 1].stays_down = True
            site.machines[number - 1].kill(power=True)
            site.catalog.turn(number, NodeState.DOWN)
        for number in (first, second):
            assert (await loss_without(site, number, other)).extents == 1

    run(ChunkSite(1, 4), work)
