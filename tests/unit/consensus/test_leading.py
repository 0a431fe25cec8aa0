"""Who leads: one at a time, by a lease; to whom the leadership goes, and when a leader's heart beats."""

from __future__ import annotations

import asyncio

import pytest

from edgestore.consensus.voter import next_beat_s
from tests.unit.consensus.several import Several
from tests.unit.consensus.test_several import THREE


def test_two_leases_never_overlap() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        for turn in range(10):
            leader = await site.leader()
            await site.propose(leader, b"%d" % turn)
            site.cut_off(leader.name)
            for _ in range(200):
                assert sum(one.groups[0].can_read_now() for one in site.members.values()) <= 1
                await asyncio.sleep(0.005)
            site.cut.clear()
            await asyncio.sleep(0.1)

    site.run(main())


def test_leadership_is_handed_over_within_a_round_trip() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        await site.propose(leader, b"x")
        await site.until(lambda: leader.groups[0].status().last_index in leader.groups[0].status().matched.values())
        began_s = site.loop.time()
        assert leader.groups[0].yield_leadership()
        new = await site.leader()
        assert new is not leader
        assert site.loop.time() - began_s < 0.1

    site.run(main())


def test_leadership_goes_to_one_of_those_that_are_named() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        for _ in range(4):
            leader = await site.leader()
            group = leader.groups[0]
            await site.propose(leader, b"x")
            await site.until(lambda group=group: {group.status().last_index} == {*group.status().matched.values()})  # type: ignore[misc]
            wanted = [name for name in THREE if name != leader.name][1]
            assert not group.yield_leadership(("nobody",))
            assert group.yield_leadership((wanted,))
            assert (await site.leader()).name == wanted

    site.run(main())


def test_four_groups_share_a_journal_and_a_beat() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE, groups=4)
        leaders = [await site.leader(group) for group in range(4)]
        for group, leader in enumerate(leaders):
            for number in range(10):
                await site.propose(leader, b"%d/%d" % (group, number), group)
        for group in range(4):
            await site.until(
                lambda group=group: all(len(one.machines[group].payloads) == 10 for one in site.members.values())
            )
        for one in site.members.values():
            one.wire.sent_at_s.clear()
        await asyncio.sleep(1)
        for name in {leader.name for leader in leaders}:
            beats = {round(at_s, 6) for at_s in site.members[name].wire.sent_at_s}
            led = sum(leader.name == name for leader in leaders)
            answers = 20 * (4 - led)
            assert len(beats) <= 21 + answers, "heartbeats of all groups leave together"

    site.run(main())


@pytest.mark.parametrize("period_ms", [100, 150, 30])
def test_a_clock_of_whole_milliseconds_reaches_every_beat_exactly(period_ms: int) -> None:
    beat_s = 0.0
    for number in range(1, 20_000):
        beat_s = next_beat_s(beat_s, period_ms)
        assert beat_s == number * period_ms / 1000
    assert all(next_beat_s(at_ms / 1000, 100) == (at_ms // 100 + 1) / 10 for at_ms in range(20_000))
