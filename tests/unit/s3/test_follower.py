"""The fast lane of a node that does not lead: it waits in a callback until its catalog is new enough, then answers as
the leader would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from edgestore.errors import Unavailable
from tests.unit.s3.corpus import CORPUS
from tests.unit.s3.lanes import FAST, Case, Lanes
from tests.unit.s3.stored import fill

Done = Callable[[BaseException | None], None]


class Follower:
    """The reads of a meta that never leads, in place of its own: the read index comes after `DELAY_S`."""

    DELAY_S = 0.0005

    def __init__(self) -> None:
        self.waits = 0
        self.refuses = False

    def can_read_now(self) -> bool:
        """Never."""
        return False

    def when_readable(self, done: Done) -> None:
        """As a leader's read index that comes later, or not at all."""
        self.waits += 1
        error = Unavailable("no leader was found in time") if self.refuses else None
        asyncio.get_running_loop().call_later(self.DELAY_S, done, error)

    async def read_barrier(self) -> None:
        """See `when_readable`."""
        self.waits += 1
        await asyncio.sleep(self.DELAY_S)


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lanes, Follower]]:
    lanes = Lanes(tmp_path_factory.mktemp("follower") / "data")
    fill(lanes)
    follower, meta = Follower(), lanes.core.meta
    with pytest.MonkeyPatch.context() as patch:
        for name in ("can_read_now", "when_readable", "read_barrier"):
            patch.setattr(meta, name, getattr(follower, name))
        yield lanes, follower
    lanes.close()


@pytest.mark.parametrize("name", CORPUS)
def test_both_lanes_of_a_follower_answer_alike(lanes: tuple[Lanes, Follower], name: str) -> None:
    in_fast, in_slow = lanes[0].outcomes(CORPUS[name])
    assert in_fast == in_slow


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_small_read_waits_without_leaving_the_lane(lanes: tuple[Lanes, Follower], method: str) -> None:
    fast, follower = lanes
    waits, taken = follower.waits, fast.metrics.value(FAST)
    answer = fast.send(Case(method, "/lanes/small"), "fast")
    assert answer.status == 200
    assert follower.waits == waits + 1
    assert fast.metrics.value(FAST) == taken + 1
    assert not fast.s3._tasks


def test_a_put_waits_only_where_its_bucket_is_not_known(lanes: tuple[Lanes, Follower]) -> None:
    fast, follower = lanes
    waits = follower.waits
    assert fast.send(Case("PUT", "/lanes/fresh", body=b"x"), "fast").status == 200
    assert follower.waits == waits
    assert fast.send(Case("PUT", "/nowhere/fresh", body=b"x"), "fast").status == 404
    assert follower.waits == waits + 1


def test_a_read_that_finds_no_leader_is_to_be_sent_again(lanes: tuple[Lanes, Follower]) -> None:
    fast, follower = lanes
    follower.refuses = True
    try:
        assert fast.send(Case(target="/lanes/small"), "fast").status == 503
    finally:
        follower.refuses = False


@pytest.mark.parametrize("lane", ["fast", "slow"])
@pytest.mark.parametrize("case", [Case("GET", "/lanes/small"), Case("PUT", "/lanes/new", body=b"x"), Case("GET", "/")])
def test_a_key_made_on_another_node_is_known_after_the_wait(
    lanes: tuple[Lanes, Follower], monkeypatch: pytest.MonkeyPatch, lane: str, case: Case
) -> None:
    fast, follower = lanes
    waits, known = follower.waits, fast.core.tenants.principal_for
    monkeypatch.setattr(fast.core.tenants, "principal_for", lambda key: known(key) if follower.waits > waits else None)
    assert fast.send(case, lane).status == 200


def test_a_put_finds_a_bucket_that_was_made_anew_on_another_node(
    lanes: tuple[Lanes, Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the follower knows is the bucket that was deleted: the leader has no such bucket any more."""
    fast, follower = lanes
    assert fast.do("PUT", "/again").status == 200
    state = fast.core.meta.state
    old, known, waits = state.bucket("again"), state.bucket, follower.waits
    assert fast.do("DELETE", "/again").status == 204
    assert fast.do("PUT", "/again").status == 200
    waits = follower.waits
    monkeypatch.setattr(
        type(state), "bucket", lambda self, name: old if follower.waits == waits and name == "again" else known(name)
    )
    assert fast.send(Case("PUT", "/again/new", body=b"x"), "fast").status == 200
    assert follower.waits == waits + 1


def test_a_key_that_was_deleted_on_another_node_is_none(
    lanes: tuple[Lanes, Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, follower = lanes
    waits, known = follower.waits, fast.core.tenants.principal_for
    monkeypatch.setattr(fast.core.tenants, "principal_for", lambda key: known(key) if follower.waits == waits else None)
    for case, lane in ((Case(), "fast"), (Case(), "slow"), (Case("PUT", "/lanes/late", body=b"x"), "slow")):
        waits = follower.waits
        assert fast.send(case, lane).status == 403


@pytest.mark.parametrize("lane", ["fast", "slow"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/lanes/small"),
        ("GET", "/lanes/large"),
        ("HEAD", "/lanes/small"),
        ("GET", "/lanes?list-type=2"),
        ("GET", "/lanes?versions"),
        ("HEAD", "/lanes"),
        ("GET", "/"),
    ],
)
def test_a_local_read_asks_nobody(lanes: tuple[Lanes, Follower], lane: str, method: str, target: str) -> None:
    fast, follower = lanes
    waits = follower.waits
    asked = {"x-edgestore-consistency": "local"}
    assert fast.send(Case(method, target, asked), lane).status == 200
    assert fast.send(Case(method, "/lanes/absent", asked), lane).status == 404
    assert follower.waits == waits
    assert fast.send(Case(method, target, {"x-edgestore-consistency": "linearizable"}), lane).status == 200
    assert follower.waits > waits


def test_a_consistency_that_there_is_not_is_refused(lanes: tuple[Lanes, Follower]) -> None:
    answer = lanes[0].send(Case(headers={"x-edgestore-consistency": "loose"}), "slow")
    assert answer.status == 400
    assert b"<ArgumentName>x-edgestore-consistency</ArgumentName>" in answer.body


def test_a_write_is_never_local(lanes: tuple[Lanes, Follower]) -> None:
    fast, follower = lanes
    waits = follower.waits
    case = Case("DELETE", "/lanes/absent", {"x-edgestore-consistency": "local"})
    assert fast.send(case, "slow").status == 204
    assert follower.waits > waits
