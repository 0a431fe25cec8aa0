"""Signatures are compared in a time that says nothing of them (MinIO #5334).

`hmac.compare_digest` is made to say the opposite of the truth: then wrong ones pass and right ones fail, which they do
only where no other comparison decides.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator

import pytest

from edgestore.errors import InvalidCredentials
from edgestore.security import ChunkedDecoder, SignedRequest, Verified
from tests.unit.security.signing import presigned, signed, signed_chunks, verify

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
WRONG = "0" * 64


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """What the comparisons would have said."""
    compare, found = hmac.compare_digest, []

    def disagree(left: str, right: str) -> bool:
        assert len(left) == len(right) == 64
        found.append(compare(left, right))
        return not found[-1]

    monkeypatch.setattr(hmac, "compare_digest", disagree)
    return found


def wrongly_signed(request: SignedRequest) -> SignedRequest:
    """The same with a signature of zeros."""
    headers = {n: re.sub("Signature=[0-9a-f]{64}", f"Signature={WRONG}", v) for n, v in request.headers.items()}
    return request._replace(
        headers=headers, raw_query=re.sub("Signature=[0-9a-f]{64}", f"Signature={WRONG}", request.raw_query)
    )


def decode(proof: Verified, body: bytes) -> None:
    """All of a body of six bytes."""
    decoder = ChunkedDecoder(proof, {"x-amz-decoded-content-length": "6"})
    assert b"".join(decoder.feed(body)) == b"abcdef"
    decoder.finish()


@pytest.mark.parametrize("make", [signed, presigned])
def test_signature_of_a_request_is_compared_in_constant_time(
    make: Callable[[], SignedRequest], verdicts: list[bool]
) -> None:
    verify(wrongly_signed(make()))
    with pytest.raises(InvalidCredentials):
        verify(make())
    assert verdicts == [False, True]


def test_signature_of_a_chunk_is_compared_in_constant_time(verdicts: list[bool]) -> None:
    proof = verify(wrongly_signed(signed("PUT", payload=SIGNED)))
    body = signed_chunks(proof, [b"abc", b"def"])
    decode(proof, re.sub(b"signature=[0-9a-f]{64}", b"signature=" + WRONG.encode(), body))
    assert verdicts == [False] * 4
    with pytest.raises(InvalidCredentials):
        decode(proof, body)
    assert verdicts == [False] * 4 + [True]


def test_signature_of_a_trailer_is_compared_in_constant_time(verdicts: list[bool]) -> None:
    proof = verify(wrongly_signed(signed("PUT", payload=SIGNED_TRAILER)))
    body = signed_chunks(proof, [b"abcdef"], {"x-amz-checksum-crc32": "S45PKA=="})
    wrong = re.sub(b"(signature[=:])[0-9a-f]{64}", b"\\g<1>" + WRONG.encode(), body)
    decode(proof, wrong)
    assert verdicts == [False] * 4
    right_at_the_end = wrong[:-68] + body[-68:]
    with pytest.raises(InvalidCredentials):
        decode(proof, right_at_the_end)
    assert verdicts == [False] * 6 + [True]
