"""`aws-chunked` bodies: every way to cut them gives the same content, and everything out of order is refused."""

from __future__ import annotations

import base64
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore import errors
from edgestore.security import ChunkedDecoder, Verified
from tests.unit.security.signing import signed, signed_chunks, unsigned_chunks, verify
from tests.unit.security.test_sigv4 import code_of

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CONTENT = bytes(range(256)) * 300


def verified(payload: str) -> Verified:
    """A PUT whose payload says this of itself."""
    return verify(signed("PUT", payload=payload))


def decode(proof: Verified, body: bytes, announced: int | str, *, step: int = 1 << 20) -> ChunkedDecoder:
    """Feeds the body in steps; what comes out must be the content."""
    decoder = ChunkedDecoder(proof, {"x-amz-decoded-content-length": str(announced)})
    content = b"".join(bytes(p) for at in range(0, len(body), step) for p in decoder.feed(body[at : at + step]))
    decoder.finish()
    assert content == CONTENT[: len(content)]
    assert len(content) == int(announced)
    return decoder


def refusal(proof: Verified, body: bytes, announced: int | str = len(CONTENT)) -> str:
    """The code that a body is refused with."""
    with pytest.raises(errors.EdgeStoreError) as caught:
        decode(proof, body, announced)
    return code_of(caught.value)


def chunks(size: int = 16_384) -> list[bytes]:
    """The content cut up."""
    return [CONTENT[at : at + size] for at in range(0, len(CONTENT), size)]


@pytest.mark.parametrize("step", [1, 7, 85, 4096, 1 << 20])
def test_signed_chunks_decode_however_they_arrive(step: int) -> None:
    proof = verified(SIGNED)
    decode(proof, signed_chunks(proof, chunks()), len(CONTENT), step=step)


@pytest.mark.parametrize("step", [1, 13, 4096])
def test_trailers_are_handed_out_after_the_end(step: int) -> None:
    crc = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
    for payload, encode in ((SIGNED_TRAILER, signed_chunks), (UNSIGNED_TRAILER, None)):
        proof = verified(payload)
        trailers = {"x-amz-checksum-crc32": crc}
        body = encode(proof, chunks(), trailers) if encode else unsigned_chunks(chunks(), trailers)
        assert decode(proof, body, len(CONTENT), step=step).trailers == trailers


def test_empty_content_is_one_last_chunk() -> None:
    proof = verified(SIGNED)
    decode(proof, signed_chunks(proof, []), 0)
    decode(verified(UNSIGNED_TRAILER), b"0\r\n\r\n", 0)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=20), step=st.integers(64, 5000))
def test_any_cutting_gives_the_same_content(cuts: list[int], step: int) -> None:
    edges = sorted({0, len(CONTENT), *cuts})
    pieces = [CONTENT[a:b] for a, b in itertools.pairwise(edges)]
    proof = verified(SIGNED)
    decode(proof, signed_chunks(proof, pieces), len(CONTENT), step=step)


@settings(deadline=None)
@given(body=st.binary(max_size=400))
def test_no_bytes_break_the_decoder(body: bytes) -> None:
    for payload in (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER):
        with pytest.raises(errors.EdgeStoreError):
            decode(verified(payload), body, 100_000)


# --- the chain of signatures ------------------------------------------------------------------------------


def test_changed_byte_in_a_chunk_is_refused() -> None:
    proof = verified(SIGNED)
    body = bytearray(signed_chunks(proof, chunks()))
    body[body.index(b"\r\n") + 2 + 100] ^= 1
    decoder = ChunkedDecoder(proof, {"x-amz-decoded-content-length": str(len(CONTENT))})
    with pytest.raises(errors.InvalidCredentials):
        list(decoder.feed(bytes(body)))


def test_chunks_in_another_order_are_refused() -> None:
    proof = verified(SIGNED)
    pieces = [b"a" * 8192, b"b" * 8192]
    body = signed_chunks(proof, pieces)
    size = body.index(b"\r\n", body.index(b"\r\n") + 2 + 8192) + 2
    swapped = body[size : 2 * size] + body[:size] + body[2 * size :]
    decoder = ChunkedDecoder(proof, {"x-amz-decoded-content-length": "16384"})
    with pytest.raises(errors.InvalidCredentials):
        list(decoder.feed(swapped))


def test_chunks_of_another_request_are_refused() -> None:
    proof = verified(SIGNED)
    other = verify(signed("PUT", "/bucket/other", payload=SIGNED))
    assert refusal(proof, signed_chunks(other, chunks())) == "SignatureDoesNotMatch"


def test_left_out_chunk_is_refused() -> None:
    proof = verified(SIGNED)
    whole = signed_chunks(proof, chunks(8192))
    size = whole.index(b"\r\n") + 2 + 8192 + 2
    assert refusal(proof, whole[:size] + whole[2 * size :]) == "SignatureDoesNotMatch"


def test_unsigned_chunks_in_a_signed_body_are_refused() -> None:
    assert refusal(verified(SIGNED), unsigned_chunks(chunks())) == "InvalidRequest"
    assert refusal(verified(SIGNED_TRAILER), unsigned_chunks(chunks(), {"x-amz-checksum-crc32": "AAAAAA=="})) == (
        "InvalidRequest"
    )


def test_trailer_signature_is_needed_and_checked() -> None:
    proof = verified(SIGNED_TRAILER)
    body = signed_chunks(proof, chunks(), {"x-amz-checksum-crc32": "AAAAAA=="})
    assert refusal(proof, body.replace(b"AAAAAA==", b"AAAAAQ==")) == "SignatureDoesNotMatch"
    without = body[: body.index(b"x-amz-trailer-signature")] + b"\r\n"
    assert refusal(proof, without) == "SignatureDoesNotMatch"


def test_trailer_behind_its_signature_is_refused() -> None:
    proof = verified(SIGNED_TRAILER)
    body = signed_chunks(proof, chunks(), {"x-amz-checksum-crc32": "AAAAAA=="})
    assert refusal(proof, body[:-2] + b"x-amz-late:1\r\n\r\n") == "MalformedTrailerError"


# --- framing ----------------------------------------------------------------------------------------------

HEADERS_REFUSED = {
    "chunk extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "chunk extension with a newline": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "signature in an unsigned body": b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "plus sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "0x prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "size over sixteen digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "size over the limit": b"ffffffffffff\r\nhello",
    "line without end": b"5" * 2000,
    "chunk shorter than its header": b"6\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its header": b"4\r\nhello\r\n0\r\n\r\n",
    "bare LF behind a chunk": b"5\r\nhello\n0\r\n\r\n",
    "bytes behind the last chunk": b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32\r\n\r\n",
    "trailer with a space before the colon": b"5\r\nhello\r\n0\r\na :b\r\n\r\n",
    "trailer folded": b"5\r\nhello\r\n0\r\na:b\r\n c\r\n\r\n",
    "trailer with a NUL": b"5\r\nhello\r\n0\r\na:\x00\r\n\r\n",
    "trailer twice": b"5\r\nhello\r\n0\r\na:1\r\nA:2\r\n\r\n",
    "too many trailers": b"5\r\nhello\r\n0\r\n" + b"".join(b"a%d:1\r\n" % i for i in range(9)) + b"\r\n",
    "trailer too long": b"5\r\nhello\r\n0\r\na:" + b"b" * 2000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADERS_REFUSED)
def test_malformed_chunks_are_refused(name: str) -> None:
    with pytest.raises(errors.BadRequest):
        decode(verified(UNSIGNED_TRAILER), HEADERS_REFUSED[name], 5)


def test_trailer_that_the_payload_does_not_announce_is_refused() -> None:
    proof = verified(SIGNED)
    body = signed_chunks(proof, chunks())
    assert refusal(proof, body[:-2] + b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n") == "MalformedTrailerError"


@pytest.mark.parametrize("announced", [len(CONTENT) - 1, 0])
def test_more_than_the_announced_length_is_refused(announced: int) -> None:
    assert refusal(verified(UNSIGNED_TRAILER), unsigned_chunks(chunks()), announced) == "IncompleteBody"


def test_less_than_the_announced_length_is_refused() -> None:
    assert refusal(verified(UNSIGNED_TRAILER), unsigned_chunks(chunks()), len(CONTENT) + 1) == "IncompleteBody"


def test_body_cut_anywhere_is_incomplete() -> None:
    proof = verified(SIGNED)
    body = signed_chunks(proof, [b"x" * 50])
    for end in range(len(body)):
        decoder = ChunkedDecoder(proof, {"x-amz-decoded-content-length": "50"})
        list(decoder.feed(body[:end]))
        with pytest.raises(errors.IncompleteBody):
            decoder.finish()


@pytest.mark.parametrize("announced", ["", "-1", "+5", "0x5", "5,5", "\u0665", "9" * 16, "1.0"])
def test_announced_length_must_be_a_plain_number(announced: str) -> None:
    with pytest.raises(errors.BadRequest):
        ChunkedDecoder(verified(SIGNED), {"x-amz-decoded-content-length": announced})
    with pytest.raises(errors.BadRequest):
        ChunkedDecoder(verified(SIGNED), {})


def test_swarms_of_tiny_chunks_are_refused() -> None:
    """CVE-2025-69229 in aiohttp: many small chunks cost the reader far more than the sender."""
    body = unsigned_chunks([CONTENT[at : at + 1] for at in range(2000)])
    assert refusal(verified(UNSIGNED_TRAILER), body, 2000) == "InvalidRequest"
