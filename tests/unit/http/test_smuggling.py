"""Every known way to make two readers disagree about where a request ends: never the fast lane, never a second request.

Each form carries a second request in its body or behind it. Whatever is answered, the hidden request must not be, and
the plain parser must refuse the head.
"""

from __future__ import annotations

import pytest

from edgestore.protocols.http.head import framed_bytes, parse_plain_head
from tests.unit.http.served import Served, request

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: store.example\r\n\r\n"
PUT = b"PUT /bucket/key HTTP/1.1\r\nHost: store.example\r\n"
GET = b"GET /bucket/key HTTP/1.1\r\nHost: store.example\r\n"
SIZE = str(len(HIDDEN)).encode()

# Refused with 400, or cut: nothing of it is served.
REFUSED: dict[str, bytes] = {
    "two lengths that differ": PUT + b"Content-Length: 0\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "two lengths alike": PUT + b"Content-Length: " + SIZE + b"\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "two lengths in one field": PUT + b"Content-Length: 0, " + SIZE + b"\r\n\r\n" + HIDDEN,
    "length and chunked": PUT + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked and length": PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "transfer-encoding twice": PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + HIDDEN,
    "transfer-encoding xchunked": PUT + b"Transfer-Encoding: xchunked\r\n\r\n" + HIDDEN,
    "transfer-encoding with a space before the colon": PUT
    + b"Transfer-Encoding : chunked\r\nContent-Length: "
    + SIZE
    + b"\r\n\r\n"
    + HIDDEN,
    "transfer-encoding with a control character": PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked is not last": PUT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "length with a plus": PUT + b"Content-Length: +" + SIZE + b"\r\n\r\n" + HIDDEN,
    "length with a minus": PUT + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "length in hex": PUT + b"Content-Length: 0x2a\r\n\r\n" + HIDDEN,
    "length with an underscore": PUT + b"Content-Length: 4_2\r\n\r\n" + HIDDEN,
    "length with a space inside": PUT + b"Content-Length: 4 2\r\n\r\n" + HIDDEN,
    "length with a fraction": PUT + b"Content-Length: 42.0\r\n\r\n" + HIDDEN,
    "length that is empty": PUT + b"Content-Length:\r\n\r\n" + HIDDEN,
    "length that overflows": PUT + b"Content-Length: 18446744073709551658\r\n\r\n" + HIDDEN,
    "length in Arabic digits": PUT + "Content-Length: \u0664\u0662\r\n\r\n".encode() + HIDDEN,
    "length with a space before the colon": PUT + b"Content-Length : " + SIZE + b"\r\n\r\n" + HIDDEN,
    "length with a tab before the colon": PUT + b"Content-Length\t: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "length with a NUL in its name": PUT + b"Content-Length\x00: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "length with a space before its name": PUT + b" Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "obsolete folding": PUT + b"x-folded: a\r\n b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "length in a folded line": PUT + b"x-folded: a\r\n\tContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "bare LF between headers": PUT + b"x-a: b\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "bare LF at the end of the head": b"PUT /bucket/key HTTP/1.1\r\nHost: store.example\r\nContent-Length: 0\n\n"
    + HIDDEN,
    "bare LF everywhere": b"GET /bucket/key HTTP/1.1\nHost: store.example\n\n" + HIDDEN,
    "bare CR in a value": PUT + b"x-a: b\rContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "bare CR in a name": PUT + b"x-a\rb: c\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "NUL in a value": PUT + b"x-a: b\x00c\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "NUL in the target": b"GET /bucket\x00/key HTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "a name that is no token": PUT + b"x(a): b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a name that is empty": PUT + b": b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a line without a colon": PUT + b"nothing\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "non-ASCII in a name": PUT + b"x-\xe9: b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "Host twice": GET + b"Host: other.example\r\n\r\n" + HIDDEN,
    "no Host": b"GET /bucket/key HTTP/1.1\r\nx-a: b\r\n\r\n" + HIDDEN,
    "Authorization twice": GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n" + HIDDEN,
    "tab in the request line": b"GET\t/bucket/key\tHTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "space in the target": b"GET /bucket/a b HTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /bucket/key\r\n\r\n" + HIDDEN,
    "HTTP/1.2": b"GET /bucket/key HTTP/1.2\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "HTTP/2.0": b"GET /bucket/key HTTP/2.0\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "method in small letters": b"get /bucket/key HTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "authority": b"GET store.example:80 HTTP/1.1\r\nHost: store.example\r\n\r\n" + HIDDEN,
    "chunk size with a plus": PUT + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + HIDDEN,
    "chunk size in 0x": PUT + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    "chunk size that overflows": PUT + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + HIDDEN,
    "chunk extension with a newline": PUT + b"Transfer-Encoding: chunked\r\n\r\n5;a\n=b\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "chunk with a bare LF": PUT + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + HIDDEN,
    "chunk without its line end": PUT + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n" + HIDDEN,
}

# Served by aiohttp, with one meaning: the first request, then the one behind it.
SERVED: dict[str, bytes] = {
    "HTTP/1.0 with keep-alive": b"GET /bucket/key HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n",
    "absolute target": b"GET http://store.example/bucket/key HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "empty lines before the request": b"\r\n\r\n" + GET + b"\r\n",
    "length with leading zeros": PUT + b"Content-Length: 0005\r\n\r\nhello",
    "length with spaces around": PUT + b"Content-Length: \t 5 \t\r\n\r\nhello",
    "GET with a body": GET + b"Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "DELETE with a body": b"DELETE /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
    "chunk extensions": PUT + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    "chunked with trailers": PUT
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-late: "
    + SIZE
    + b"\r\n\r\n",
    "two spaces in the request line": b"GET  /bucket/key HTTP/1.1\r\nHost: store.example\r\n\r\n",
    "content-length in the connection header": GET + b"Connection: content-length\r\n\r\n",
}


def end_of(data: bytes) -> int:
    """Where the head ends; the whole where it does not."""
    end = data.find(b"\r\n\r\n")
    return len(data) if end < 0 else end


@pytest.mark.parametrize("name", [*REFUSED, *(name for name in SERVED if name != "length with leading zeros")])
def test_odd_head_is_never_plain(name: str) -> None:
    data = {**REFUSED, **SERVED}[name]
    assert parse_plain_head(data[: end_of(data)]) is None


@pytest.mark.parametrize("name", REFUSED)
def test_smuggled_request_is_never_answered(served: Served, name: str) -> None:
    served.echo.seen.clear()
    with served.connect() as client:
        client.send(REFUSED[name])
        statuses = []
        try:
            while True:
                answer = client.answer()
                statuses.append(answer.status)
                assert answer.headers["connection"] == "close"
        except (EOFError, ConnectionError):
            pass
    assert statuses in ([400], [])
    assert served.echo.seen == []


@pytest.mark.parametrize("name", SERVED)
def test_odd_request_has_one_meaning_in_both_lanes(fast: Served, slow: Served, name: str) -> None:
    found = []
    for served in (fast, slow):
        served.echo.seen.clear()
        with served.connect() as client:
            client.send(SERVED[name] + request(target="/behind"))
            found.append(client.answer())
            assert client.answer().seen["path"] == "/behind"
        assert len(served.echo.seen) == 2
        assert "/hidden" not in served.echo.seen
    assert found[0] == found[1]


def test_declined_upgrade_ends_the_connection(served: Served) -> None:
    upgrade = GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    assert parse_plain_head(upgrade[:-4]) is None
    served.echo.seen.clear()
    with served.connect() as client:
        client.send(upgrade + HIDDEN)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()
    assert served.echo.seen == ["/bucket/key"]


def test_absolute_target_names_the_host(slow: Served) -> None:
    with slow.connect() as client:
        client.send(SERVED["absolute target"])
        seen = client.answer().seen
    assert (seen["path"], seen["headers"]["host"]) == ("/bucket/key", "store.example")


@pytest.mark.parametrize("name", [name for name, data in REFUSED.items() if data.find(b"\r\n\r\n") >= 0])
def test_bytes_of_an_odd_body_are_never_counted(name: str) -> None:
    """The front counts only behind heads that have one meaning; bytes after any other are aiohttp's for good."""
    data = REFUSED[name]
    counted = framed_bytes(data, end_of(data))
    assert counted is None or name in ("no Host", "Host twice", "Authorization twice")


def test_request_behind_a_refused_one_is_not_served(served: Served) -> None:
    served.echo.seen.clear()
    with served.connect() as client:
        client.send(REFUSED["two lengths that differ"])
        assert client.answer().status == 400
        assert client.is_closed()
    assert served.echo.seen == []


def test_refusal_shows_nothing_of_the_inside(served: Served) -> None:
    with served.connect() as client:
        client.send(REFUSED["length in hex"])
        answer = client.answer()
    assert answer.body == b"the request is malformed\n"
    assert answer.headers["server"] == "edgestore"
    for method in ("GET", "POST"):
        with served.connect() as client:
            client.send(request(method, "/broken"))
            answer = client.answer()
            assert (answer.status, answer.body) == (500, b"the request failed\n")
            assert client.is_closed()
