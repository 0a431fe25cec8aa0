"""Request bodies: what the headers promise of them, the `aws-chunked` framing taken off, and documents read whole.

Rule: a body is decoded inside the units it came in (what comes out is never longer than what went in), so an upload
holds two units of the pool at most and asks for no further one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from edgestore.errors import BadDigest
from edgestore.kernels import crc32, crc32c, crc64nvme
from edgestore.objects import Body, Expected, Unit
from edgestore.protocols.s3 import checksums
from edgestore.protocols.s3.call import Call
from edgestore.protocols.s3.faults import Fault
from edgestore.records import Checksum
from edgestore.security import ChunkedDecoder


class Content(NamedTuple):
    """A small body that is there whole. `trailing`: checksums that its trailer gave."""

    data: bytes
    trailing: tuple[Checksum, ...] = ()


def expectation(call: Call, trailing: tuple[Checksum, ...] = ()) -> Expected:
    """What the object service must find in the body: MD5, SHA-256 and checksums that the client names or promises."""
    headers = call.headers
    announced = checksums.announced(headers) if _names_checksum(headers) else checksums.NOTHING
    return Expected(
        md5=checksums.content_md5(headers) if "content-md5" in headers else None,
        sha256=call.verified.payload_sha256,
        checksums=announced.checksums or trailing,
        algorithms=announced.trailing,
    )


def decoded_bytes(call: Call, body: bytes) -> Content:
    """A small body without its framing. Raises IncompleteBody, InvalidCredentials, BadRequest, as the decoder does."""
    if not call.verified.is_chunked:
        _require_no_trailer(call)
        return Content(body)
    decoder = ChunkedDecoder(call.verified, call.headers)
    data = b"".join(decoder.feed(body))
    decoder.finish()
    return Content(data, trailer_checksums(decoder.trailers, promised(call)))


def decoded_body(call: Call, body: Body) -> Body:
    """A large body without its framing."""
    if not call.verified.is_chunked:
        _require_no_trailer(call)
        return body
    return ChunkedBody(body, ChunkedDecoder(call.verified, call.headers), promised(call))


async def read_document(call: Call, body: Body) -> bytes:
    """A request document, whole, bounded, and compared with every digest that the request gives."""
    limit = call.services.document_max_bytes
    body = decoded_body(call, body)
    if body.size_bytes is not None and body.size_bytes > limit:
        raise Fault("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
    pieces: list[bytes] = []
    size = 0
    while (unit := await body.next_unit()) is not None:
        pieces.append(bytes(unit.view))
        unit.release()
        size += len(pieces[-1])
        if size > limit:
            raise Fault("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
    data = b"".join(pieces)
    require_digests(data, expectation(call, getattr(body, "trailer_checksums", ())))
    return data


def require_digests(data: bytes, expected: Expected) -> None:
    """Raises BadDigest unless a document is what the request says of it."""
    if expected.md5 is not None and hashlib.md5(data, usedforsecurity=False).digest() != expected.md5:
        raise BadDigest("The Content-MD5 you specified did not match what was received.")
    if expected.sha256 is not None and hashlib.sha256(data).digest() != expected.sha256:
        raise BadDigest(code="XAmzContentSHA256Mismatch")
    for checksum in expected.checksums:
        if _digest(checksum.algorithm, data) != checksum.value:
            raise BadDigest(f"The {checksum.algorithm} you specified did not match the calculated checksum.")


def promised(call: Call) -> tuple[str, ...]:
    """The algorithms whose checksums the trailer must give."""
    return checksums.announced(call.headers).trailing if "x-amz-trailer" in call.headers else ()


def trailer_checksums(trailers: Mapping[str, str], algorithms: tuple[str, ...]) -> tuple[Checksum, ...]:
    """The checksums that a trailer gives: exactly those that were promised. Raises Fault(MalformedTrailerError)."""
    found = []
    for name, value in trailers.items():
        if name.startswith(checksums.PREFIX):
            algorithm = checksums.algorithm_of(name)
            found.append(Checksum(algorithm, checksums.decode_digest(algorithm, value, name)))
    if tuple(checksum.algorithm for checksum in found) != algorithms:
        raise Fault("MalformedTrailerError")
    return tuple(found)


class ChunkedBody:
    """A `Body` over an `aws-chunked` one: full units but for the last, moved together inside the units that came."""

    def __init__(self, body: Body, decoder: ChunkedDecoder, promised: tuple[str, ...] = ()) -> None:
        self._body = body
        self._decoder = decoder
        self._promised = promised
        self._filling: Unit | None = None
        self._ended = False
        self.size_bytes = decoder.decoded_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()

    async def next_unit(self) -> Unit | None:
        """The next unit of plain bytes. Raises what the decoder raises; the units it holds go back then."""
        try:
            while not self._ended:
                full = await self._take()
                if full is not None:
                    return full
        except BaseException:
            self.release()
            raise
        last, self._filling = self._filling, None
        if last is not None and not last.filled:
            last.release()
            return None
        return last

    def release(self) -> None:
        """Gives back what was received and not yet handed on."""
        if self._filling is not None:
            self._filling.release()
            self._filling = None

    async def _take(self) -> Unit | None:
        """Decodes one more unit; the one before it, when that is full now."""
        unit = await self._body.next_unit()
        if unit is None:
            self._decoder.finish()
            self.trailer_checksums = trailer_checksums(self._decoder.trailers, self._promised)
            self._ended = True
            return None
        unit.filled = _decode_in_place(self._decoder, unit)
        filling = self._filling
        if filling is None:
            self._filling = unit
            return None
        moved = min(len(filling.buffer) - filling.filled, unit.filled)
        filling.buffer[filling.filled : filling.filled + moved] = unit.buffer[:moved]
        filling.filled += moved
        unit.buffer[: unit.filled - moved] = unit.buffer[moved : unit.filled]
        unit.filled -= moved
        if filling.filled < len(filling.buffer):
            unit.release()
            return None
        self._filling = unit
        return filling


def _decode_in_place(decoder: ChunkedDecoder, unit: Unit) -> int:
    # Pieces are views of this unit in ascending order, each at or behind the place it moves to.
    end = 0
    for piece in decoder.feed(unit.view):
        unit.buffer[end : end + len(piece)] = piece
        end += len(piece)
    return end


def _require_no_trailer(call: Call) -> None:
    if "x-amz-trailer" in call.headers:
        raise Fault("InvalidRequest", "x-amz-trailer needs a STREAMING-...-TRAILER payload.", Header="x-amz-trailer")


def _names_checksum(headers: Mapping[str, str]) -> bool:
    return "x-amz-trailer" in headers or any(
        name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-")) for name in headers
    )


def _digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == "CRC32":
        return crc32(data).to_bytes(4, "big")
    if algorithm == "CRC32C":
        return crc32c(data).to_bytes(4, "big")
    if algorithm == "CRC64NVME":
        return crc64nvme(data).to_bytes(8, "big")
    return hashlib.new(algorithm.lower(), data, usedforsecurity=False).digest()
