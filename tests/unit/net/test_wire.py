"""What connections put on the wire, and what they do with what comes over it: records, ends, time."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from edgestore.config import NetConfig
from edgestore.kernels import Buffers
from edgestore.net import Credentials, Frame, SystemNetwork, Topic
from edgestore.net.assembly import Assembler
from edgestore.net.calls import Calls
from edgestore.net.frames import Kind, hello_frame
from tests.unit.net.site import Site, member_of

LIMIT_S = 20
APPLICATION_DATA = 23


class Tapped:
    """A listener that shakes hands by hand, counts the records of TLS, and hears the frames in them."""

    def __init__(self, credentials: Credentials) -> None:
        self.records: list[int] = []
        self.frames: list[Frame] = []
        self.heard = asyncio.Event()
        self._bytes_in, self._bytes_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = credentials.server_context().wrap_bio(self._bytes_in, self._bytes_out, server_side=True)
        self._assembler = Assembler(NetConfig().frame_max_bytes, Buffers(0))
        self._assembler.on_frame = self.frames.append

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                header = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(header[3:], "big"))
                self.take(header[0], header + body)
                writer.write(self._bytes_out.read())
                self.heard.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()

    def take(self, kind: int, record: bytes) -> None:
        self._bytes_in.write(record)
        try:
            if not self._assembler.frames and not self.records:
                self._tls.do_handshake()
            data = self._tls.read(1 << 20)
        except ssl.SSLWantReadError:
            return
        assert kind == APPLICATION_DATA
        self.records.append(len(record))
        self._assembler.room()[: len(data)] = data
        self._assembler.filled(len(data))

    async def wait_for(self, frames: int) -> None:
        while len(self.frames) < frames:
            self.heard.clear()
            await self.heard.wait()


def run_limited(work: object) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await work()  # type: ignore[operator]

    asyncio.run(limited())


@pytest.mark.parametrize(("size_bytes", "count", "records"), [(100, 50, 1), (8_000, 2, 1), (8_000, 4, 2), (0, 1, 1)])
def test_what_is_sent_in_one_turn_of_the_loop_leaves_as_one_record(size_bytes: int, count: int, records: int) -> None:
    async def work() -> None:
        site = Site()
        tapped = Tapped(site.credentials(2))
        listening = await asyncio.start_server(tapped.serve, "127.0.0.1", 0)
        peers = site.peers(1, SystemNetwork())
        await peers.start("127.0.0.1", 0)
        peers.know(member_of(2), f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        await tapped.wait_for(2)
        assert [frame.kind for frame in tapped.frames] == [Kind.HELLO, Kind.REQUEST]  # the ping
        before = len(tapped.records)
        for _ in range(count):
            assert peers.send(member_of(2), Topic.RAFT, bytes(size_bytes))
        await tapped.wait_for(2 + count)
        assert len(tapped.records) - before == records
        listening.close()
        await peers.close()

    run_limited(work)


def test_a_certificate_that_is_refused_fails_the_dial_and_leaves_nothing_open() -> None:
    async def work() -> None:
        listening = await SystemNetwork().listen("127.0.0.1", 0, Site(2).credentials(2), NetConfig(), pytest.fail)
        with pytest.raises(Exception, match="cannot be reached"):
            await SystemNetwork().dial(*listening.address, Site(1).credentials(1), NetConfig(), "")
        await asyncio.sleep(0.05)
        await listening.close()

    run_limited(work)


def test_a_listener_that_closes_leaves_no_socket_whose_handshake_never_began() -> None:
    async def work() -> None:
        listening = await SystemNetwork().listen("127.0.0.1", 0, Site().credentials(2), NetConfig(), pytest.fail)
        with socket.create_connection(listening.address) as caller:
            while not listening._handshakes:  # the task is there, and has not run
                await asyncio.sleep(0)
            await listening.close()
            caller.settimeout(LIMIT_S)
            assert caller.recv(1) == b""

    run_limited(work)


def test_a_slow_reader_pauses_the_sender_and_what_waits_is_counted() -> None:
    async def work() -> None:
        site, config, accepted = Site(), NetConfig(send_buffer_high_bytes=256 * 1024), asyncio.Queue()
        listening = await SystemNetwork().listen("127.0.0.1", 0, site.credentials(2), config, accepted.put_nowait)
        near = await SystemNetwork().dial(*listening.address, site.credentials(1), config, "")
        near.send(hello_frame(0))
        far = await accepted.get()
        heard: list[int] = []
        far.on_frame = lambda frame: heard.append(len(frame.payload[0]) if frame.payload else 0)
        far._transport.pause_reading()
        body, sent = bytes(1024 * 1024), 0
        while near.buffered_bytes <= config.send_buffer_high_bytes:
            near.send(Frame(Kind.REQUEST, 1, 1, b"", (body,)))
            sent += 1
            await asyncio.sleep(0.02)
        draining = asyncio.create_task(near.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        far._transport.resume_reading()
        await draining
        while sum(heard) < sent * len(body):
            await asyncio.sleep(0.005)
        assert near.buffered_bytes == 0
        closed = asyncio.Event()
        far.on_closed = closed.set
        near.close()
        await near.drain()
        await closed.wait()
        await listening.close()

    run_limited(work)


def test_calls_end_each_in_its_own_time_under_one_timer() -> None:
    async def work() -> None:
        calls, ended = Calls(10), []
        loop = asyncio.get_running_loop()

        def note(timeout_ms: int) -> None:
            _, future = calls.begin(timeout_ms / 1000)

            def end(done: asyncio.Future[object]) -> None:
                assert isinstance(done.exception(), TimeoutError)
                ended.append((timeout_ms, loop.time()))

            future.add_done_callback(end)

        begun_s = loop.time()
        for timeout_ms in (90, 30, 60, 30):
            note(timeout_ms)
        _, kept = calls.begin()
        while len(ended) < 4:
            await asyncio.sleep(0.005)
        assert [timeout_ms for timeout_ms, _ in ended] == [30, 30, 60, 90]
        assert all(at_s - begun_s >= timeout_ms / 1000 - 0.002 for timeout_ms, at_s in ended)
        assert (len(calls), kept.done(), calls._alarm) == (1, False, None)
        calls.fail("the end")
        assert kept.exception() is not None

    run_limited(work)
