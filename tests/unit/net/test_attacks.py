"""Raw sockets against a listener: garbage, pickles, lengths, drips and half a handshake end the connection and nothing
else."""

from __future__ import annotations

import asyncio
import os
import pickle
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgestore.config import NetConfig
from edgestore.consensus.messages import decode_message as consensus_message
from edgestore.net import Caller, Credentials, Frame, Method, Peers, Reply, Rights, SystemNetwork, Topic
from edgestore.net.frames import HEADER, MAGIC, Kind, encode_header, hello_frame
from edgestore.net.tls import stranger_context
from tests.unit.net.site import Site, member_of

LIMIT_S = 20
SHORT = replace(
    NetConfig(),
    handshake_timeout_s=0.5,
    stranger_life_s=1.0,
    frame_timeout_s=0.3,
    silence_max_s=0.4,
    ping_interval_ms=100,
    handshakes_max=4,
)


MARKER = Path(tempfile.gettempdir()) / f"edgestore-bomb-{os.getpid()}"


class Bomb:
    """Leaves a mark where somebody unpickles it."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(MARKER), "w")


@pytest.fixture(autouse=True)
def no_bomb_goes_off() -> Iterator[None]:
    yield
    assert not MARKER.exists()


def test_a_bomb_would_be_noticed() -> None:
    pickle.loads(pickle.dumps(Bomb())).close()
    assert MARKER.exists()
    MARKER.unlink()


def encoded(frame: Frame) -> bytes:
    return encode_header(frame) + frame.head + b"".join(frame.payload)


HELLO = encoded(hello_frame(0))
FLAT = {
    "garbage": os.urandom(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "pickle": pickle.dumps(Bomb()),
    "pickle as hello": encoded(Frame(Kind.HELLO, 0, 0, pickle.dumps(Bomb()))),
    "no hello": encoded(Frame(Kind.REQUEST, Method.PING, 1, b"")),
    "hello of another format": encoded(Frame(Kind.HELLO, 0, 0, b"\x92\x09\x00")),
    "unknown lane": encoded(Frame(Kind.HELLO, 0, 0, b"\x92\x01\x07")),
    "unknown kind": HELLO + HEADER.pack(MAGIC, 1 << 4 | 9, 1, 0, 0, 1),
    "unknown method": HELLO + encoded(Frame(Kind.REQUEST, 60_000, 1, b"")),
    "unknown topic": HELLO + encoded(Frame(Kind.MESSAGE, 60_000, 1, b"")),
    "an answer to nothing": HELLO + encoded(Frame(Kind.ANSWER, Method.PING, 1, b"")),
    "huge payload": HELLO + HEADER.pack(MAGIC, 1 << 4 | Kind.REQUEST, 1, 0, 0xFFFFFFFF, 1),
    "huge head": HELLO + HEADER.pack(MAGIC, 1 << 4 | Kind.REQUEST, 1, 0xFFFFFFFF, 0, 1),
    "handler that cannot decode": HELLO + encoded(Frame(Kind.REQUEST, Method.STATUS, 1, pickle.dumps(Bomb()))),
    "log message that cannot decode": HELLO + encoded(Frame(Kind.MESSAGE, Topic.RAFT, 1, pickle.dumps(Bomb()))),
    "membership message that cannot decode": HELLO + encoded(Frame(Kind.MESSAGE, Topic.SWIM, 1, pickle.dumps(Bomb()))),
    "message handler that fails": HELLO + encoded(Frame(Kind.MESSAGE, Topic.SWIM, 1, b"\xff")),
}


async def strict(caller: Caller, head: bytes, payload: memoryview) -> Reply:
    struct.unpack("<Q", head) if len(head) == 8 else int(head)
    return Reply()


@asynccontextmanager
async def target(site: Site, config: NetConfig = SHORT) -> AsyncIterator[tuple[Peers, str, int]]:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    peers = site.peers(1, SystemNetwork(), config)
    peers.serve(Method.STATUS, strict)
    peers.on_message(Topic.RAFT, lambda caller, head: consensus_message(head))
    peers.on_message(Topic.SWIM, lambda caller, head: int.from_bytes(bytes.fromhex(head.decode())))
    host, port = await peers.start("127.0.0.1", 0)
    try:
        yield peers, host, port
        assert not peers._services._inbound
        probe = site.peers(3, SystemNetwork())
        await probe.start("127.0.0.1", 0)
        probe.know(member_of(1), f"{host}:{port}")
        await probe.call(member_of(1), Method.PING, b"", timeout_s=LIMIT_S)
        await probe.close()
    finally:
        await peers.close()
    assert not failures


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await work()

    asyncio.run(limited())


async def is_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(5):
            await reader.read()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", FLAT)
def test_a_member_that_sends_nonsense_is_cut_off(name: str) -> None:
    async def work() -> None:
        site = Site()
        async with target(site) as (_peers, host, port):
            reader, writer = await asyncio.open_connection(host, port, ssl=site.credentials(2).client_context())
            writer.write(FLAT[name])
            await is_closed(reader, writer)

    run(work)


def test_a_stranger_gets_small_frames_no_messages_and_little_time() -> None:
    async def work() -> None:
        async with target(Site()) as (_peers, host, port):
            for data in (
                HELLO + HEADER.pack(MAGIC, 1 << 4 | Kind.REQUEST, Method.JOIN, 0, 1024 * 1024, 1),
                HELLO + encoded(Frame(Kind.MESSAGE, Topic.SWIM, 0, b"00")),
                HELLO,
            ):
                reader, writer = await asyncio.open_connection(host, port, ssl=stranger_context())
                writer.write(data)
                await is_closed(reader, writer)

    run(work)


def test_strangers_do_not_take_the_places_of_members() -> None:
    async def work() -> None:
        async with target(Site(), replace(SHORT, strangers_max=2, stranger_life_s=1.5)) as (peers, host, port):
            opened = [await asyncio.open_connection(host, port, ssl=stranger_context()) for _ in range(4)]
            await asyncio.sleep(0.2)
            assert len(peers._services._inbound) == 2
            for reader, writer in opened:
                await is_closed(reader, writer)

    run(work)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", os.urandom(2000), pickle.dumps(Bomb())])
def test_half_a_handshake_ends_in_time_and_others_get_their_turn(sent: bytes) -> None:
    async def work() -> None:
        async with target(Site()) as (_peers, host, port):
            opened = [await asyncio.open_connection(host, port) for _ in range(12)]
            for _, writer in opened:
                writer.write(sent)
            for reader, writer in opened[:4]:
                await is_closed(reader, writer)
            for _, writer in opened:
                writer.transport.abort()

    run(work)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_frame_that_drips_ends_its_connection(lane: int) -> None:
    async def work() -> None:
        site = Site()
        async with target(site) as (_peers, host, port):
            reader, writer = await asyncio.open_connection(host, port, ssl=site.credentials(2).client_context())
            writer.write(encoded(hello_frame(lane)) + HEADER.pack(MAGIC, 1 << 4 | Kind.REQUEST, 1, 0, 1000, 1))
            reading = asyncio.create_task(reader.read())
            for _ in range(100):
                if reading.done():
                    break
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert reading.done()
            reading.exception()
            writer.transport.abort()
            await asyncio.sleep(0.05)

    run(work)


def test_a_certificate_of_another_site_is_refused_by_tls() -> None:
    async def work() -> None:
        async with target(Site()) as (_peers, host, port):
            foreign = Site(2).credentials(2)
            context = foreign.client_context()
            context.verify_mode = ssl.CERT_NONE
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(HELLO)
            await is_closed(reader, writer)

    run(work)


def test_certificates_outlive_the_wall_clock() -> None:
    """TLS does not look at the time: `rights_of` does, by log time (rule 14)."""

    async def work() -> None:
        site = Site()
        old = Credentials(site.rights_of)
        fresh = site.credentials(2)
        certificate = site.issue_again(fresh, member_of(2), 0)
        old.authority, old.key = fresh.authority, fresh.key
        old.replace(certificate)
        async with target(site) as (_peers, host, port):
            reader, writer = await asyncio.open_connection(host, port, ssl=old.client_context())
            writer.write(HELLO + encoded(Frame(Kind.REQUEST, Method.PING, 1, b"?")))
            assert (await reader.readexactly(HEADER.size + 1))[-1:] == b"?"
            writer.transport.abort()
            await asyncio.sleep(0.05)
        assert site.rights_of(old.facts) is Rights.MEMBER

    run(work)
