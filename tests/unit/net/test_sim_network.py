"""Peers over simulated machines: the same promises, in virtual time, replayed by a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from edgestore.config import NetConfig
from edgestore.errors import Unavailable
from edgestore.net import Caller, Lane, Method, Peers, Reply, Topic
from tests.sim.loop import SimClock, SimLoop
from tests.sim.network import SimNetwork, Weather
from tests.unit.net.site import Site, introduce, member_of

ONE, TWO, THREE = (member_of(number) for number in (1, 2, 3))
Members = dict[str, tuple[Peers, tuple[str, int]]]


def simulate(work: Callable[[SimNetwork, Members], Coroutine[Any, Any, None]], seed: int = 1) -> SimNetwork:
    loop = SimLoop()
    network = SimNetwork(random.Random(seed))

    async def main() -> None:
        site, members = Site(seed), {}
        for number in (1, 2, 3):
            peers = site.peers(number, network.machine(member_of(number)), clock=SimClock(loop))
            peers.serve(Method.STATUS, echo)
            members[member_of(number)] = (peers, await peers.start(f"10.0.0.{number}", 7000))
        introduce(members)
        await asyncio.sleep(1)
        try:
            await work(network, members)
        finally:
            for peers, _ in members.values():
                await peers.close()

    loop.run(main())
    assert not loop.failures
    loop.close()
    return network


async def echo(caller: Caller, head: bytes, payload: memoryview) -> Reply:
    return Reply(caller.member.encode() + head, (payload,))


def test_machines_talk_to_each_other() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        for source, (peers, _) in members.items():
            for target in members:
                if source != target:
                    answer = await peers.call(target, Method.STATUS, b"+", (b"body",), timeout_s=1)
                    assert (answer.head, bytes(answer.payload)) == (source.encode() + b"+", b"body")

    simulate(work)


def test_a_partition_is_noticed_and_healed() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        one = members[ONE][0]
        seen: list[str] = []
        one.on_disconnected(seen.append)
        network.partition({ONE}, {TWO, THREE})
        with pytest.raises(Unavailable):
            await one.call(TWO, Method.STATUS, b"", timeout_s=1)
        await asyncio.sleep(25)
        assert sorted(seen) == [TWO, THREE]
        assert not one.is_connected(TWO)
        assert members[TWO][0].is_connected(THREE)
        network.heal()
        await asyncio.sleep(5)
        await one.call(TWO, Method.STATUS, b"", timeout_s=1)

    simulate(work)


def test_what_is_lost_doubled_and_overtaken_harms_no_call() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        network.weather = Weather(lost=0.2, doubled=0.2, overtaken=0.3)
        one, answered = members[ONE][0], 0
        for number in range(200):
            try:
                answer = await one.call(TWO, Method.STATUS, b"%d" % number, timeout_s=0.5)
            except Unavailable:
                continue
            assert answer.head == ONE.encode() + b"%d" % number
            answered += 1
        assert 80 < answered < 180

    simulate(work)


def test_a_killed_machine_is_gone_at_once_and_dialled_again_after_its_return() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        one = members[ONE][0]
        network.kill(TWO)
        await asyncio.sleep(1)
        assert not one.is_connected(TWO)
        with pytest.raises(Unavailable):
            await one.call(TWO, Method.STATUS, b"", timeout_s=1)
        again = Site(1).peers(2, network.machine(TWO))
        again.serve(Method.STATUS, echo)
        await again.start("10.0.0.2", 7000)
        await asyncio.sleep(3)
        await one.call(TWO, Method.STATUS, b"", timeout_s=1)
        await again.close()

    simulate(work)


def test_a_slow_link_pauses_the_sender_and_refuses_messages() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        one = members[ONE][0]
        network.bytes_per_s[ONE, TWO] = 100_000
        taken = sum(one.send(TWO, Topic.RAFT, bytes(1_000_000)) for _ in range(100))
        assert 0 < taken < 40
        with pytest.raises(Unavailable):
            await one.call(TWO, Method.STATUS, b"", timeout_s=1)

    simulate(work)


def test_a_bulk_connection_that_swallows_everything_is_replaced_while_the_others_go_on() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        one, config = members[ONE][0], NetConfig()
        network.bytes_per_s[TWO, ONE] = 1000
        with pytest.raises(Unavailable):
            await one.call(TWO, Method.STATUS, b"", (bytes(1_000_000),), timeout_s=1, lane=Lane.BULK)
        network.bytes_per_s.clear()  # what has left once is on its way for a quarter of an hour
        await one.call(TWO, Method.STATUS, b"", timeout_s=1)
        lost: list[str] = []
        one.on_disconnected(lost.append)
        await asyncio.sleep(2 * config.silence_max_s)
        for _ in range(2 * config.bulk_connections):
            await one.call(TWO, Method.STATUS, b"", timeout_s=1, lane=Lane.BULK)
        assert not lost

    simulate(work)


def test_a_bulk_connection_that_was_lost_while_another_was_dialled_is_not_chosen() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        one, most = members[ONE][0], NetConfig().bulk_connections
        await one.call(TWO, Method.STATUS, b"", timeout_s=1, lane=Lane.BULK)
        peer = one._peers[TWO]
        lost, peer._bulk = peer._bulk, []
        assert peer._dialling_bulk is not None
        async with peer._dialling_bulk:
            call = one.call(TWO, Method.STATUS, b"", timeout_s=1, lane=Lane.BULK)
            waiting = asyncio.get_running_loop().create_task(call)
            await asyncio.sleep(0.01)
            lost[0].close()
            peer._bulk = lost * most
        await waiting

    simulate(work)


def test_the_same_seed_gives_the_same_run() -> None:
    async def work(network: SimNetwork, members: Members) -> None:
        network.weather = Weather(lost=0.1, doubled=0.1, overtaken=0.2)
        await asyncio.sleep(60)

    first, second, other = (simulate(work, seed) for seed in (7, 7, 8))
    assert (first.carried, first.rng.random()) == (second.carried, second.rng.random())
    assert first.rng.random() != other.rng.random()
