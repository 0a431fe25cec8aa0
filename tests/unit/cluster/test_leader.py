"""Detector, leader and catalog together: what happens to a site when nodes die, come back and do badly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from edgestore.catalog import commands
from edgestore.cluster import Facts, Standing
from edgestore.cluster.control import ChangeVoters
from edgestore.cluster.leader import told
from edgestore.net import Outcome, Topic, Work
from edgestore.records import NodeState
from tests.sim.loop import SimLoop
from tests.unit.cluster.village import Village


def play(scene: Callable[[Village], Awaitable[None]], count: int = 5, seed: int = 1, loss: float = 0.0) -> Village:
    loop = SimLoop(steps_max=20_000_000)
    villages = []

    async def main() -> None:
        village = Village(count, seed, loss)
        villages.append(village)
        await village.start()
        try:
            await scene(village)
        finally:
            await village.stop()
            await asyncio.sleep(1)

    try:
        loop.run(main())
        assert not loop.failures
    finally:
        loop.abandon()
    return villages[0]


@pytest.mark.parametrize("count", [3, 5, 9])
def test_a_dead_node_is_down_within_three_seconds_and_up_by_itself_when_it_is_back(count: int) -> None:
    took = []

    async def scene(village: Village) -> None:
        await asyncio.sleep(20 + village.random.random())
        victim = village.names[-1]
        await village.kill(victim)
        took.append(await village.until(lambda: village.states()[-1] is NodeState.DOWN, 10))
        assert village.states()[:-1] == [NodeState.UP] * (count - 1)
        await asyncio.sleep(30)
        await village.start(victim)
        await village.until(lambda: village.states()[-1] is NodeState.UP, 5)

    for seed in range(40 // count):
        play(scene, count, seed)
    assert max(took) < 3.05


def test_a_dead_leader_is_down_soon_after_the_next_one_is_elected() -> None:
    took = []

    async def scene(village: Village) -> None:
        await asyncio.sleep(20 + village.random.random())
        await village.kill(village.names[0])
        await asyncio.sleep(0.6)
        village.leader, village.term = village.names[1], 2
        took.append(0.6 + await village.until(lambda: village.states()[0] is NodeState.DOWN, 10))
        assert village.states()[1:] == [NodeState.UP] * 4

    for seed in range(10):
        play(scene, 5, seed)
    assert max(took) < 3.05


def test_a_partition_heals_and_only_the_minority_was_down() -> None:
    async def scene(village: Village) -> None:
        await village.until(lambda: len(village.voters) == 5, 60)
        minority = set(village.names[3:])
        village.network.partition(minority, set(village.names[:3]))
        await asyncio.sleep(30)
        assert village.states() == [NodeState.UP] * 3 + [NodeState.DOWN] * 2
        village.network.heal()
        await village.until(lambda: village.states() == [NodeState.UP] * 5, 30)
        await asyncio.sleep(60)
        moves = [command for _, command in village.history if isinstance(command, commands.SetNodeState)]
        assert sorted(move.number for move in moves) == [4, 4, 5, 5]

    play(scene)


def test_a_site_at_thirty_percent_loss_is_left_alone() -> None:
    async def scene(village: Village) -> None:
        await village.until(lambda: len(village.voters) == 5, 60)
        await asyncio.sleep(600)

    village = play(scene, loss=0.3)
    assert village.history == []
    assert village.incarnation == 3


def test_voters_grow_with_the_site_and_survive_a_death() -> None:
    async def scene(village: Village) -> None:
        await village.until(lambda: len(village.voters) == 3, 30)
        third = village.voters[2]
        await village.kill(third)
        await asyncio.sleep(village.config.voter_down_ms / 1000 - 10)
        assert third in village.voters
        await village.until(lambda: third not in village.voters, 60)
        assert len(village.voters) == 3

    play(scene, count=4)


def test_a_slow_node_loses_quality_by_what_the_others_say() -> None:
    async def scene(village: Village) -> None:
        slow = village.names[2]

        async def call(factor: float, seconds: float) -> None:
            for _ in range(int(seconds * 10)):
                await asyncio.sleep(0.1)
                for name, detector in village.detectors.items():
                    for other in village.names:
                        if other != name:
                            took_us = 1000 * (factor if slow in (name, other) else 1)
                            detector.saw(other, Work.READ, Outcome.GOOD, took_us / 1e6, 0)

        await call(1, 30)
        await call(10, 60)
        assert [node.quality for node in village.site.state.nodes()] == [100, 100, 5, 100, 100]
        await call(1, 400)
        assert {node.quality for node in village.site.state.nodes()} == {100}

    play(scene)


def test_statuses_reach_everybody_and_the_pin_floor_is_the_least() -> None:
    async def scene(village: Village) -> None:
        for number, name in enumerate(village.names, 10):
            village.facts[name] = Facts(pin_floor_index=number, applied_index=number)
        await asyncio.sleep(10)
        for detector in village.detectors.values():
            assert sorted(seen.status.applied_index for seen in detector.statuses().values()) == [10, 11, 12, 13, 14]
            assert detector.pin_floor_index(village.names) == 10
            assert detector.pin_floor_index(village.names[2:]) == 12
            assert detector.pin_floor_index(["somebody else"]) == 0

    play(scene, loss=0.3)


def test_every_node_hears_that_one_serves_clients_and_forgets_it_when_that_one_is_gone() -> None:
    async def scene(village: Village) -> None:
        detectors = village.detectors
        await asyncio.sleep(5)
        assert not any(detector.are_clients_served() for detector in detectors.values())
        busy, *others = village.names
        village.facts[busy] = Facts(serves_clients=True)
        await asyncio.sleep(5)
        assert all(detector.are_clients_served() for detector in detectors.values())
        await village.kill(busy)
        await asyncio.sleep(10)
        assert not any(detectors[name].are_clients_served() for name in others)

    play(scene)


def test_content_is_taken_while_a_majority_of_the_voters_is_there_and_has_room() -> None:
    async def scene(village: Village) -> None:
        detectors, names = village.detectors, village.names

        def has_room() -> set[bool]:
            return {detectors[name].has_room(lambda: names[:3]) for name in (*names[:2], *names[3:])}

        village.facts[names[0]] = Facts(is_full=True)
        await asyncio.sleep(5)
        assert has_room() == {True}
        await village.kill(names[2])
        await asyncio.sleep(10)
        assert has_room() == {False}
        village.facts[names[0]] = Facts()
        await asyncio.sleep(5)
        assert has_room() == {True}

    play(scene)


def test_a_full_leader_hands_over_to_a_voter_that_has_room() -> None:
    async def scene(village: Village) -> None:
        await village.until(lambda: len(village.voters) == 5, 60)
        full = {name: Facts(is_full=True) for name in (*village.names[:2], village.names[3])}
        village.facts |= full
        took_s = await village.until(lambda: village.leader not in full, 10)
        assert took_s < 3
        term = village.term
        await asyncio.sleep(30)
        assert village.term == term
        qualities = [node.quality for node in village.site.state.nodes()]
        assert qualities == [5, 5, 100, 5, 100]

    play(scene)


def test_where_all_are_full_nobody_hands_over() -> None:
    async def scene(village: Village) -> None:
        await village.until(lambda: len(village.voters) == 5, 60)
        village.facts = {name: Facts(is_full=True) for name in village.names}
        await asyncio.sleep(10)
        term = village.term
        await asyncio.sleep(60)
        assert village.term == term <= 2, "the first to say it may hand over to one that has not said it yet"

    play(scene)


def test_the_log_counts_the_chunks_of_a_decision_and_names_few_members() -> None:
    chunk_ids = tuple(bytes([number]) * 16 for number in range(200))
    assert told(commands.ReclaimedChunks(chunk_ids)) == "ReclaimedChunks(chunk_ids: 200)"
    assert told(ChangeVoters(("one", "two"))) == "ChangeVoters(members=('one', 'two'))"


def test_condemned_chunks_are_forgotten_when_all_have_reported() -> None:
    async def scene(village: Village) -> None:
        site = village.site
        bucket = site.bucket()
        extent = replace(site.extent(), layout_epoch=site.state.layout().epoch)
        site.put(bucket, "key", site.content(extent))
        site.delete(bucket, "key")
        ((chunk_id, index),) = site.state.condemned(10)
        for name in village.names[:-1]:
            village.facts[name] = Facts(reclaimed_index=index)
        await asyncio.sleep(20)
        assert site.state.condemned(10)
        village.facts[village.names[-1]] = Facts(reclaimed_index=index)
        await village.until(lambda: not site.state.condemned(10), 10)
        assert village.history[-1][1] == commands.ReclaimedChunks((chunk_id,))

    play(scene)


def test_a_node_that_was_removed_is_watched_no_more() -> None:
    async def scene(village: Village) -> None:
        await asyncio.sleep(5)
        village.apply(commands.SetNodeState(5, NodeState.REMOVED, NodeState.UP))
        await asyncio.sleep(1)
        assert all(len(village.detectors[name].standings()) == 3 for name in village.names[:4])

    play(scene)


def test_garbage_is_dropped_and_counted() -> None:
    async def scene(village: Village) -> None:
        detector = village.detectors[village.names[0]]
        await asyncio.sleep(1)
        for garbage in (b"", b"\xff" * 100, b"\x80\x04cos\nsystem\n"):
            assert village.peers[village.names[1]].send(village.names[0], Topic.SWIM, garbage)
        await asyncio.sleep(1)
        assert village.metrics[village.names[0]].value("cluster_messages_dropped_total") == 3
        assert detector.standing(village.names[1]) is Standing.ALIVE

    play(scene)


def test_a_killed_process_is_down_sooner_because_its_connections_break() -> None:
    took = []

    async def scene(village: Village) -> None:
        await asyncio.sleep(20 + village.random.random())
        await village.kill(village.names[-1], told=True)
        took.append(await village.until(lambda: village.states()[-1] is NodeState.DOWN, 10))

    for seed in range(20):
        play(scene, 5, seed)
    assert max(took) < 1.5
