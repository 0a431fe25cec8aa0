"""Both lanes answer the same, in the order of the requests, however the bytes arrive."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgestore.protocols.http.connection import Connection
from tests.unit.http.served import Answer, Client, Served, request, until

FAST = "http_fast_requests_total"
CORPUS: dict[str, bytes] = {
    "get": request(),
    "get with a query": request(target="/bucket?list-type=2&prefix=a%2Fb"),
    "head": request("HEAD"),
    "head that is not modified": request("HEAD", "/not-modified"),
    "get that is not modified": request(target="/not-modified"),
    "put": request("PUT", body=b"content"),
    "put of nothing": request("PUT", body=b""),
    "put without a length": request("PUT"),
    "put of 128 KiB": request("PUT", body=b"x" * 131_072),
    "put of a large body": request("PUT", body=bytes(range(256)) * 4100),
    "put of several units": request("PUT", body=b"0123456789abcdef" * 65_537),
    "post": request("POST", body=b"<Delete/>"),
    "delete": request("DELETE"),
    "get with a body": request(body=b"hidden"),
    "not hot after all": request("PUT", "/not-hot-after-all", body=b"content"),
    "path with dots": request(target="/bucket/../other/./k"),
    "path with double slashes": request(target="//bucket//k"),
    "path with escapes": request(target="/bucket/%2F%252F%00%0d%0a"),
    "path with odd characters": request(target='/bucket/a"<>\\^`{|}b'),
    "path with a fragment": request(target="/bucket/k#part"),
    "header in odd case": request(headers=["X-EchO: Value"]),
    "header without a space": request(headers=["x-echo:value"]),
    "header with spaces around": request(headers=["x-echo:  \t a  b \t "]),
    "header that is empty": request(headers=["x-echo:"]),
    "header in latin-1": request(headers=["x-echo: caf\u00e9 \u00e0"]),
    "header of 8,000 bytes": request(headers=["x-echo: " + "v" * 8000]),
    "eighty headers": request(headers=[f"x-{i}: {i}" for i in range(80)]),
    "keep-alive": request(headers=["Connection: keep-alive"]),
    "chunked": request("PUT", headers=["Transfer-Encoding: chunked"]) + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "stream": request(target="/stream/3"),
    "stream by head": request("HEAD", "/stream/3"),
    "header with line ends": request(target="/inject"),
    "absolute target": request(target="http://store.example/bucket/key?a=b"),
}


def answers(served: Served, data: bytes, *, is_head: bool = False) -> tuple[Answer, Answer]:
    """The answer, and that of a plain request behind it on the same connection: the framing is still whole."""
    with served.connect() as client:
        client.send(data)
        first = client.answer(is_head=is_head)
        client.send(request(target="/behind"))
        return first, client.answer()


@pytest.mark.parametrize("name", CORPUS)
def test_lanes_answer_alike_and_leave_the_connection_whole(fast: Served, slow: Served, name: str) -> None:
    data = CORPUS[name]
    in_fast = answers(fast, data, is_head=data.startswith(b"HEAD"))
    in_slow = answers(slow, data, is_head=data.startswith(b"HEAD"))
    assert in_fast == in_slow
    assert in_fast[0].headers["server"] == "edgestore"
    assert in_fast[1].seen["path"] == "/behind"


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12).map(lambda name: f"x-{name}")
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60).map(lambda text: "/made/" + text)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    target=TARGETS,
    headers=st.dictionaries(TOKENS, VALUES, max_size=8),
    body=st.none() | st.binary(max_size=2000),
)
def test_made_requests_are_answered_alike(
    fast: Served, slow: Served, method: str, target: str, headers: dict[str, str], body: bytes | None
) -> None:
    data = request(method, target, [f"{name}: {value}" for name, value in headers.items()], body)
    is_head = method == "HEAD"
    assert answers(fast, data, is_head=is_head) == answers(slow, data, is_head=is_head)


def has_parked(served: Served) -> bool:
    """Whether aiohttp waits for a request on the one connection there is; it does a turn or two after its answer."""
    (connection,) = served.front.connections
    assert isinstance(connection, Connection)
    return connection._is_parked()


@pytest.mark.parametrize("name", ["get", "put", "put of 128 KiB", "head", "get with a query", "not hot after all"])
def test_plain_requests_take_the_fast_lane(fast: Served, name: str) -> None:
    until(lambda: not fast.front.connections)
    before = fast.metrics.value(FAST)
    with fast.connect() as client:
        client.send(CORPUS[name])
        assert client.answer(is_head=CORPUS[name].startswith(b"HEAD")).status == 200
        until(lambda: has_parked(fast))
        client.send(request(target="/behind"))
        assert client.answer().seen["path"] == "/behind"
    assert fast.metrics.value(FAST) - before == (1 if name == "not hot after all" else 2)


def test_first_request_of_a_connection_is_fast_and_so_is_the_one_behind_a_slow_one(fast: Served) -> None:
    until(lambda: not fast.front.connections)
    before = fast.metrics.value(FAST)
    with fast.connect() as client:
        for target in ("/a", "/slow-lane/b", "/c"):
            client.send(request(target=target))
            assert client.answer().seen["path"] == target
            until(lambda: has_parked(fast))
    assert fast.metrics.value(FAST) - before == 2


# --- order ------------------------------------------------------------------------------------------------


def test_pipelined_answers_keep_their_order(served: Served) -> None:
    targets = ["/a", "/slow-lane/b", "/c", "/stream/1", "/slow-lane/wait", "/d", "/not-hot-after-all", "/e"]
    with served.connect() as client:
        client.send(b"".join(request(target=target) for target in targets))
        for target in targets:
            answer = client.answer()
            assert len(answer.body) == 1 << 20 if target == "/stream/1" else answer.seen["path"] == target


def test_fast_answer_never_overtakes_a_slow_one(fast: Served) -> None:
    with fast.connect() as client:
        client.send(request(target="/slow-lane/wait"))
        time.sleep(0.05)
        client.send(request(target="/fast"))
        assert client.answer().seen["path"] == "/slow-lane/wait"
        assert client.answer().seen["path"] == "/fast"


def test_what_comes_while_a_fast_answer_waits_is_held(fast: Served) -> None:
    with fast.connect() as client:
        client.send(request("PUT", "/late", body=b"first") + request("PUT", "/second", body=b"x" * 70_000))
        client.send(request(target="/slow-lane/third") + request(target="/fourth"))
        fast.release_late()
        assert [client.answer().seen["path"] for _ in range(4)] == ["/late", "/second", "/slow-lane/third", "/fourth"]


def test_many_requests_behind_a_waiting_one_are_bounded_and_all_answered(fast: Served) -> None:
    one = request(target="/" + "k" * 900)
    count = 1500
    with fast.connect() as client:
        client.send(request("PUT", "/late", body=b"first"))
        client.socket.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 0.5
        data = one * count
        while sent < len(data) and time.monotonic() < deadline:
            try:
                sent += client.socket.send(data[sent : sent + 65_536])
            except BlockingIOError:
                time.sleep(0.01)
        until(lambda: bool(fast.echo.late))
        held = max(len(connection._held) for connection in fast.front.connections)  # type: ignore[attr-defined]
        assert held <= 256 * 1024 + 262_144
        fast.release_late()
        client.socket.settimeout(10)
        assert client.answer().seen["path"] == "/late"
        whole = sent // len(one)
        for _ in range(whole):
            assert client.answer().status == 200


# --- pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        request(headers=["x-echo: v"]),
        request("PUT", body=b"in pieces"),
        request("PUT", "/slow-lane/p", body=b"in pieces"),
        request("PUT", "/not-hot-after-all", body=b"in pieces"),
        request("POST", body=b"in pieces"),
    ],
)
def test_requests_may_come_byte_by_byte(served: Served, data: bytes) -> None:
    with served.connect() as client:
        for at in range(len(data)):
            client.send(data[at : at + 1])
            if at % 16 == 0:
                time.sleep(0.001)
        assert client.answer().status == 200
        client.send(request(target="/behind"))
        assert client.answer().seen["path"] == "/behind"


@pytest.mark.parametrize("cut", [1, 10, 64, 100, 1000, 65_536, 131_000])
def test_small_body_may_be_cut_anywhere(fast: Served, cut: int) -> None:
    body = bytes(range(256)) * 512
    data = request("PUT", body=body)
    with fast.connect() as client:
        client.send(data[:cut])
        time.sleep(0.02)
        client.send(data[cut:] + request(target="/behind"))
        assert client.answer().seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert client.answer().seen["path"] == "/behind"


@pytest.mark.parametrize("size", [131_073, 262_144, 262_145, 1_048_576, 3_000_001])
def test_large_body_arrives_whole_and_the_next_request_is_taken(served: Served, size: int) -> None:
    body = (b"%08d" * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size] if size < 300_000 else b"\xa5" * size
    with served.connect() as client:
        client.send(request("PUT", body=body) + request(target="/behind"))
        assert client.answer().seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert client.answer().seen["path"] == "/behind"
    assert served.pool.taken_bytes == 0


def test_large_bodies_wait_for_units_rather_than_take_more(fast: Served) -> None:
    clients = [Client(fast.port) for _ in range(12)]
    body = b"z" * 2_000_000
    for client in clients:
        client.send(request("PUT", body=body)[:900_000])
    for client in clients:
        client.send(request("PUT", body=body)[900_000:])
    for client in clients:
        assert client.answer().seen["body_bytes"] == len(body)
        client.socket.close()
    assert fast.pool.taken_bytes == 0


# --- Expect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 131_072, 400_000])
@pytest.mark.parametrize("target", ["/bucket/key", "/slow-lane/key", "/not-hot-after-all"])
def test_expect_is_answered_with_100_before_the_body(served: Served, size: int, target: str) -> None:
    if target == "/not-hot-after-all" and size > 131_072:
        target = "/bucket/key"
    data = request("PUT", target, ["Expect: 100-continue"], b"e" * size)
    head = data[: len(data) - size]
    with served.connect() as client:
        for _ in range(2):
            client.send(head)
            assert client.answer().status == 100
            client.send(data[len(head) :])
            assert client.answer().seen["body_bytes"] == size


def test_body_that_comes_at_once_needs_no_100(fast: Served) -> None:
    with fast.connect() as client:
        client.send(request("PUT", headers=["Expect: 100-continue"], body=b"at once"))
        assert client.answer().seen["body_bytes"] == 7


def test_other_expectations_are_passed_over_without_a_100(served: Served) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/bucket/miracle", ["Expect: a-miracle"], b"x"))
        answer = client.answer()
        assert answer.status == 200
        assert answer.seen["body_bytes"] == 1
    assert "/bucket/miracle" in served.echo.seen


@pytest.mark.parametrize("size", [400_000, 10_000_000])
def test_early_answer_to_an_unasked_body_closes_the_connection(served: Served, size: int) -> None:
    with served.connect() as client:
        client.send(request("PUT", "/early", ["Expect: 100-continue", f"Content-Length: {size}"]))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert client.is_closed()


def test_early_answer_to_a_body_on_its_way_can_be_read(fast: Served) -> None:
    with fast.connect() as client:
        client.send(request("PUT", "/early", [f"Content-Length: {3_000_000}"]))
        client.send(b"x" * 1_000_000)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        client.send(b"x" * 1_000_000)
        client.send(b"x" * 1_000_000)
        assert client.is_closed()
    assert fast.pool.taken_bytes == 0
