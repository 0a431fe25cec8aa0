"""Membership: who dies is found by all, who lives is let live, who is accused can answer for itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgestore.cluster import Kind, Standing, Swim, SwimMessage
from edgestore.cluster.messages import Word, decode_message, encode
from edgestore.config import ClusterConfig
from tests.unit.cluster.hours import death_ms, live
from tests.unit.cluster.town import Town

OWN, OTHER, THIRD = "a" * 32, "b" * 32, "c" * 32


def lone_swim(*others: str) -> Swim:
    swim = Swim(ClusterConfig(), OWN, 7, lambda _count: 0)
    swim.set_members([OWN, *others], 0)
    return swim


def message(kind: Kind, *words: Word, nonce: int = 9, incarnation: int = 0, sequence: int = 1) -> SwimMessage:
    return SwimMessage(1, kind, sequence, nonce, incarnation, words=words)


def test_nobody_is_declared_failed_in_a_day_at_thirty_percent_loss() -> None:
    assert not live(9, 24, loss=0.3, seed=20).wrong


@pytest.mark.parametrize("count", [2, 3, 4])
def test_nor_where_few_can_confirm(count: int) -> None:
    assert not live(count, 8, loss=0.3, seed=count).wrong


@pytest.mark.parametrize(("count", "loss"), [(9, 0.3), (9, 0.0), (5, 0.3), (3, 0.0)])
def test_a_stall_of_ten_seconds_harms_nobody_else_and_heals(count: int, loss: float) -> None:
    report = live(count, 3, loss=loss, seed=3, stall_every_ms=60_000)
    assert report.stalls > 20
    assert not report.wrong
    assert not report.not_back


@pytest.mark.parametrize(("count", "deaths"), [(2, 1), (3, 1), (4, 1), (5, 1), (5, 2), (6, 2), (9, 1), (9, 2)])
def test_every_survivor_knows_of_a_death_within_three_seconds(count: int, deaths: int) -> None:
    took = sorted(death_ms(count, seed, deaths=deaths) for seed in range(200))
    assert took[197] < 3000


def test_loss_delays_the_verdict_of_many_hardly() -> None:
    took = sorted(death_ms(9, seed, loss=0.3) for seed in range(200))
    assert took[197] < 3000


def test_a_broken_connection_makes_it_quicker() -> None:
    town = Town(9, 5)
    town.run(5000)
    town.kill(town.names[0])
    town.hint(town.names[0])
    town.run(town.now_ms + 1500)
    assert set(town.views(town.names[0])) == {Standing.FAILED}


def test_a_start_that_was_never_accused_is_known_by_its_own_number_again() -> None:
    """What is believed of the start before has the same incarnation, so only the node itself can tell."""
    swim, again = lone_swim(OTHER), Swim(ClusterConfig(), OTHER, 9, lambda _count: 0)
    again.set_members([OWN, OTHER], 0)
    swim.handle(OTHER, message(Kind.PING, nonce=8), 10)
    assert swim.members.entries[OTHER].nonce == 8
    for _, told in swim.handle(OTHER, message(Kind.PING, nonce=9), 20):
        for _, answer in again.handle(OWN, told, 30):
            swim.handle(OTHER, answer, 40)
    assert swim.members.entries[OTHER].nonce == 9
    assert not again.contested()


def test_who_was_accused_before_it_was_ever_heard_is_heard_when_it_comes() -> None:
    """What it is accused of travels with every message to it, and must not make them unreadable."""
    swim, accused = lone_swim(OTHER, THIRD), Swim(ClusterConfig(), OTHER, 9, lambda _count: 0)
    accused.set_members([OWN, OTHER, THIRD], 0)
    now_ms = 0
    while swim.standing(OTHER) is Standing.ALIVE:
        now_ms += 50
        sends = swim.tick(now_ms)
    told = [decode_message(encode(one)) for to, one in [*sends, *swim.hint(OTHER, now_ms)] if to == OTHER]
    assert told
    for one in told:
        assert one is not None
        for _, answer in accused.handle(OWN, one, 10):
            swim.handle(OTHER, answer, now_ms)
    assert swim.standing(OTHER) is Standing.ALIVE


def test_one_node_that_hears_nobody_condemns_nobody() -> None:
    town = Town(5, 8)
    deaf = town.names[0]
    town.run(5000)
    town.cut = lambda _sender, receiver: receiver == deaf
    town.run(60_000)
    assert {row[2] for row in town.failed} == {deaf}
    town.cut = None
    town.run(70_000)
    assert all(view is Standing.ALIVE for name in town.names for view in town.views(name))


def test_a_lost_way_between_two_nodes_harms_neither() -> None:
    town = Town(4, 9)
    first, second = town.names[:2]
    town.cut = lambda sender, receiver: {sender, receiver} == {first, second}
    town.run(600_000)
    assert not town.failed


def test_after_a_partition_all_find_each_other_again_and_no_verdict_spreads() -> None:
    town = Town(9, 10)
    minority = set(town.names[:2])
    town.run(5000)
    town.cut = lambda sender, receiver: (sender in minority) != (receiver in minority)
    town.run(60_000)
    assert {row[2] for row in town.failed if row[1] not in minority} == minority
    town.failed, town.cut = [], None
    town.run(65_000)
    assert not town.failed
    assert all(view is Standing.ALIVE for name in town.names for view in town.views(name))


def test_a_node_that_starts_again_is_alive_at_once_and_not_taken_for_two() -> None:
    town = Town(5, 11)
    town.run(5000)
    town.kill(town.names[0])
    town.run(15_000)
    assert set(town.views(town.names[0])) == {Standing.FAILED}
    town.start(town.names[0])
    town.run(17_000)
    assert set(town.views(town.names[0])) == {Standing.ALIVE}
    assert not any(house.swim.contested() for house in town.houses.values())


def test_a_node_that_starts_again_before_anybody_misses_it_is_heard() -> None:
    """What it says of itself names its new start, which the others must come to believe in."""
    town = Town(3, 13)
    town.run(5000)
    for turn in range(4):
        name = town.names[turn % 3]
        town.kill(name)
        town.run(town.now_ms + 100)
        town.start(name)
        for version in range(8):
            town.houses[name].swim.set_status(b"again %d" % turn, version)
            town.run(town.now_ms + 500)
        for other, house in town.houses.items():
            if other != name:
                word = house.swim.statuses.newest(name)
                assert word is not None
                assert word.body == b"again %d" % turn
    assert not any(house.swim.contested() for house in town.houses.values())


def test_two_starts_of_one_member_at_a_time_are_noticed() -> None:
    swim = lone_swim(OTHER)
    for turn in range(8):
        swim.handle(OTHER, message(Kind.PING, nonce=50 + turn % 2, incarnation=turn), turn)
    assert swim.contested() == {OTHER}


def test_who_is_accused_answers_with_a_higher_incarnation() -> None:
    swim = lone_swim(OTHER)
    sends = swim.handle(OTHER, message(Kind.PING, Word(OWN, 7, 0, (OTHER,))), 1)
    assert swim.incarnation == 1
    assert {sent.kind for _, sent in sends} == {Kind.NEWS, Kind.ACK}
    assert all(sent.incarnation == 1 for _, sent in sends)


def test_old_accusations_do_not_count() -> None:
    swim = lone_swim(OTHER, THIRD)
    swim.handle(OTHER, message(Kind.PING, incarnation=4), 1)
    swim.handle(THIRD, message(Kind.PING, Word(OTHER, 9, 3, (THIRD,))), 2)
    assert swim.standing(OTHER) is Standing.ALIVE
    swim.handle(THIRD, message(Kind.PING, Word(OTHER, 9, 4, (THIRD,))), 3)
    assert swim.standing(OTHER) is Standing.SUSPECTED
    assert swim.take_changes() == [(OTHER, Standing.SUSPECTED)]


def test_a_status_reaches_everybody() -> None:
    town = Town(9, 12, loss=0.3)
    for version in range(1, 21):
        for number, name in enumerate(town.names):
            town.houses[name].swim.set_status(b"%d" % number, version)
        town.run(town.now_ms + 500)
    for name, house in town.houses.items():
        for number, other in enumerate(town.names):
            if other != name:
                word = house.swim.statuses.newest(other)
                assert word is not None
                assert word.body == b"%d" % number


def test_strangers_and_garbage_change_nothing() -> None:
    swim = lone_swim(OTHER)
    assert swim.handle(THIRD, message(Kind.PING), 1) == []
    swim.handle(OTHER, message(Kind.NEWS, Word(THIRD, 1, 5, (OTHER,))), 2)
    assert swim.standing(THIRD) is Standing.ALIVE
    assert decode_message(b"\x80garbage") is None
    assert decode_message(encode(SwimMessage(2, Kind.PING, 1, 1, 1))) is None
    assert decode_message(encode(message(Kind.PING))) == message(Kind.PING)


def test_numbers_that_leave_no_room_for_the_next_one_are_no_message() -> None:
    assert decode_message(encode(message(Kind.PING, incarnation=1 << 62))) is None
    assert decode_message(encode(message(Kind.PING, Word(OWN, 7, (1 << 64) - 1, (OTHER,))))) is None
    assert decode_message(encode(message(Kind.PING, incarnation=-1))) is None
    assert decode_message(encode(message(Kind.PING, nonce=(1 << 64) - 1))) is not None
    last = message(Kind.PING, Word(OWN, 7, (1 << 62) - 1, (OTHER,)))
    for _, sent in lone_swim(OTHER).handle(OTHER, last, 1):
        encode(sent)


def test_accusers_that_are_no_members_do_not_count() -> None:
    swim = lone_swim(OTHER, THIRD)
    swim.handle(OTHER, message(Kind.PING, Word(THIRD, 1, 0, ("x", "y", "z"))), 1)
    assert swim.standing(THIRD) is Standing.ALIVE
    swim.handle(OTHER, message(Kind.PING, Word(THIRD, 1, 0, (OTHER, "x"))), 2)
    assert swim.members.entries[THIRD].accusers == {OTHER}


def test_a_probe_for_a_member_that_was_removed_meanwhile_ends_there() -> None:
    swim = lone_swim(OTHER, THIRD)
    ((to, ping),) = swim.handle(OTHER, SwimMessage(1, Kind.PING_FOR, 5, 9, 0, target=THIRD), 1)
    assert to == THIRD
    swim.set_members([OWN, THIRD], 2)
    assert swim.handle(THIRD, message(Kind.ACK, sequence=ping.sequence), 3) == []


def test_a_lone_survivor_does_not_ask_the_dead_without_end_at_the_same_pace() -> None:
    town = Town(3, 14)
    town.run(5000)
    for name in town.names[1:]:
        town.kill(name)
    town.run(30_000)
    before = town.messages
    town.run(90_000)
    assert town.messages - before < 60 * 10
    assert all(view is not Standing.ALIVE for name in town.names[1:] for view in town.views(name))


def test_members_that_leave_are_forgotten() -> None:
    swim = lone_swim(OTHER, THIRD)
    swim.handle(OTHER, message(Kind.PING, Word(THIRD, 1, 5, (OTHER,))), 1)
    swim.set_members([OWN, OTHER], 2)
    for now_ms in range(3, 5000, 50):
        assert all(to != THIRD for to, _ in swim.tick(now_ms))
    assert swim.members.suspects.keys() <= {OTHER}


@pytest.mark.parametrize(("count", "together"), [(2, 2), (5, 4), (9, 9)])
def test_machines_that_stall_together_do_not_blame_each_other(count: int, together: int) -> None:
    for seed in range(10):
        town = Town(count, seed)
        town.run(10_000)
        stalled = town.names[:together]
        for name in stalled:
            town.stall(name, 10_000)
        town.run(40_000)
        assert {row[2] for row in town.failed} <= (set(stalled) if together < count else set())
        assert all(view is Standing.ALIVE for name in town.names for view in town.views(name))


def test_answers_that_take_long_are_answers() -> None:
    town = Town(9, 13)
    town.delay_ms = (0.2, 300.0)
    town.run(1_800_000)
    assert not town.failed


def test_on_slower_lines_with_three_times_the_times_it_takes_less_than_ten_seconds() -> None:
    wide = replace(
        ClusterConfig(),
        probe_interval_ms=1200,
        probe_timeout_ms=400,
        suspicion_min_ms=1500,
        suspicion_max_ms=12_000,
        suspicion_retry_ms=200,
    )
    took = []
    for seed in range(100):
        town = Town(5, seed, config=wide)
        town.delay_ms = (40.0, 100.0)
        town.run(10_000)
        died_ms = town.now_ms
        town.kill(town.names[0])
        town.run(died_ms + 60_000, lambda town=town: set(town.views(town.names[0])) == {Standing.FAILED})
        took.append(town.now_ms - died_ms)
    assert sorted(took)[98] < 10_000
