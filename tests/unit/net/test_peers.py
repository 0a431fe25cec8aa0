"""Peers over real TLS on loopback: messages, calls, errors, both lanes, rights, renewal."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgestore.config import NetConfig
from edgestore.errors import BadRequest, Denied, NoSuchKey, TooBusy, Unavailable
from edgestore.net import Answer, Caller, Credentials, Lane, Method, Peers, Reply, Rights, SystemNetwork, Topic
from edgestore.observe import Metrics
from edgestore.security import authority_digest
from tests.unit.net.site import LIFE_MS, NOW_MS, Site, introduce, member_of

ONE, TWO = member_of(1), member_of(2)
LIMIT_S = 5.0


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(limited())


@asynccontextmanager
async def pair(site: Site, config: NetConfig | None = None) -> AsyncIterator[tuple[Peers, Peers]]:
    members = {}
    for number in (1, 2):
        peers = site.peers(number, SystemNetwork(), config)
        members[member_of(number)] = (peers, await peers.start("127.0.0.1", 0))
    introduce(members)
    one, two = members[ONE][0], members[TWO][0]
    try:
        yield one, two
    finally:
        await one.close()
        await two.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def ask(peers: Peers, member: str = TWO, head: bytes = b"", **options: Any) -> Answer:
    return await peers.call(member, Method.STATUS, head, timeout_s=LIMIT_S, **options)


def test_a_call_brings_head_and_payload_on_both_lanes() -> None:
    async def work() -> None:
        async with pair(Site()) as (one, two):

            async def echo(caller: Caller, head: bytes, payload: memoryview) -> Reply:
                assert caller.member == ONE
                return Reply(head[::-1], (payload, b"!"))

            two.serve(Method.STATUS, echo)
            large = bytes(range(256)) * 4096
            for lane in Lane:
                answer = await ask(one, head=b"abc", payload=(large, b"tail"), lane=lane)
                assert (answer.head, bytes(answer.payload)) == (b"cba", large + b"tail!")
            assert one.is_connected(TWO)
            assert one.round_trip_ms(TWO) is not None

    run(work)


def test_messages_arrive_in_order_and_name_their_sender() -> None:
    async def work() -> None:
        async with pair(Site()) as (one, two):
            heard: list[bytes] = []
            done = asyncio.Event()

            def take(caller: Caller, head: bytes) -> None:
                assert caller.member == ONE
                heard.append(head)
                if len(heard) == 100:
                    done.set()

            two.on_message(Topic.RAFT, take)
            while not one.is_connected(TWO):
                await asyncio.sleep(0.005)
            assert all(one.send(TWO, Topic.RAFT, b"%d" % number) for number in range(100))
            await done.wait()
            assert heard == [b"%d" % number for number in range(100)]

    run(work)


def test_the_error_of_a_handler_is_raised_with_its_fields() -> None:
    async def work() -> None:
        async with pair(Site()) as (one, two):

            async def fail(caller: Caller, head: bytes, payload: memoryview) -> Reply:
                if head == b"bug":
                    raise KeyError("a bug")
                raise NoSuchKey("it is gone", key="k", generation=7)

            two.serve(Method.STATUS, fail)
            with pytest.raises(NoSuchKey, match="it is gone") as raised:
                await ask(one)
            assert raised.value.fields == {"key": "k", "generation": 7}
            with pytest.raises(Unavailable):
                await ask(one, head=b"bug")
            with pytest.raises(Unavailable):
                await one.call(TWO, Method.PROPOSE, b"", timeout_s=LIMIT_S)
            with pytest.raises(Unavailable):
                await ask(one, member_of(9))

    run(work)


def test_a_call_to_a_node_that_is_gone_does_not_wait_as_long_as_one_for_its_answer() -> None:
    async def work() -> None:
        async with pair(Site(), NetConfig(dial_timeout_s=0.3)) as (one, two):
            await one.call(TWO, Method.PING, b"", timeout_s=LIMIT_S)
            await two.close()
            for lane in Lane:
                begun_s = asyncio.get_running_loop().time()
                with pytest.raises(Unavailable):
                    await one.call(TWO, Method.STATUS, b"", timeout_s=60, lane=lane)
                assert asyncio.get_running_loop().time() - begun_s < 5

    run(work)


def test_a_call_ends_in_time_and_its_late_answer_is_passed_over() -> None:
    async def work() -> None:
        async with pair(Site()) as (one, two):
            go_on = asyncio.Event()

            async def slow(caller: Caller, head: bytes, payload: memoryview) -> Reply:
                if head == b"wait":
                    await go_on.wait()
                return Reply(head)

            two.serve(Method.STATUS, slow)
            await ask(one, head=b"first")
            with pytest.raises(Unavailable):
                await one.call(TWO, Method.STATUS, b"wait", timeout_s=0.05)
            go_on.set()
            assert (await ask(one, head=b"next")).head == b"next"

    run(work)


def test_what_one_connection_may_have_served_at_once_is_bounded() -> None:
    async def work() -> None:
        async with pair(Site(), NetConfig(served_max=2)) as (one, two):
            go_on = asyncio.Event()

            async def slow(caller: Caller, head: bytes, payload: memoryview) -> Reply:
                await go_on.wait()
                return Reply()

            two.serve(Method.STATUS, slow)
            await one.call(TWO, Method.PING, b"", timeout_s=LIMIT_S)  # the first ping takes a place too
            async with asyncio.TaskGroup() as group:
                served = [group.create_task(ask(one)) for _ in range(2)]
                await asyncio.sleep(0.1)
                with pytest.raises(TooBusy):
                    await ask(one)
                go_on.set()
            assert all(task.done() for task in served)

    run(work)


def test_a_member_that_is_shut_out_is_cut_off_and_not_let_in_again() -> None:
    async def work() -> None:
        site = Site()
        async with pair(site) as (one, two):

            async def echo(caller: Caller, head: bytes, payload: memoryview) -> Reply:
                return Reply(head)

            two.serve(Method.STATUS, echo)
            await ask(one)
            site.rights[ONE] = Rights.NONE
            two.review()
            with pytest.raises((Denied, Unavailable)):
                await one.call(TWO, Method.STATUS, b"", timeout_s=0.5)
            site.rights[ONE] = Rights.EXPIRED
            two.review()
            two.serve(Method.RENEW, echo, rights=Rights.EXPIRED)
            assert (await one.call(TWO, Method.RENEW, b"r", timeout_s=LIMIT_S)).head == b"r"
            with pytest.raises(Denied):
                await ask(one)

    run(work)


def test_a_joiner_says_nothing_before_the_site_of_its_token_has_proved_itself() -> None:
    async def work() -> None:
        site, other = Site(), Site(2, bytes(16))
        heard: list[bytes] = []

        async def join(caller: Caller, head: bytes, payload: memoryview) -> Reply:
            assert (caller.member, caller.rights) == ("", Rights.NONE)
            heard.append(head)
            return Reply(b"welcome")

        two = site.peers(2, SystemNetwork())
        two.serve(Method.JOIN, join, rights=Rights.NONE)
        two.serve(Method.STATUS, join)
        host, port = await two.start("127.0.0.1", 0)
        joiner = Peers(
            SystemNetwork(),
            NetConfig(),
            Credentials(lambda facts: Rights.NONE),
            member=ONE,
            clock=two._clock,
            entropy=site.entropy,
            metrics=Metrics(),
        )
        address = f"{host}:{port}"
        good, bad = (authority_digest(one.authority.certificate_der) for one in (site, other))
        with pytest.raises(Denied):
            await joiner.call_address(address, bad, Method.JOIN, b"secret", timeout_s=LIMIT_S)
        assert not heard
        answer = await joiner.call_address(address, good, Method.JOIN, b"secret", timeout_s=LIMIT_S)
        assert (answer.head, heard) == (b"welcome", [b"secret"])
        with pytest.raises(Denied):
            await joiner.call_address(address, good, Method.STATUS, b"", timeout_s=LIMIT_S)
        await two.close()
        await joiner.close()

    run(work)


def test_members_of_two_sites_never_meet() -> None:
    async def work() -> None:
        one, two = Site().peers(1, SystemNetwork()), Site(2, bytes(16)).peers(2, SystemNetwork())
        await one.start("127.0.0.1", 0)
        host, port = await two.start("127.0.0.1", 0)
        one.know(TWO, f"{host}:{port}")
        with pytest.raises(Unavailable):
            await one.call(TWO, Method.PING, b"", timeout_s=0.5)
        assert not one.is_connected(TWO)
        await one.close()
        await two.close()

    run(work)


def test_a_renewed_certificate_is_shown_to_new_connections() -> None:
    async def work() -> None:
        site = Site()
        async with pair(site) as (one, two):
            await one.call(TWO, Method.PING, b"", timeout_s=LIMIT_S)
            credentials = two._credentials
            renewed = site.issue_again(credentials, TWO, NOW_MS + LIFE_MS)
            credentials.replace(renewed)
            await one.call(TWO, Method.PING, b"", timeout_s=LIMIT_S, lane=Lane.BULK)
            assert one._peers[TWO]._bulk[0].peer_certificate == renewed

    run(work)


def test_of_two_starts_of_one_member_neither_is_heard_on_what_binds_it() -> None:
    async def work() -> None:
        site = Site()
        heard: dict[Topic, list[bytes]] = {topic: [] for topic in Topic}
        one, two, copy = (site.peers(number, SystemNetwork()) for number in (1, 2, 2))
        for start, peers in ((b"original", two), (b"copy", copy)):
            peers._credentials.start = start
        for topic in Topic:
            one.on_message(topic, lambda caller, head, topic=topic: heard[topic].append(head))
        host, port = await one.start("127.0.0.1", 0)
        for peers in (two, copy):
            await peers.start("127.0.0.1", 0)
        try:
            two.know(ONE, f"{host}:{port}")
            await until(lambda: two.send(ONE, Topic.RAFT, b"alone"))
            await until(lambda: heard[Topic.RAFT] == [b"alone"])
            copy.know(ONE, f"{host}:{port}")
            await until(lambda: copy.is_connected(ONE))
            for peers in (copy, two):
                assert peers.send(ONE, Topic.RAFT, b"both")
                assert peers.send(ONE, Topic.SWIM, b"both")
            await until(lambda: len(heard[Topic.SWIM]) == 2)
            assert heard[Topic.RAFT] == [b"alone"]
            await until(lambda: one.contested() == {TWO})
            await copy.close()
            await until(lambda: not one.contested())
            await until(lambda: two.send(ONE, Topic.RAFT, b"again") and b"again" in heard[Topic.RAFT])
        finally:
            for peers in (one, two, copy):
                await peers.close()

    run(work)


def test_a_node_that_is_shut_out_dials_ever_more_slowly() -> None:
    async def work() -> None:
        site = Site()
        async with pair(site) as (one, two):
            two.serve(Method.STATUS, _echo)
            assert (await ask(one, head=b"in")).head == b"in"  # by now both sides know the connection
            site.rights[ONE] = Rights.NONE
            dialled = 0

            def connected(member: str) -> None:
                nonlocal dialled
                dialled += 1
                one.send(TWO, Topic.RAFT, b"vote for me")  # for which it is cut off again

            one.on_connected(connected)
            two.review()
            await asyncio.sleep(2)
            assert 0 < dialled <= 6
            site.rights[ONE] = Rights.MEMBER
            assert (await ask(one, head=b"back")).head == b"back"

    run(work)


async def _echo(caller: Caller, head: bytes, payload: memoryview) -> Reply:
    return Reply(head)


def test_an_address_where_another_service_speaks_tls_is_refused_at_once() -> None:
    async def work() -> None:
        async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read())
            writer.close()

        heard: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(self_signed(Path(folder)))
        server = await asyncio.start_server(web, "127.0.0.1", 0, ssl=context)
        host, port = server.sockets[0].getsockname()
        peers = Site().peers(1, SystemNetwork())
        with pytest.raises(BadRequest, match="not a mesh address"):
            await peers.call_address(f"{host}:{port}", bytes(32), Method.JOIN, b"secret", timeout_s=LIMIT_S)
        server.close()
        await peers.close()
        assert not any(b"secret" in data for data in heard)

    run(work)


def self_signed(folder: Path) -> Path:
    """A certificate as a web server has it, and its key, in one PEM file."""
    key, now = Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    path = folder / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.sign(key, None).public_bytes(pem))
    return path


def test_an_address_where_nobody_speaks_tls_is_refused_at_once() -> None:
    async def work() -> None:
        async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(web, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        peers = Site().peers(1, SystemNetwork())
        with pytest.raises(BadRequest, match="not a mesh address"):
            await peers.call_address(f"{host}:{port}", bytes(32), Method.JOIN, b"secret", timeout_s=LIMIT_S)
        server.close()
        await peers.close()

    run(work)
