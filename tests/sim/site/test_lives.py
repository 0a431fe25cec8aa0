"""Lives on one loop: what a dead one leaves, what a held one misses, and whose clock shows what."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from edgestore.errors import DiskFailed
from tests.sim.disk import Disk, SimFiles
from tests.sim.loop import Stuck
from tests.sim.model import Refused
from tests.sim.site.lives import LIFE, Life, NodeClock, NodeDied, SiteLoop
from tests.sim.site.machines import Machine, Site


class Idle:
    """A service that does nothing."""

    def look(self) -> None:
        """Nothing to tell."""


def run(loop: SiteLoop, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return loop.run(work)
    finally:
        loop.abandon()


def test_a_dead_life_runs_nothing_more_and_the_others_go_on() -> None:
    loop = SiteLoop()
    seen: list[str] = []

    async def tick(name: str) -> None:
        try:
            while True:
                seen.append(name)
                await asyncio.sleep(1)
        finally:
            seen.append(f"{name} ended")

    async def main() -> list[str]:
        one, two = Life(loop, "one", 1), Life(loop, "two", 2)
        one.start(tick("one"))
        two.start(tick("two"))
        await asyncio.sleep(2.5)
        one.kill()
        await asyncio.sleep(2)
        return list(seen)

    assert run(loop, main()) == ["one", "two", "one", "two", "one", "two", "two", "two"]


def test_a_life_dies_before_any_of_its_steps() -> None:
    counts = []
    for crash_at in range(1, 8):
        loop, count = SiteLoop(), [0]

        async def tick(count: list[int]) -> None:
            while True:
                count[0] += 1
                await asyncio.sleep(0)

        async def main(loop: SiteLoop = loop, count: list[int] = count, crash_at: int = crash_at) -> None:
            life = Life(loop, "one", 1)
            life.crash_at = crash_at
            with pytest.raises(NodeDied):
                await life.ask(tick(count))
            with pytest.raises(NodeDied):
                await life.ask(tick(count))

        run(loop, main())
        counts.append(count[0])
    assert counts == list(range(7))


def test_a_crash_inside_a_call_of_the_disk_ends_that_node_only() -> None:
    loop = SiteLoop()
    disks = [Disk(random.Random(number)) for number in range(2)]
    disks[0].crash_at = 7

    async def write(files: SimFiles) -> None:
        file = files.open("journal", create=True)
        for number in range(20):
            try:
                file.write_synced(number, b"x")
            finally:
                await asyncio.sleep(0.01)

    async def main() -> None:
        lives = [Life(loop, "one", 1), Life(loop, "two", 2)]
        files = [SimFiles(disk, loop, life) for disk, life in zip(disks, lives, strict=True)]
        with pytest.raises(NodeDied):
            await lives[0].ask(write(files[0]))
        await lives[1].ask(write(files[1]))

    run(loop, main())
    assert disks[0].operations == 7
    assert len(disks[1].entries["journal"].durable) == 20
    assert not loop.failures


def test_a_held_life_stands_still_and_then_gets_everything_in_order() -> None:
    loop = SiteLoop()
    seen: list[tuple[float, int]] = []

    async def main() -> None:
        life = Life(loop, "one", 1)
        for number in range(5):
            loop.call_at(
                loop.now_s + number, lambda number=number: seen.append((loop.now_s, number)), context=life.context()
            )
        await asyncio.sleep(0.5)
        life.hold(2)
        await asyncio.sleep(10)

    run(loop, main())
    assert [(round(at_s - 1000, 3), number) for at_s, number in seen] == [(0, 0), (2.5, 1), (2.5, 2), (3, 3), (4, 4)]


def test_clocks_run_at_the_rate_of_their_node_and_no_timer_is_early() -> None:
    loop = SiteLoop()

    async def slept() -> tuple[float, float, bool]:
        before_s, begun_s = loop.time(), loop.now_s
        await asyncio.sleep(10)
        return before_s, loop.now_s - begun_s, loop.time() - before_s >= 10

    async def main() -> None:
        await asyncio.sleep(5)
        fast, slow = Life(loop, "fast", 1, rate=2.0), Life(loop, "slow", 2, rate=0.5, boot_s=1000)
        assert await fast.ask(slept()) == (0, pytest.approx(5), True)
        assert await slow.ask(slept()) == (pytest.approx(5), pytest.approx(20), True)
        assert NodeClock(fast).boot_ms() == pytest.approx(50_000)
        assert NodeClock(slow, -1000).wall_ms() == NodeClock.FIRST_WALL_MS - 1000 + int(loop.now_s * 1000)

    run(loop, main())


def test_what_is_asked_runs_in_the_life_and_tells_what_it_raised() -> None:
    loop = SiteLoop()

    async def who() -> str:
        life = LIFE.get()
        assert life is not None
        raise KeyError(life.name)

    async def main() -> None:
        life = Life(loop, "one", 1)
        assert LIFE.get() is None
        with pytest.raises(KeyError, match="one"):
            await life.ask(who())
        assert life.call(lambda: LIFE.get()) is life

    run(loop, main())
    assert not loop.failures


def test_a_run_with_deaths_replays_exactly() -> None:
    def once(seed: int) -> tuple[int, int]:
        loop, rng = SiteLoop(), random.Random(seed)

        async def talk(life: Life, others: list[Life]) -> None:
            while True:
                await asyncio.sleep(rng.random())
                other = rng.choice(others)
                if not other.crashed:
                    loop.call_soon(lambda: rng.random(), context=other.context())

        async def main() -> None:
            lives = [Life(loop, str(number), number, rate=1 + number / 1000) for number in range(4)]
            for life in lives:
                life.start(talk(life, lives))
            for life in lives[:3]:
                await asyncio.sleep(rng.uniform(1, 4))
                life.kill()

        run(loop, main())
        return loop.trace, loop.steps

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_a_lost_wake_up_is_noticed() -> None:
    loop = SiteLoop()

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(Stuck):
        run(loop, main())


def test_a_node_stops_of_a_failed_sync_although_its_disk_is_well_again() -> None:
    """The answer of a worker comes later than the sync itself: faults may have ended between the two."""
    site = Site(1, 1)
    machine = site.machines[0]

    async def open_service(machine: Machine, life: Life, files: SimFiles) -> Idle:
        file = files.open("file", create=True)
        done = partial(machine.stopped, life)
        files.worker("writer").write_synced(file, 0, b"data", lambda error: done(error) if error else None)
        return Idle()

    async def main() -> int:
        site.open_service = open_service
        machine.plan_failed_sync(among=1)
        machine.start()
        while DiskFailed not in machine.files.troubles:
            await asyncio.sleep(1e-6)
        machine.forget_plans()
        await asyncio.sleep(10)
        return machine.lives

    assert run(site.loop, main()) == 2


def test_a_node_that_stops_without_a_reason_is_a_violation() -> None:
    site = Site(1, 1)

    async def open_service(machine: Machine, life: Life, files: SimFiles) -> Idle:
        machine.stopped(life, DiskFailed("the node says so"))
        return Idle()

    async def main() -> None:
        site.open_service = open_service
        site.machines[0].start()
        await asyncio.sleep(10)

    with pytest.raises(Refused, match="the node says so"):
        run(site.loop, main())
