"""Members that agree: who leads, what is durable where, and what may be read, over snapshots and lost power."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from edgestore.consensus import Role
from edgestore.consensus.interface import Snapshot
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import Behind
from edgestore.errors import NotLeader, RetryOperation, TooBusy, Unavailable
from edgestore.records import Member
from tests.unit.consensus.several import CONFIG, Several

THREE = ("a", "b", "c")


def voters(*names: str) -> tuple[Member, ...]:
    """As `change_members` takes them."""
    return tuple(Member(name) for name in names)


def test_what_was_acknowledged_is_synced_on_a_majority() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        for number in range(20):
            await site.propose(leader, b"%d" % number)
            index = leader.machines[0].applied_index
            synced = [one for one in site.members.values() if one.groups[0].status().synced_index >= index]
            assert len(synced) >= 2
        await site.until(lambda: all(len(one.machines[0].payloads) == 20 for one in site.members.values()))
        assert len({tuple(one.machines[0].entries) for one in site.members.values()}) == 1

    site.run(main())


def test_a_follower_refuses_and_says_who_leads() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        await site.propose(leader, b"x")
        follower = next(one for one in site.members.values() if one is not leader)
        with pytest.raises(NotLeader) as refused:
            await site.propose(follower, b"y")
        assert refused.value.fields["leader"] == leader.name == follower.groups[0].leader()

    site.run(main())


def test_another_leads_soon_and_the_old_one_answers_nothing_more() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        old = await site.leader()
        await site.propose(old, b"before")
        site.cut_off(old.name)
        began_s = site.loop.time()
        lost = asyncio.ensure_future(site.propose(old, b"lost"))
        await site.until(lambda: any(one.groups[0].can_read_now() for one in site.members.values() if one is not old))
        assert site.loop.time() - began_s < 1.0
        assert not old.groups[0].can_read_now(), "its lease ended before another could lead"
        new = await site.leader()
        await site.propose(new, b"after")
        site.cut.clear()
        with pytest.raises(RetryOperation):
            await lost
        await site.until(lambda: old.machines[0].payloads == [b"before", b"after"])

    site.run(main())


def test_a_member_that_hears_nobody_does_not_disturb_those_that_do() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        lonely = next(one for one in site.members.values() if one is not leader)
        site.cut_off(lonely.name)
        await asyncio.sleep(5)
        assert lonely.groups[0].status().term == leader.groups[0].status().term
        site.cut.clear()
        await asyncio.sleep(1)
        assert await site.leader() is leader

    site.run(main())


def test_a_voter_that_hears_no_leader_knows_of_none_until_it_hears_one() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        await site.propose(leader, b"x")
        other = next(one for one in site.members.values() if one is not leader)
        site.cut_off(other.name)
        await site.until(lambda: not other.groups[0].leader())
        site.cut.clear()
        await site.until(lambda: other.groups[0].leader() == leader.name)
        assert leader.groups[0].status().term == other.groups[0].status().term

    site.run(main())


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_follower_reads_what_was_acknowledged_or_nothing(is_cut: bool) -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        follower = next(one for one in site.members.values() if one is not leader)
        for number in range(20):
            await site.propose(leader, b"%d" % number)
            await follower.groups[0].read_barrier()
            assert len(follower.machines[0].payloads) == number + 1
        if is_cut:
            site.cut_off(follower.name)
            with pytest.raises(Unavailable):
                await follower.groups[0].read_barrier()

    site.run(main())


def test_a_learner_follows_and_reads() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        await site.propose(leader, b"before it came")
        await site.add("d", founders=THREE)
        learner = site.members["d"]
        await site.propose(leader, b"after it came")
        await learner.groups[0].read_barrier()
        assert learner.machines[0].payloads == [b"before it came", b"after it came"]
        assert learner.groups[0].status().role is Role.LEARNER

    site.run(main())


def test_a_learner_reads_at_once_where_the_members_changed_before_it_came() -> None:
    site = Several()

    async def main() -> None:
        await site.add("a")
        await site.add("b", founders=("a",))
        await site.until(lambda: site.members["b"].machines[0].entries == site.members["a"].machines[0].entries)
        await (await site.leader()).groups[0].change_members(voters("a", "b"))
        await site.propose(await site.leader(), b"behind the stop-sign")
        began_s = site.loop.time()
        await site.add("c", founders=("a",))
        learner = site.members["c"]
        await learner.groups[0].read_barrier()
        assert learner.machines[0].payloads == [b"behind the stop-sign"]
        assert site.loop.time() - began_s < 0.1, "it waited for the next entry"

    site.run(main())


def test_a_follower_far_behind_takes_a_snapshot_and_goes_on_voting() -> None:
    site = Several(config=replace(CONFIG, log_kept_bytes=2000, log_behind_max_bytes=4000))

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        behind = next(one for one in site.members.values() if one is not leader)
        site.cut_off(behind.name)
        for number in range(60):
            await site.propose(leader, b"%d" % number * 200)
        site.cut.clear()
        await site.until(lambda: behind.machines[0].entries == leader.machines[0].entries)
        assert behind.machines[0].received
        await site.propose(leader, b"after")
        await behind.groups[0].read_barrier()
        assert behind.machines[0].payloads[-1] == b"after"

    site.run(main())


def test_entries_of_four_groups_are_durable_with_one_sync() -> None:
    """Each member syncs once for what it proposes, and once for what comes from others at about the same time."""
    rounds = 20
    site = Several()

    async def main() -> None:
        await site.add(*THREE, groups=4)
        leaders = [await site.leader(group) for group in range(4)]
        syncs = dict.fromkeys(THREE, 0)
        for name in THREE:
            site.members[name].disk.sync_fails = partial(counted, syncs, name)
        for _ in range(rounds):
            async with asyncio.TaskGroup() as tasks:
                for group, leader in enumerate(leaders):
                    tasks.create_task(site.propose(leader, b"%d" % group, group))
            await asyncio.sleep(0.01)
        assert all(rounds <= count <= 2 * rounds for count in syncs.values())

    site.run(main())


def counted(syncs: dict[str, int], name: str, path: str) -> bool:
    """A sync that does not fail."""
    syncs[name] += path.startswith("journal/")
    return False


def test_every_member_may_lose_power_at_any_time() -> None:
    for seed in range(6):
        site = Several(seed=seed)

        async def main(site: Several = site) -> None:
            await site.add(*THREE)
            acknowledged: list[bytes] = []
            for turn in range(12):
                for number in range(site.rng.randint(1, 8)):
                    payload = b"%d/%d" % (turn, number)
                    try:
                        async with asyncio.timeout(1):
                            await site.propose(await site.leader(), payload)
                        acknowledged.append(payload)
                    except (Unavailable, TimeoutError):
                        pass
                for name in site.rng.sample(THREE, site.rng.choice((1, 1, 2, 3))):
                    await site.lose_power(name)
            await site.propose(await site.leader(), b"last")
            machines = [one.machines[0] for one in site.members.values()]
            await site.until(lambda: all(b"last" in machine.payloads for machine in machines))
            assert len({tuple(machine.entries) for machine in machines}) == 1
            assert set(acknowledged) <= set(machines[0].payloads)

        site.run(main())


def test_a_snapshot_is_acknowledged_when_its_record_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that comes between the two is answered by what is on the disk (rule 2)."""
    site = Several(config=replace(CONFIG, log_kept_bytes=2000, log_behind_max_bytes=4000))
    installed: list[tuple[RaftJournal, int]] = []
    install = RaftJournal.install

    def noting(raft_journal: RaftJournal, snapshot: Snapshot) -> bool:
        installed.append((raft_journal, raft_journal.last_index))
        return install(raft_journal, snapshot)

    monkeypatch.setattr(RaftJournal, "install", noting)

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        behind = next(one for one in site.members.values() if one is not leader)
        site.cut_off(behind.name)
        for number in range(60):
            await site.propose(leader, b"%d" % number * 200)
        site.cut.clear()
        behind.files.slow_s = 0.4
        await site.until(lambda: bool(installed))
        raft_journal, had = installed[0]
        assert raft_journal.last_index > had
        assert raft_journal.synced_index <= had
        await site.until(lambda: behind.machines[0].applied_index == leader.machines[0].applied_index)
        assert raft_journal.synced_index == raft_journal.last_index

    site.run(main())


def test_nothing_is_flushed_between_a_snapshot_in_the_log_and_one_in_the_machine() -> None:
    """The log does not reach back any more to what the machine has applied."""
    site = Several(config=replace(CONFIG, log_kept_bytes=2000, log_behind_max_bytes=4000))
    refused: list[str] = []

    async def flush() -> None:
        raise AssertionError("it was flushed")

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        behind = next(one for one in site.members.values() if one is not leader)
        site.cut_off(behind.name)
        for number in range(60):
            await site.propose(leader, b"%d" % number * 200)
        site.cut.clear()
        behind.files.slow_s = 0.4
        group, machine = behind.groups[0], behind.machines[0]
        await site.until(lambda: group.status().last_index > machine.applied_index + 30)
        for ask in (lambda: group.snapshot(flush), group.read_barrier):
            try:
                async with asyncio.timeout(0.1):
                    await ask()
            except (TooBusy, TimeoutError) as error:
                refused.append(type(error).__name__)
        with pytest.raises(TooBusy):
            group.snapshot_base()
        await site.until(lambda: machine.applied_index == leader.machines[0].applied_index)
        assert group.snapshot_base().index == machine.applied_index

    site.run(main())
    assert refused == ["TooBusy", "TimeoutError"]


def test_only_a_voter_is_heard_as_a_leader() -> None:
    site = Several()

    async def main() -> None:
        await site.add(*THREE)
        leader = await site.leader()
        status = leader.groups[0].status()
        leader.groups[0].on_message("stranger", Behind(0, status.incarnation, status.term + 5, 1))
        assert leader.groups[0].status().term == status.term
        await site.propose(leader, b"x")

    site.run(main())
