"""Runs cover a range exactly once and in order; the budget is never overdrawn; numbers settle in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgestore.chunks.facts import Source
from edgestore.chunks.numbers import ChunkNumbers
from edgestore.chunks.reading import ReadBudget, RunCutter, units_of
from edgestore.disk import FragmentInfo, FragmentUnit
from edgestore.disk.fragments import Fragment
from edgestore.records import ChunkRef

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@given(sizes, st.data(), st.lists(st.sampled_from([4, 16]), min_size=1, max_size=5))
def test_runs_cover_a_range_once_and_in_order(lengths: list[int], data: st.DataObject, steps: list[int]) -> None:
    chunks = [ChunkRef(1, number, size) for number, size in enumerate(lengths)]
    offset = data.draw(st.integers(0, sum(lengths)))
    length = data.draw(st.integers(0, sum(lengths) - offset))
    plain = [(number, at) for number, size in enumerate(lengths) for at in range(size)]
    cutter, found, turn = RunCutter([Source(chunk) for chunk in chunks], offset, length), [], 0
    while (source := cutter.source) is not None:
        run = cutter.cut(steps[turn % len(steps)])
        assert run is not None
        assert run.source is source
        step, turn = steps[turn % len(steps)], turn + 1
        assert run.offset // step == (run.offset + run.length - 1) // step  # no border of the step inside
        found += [(run.source.chunk.number, at) for at in range(run.offset, run.offset + run.length)]
    assert cutter.cut(steps[0]) is None
    assert found == plain[offset : offset + length]


@given(sizes, st.data())
def test_the_units_of_a_range_are_those_that_hold_it_and_no_more(lengths: list[int], data: st.DataObject) -> None:
    units = tuple(FragmentUnit(size, size // 2 + 1, 1) for size in lengths)
    info = FragmentInfo(1, 512, Fragment(b"", 1, 0, 0, 0, 0, sum(u.stored_bytes for u in units), units, b""))
    offset = data.draw(st.integers(0, sum(lengths) - 1))
    length = data.draw(st.integers(1, sum(lengths) - offset))
    owner = [number for number, size in enumerate(lengths) for _ in range(size)]
    span = units_of(info, offset, length)
    assert (span.first, span.last) == (owner[offset], owner[offset + length - 1])
    assert span.plain_offset == sum(lengths[: span.first])
    assert span.stored_offset == sum(unit.stored_bytes for unit in units[: span.first])


def test_the_read_budget_is_never_overdrawn() -> None:
    budget = ReadBudget(10)
    assert budget.take(6)
    assert not budget.take(5)
    budget.give(6)
    assert budget.take(10)


@given(st.permutations(range(6)))
def test_the_low_water_mark_stops_at_the_oldest_open_outcome(order: list[int]) -> None:
    numbers, open_ones = ChunkNumbers(3), set(range(6))
    assert [numbers.take() for _ in range(6)] == list(range(6))
    for number in order:
        assert numbers.low_water() == min(open_ones)
        numbers.settle(number)
        open_ones.discard(number)
    assert numbers.low_water() == 6
