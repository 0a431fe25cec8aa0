"""Real metas on simulated disks and wires: operations from any node, applied once; snapshots; several groups."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edgestore.catalog import commands
from edgestore.errors import BadRequest, EdgeStoreError, TooLarge, Unavailable
from edgestore.meta.wire import Propose, encode
from edgestore.net import Method
from edgestore.records import BucketRecord, Member
from tests.sim.index import SimIndex
from tests.sim.site.lives import NodeDied
from tests.sim.site.machines import Machine
from tests.sim.site.metas import CONFIG, MetaSite, bucket, put
from tests.sim.site.wires import Weather

AWAY_S = 11.0
"""Nobody keeps the log for a member that was away for so long."""

Work = Callable[[MetaSite], Coroutine[Any, Any, None]]


def run(site: MetaSite, work: Work) -> None:
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


async def ready(site: MetaSite, group: int = 0, limit_s: float = 30.0) -> None:
    """Every node that serves is as new as the rest."""
    async with asyncio.timeout(limit_s):
        for machine in site.serving():
            assert machine.life is not None
            await machine.life.ask(site.meta(machine, group).ready())


def digest(site: MetaSite, machine: Machine, group: int = 0) -> tuple[int, bytes]:
    """Applied index and all rows."""
    meta = site.meta(machine, group)
    store = meta.store
    assert isinstance(store, SimIndex)
    return meta.applied_index, hashlib.sha256(repr(list(store.rows.items())).encode()).digest()


async def alike(site: MetaSite, group: int = 0, limit_s: float = 20.0) -> None:
    """All nodes come to hold the same."""
    async with asyncio.timeout(limit_s):
        while len(
            {digest(site, machine, group) for machine in site.machines if machine.service is not None}
        ) > 1 or any(machine.service is None for machine in site.machines):
            await asyncio.sleep(0.05)


async def followers(site: MetaSite, group: int = 0) -> list[Machine]:
    """Who does not lead, once somebody does."""
    async with asyncio.timeout(20):
        while (leader := site.leader(group)) is None:
            await asyncio.sleep(0.01)
    return [machine for machine in site.machines if machine is not leader]


@pytest.mark.parametrize("voters", [3, 1])
def test_a_put_through_any_node_is_answered_there_and_read_there(voters: int) -> None:
    async def work(site: MetaSite) -> None:
        await ready(site)
        for machine in await followers(site):
            record = await site.propose(machine, bucket(f"of-{machine.name}"))
            assert isinstance(record, BucketRecord)
            version = await site.propose(machine, put(record, "key", b"body"))
            meta = site.meta(machine)
            found = meta.state.head(record, "key")  # without a barrier: this node has applied it
            assert found is not None
            assert found.version_id == version.version_id
            assert machine.life is not None
            before_ms = machine.life.call(meta.log_time_ms)
            await asyncio.sleep(1)
            assert 900 < machine.life.call(meta.log_time_ms) - before_ms < 1200
        await alike(site)

    run(MetaSite(1, 3, voters=voters), work)


@pytest.mark.parametrize("seed", range(12))
def test_operations_are_answered_once_and_applied_once_whoever_leads(seed: int) -> None:
    rng = random.Random(seed)
    answers: dict[str, list[object]] = {}

    async def work(site: MetaSite) -> None:
        await ready(site)
        site.wires.weather = Weather(lost=0.02, doubled=0.1, overtaken=0.2)
        asked: list[asyncio.Task[None]] = []

        async def ask(machine: Machine, name: str) -> None:
            life, answers[name] = machine.life, []
            assert life is not None

            async def submit() -> None:
                outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()

                def done(value: object, error: BaseException | None) -> None:
                    answers[name].append(error or value)
                    if not outcome.done():
                        outcome.set_result(None)

                site.meta(machine).submit(1, bucket(name), done)
                await outcome

            try:
                await life.ask(submit())
            except NodeDied:
                answers[name].append(NodeDied)

        for number in range(60):
            asked.append(asyncio.ensure_future(ask(rng.choice(site.serving()), f"bucket-{number}")))
            await asyncio.sleep(rng.expovariate(30))
            leader = site.leader()
            if leader is not None and rng.random() < 0.08:
                leader.kill(power=True)
            elif leader is not None and rng.random() < 0.05:
                pairs = {(leader.member, other.member) for other in site.machines if other is not leader}
                site.wires.sever(pairs)
                site.loop.later(rng.uniform(0.2, 2), site.wires.mend)
            while not site.serving():
                await asyncio.sleep(0.05)
        site.wires.weather = Weather()
        await asyncio.wait(asked, timeout=40)
        for task in asked:
            task.result()
        await site.serve_all()
        await alike(site)
        for name, found in answers.items():
            assert len([one for one in found if one is not NodeDied]) <= 1, (name, found)
            assert isinstance(found[0], BucketRecord | Unavailable) or found[0] is NodeDied, (name, found)
            if isinstance(found[0], BucketRecord):
                assert site.meta(site.machines[0]).state.bucket(name) == found[0]
        names = [record.name for record in site.meta(site.machines[0]).state.buckets(None)]
        assert len(names) == len(set(names))
        assert sum(isinstance(found[0], BucketRecord) for found in answers.values()) > 20

    run(MetaSite(seed, 3), work)


def test_four_groups_share_one_journal() -> None:
    async def work(site: MetaSite) -> None:
        records = []
        for group in range(4):
            await ready(site, group)
            machine = (await followers(site, group))[0]
            record = await site.propose(machine, bucket(f"of-{group}"), group)
            await site.propose(machine, put(record, "key", b"%d" % group), group)
            records.append(record)
        for machine in site.machines:
            machine.kill(power=True)
        await asyncio.sleep(0.01)
        await site.serve_all()
        for group in range(4):
            await ready(site, group)
            await alike(site, group)
            for machine in site.machines:
                state = site.meta(machine, group).state
                assert [record.name for record in state.buckets(None)] == [f"of-{group}"]
                assert state.inline(records[group], state.head(records[group], "key")) == b"%d" % group

    run(MetaSite(7, 3, groups=4), work)


def test_a_group_opens_without_a_quorum_and_says_so() -> None:
    async def work(site: MetaSite) -> None:
        await ready(site)
        record = await site.propose(site.machines[0], bucket("b"))
        await alike(site)
        for machine in site.machines:
            assert machine.life is not None
            await machine.life.ask(site.meta(machine).flush())
            machine.stays_down = True
            machine.kill(power=False)
        alone = site.machines[0]
        alone.stays_down = False
        alone.start()
        async with asyncio.timeout(5):
            while alone.service is None:
                await asyncio.sleep(0.01)
        meta = site.meta(alone)
        assert meta.state.bucket("b") == record  # what is local is there at once
        assert not meta.can_read_now()
        with pytest.raises(Unavailable):
            await site.propose(alone, bucket("c"))
        for machine in site.machines:
            machine.stays_down = False
            machine.start()
        await site.serve_all()
        await ready(site)
        await site.propose(alone, bucket("d"))
        await alike(site)

    run(MetaSite(8, 3), work)


def test_a_read_that_nobody_answers_is_refused_as_one_to_try_again() -> None:
    """Also where the whole wait is over before its reader is: a node that was stopped finds both timers late."""
    config = replace(CONFIG, consensus=replace(CONFIG.consensus, read_timeout_ms=60_000))

    async def work(site: MetaSite) -> None:
        await ready(site)
        alone, *others = site.machines
        for machine in others:
            machine.stays_down = True
            machine.kill(power=False)
        assert alone.life is not None
        with pytest.raises(Unavailable):
            await alone.life.ask(site.meta(alone).read_barrier())

    run(MetaSite(9, 3, config=config), work)


@pytest.mark.parametrize("seed", range(4))
def test_operations_behind_a_stop_sign_go_again_by_themselves(seed: int) -> None:
    async def work(site: MetaSite) -> None:
        await ready(site)
        await alike(site)
        asked = []
        for number in range(80):
            machine = site.rng.choice(site.serving())
            asked.append(asyncio.ensure_future(site.propose(machine, bucket(f"bucket-{number}"))))
            await asyncio.sleep(site.rng.expovariate(200))
            leader = site.leader()
            if number % 20 == 10 and leader is not None and leader.life is not None:
                voters = site.rng.sample(site.machines, site.rng.choice((1, 3)))
                members = tuple(Member(machine.member) for machine in voters)
                with suppress(EdgeStoreError):
                    await leader.life.ask(site.meta(leader).change_members(members))
        for number, outcome in enumerate(await collect(asked)):
            assert isinstance(outcome, BucketRecord)
            assert outcome.name == f"bucket-{number}"
        await alike(site)
        assert site.status(site.machines[0]).incarnation > 0

    run(MetaSite(300 + seed, 4, voters=3), work)


async def collect(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """What all of them return, in order."""
    async with asyncio.timeout(40):
        return [await task for task in tasks]


def test_no_member_can_put_into_the_log_what_stops_all_who_apply_it() -> None:
    """Whoever is a member may forward operations: what breaks its bounds, or is too large, stays out of the log."""
    tick = commands.Operation(7, 1, 0, 0, 0, commands.Tick())
    poisoned: list[list[object]] = [
        [msgspec.structs.replace(tick, **{name: value})]
        for name in ("session", "sequence", "settled", "tenant")
        for value in (-1, (1 << 64) - 1)
    ]
    poisoned += [[msgspec.structs.replace(tick, command=commands.RaiseFeatureLevel(commands.FEATURE_LEVEL + 1))]]
    poisoned += [[msgspec.structs.replace(tick, command=commands.DeleteBucket(-1))], [b"?"], []]
    poisoned += [[msgspec.structs.replace(tick, command=commands.PutTenant(0, "c", "n" * 2000))]]
    poisoned += [[tick] * (CONFIG.consensus.entry_operations_max + 1)]
    large = commands.PutObject(1, "k", 1, 1, commands.Content(1, "", (), bytes(CONFIG.consensus.entry_bytes_max)))
    poisoned += [[msgspec.structs.replace(tick, command=large)]]

    async def work(site: MetaSite) -> None:
        await ready(site)
        away = (await followers(site))[0]
        leader = site.leader()
        assert leader is not None
        assert away.life is not None
        before = site.meta(leader).applied_index
        for operations in poisoned:
            asking = away.service.peers.call(
                leader.member, Method.PROPOSE, encode(Propose(0)), (encode(operations),), timeout_s=5
            )
            with pytest.raises(BadRequest):
                await away.life.ask(asking)
        assert site.meta(leader).applied_index == before
        assert isinstance(await site.propose(away, bucket("after")), BucketRecord)
        await alike(site)

    run(MetaSite(1, 3), work)


def test_what_breaks_its_bounds_is_refused_alone() -> None:
    """What travels to the leader in the same batch is none the worse for it."""
    limit_bytes = 16 * 1024
    config = replace(CONFIG, consensus=replace(CONFIG.consensus, entry_bytes_max=limit_bytes))

    async def work(site: MetaSite) -> None:
        await ready(site)
        away = (await followers(site))[0]
        record = await site.propose(away, bucket("b"))
        asked = [put(record, "a"), commands.DeleteBucket(-1), put(record, "huge", bytes(limit_bytes))]
        noted = {"note": "x" * (limit_bytes // 3)}
        asked += [msgspec.structs.replace(put(record, f"b{number}"), metadata=noted) for number in range(4)]
        tasks = [asyncio.create_task(site.propose(away, command)) for command in asked]
        await asyncio.wait(tasks)
        refused = [task.exception() for task in tasks]
        assert [type(error) for error in refused] == [type(None), BadRequest, TooLarge, *[type(None)] * 4]
        await alike(site)

    run(MetaSite(1, 3, config=config), work)
