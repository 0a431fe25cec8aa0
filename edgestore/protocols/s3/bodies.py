"""Request bodies: what the headers promise of them, the `aws-chunked` framing taken off, and documents read whole.

Rule: a body is decoded inside the units it came in (what comes out is never longer than what went in): taking framing
off needs no unit of the pool and holds none.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgestore.chunks import Digests
from edgestore.errors import BadDigest
from edgestore.objects import Body, Expected, Unit
from edgestore.protocols.s3 import checksums
from edgestore.protocols.s3.call import Call
from edgestore.protocols.s3.faults import Fault
from edgestore.records import Checksum
from edgestore.security import ChunkedDecoder


def expectation(call: Call, trailing: tuple[Checksum, ...] = ()) -> Expected:
    """What the object service must find in the body: MD5, SHA-256 and checksums that the client names or promises."""
    headers = call.headers
    announced = checksums.announced(headers, call.names)
    return Expected(
        md5=checksums.content_md5(headers) if "content-md5" in headers else None,
        sha256=call.verified.payload_sha256,
        checksums=announced.checksums or trailing,
        algorithms=announced.trailing,
    )


def _digests_beside(call: Call, trailing: tuple[Checksum, ...]) -> Expected:
    """What a document must be where the checksum in the headers is not its own."""
    return Expected(md5=checksums.content_md5(call.headers), sha256=call.verified.payload_sha256, checksums=trailing)


def chunked_decoder(call: Call) -> ChunkedDecoder:
    """Takes the framing off an `aws-chunked` body. Raises BadRequest(MissingContentLength)."""
    return ChunkedDecoder(call.verified, call.headers)


def decoded_bytes(call: Call, decoder: ChunkedDecoder, body: bytes) -> tuple[bytes, tuple[Checksum, ...]]:
    """A small body without its framing, and the checksums of its trailer. Raises IncompleteBody, InvalidCredentials,
    BadRequest, as the decoder does.
    """
    data = b"".join(decoder.feed(body))
    decoder.finish()
    return data, trailer_checksums(decoder.trailers, promised(call))


def decoded_body(call: Call, body: Body) -> Body:
    """A large body without its framing. Raises Fault(MissingContentLength) where its length is not announced."""
    if call.verified.is_chunked:
        return ChunkedBody(body, chunked_decoder(call), promised(call))
    if body.size_bytes is None:
        raise Fault("MissingContentLength")
    require_no_trailer(call)
    return body


async def read_document(call: Call, body: Body, *, names_object: bool = False) -> bytes:
    """A request document, whole, bounded, and compared with every digest that the request gives of it.

    `names_object`: the checksum in the headers is one of the object, not of the document.
    """
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
    trailing = getattr(body, "trailer_checksums", ())
    expected = _digests_beside(call, trailing) if names_object else expectation(call, trailing)
    require_digests(data, expected)
    return data


def require_digests(data: bytes, expected: Expected) -> None:
    """Raises BadDigest unless a document is what the request says of it."""
    digests = Digests(tuple(checksum.algorithm for checksum in expected.checksums), sha256=expected.sha256 is not None)
    digests.update(data)
    if expected.md5 is not None and digests.md5 != expected.md5:
        raise BadDigest("The Content-MD5 you specified did not match what was received.")
    if expected.sha256 is not None and digests.value("SHA256") != expected.sha256:
        raise BadDigest(code="XAmzContentSHA256Mismatch")
    for checksum in expected.checksums:
        if digests.value(checksum.algorithm) != checksum.value:
            raise BadDigest(f"The {checksum.algorithm} you specified did not match the calculated checksum.")


def promised(call: Call) -> tuple[str, ...]:
    """The algorithms whose checksums the trailer must give."""
    return checksums.announced(call.headers, call.names).trailing if "x-amz-trailer" in call.headers else ()


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
    """A `Body` over an `aws-chunked` one: full units but for the last, moved together inside the units that came.

    What does not fill a unit waits in memory of its own (less than a unit): a body that holds a unit of the pool while
    it asks for another could wait for ever for its likes.
    """

    def __init__(self, body: Body, decoder: ChunkedDecoder, promised: tuple[str, ...] = ()) -> None:
        self._body = body
        self._decoder = decoder
        self._promised = promised
        self._rest = b""
        self._ended = False
        self.size_bytes: int | None = decoder.decoded_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()

    async def next_unit(self) -> Unit | None:
        """The next unit of plain bytes. Raises what the decoder raises; the unit at hand goes back then."""
        while not self._ended:
            unit = await self._body.next_unit()
            if unit is None:
                self._end()
                break
            try:
                full = self._fill(unit)
            except BaseException:
                unit.release()
                raise
            if full:
                return unit
            unit.release()
        rest, self._rest = self._rest, b""
        return LooseUnit(bytearray(rest)) if rest else None

    def _end(self) -> None:
        self._decoder.finish()
        self.trailer_checksums = trailer_checksums(self._decoder.trailers, self._promised)
        self._ended = True

    def _fill(self, unit: Unit) -> bool:
        """Puts what waited before what the unit decodes to; False: it is too little, and waits."""
        buffer, waited = unit.buffer, len(self._rest)
        decoded = _decode_in_place(self._decoder, unit)
        room = len(buffer) - waited
        if decoded < room:
            self._rest += bytes(buffer[:decoded])
            return False
        later = bytes(buffer[room:decoded])
        buffer[waited:] = buffer[:room]
        buffer[:waited] = self._rest
        self._rest = later
        unit.filled = len(buffer)
        return True


class LooseUnit(Unit):
    """A unit of no pool: the end of a body that was taken out of its framing."""

    __slots__ = ()

    def __init__(self, data: bytearray) -> None:
        self._pool = None
        self.buffer = memoryview(data)
        self.filled = len(data)


def _decode_in_place(decoder: ChunkedDecoder, unit: Unit) -> int:
    # Pieces are views of this unit in ascending order, each at or behind the place it moves to.
    end = 0
    for piece in decoder.feed(unit.view):
        unit.buffer[end : end + len(piece)] = piece
        end += len(piece)
    return end


def require_no_trailer(call: Call) -> None:
    """Raises Fault where a trailer is announced of a body that can have none."""
    if "x-amz-trailer" in call.headers:
        raise Fault("InvalidRequest", "x-amz-trailer needs a STREAMING-...-TRAILER payload.", Header="x-amz-trailer")
