"""Connections count from the moment they are accepted, handshakes too, and leave descriptors for the disk."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.http.served import LOOPS, Client, Served, request, until
from tests.unit.http.test_front import certificate


@pytest.fixture(params=LOOPS)
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A front with TLS and little patience."""
    served = Served(
        "fast",
        tls=certificate(tmp_path),
        loop=request.param,
        head_timeout_s=1.0,
        connections_max=4,
        drain_timeout_s=1.0,
    )
    yield served
    served.close()


def handshaken(served: Served, folder: Path) -> Client:
    """A client whose handshake is over."""
    trust = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    client = served.connect()
    client.socket = trust.wrap_socket(client.socket, server_hostname="localhost")
    return client


def test_client_that_connects_and_says_nothing_is_cut_before_the_handshake(secure: Served) -> None:
    with secure.connect() as client:
        started = time.monotonic()
        assert client.is_closed()
        assert 0.5 < time.monotonic() - started < 3
    until(lambda: secure.front.arriving == 0)


def test_unfinished_handshakes_are_bounded_and_make_room_again(secure: Served, tmp_path: Path) -> None:
    silent = [secure.connect() for _ in range(4)]
    until(lambda: secure.front.arriving == 4)
    with secure.connect() as extra:
        assert extra.is_closed(0.5)
    assert secure.metrics.value("http_connections_refused_total") == 1
    for client in silent:
        assert client.is_closed()
        client.socket.close()
    until(lambda: secure.front.arriving == 0)
    with handshaken(secure, tmp_path) as client:
        client.send(request())
        assert client.answer().status == 200


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b""])
def test_handshakes_that_fail_leave_nothing_behind(secure: Served, tmp_path: Path, said: bytes) -> None:
    for _ in range(20):
        with secure.connect() as client:
            client.send(said)
    until(lambda: is_served(secure, tmp_path))
    until(lambda: secure.front.arriving == 0)
    assert is_served(secure, tmp_path)


def is_served(served: Served, folder: Path) -> bool:
    """Whether there is room for one more client."""
    try:
        with handshaken(served, folder) as client:
            client.send(request())
            return client.answer().status == 200
    except OSError:
        return False


def test_drain_ends_unfinished_handshakes(tmp_path: Path, loop: str) -> None:
    served = Served("fast", tls=certificate(tmp_path), loop=loop)
    with served.connect() as client:
        until(lambda: served.front.arriving == 1)
        started = time.monotonic()
        served.close()
        assert client.is_closed()
        assert time.monotonic() - started < 3


def test_every_place_up_to_the_limit_is_given(loop: str) -> None:
    """A connection that is being made takes one place, not two."""
    served = Served("fast", loop=loop, connections_max=64)
    for _ in range(5):
        clients = [served.connect() for _ in range(64)]
        for client in clients:
            client.send(request())
            assert client.answer().status == 200
        for client in clients:
            client.socket.close()
        until(lambda: not served.front.connections)
    assert served.metrics.value("http_connections_refused_total") == 0
    served.close()


def test_address_that_is_taken_is_refused_with_its_name(fast: Served) -> None:
    async def again() -> None:
        with pytest.raises(OSError, match=f"127.0.0.1:{fast.port}"):
            await fast.front.start("127.0.0.1", fast.port)

    fast.run(again())
