"""Clients that ask and do not read: what is written for them is bounded, in both lanes and on both loops."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from edgestore.protocols.http.connection import FOREVER, Connection
from tests.unit.http.served import LOOPS, Client, Served, request, until

WRITE_BUFFER_BYTES = 65_536


@pytest.fixture(params=LOOPS)
def patient(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A front that waits for clients for a while."""
    served = Served("fast", loop=request.param, write_buffer_max_bytes=WRITE_BUFFER_BYTES, body_idle_timeout_s=20.0)
    yield served
    served.close()


def connect(served: Served) -> Client:
    """A client with a small receive buffer."""
    client = served.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    return client


def written_bytes(served: Served) -> int:
    """The most that waits in the buffer of one connection."""
    sizes = [one._wire.get_write_buffer_size() for one in list(served.front.connections) if one._wire is not None]
    return max(sizes, default=0)


def highest_while_not_reading(served: Served, client: Client, data: bytes, wait_s: float = 0.6) -> int:
    """Sends what the server takes and reads nothing; the fullest write buffer that was seen."""
    client.socket.setblocking(False)
    highest, sent, deadline = 0, 0, time.monotonic() + wait_s
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            sent += client.socket.send(data[sent : sent + 65_536]) if sent < len(data) else 0
        highest = max(highest, written_bytes(served))
        time.sleep(0.002)
    client.socket.settimeout(10)
    return highest


# The first request decides: what its head is like makes aiohttp's bytes counted, or gives it the connection for good.
FIRST = {
    "counted": request(target="/slow-lane/first"),
    "for good": request("PUT", "/slow-lane/first", ["Transfer-Encoding: chunked"]) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kib", [256, 4])
def test_slow_answers_wait_for_a_client_that_does_not_read(patient: Served, first: str, kib: int) -> None:
    one = request(target=f"/slow-lane/big/{kib}")
    count = 1200 if kib == 256 else 8000
    with connect(patient) as client:
        client.send(FIRST[first])
        assert client.answer().status == 200
        (connection,) = patient.front.connections
        assert isinstance(connection, Connection)
        assert (connection._owed == FOREVER) == (first == "for good")
        highest = highest_while_not_reading(patient, client, one * count)
        assert highest <= WRITE_BUFFER_BYTES + (kib << 10) + 4096
        assert len(patient.echo.seen) < count / 2
        begun = len(patient.echo.seen)
        for _ in range(begun):
            assert len(client.answer().body) == kib << 10


@pytest.mark.parametrize("kib", [256, 4])
def test_fast_answers_wait_for_a_client_that_does_not_read(patient: Served, kib: int) -> None:
    with connect(patient) as client:
        highest = highest_while_not_reading(patient, client, request(target=f"/big/{kib}") * 8000)
        assert highest <= WRITE_BUFFER_BYTES + (kib << 10) + 4096
        for _ in range(len(patient.echo.seen)):
            assert len(client.answer().body) == kib << 10


def test_mixed_answers_keep_their_order_when_the_client_reads_late(patient: Served) -> None:
    targets = [f"{'/slow-lane' if at % 3 == 0 else ''}/big/{1 + at % 200}" for at in range(600)]
    with connect(patient) as client:
        highest = highest_while_not_reading(
            patient, client, b"".join(request(target=target) for target in targets), 0.3
        )
        assert highest <= WRITE_BUFFER_BYTES + (200 << 10) + 4096
        for target in targets:
            assert len(client.answer().body) == int(target.rsplit("/", 1)[1]) << 10


@pytest.mark.parametrize("target", ["/big/256", "/slow-lane/big/256", "/stream/1"])
@pytest.mark.parametrize("first", FIRST)
def test_requests_of_a_client_that_does_not_read_are_bounded_too(patient: Served, first: str, target: str) -> None:
    one = request(target=target, headers=["x-filler: " + "f" * 900])
    data = one * (64 * 1024 * 1024 // len(one))
    with connect(patient) as client:
        client.send(FIRST[first])
        assert client.answer().status == 200
        client.socket.setblocking(False)
        sent, deadline = 0, time.monotonic() + 1.0
        while time.monotonic() < deadline and sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += client.socket.send(data[sent : sent + 65_536])
        # What the kernel holds on both sides is of its own choosing, up to some MiB.
        assert sent < 32 * 1024 * 1024
        client.socket.settimeout(10)
        for _ in range(min(100, sent // len(one))):
            answer = client.answer()
            assert answer.status == 200


def test_client_that_never_takes_a_slow_answer_is_cut(loop: str) -> None:
    served = Served("fast", loop=loop, write_buffer_max_bytes=WRITE_BUFFER_BYTES, body_idle_timeout_s=0.5)
    with connect(served) as client:
        client.send(request(target="/slow-lane/big/1024") * 8)
        until(lambda: bool(served.front.connections))
        until(lambda: not served.front.connections, 5)
    served.close()
