"""Units are for those who send: silent and trickling uploads hold none for long, steady ones are never cut."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edgestore.errors import IncompleteBody
from edgestore.protocols.http import pace
from edgestore.protocols.http.pace import Pace
from edgestore.records import UNIT_BYTES
from tests.unit.http.served import LOOPS, Client, Served, request, until

TARGETS = ["/bucket/key", "/slow-lane/key"]
SIZE = 3_000_000


@pytest.fixture(params=LOOPS)
def front(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A front with few units and little patience for bodies that stop."""
    served = Served("fast", 8 * UNIT_BYTES, loop=request.param, body_idle_timeout_s=1.0, body_min_bytes_per_s=4096)
    yield served
    served.close()


def begun(served: Served, target: str, sent: int) -> Client:
    """An upload of which so many bytes were sent."""
    client = served.connect()
    client.send(request("PUT", target, [f"Content-Length: {SIZE}"]))
    client.send(b"x" * sent)
    return client


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sent", [0, 1, 2000])
def test_announced_bodies_of_which_nothing_comes_hold_no_unit(loop: str, target: str, sent: int) -> None:
    served = Served("fast", 8 * UNIT_BYTES, loop=loop)
    silent = [begun(served, target, sent) for _ in range(40)]
    until(lambda: len(served.echo.seen) == 40)
    assert served.pool.taken_bytes == 0
    with served.connect() as client:
        for path in TARGETS:
            client.send(request("PUT", path, body=b"y" * SIZE))
            assert client.answer().seen["body_bytes"] == SIZE
    silent[0].send(b"x" * (SIZE - sent))
    assert silent[0].answer().seen["body_bytes"] == SIZE
    for client in silent:
        client.socket.close()
    until(lambda: not served.front.connections and served.pool.taken_bytes == 0)
    served.close()


@pytest.mark.parametrize("target", TARGETS)
def test_upload_that_trickles_is_cut(front: Served, target: str) -> None:
    with begun(front, target, 10_000) as client:
        until(lambda: front.pool.taken_bytes > 0)
        started = time.monotonic()
        client.socket.settimeout(0.05)
        while not client.received and time.monotonic() < started + 8:
            try:
                client._more()
            except TimeoutError:
                client.send(b"x")
        assert client.answer().status == 400
        assert time.monotonic() - started < 4
    until(lambda: front.pool.taken_bytes == 0)


@pytest.mark.parametrize("target", TARGETS)
def test_upload_that_is_slow_but_steady_is_taken(front: Served, target: str) -> None:
    with front.connect() as client:
        client.send(request("PUT", target, ["Content-Length: 200000"]))
        for _ in range(20):
            client.send(b"x" * 10_000)
            time.sleep(0.15)
        assert client.answer().seen["body_bytes"] == 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_who_holds_units_and_sends_nothing_loses_them_when_others_wait(
    monkeypatch: pytest.MonkeyPatch, loop: str, target: str
) -> None:
    monkeypatch.setattr(pace, "PRESSED_S", 0.5)
    served = Served("fast", 8 * UNIT_BYTES, loop=loop, body_idle_timeout_s=30.0)
    holders = [begun(served, target, 10_000) for _ in range(8)]
    until(lambda: served.pool.taken_bytes == 8 * UNIT_BYTES)
    time.sleep(1.2)
    assert served.pool.taken_bytes == 8 * UNIT_BYTES  # nobody else wants them
    started = time.monotonic()
    with served.connect() as client:
        client.send(request("PUT", body=b"y" * SIZE))
        assert client.answer().seen["body_bytes"] == SIZE
    assert time.monotonic() - started < 5
    for holder in holders:
        holder.socket.close()
    until(lambda: not served.front.connections and served.pool.taken_bytes == 0)
    served.close()


# --- the judgement itself ---------------------------------------------------------------------------------


def paced(*, pressed: bool) -> Pace:
    return Pace(60.0, 4096, lambda: pressed)


def test_time_that_was_not_waited_for_the_client_never_counts() -> None:
    judge = paced(pressed=True)
    for _ in range(1000):
        judge.waited(0.0, 0, holds_unit=True)
    assert judge.left_s == pace.PRESSED_S


@pytest.mark.parametrize(("pressed", "holds", "limit_s"), [(True, True, 10), (True, False, 60), (False, True, 60)])
def test_silence_is_ended_sooner_where_it_costs_others(pressed: bool, holds: bool, limit_s: int) -> None:
    judge = paced(pressed=pressed)
    for _ in range(limit_s - 1):
        judge.waited(1.0, 1, holds_unit=holds)
    with pytest.raises(IncompleteBody):
        judge.waited(1.0, 1, holds_unit=holds)


def test_pace_is_judged_by_the_window_not_by_the_moment() -> None:
    judge = paced(pressed=True)
    for second in range(600):
        judge.waited(1.0, 50_000 if second % 10 == 9 else 0, holds_unit=True)
