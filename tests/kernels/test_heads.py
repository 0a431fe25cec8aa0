"""The parser of request heads takes what its reference takes, and reads the same out of it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgestore.kernels import reference

_native = pytest.importorskip("edgestore.kernels._native")

PLAIN = b"PUT /b/k?a=b&c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\nX-Amz-Meta-A: a b"
PIECES = (
    *(
        b"GET ",
        b"HEAD ",
        b"PUT ",
        b"POST ",
        b"get ",
        b"/",
        b"/b/k",
        b"*",
        b"?",
        b"a=b",
        b"#f",
        b"%2F",
        b" ",
        b"\t",
        b"\xff",
    ),
    *(
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"Host: h",
        b"host: i",
        b"Host:h",
        b"Host : h",
        b": ",
        b":",
    ),
    *(b"Content-Length: 5", b"Content-Length: +5", b"content-length: 0", b"Content-Length: 1234567890123456"),
    *(b"Transfer-Encoding: chunked", b"TE: trailers", b"Trailer: x", b"Upgrade: h2c", b"HTTP2-Settings: a"),
    *(b"Proxy-Connection: close", b"Connection: close", b"Connection: Keep-Alive", b"Expect: 100-continue"),
    *(b"Expect: 200-ok", b"X-Empty: ", b"X-End: a ", b"X-Fold: a", b" b", b"X_Y!: ~", b"Te: x", b"Tex: x", b"Hosts: x"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
@settings(max_examples=1500, deadline=None)
@example(PLAIN)
def test_pieces_of_heads_are_judged_alike(data: bytes) -> None:
    assert _native.parse_head(data) == reference.parse_head(data)


@given(st.lists(st.sampled_from(PIECES[15:]), max_size=8), st.sampled_from((b"GET /k", b"PUT /b/k?q", b"HEAD /?")))
@settings(max_examples=1500, deadline=None)
def test_lines_of_plain_heads_are_read_alike(lines: list[bytes], start: bytes) -> None:
    data = b"\r\n".join((start + b" HTTP/1.1", b"Host: h", *lines))
    assert _native.parse_head(data) == reference.parse_head(data)


@given(st.binary(max_size=3), st.integers(0, len(PLAIN)), st.integers(0, 3))
@settings(max_examples=1500, deadline=None)
def test_a_head_that_was_tampered_with_is_judged_alike(inserted: bytes, at: int, removed: int) -> None:
    data = PLAIN[:at] + inserted + PLAIN[at + removed :]
    assert _native.parse_head(data) == reference.parse_head(data)


def test_bounds_are_the_same() -> None:
    for fields in (99, 100, 101):
        data = b"\r\n".join((b"GET / HTTP/1.1", b"Host: h", *(b"X-%d: v" % number for number in range(fields - 1))))
        assert _native.parse_head(data) == reference.parse_head(data)
        assert (_native.parse_head(data) is None) == (fields > 100)
    for size in (7_999, 8_000, 8_001):
        data = b"GET / HTTP/1.1\r\nHost: h\r\nX: ".ljust(size, b"v")
        assert _native.parse_head(data) == reference.parse_head(data)
        assert (_native.parse_head(data) is None) == (size > 8_000)
    name = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"N" * 7_900 + b": v"
    assert _native.parse_head(name) == reference.parse_head(name) is not None


def test_what_is_read_is_what_was_sent() -> None:
    assert _native.parse_head(PLAIN) == (
        "PUT",
        "/b/k",
        "a=b&c",
        {"host": "h", "content-length": "5", "expect": "100-Continue", "x-amz-meta-a": "a b"},
        5,
        True,
    )
