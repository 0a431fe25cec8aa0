"""Clients that are slow, do not read, go away, or are too many."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgestore.protocols.http import unlaned
from tests.unit.http.served import Client, Served, request, until


@pytest.fixture(params=[("fast", "uvloop"), ("slow", "asyncio")], ids=lambda pair: "-".join(pair))
def strict(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A front with little patience."""
    lane, loop = request.param
    served = Served(
        lane,
        loop=loop,
        head_timeout_s=1.0,
        body_idle_timeout_s=1.0,
        keepalive_timeout_s=1.5,
        connections_max=8,
        write_buffer_max_bytes=65_536,
    )
    yield served
    served.close()


# --- slowloris --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"G", b"GET /bucket/key HTTP/1.1\r\nHost: a\r\n"])
def test_head_that_drips_is_ended(strict: Served, first: bytes) -> None:
    with strict.connect() as client:
        client.send(first)
        started = time.monotonic()
        with pytest.raises((EOFError, ConnectionError)):
            while time.monotonic() < started + 8:
                time.sleep(0.1)
                client.send(b"x")
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client._more()
                client.socket.settimeout(5)
        assert time.monotonic() - started < 4
        assert client.received == b"" or client.received.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("target", ["/bucket/key", "/slow-lane/key"])
@pytest.mark.parametrize("size", [1000, 300_000])
def test_body_that_stops_is_refused_alike_in_both_lanes(strict: Served, target: str, size: int) -> None:
    with strict.connect() as client:
        client.send(request("PUT", target, [f"Content-Length: {size}"]) + b"x" * 10)
        answer = client.answer()
    assert (answer.status, answer.body) == (400, b"IncompleteBody RequestTimeout\n")
    assert answer.headers["connection"] == "close"
    until(lambda: strict.pool.taken_bytes == 0 and strict.front.collecting_bytes == 0)


def test_idle_connection_is_closed(strict: Served) -> None:
    """CVE-2022-31028: idle connections pile up."""
    with strict.connect() as fresh, strict.connect() as used:
        used.send(request())
        assert used.answer().status == 200
        assert fresh.is_closed()
        assert used.is_closed()


def test_waiting_answer_is_not_cut_by_the_idle_timer(strict: Served) -> None:
    target = "/late" if strict.front.hot is not None else "/slow-lane/late"
    with strict.connect() as client:
        client.send(request("PUT", target, body=b"x"))
        time.sleep(3.2)
        strict.release_late()
        assert client.answer().seen["path"] == target


def test_answer_that_does_not_come_is_given_up(loop: str) -> None:
    """A sync that hangs: the client must not wait for ever, and a late answer must not follow the refusal."""
    served = Served("fast", loop=loop, answer_timeout_s=1.0)
    with served.connect() as client, served.connect() as other:
        client.send(request("PUT", "/late", body=b"x") + request(target="/behind"))
        for _ in range(20):  # a connection that is answered again and again is never taken for one that waits
            other.send(request())
            assert other.answer().status == 200
            time.sleep(0.1)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert answer.body.startswith(b"Unavailable")
        served.release_late()
        assert client.is_closed()
    assert "/behind" not in served.echo.seen
    served.close()


def test_connections_are_limited(strict: Served) -> None:
    clients = [strict.connect() for _ in range(8)]
    for client in clients:
        client.send(request())
        assert client.answer().status == 200
    with strict.connect() as extra:
        assert extra.is_closed()
    for client in clients:
        client.socket.close()
    until(lambda: not strict.front.connections)
    with strict.connect() as client:
        client.send(request())
        assert client.answer().status == 200


@pytest.mark.parametrize("size", [40_000, 400_000])
def test_head_over_the_limit_is_refused(served: Served, size: int) -> None:
    with served.connect() as client:
        try:
            client.send(b"GET /bucket/key HTTP/1.1\r\nHost: a\r\nx-long: " + b"v" * size)
            answer = client.answer()
            assert answer.status in (400, 431)
            assert answer.headers["connection"] == "close"
        except ConnectionError:
            pass


@pytest.mark.parametrize("count", [129, 2000])
def test_too_many_headers_are_refused(served: Served, count: int) -> None:
    with served.connect() as client:
        client.send(request(headers=[f"x-{at}: v" for at in range(count)]))
        assert client.answer().status in (400, 431)


def test_head_that_never_ends_is_refused_however_it_is_lined(served: Served) -> None:
    with served.connect() as client:
        try:
            client.send(b"GET /bucket/key HTTP/1.1\r\nHost: a\r\n")
            for at in range(3000):
                client.send(b"x-%d: %s\r\n" % (at, b"v" * 50))
            assert client.answer().status in (400, 431)
        except ConnectionError:
            pass


def test_trailers_without_end_are_refused(strict: Served) -> None:
    """CVE-2026-22815."""
    with strict.connect() as client:
        try:
            client.send(request("PUT", headers=["Transfer-Encoding: chunked"]) + b"5\r\nhello\r\n0\r\n")
            for at in range(3000):
                client.send(b"x-%d: %s\r\n" % (at, b"v" * 50))
            client.send(b"\r\n")
            assert client.answer().status in (400, 431)
        except (ConnectionError, EOFError):
            pass


# --- clients that do not read -----------------------------------------------------------------------------


def test_client_that_does_not_read_bounds_what_is_begun(strict: Served) -> None:
    with strict.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.socket.setblocking(False)
        data = request(target="/stream/1") * 400
        with contextlib.suppress(BlockingIOError):
            client.socket.sendall(data)
        time.sleep(0.5)
        assert len(strict.echo.seen) <= 8
    until(lambda: not strict.front.connections)


def test_client_that_never_reads_is_cut(strict: Served) -> None:
    with strict.connect() as client:
        client.send(request(target="/stream/64"))
        until(lambda: not strict.front.connections, 12)


def test_slow_reader_gets_all_as_long_as_it_reads(strict: Served) -> None:
    with strict.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(request(target="/stream/3"))
        for _ in range(12):
            client._more() if len(client.received) < 2_000_000 else None
            time.sleep(0.2)
        assert len(client.answer().body) == 3 << 20


def test_client_that_reads_late_gets_pipelined_answers_in_order(fast: Served) -> None:
    targets = [f"/stream/{1 + at % 2}" if at % 3 else f"/n{at}" for at in range(30)]
    with fast.connect() as client:
        client.send(b"".join(request(target=target) for target in targets))
        time.sleep(0.3)
        for target in targets:
            answer = client.answer()
            if target.startswith("/stream/"):
                assert len(answer.body) == int(target[8:]) << 20
            else:
                assert answer.seen["path"] == target


def test_small_bodies_on_their_way_are_bounded_together() -> None:
    served = Served("fast", fast_bodies_max_bytes=200_000)
    clients = [served.connect() for _ in range(10)]
    for client in clients:
        client.send(request("PUT", body=b"b" * 100_000)[:60_000])
    until(lambda: served.pool.taken_bytes > 0)
    assert served.front.collecting_bytes <= 200_000
    for client in clients:
        client.send(request("PUT", body=b"b" * 100_000)[60_000:])
        assert client.answer().seen["body_bytes"] == 100_000
        client.socket.close()
    until(lambda: served.pool.taken_bytes == 0 and served.front.collecting_bytes == 0)
    served.close()


# --- clients that go away ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/bucket/key", "/slow-lane/key"])
@pytest.mark.parametrize("size", [1000, 300_000, 3_000_000])
@pytest.mark.parametrize("linger", [True, False])
def test_abort_in_the_middle_of_a_body_gives_everything_back(
    served: Served, target: str, size: int, linger: bool
) -> None:
    until(lambda: not served.front.connections)
    client = served.connect()
    client.send(request("PUT", target, [f"Content-Length: {size}"]) + b"x" * (size // 2))
    until(lambda: len(served.front.connections) == 1)
    if not linger:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()
    until(lambda: not served.front.connections and served.pool.taken_bytes == 0)


def test_abort_in_the_middle_of_a_stream_ends_it(served: Served) -> None:
    client = served.connect()
    client.send(request(target="/stream/500"))
    client._more()
    client.socket.close()
    until(lambda: not served.front.connections)


def test_abort_while_an_answer_waits_is_survived(fast: Served) -> None:
    client = fast.connect()
    client.send(request("PUT", "/late", body=b"x"))
    until(lambda: bool(fast.echo.late))
    client.socket.close()
    until(lambda: not fast.front.connections)
    fast.release_late()
    with fast.connect() as other:
        other.send(request())
        assert other.answer().status == 200


# --- starting and stopping --------------------------------------------------------------------------------


def test_drain_lets_answers_end_and_closes_idle_connections() -> None:
    served = Served("fast")
    idle, busy = served.connect(), served.connect()
    idle.send(request())
    assert idle.answer().status == 200
    busy.send(request(target="/slow-lane/wait"))
    until(lambda: "/slow-lane/wait" in served.echo.seen)
    asyncio.run_coroutine_threadsafe(served.front.drain(5), served.loop)
    answer = busy.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert idle.is_closed()
    with pytest.raises(OSError, match="refused"):
        Client(served.port)
    busy.socket.close()
    idle.socket.close()
    served.close()


def test_drain_lets_answers_end_where_the_lane_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlaned, "PRIVATE_NAMES", ("_no_such_name",))
    served = Served("fast")
    idle, busy, large = served.connect(), served.connect(), served.connect()
    idle.send(request())
    assert idle.answer().status == 200
    busy.send(request(target="/slow-lane/wait"))
    large.send(request(target="/stream/16"))
    until(lambda: {"/slow-lane/wait", "/stream/16"} <= set(served.echo.seen))
    draining = asyncio.run_coroutine_threadsafe(served.front.drain(5), served.loop)
    assert busy.answer().status == 200
    assert len(large.answer().body) == 16 << 20
    draining.result(10)
    for client in (idle, busy, large):
        client.socket.close()
    served.close()


def test_drain_leaves_no_socket_open(loop: str) -> None:
    """Also of clients that were only just accepted, that went away, or that do not read."""
    for round_ in range(12):
        served = Served("fast" if round_ % 2 else "slow", loop=loop, write_buffer_max_bytes=65_536, connections_max=5)
        clients = [served.connect() for _ in range(7)]
        with contextlib.suppress(ConnectionError):
            clients[0].send(request(target="/stream/64"))
            clients[1].send(request("PUT", headers=["Content-Length: 3000000"]) + b"x" * 500_000)
            clients[2].send(request(target="/stream/1") * 50)
            clients[3].send(request(target="/slow-lane/big/1024") * 20)
        if round_ % 3 == 0:
            until(lambda: bool(served.echo.seen))  # noqa: B023
        for client in clients[::2]:
            client.socket.close()
        served.run(served.front.drain(0.05))
        assert not served.front.connections
        assert not served.front.arriving
        assert not sockets_of(served.port)
        for client in clients:
            client.socket.close()
        served.close()


def sockets_of(port: int) -> list[str]:
    """The sockets on a port of this machine that some process has open."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[1] == f"0100007F:{port:04X}" and row[9] != "0"]


def test_drain_ends_within_its_limit() -> None:
    served = Served("fast")
    client = served.connect()
    client.send(request("PUT", "/late", body=b"x"))
    until(lambda: bool(served.echo.late))
    started = time.monotonic()
    served.close(0.3)
    assert time.monotonic() - started < 3
    assert client.is_closed()
    client.socket.close()
