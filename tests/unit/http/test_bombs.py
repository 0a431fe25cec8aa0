"""Bodies that are small on the wire and costly inside: never unpacked, never a turn of the loop for each chunk."""

from __future__ import annotations

import gzip
import hashlib
import resource
import threading
import time
import zlib

import pytest

from tests.unit.http.served import Served, request

ZEROS = bytes(64 << 20)
BOMBS = {
    "gzip": gzip.compress(ZEROS, 6),
    "deflate": zlib.compress(ZEROS, 6),
    "br": b"\x1b\x00\x00\x00\x24\x00" * 4000,
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(20_000),
}
CHUNKS = 200_000


def chunked(body: bytes, size: int) -> bytes:
    """The chunked form."""
    pieces = [
        b"%x\r\n%b\r\n" % (len(piece), piece) for at in range(0, len(body), size) if (piece := body[at : at + size])
    ]
    return b"".join([*pieces, b"0\r\n\r\n"])


@pytest.mark.parametrize("target", ["/bucket/key", "/slow-lane/key", "/not-hot-after-all"])
@pytest.mark.parametrize("encoding", BOMBS)
def test_compressed_body_is_never_unpacked(served: Served, target: str, encoding: str) -> None:
    """CVE-2025-69223: a zip bomb as a request body."""
    body = BOMBS[encoding]
    with served.connect() as client:
        for framed in (
            request("PUT", target, [f"Content-Encoding: {encoding}"], body),
            request("PUT", target, [f"Content-Encoding: {encoding}", "Transfer-Encoding: chunked"])
            + chunked(body, 9999),
        ):
            client.send(framed)
            seen = client.answer().seen
            assert (seen["body_bytes"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_many_tiny_chunks_cost_a_bounded_time_and_memory(served: Served) -> None:
    """CVE-2025-69229: a body in chunks of one byte keeps the loop busy for long and memory for each."""
    body = b"0123456789" * (CHUNKS // 10)
    data = request("PUT", headers=["Transfer-Encoding: chunked"]) + chunked(body, 1)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with served.connect() as client, served.connect() as other:
        sender = threading.Thread(target=client.send, args=(data,))
        started = time.monotonic()
        sender.start()
        longest_s = 0.0
        while sender.is_alive():
            asked = time.monotonic()
            other.send(request(target="/bucket/other"))
            assert other.answer().status == 200
            longest_s = max(longest_s, time.monotonic() - asked)
        assert client.answer().seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert time.monotonic() - started < 10
        assert longest_s < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
