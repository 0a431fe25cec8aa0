"""Members of a group change: who may, when it happens, and who missed it catches up."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import pytest

from edgestore.consensus import Role, force_members
from edgestore.consensus.voter import Voter
from edgestore.disk import Journal
from edgestore.errors import Conflict, TooBusy
from edgestore.records import Member
from tests.sim.disk import SimFiles
from tests.unit.consensus.several import CONFIG, DISK, Several
from tests.unit.consensus.test_several import THREE, voters


def test_voters_grow_from_one_to_five_and_one_is_replaced() -> None:
    site = Several()

    async def main() -> None:
        await site.add("a")
        names, sent = ["a"], 0
        for count in (2, 3, 5):
            new = ["abcde"[number] for number in range(len(names), count)]
            await site.add(*new, founders=("a",))
            names += new
            sent = await change(names, sent)
        await site.add("f", founders=("a",))
        sent = await change([*names[1:], "f"], sent)
        await site.until(lambda: all(len(one.machines[0].payloads) == sent for one in site.members.values()))
        assert site.members["a"].groups[0].status().role is Role.LEARNER
        assert len({tuple(one.machines[0].entries) for one in site.members.values()}) == 1

    async def change(names: list[str], sent: int) -> int:
        while True:
            leader = await site.leader()
            try:
                await leader.groups[0].change_members(voters(*names))
                break
            except (TooBusy, Conflict):
                await asyncio.sleep(0.05)
        began_s = site.loop.time()
        leader = await site.leader()
        await site.propose(leader, b"%d" % sent)
        assert site.loop.time() - began_s <= 0.3, "writes paused too long"
        assert sorted(leader.groups[0].status().voters) == sorted(names)
        return sent + 1

    site.run(main())


def test_members_change_only_when_a_majority_of_the_next_has_caught_up() -> None:
    site = Several()

    async def main() -> None:
        await site.add("a")
        leader = await site.leader()
        with pytest.raises(TooBusy):
            await leader.groups[0].change_members(voters("a", "b"))
        with pytest.raises(Conflict):
            await leader.groups[0].change_members(voters("a"))
        await site.propose(leader, b"goes on")

    site.run(main())


def test_a_voter_that_missed_the_end_of_its_incarnation_catches_up() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        away = next(one for one in site.members.values() if one is not leader)
        site.cut_off(away.name)
        stay = [name for name in THREE if name != away.name]
        await leader.groups[0].change_members(voters(*stay))
        leader = await site.leader()
        await site.propose(leader, b"without it")
        site.cut.clear()
        await site.until(lambda: away.machines[0].payloads == [b"without it"])
        assert away.groups[0].status().role is Role.LEARNER
        assert away.machines[0].incarnations == [1]

    site.run(main())


def test_a_survivor_goes_on_alone_when_it_is_told_to() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        for number in range(5):
            await site.propose(leader, b"%d" % number)
        survivor = next(one for one in site.members.values() if one is not leader)
        await site.until(lambda: len(survivor.machines[0].payloads) == 5)
        for one in site.members.values():
            for group in one.groups:
                group.close()
        await survivor.journal.close()
        journal = Journal.open(SimFiles(survivor.disk, site.loop), "journal", DISK, bytes)
        index, _ = await force_members(journal, 0, (Member(survivor.name),), skipped=1 << 16)
        await journal.close()
        site.members.clear()
        await site.add(survivor.name, founders=(survivor.name,), disk=survivor.disk)
        again = site.members[survivor.name]
        await site.propose(again, b"goes on")
        assert again.machines[0].payloads == [b"0", b"1", b"2", b"3", b"4", b"goes on"]
        assert len(again.machines[0].incarnations) == 1
        assert again.machines[0].entries[index - 1][0] == index

    site.run(main())


@pytest.mark.parametrize("is_broken", [False, True], ids=["the rule", "without it"])
def test_a_leader_that_does_not_know_yet_that_it_has_ended_gives_no_read(is_broken: bool) -> None:
    """Its stop-sign is committed by the others and not on its own disk: they may go on, and its lease still runs."""
    site = Several(config=replace(CONFIG, heartbeat_ms=100, election_min_ms=300, election_max_ms=600))
    seen: list[bool] = []

    async def main() -> None:
        await site.add(*THREE)
        await site.leader()
        await site.add("d", "e", "f", founders=THREE)
        old = await site.leader()
        await site.until(lambda: set(old.groups[0].status().fetched) == {"d", "e", "f"})
        await site.propose(old, b"before")
        await asyncio.sleep(0.1)
        old.files.slow_s = 0.5
        change = asyncio.ensure_future(old.groups[0].change_members(voters("d", "e", "f")))
        new = next(one for one in site.members.values() if one.name == "d")
        await site.until(new.groups[0].can_read_now)
        await site.propose(new, b"acknowledged")
        assert old.groups[0].is_leader
        await old.groups[0].read_barrier()
        seen.append(b"acknowledged" in old.machines[0].payloads)
        change.cancel()

    broken = mock.patch.object(Voter, "has_stopped", False) if is_broken else nullcontext()
    with broken:
        site.run(main())
    assert seen == [not is_broken]
