"""Behind a stop-sign older entries change nothing and are not remembered; who proposed hears where it is applied."""

from __future__ import annotations

import pytest

from edgestore.catalog import Applier, commands
from edgestore.errors import BucketExists, Corrupt, RetryOperation
from tests.unit.catalog.site import OWNER, SESSION, MemoryStore, Site


def entry(incarnation: int, *operations: commands.Operation, level: int = 1) -> bytes:
    return commands.encode_entry(commands.Entry(level, 0, incarnation, 1_000_000, operations))


def create(sequence: int, name: str = "bucket", session: int = SESSION) -> commands.Operation:
    command = commands.CreateBucket(name, OWNER, 0, "us-east-1")
    return commands.Operation(session, sequence, 0, 1_000_000, OWNER, command)


@pytest.fixture
def applier() -> Applier:
    return Site().applier


def test_an_operation_behind_a_stop_sign_is_sent_again_under_its_id(applier: Applier) -> None:
    index = applier.applied_index
    applier.begin_incarnation(index + 1, 9, 4)
    assert (applier.applied_index, applier.site.incarnation, applier.site.term) == (index + 1, 4, 9)
    (sent_back,) = applier.apply(index + 2, 9, entry(0, create(90)))
    assert isinstance(sent_back, RetryOperation)
    assert applier.state.buckets() == []
    (made,) = applier.apply(index + 3, 9, entry(4, create(90)))
    assert made.name == "bucket"  # type: ignore[attr-defined]
    (again,) = applier.apply(index + 4, 9, entry(4, create(90)))
    assert again == made


def test_the_incarnation_is_kept_and_a_stop_sign_comes_once() -> None:
    site = Site()
    index = site.applier.applied_index
    site.applier.begin_incarnation(index + 1, 9, 1)
    site.applier.begin_incarnation(index + 1, 9, 1)
    site.reopen()
    assert (site.applier.applied_index, site.applier.site.incarnation) == (index + 1, 1)
    for place, incarnation in ((index + 3, 2), (index + 2, 1), (index + 2, 0)):
        with pytest.raises(Corrupt):
            site.applier.begin_incarnation(place, 9, incarnation)


def test_an_entry_of_an_incarnation_to_come_is_refused(applier: Applier) -> None:
    with pytest.raises(Corrupt, match="incarnation"):
        applier.apply(applier.applied_index + 1, 1, entry(3, create(90)))


def test_an_entry_above_the_level_of_the_site_is_refused(applier: Applier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "FEATURE_LEVEL", 2)
    with pytest.raises(Corrupt, match="feature level"):
        applier.apply(applier.applied_index + 1, 1, entry(0, create(90), level=2))


def test_the_outcomes_of_the_own_session_are_told_wherever_they_were_proposed(applier: Applier) -> None:
    told: list[tuple[int, str]] = []
    index = applier.applied_index
    applier.apply(index + 1, 1, entry(0, create(1, "before", 77)))
    applier.own_session = 77
    applier.on_own_outcome = lambda sequence, outcome: told.append((sequence, type(outcome).__name__))
    applier.apply(index + 2, 1, entry(0, create(90, "theirs"), create(2, "ours", 77), create(3, "theirs", 77)))
    applier.apply(index + 3, 1, entry(0, create(2, "ours", 77)))
    applier.begin_incarnation(index + 4, 9, 1)
    applier.apply(index + 5, 1, entry(0, create(4, "late", 77)))
    assert told == [
        (2, "BucketRecord"),
        (3, BucketExists.__name__),
        (2, "BucketRecord"),
        (4, RetryOperation.__name__),
    ]


def test_outcomes_are_told_when_they_can_be_read() -> None:
    applier = Applier(MemoryStore())
    seen: list[list[str]] = []
    applier.own_session = SESSION
    applier.on_own_outcome = lambda sequence, outcome: seen.append([one.name for one in applier.state.buckets()])
    applier.apply(1, 1, entry(0, create(1)))
    assert seen == [["bucket"]]
