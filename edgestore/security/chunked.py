"""The `aws-chunked` encoding, without I/O: chunk headers, the chain of chunk signatures, trailers.

Rule: a byte is handed out before its chunk's signature is known, so the caller keeps nothing until `finish` returned.
Source: Amazon S3 API Reference, "Signature Calculations: Transferring Payload in Multiple Chunks" and "Trailing
headers".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto

from edgestore.errors import BadRequest, IncompleteBody, InvalidCredentials
from edgestore.security.canonical import EMPTY_SHA256
from edgestore.security.sigv4 import STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER, Verified

LINE_MAX_BYTES = 1024
TRAILERS_MAX = 8
TRAILER_SIGNATURE = "x-amz-trailer-signature"
CHUNK_MAX_BYTES = 5 * 1024**3
CHUNKS_SPARE = 64
CHUNK_MEAN_MIN_BYTES = 1024
"""A body may have one chunk for each KiB and some more: tiny chunks cost the reader more than the sender."""

_SIGNED_HEADER = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_UNSIGNED_HEADER = re.compile(rb"([0-9a-fA-F]{1,16})")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e]*)[ \t]*")


class _State(Enum):
    HEADER = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    DONE = auto()


class ChunkedDecoder:
    """Feed bytes, take pieces; `decoded_bytes` is the announced length of the content."""

    def __init__(self, verified: Verified, headers: Mapping[str, str]) -> None:
        announced = headers.get("x-amz-decoded-content-length")
        if announced is None or not (announced.isascii() and announced.isdigit() and len(announced) < 16):
            raise BadRequest("x-amz-decoded-content-length is missing or is no length", code="MissingContentLength")
        self.decoded_bytes = int(announced)
        self.trailers: dict[str, str] = {}
        self._verified = verified
        self._signed = verified.payload != STREAMING_UNSIGNED_TRAILER
        self._has_trailer = verified.payload in (STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER)
        self._state = _State.HEADER
        self._line = bytearray()
        self._left = self._seen = 0
        self._chunks_left = self.decoded_bytes // CHUNK_MEAN_MIN_BYTES + CHUNKS_SPARE
        self._hash = hashlib.sha256()
        self._claimed, self._previous = "", verified.seed_signature
        self._trailer_lines: list[bytes] = []

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """The pieces of content in `data`; views of it, each before the next is computed."""
        view = memoryview(data)
        while len(view):
            if self._state is _State.DATA:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                self._seen += len(piece)
                if self._seen > self.decoded_bytes:
                    raise BadRequest("the body is longer than x-amz-decoded-content-length", code="IncompleteBody")
                if self._signed:
                    self._hash.update(piece)
                if not self._left:
                    self._state = _State.DATA_END
                yield piece
            elif self._state is _State.DONE:
                raise BadRequest("bytes follow the last chunk", code="InvalidRequest")
            else:
                view = self._take_line(view)

    def _take_line(self, view: memoryview) -> memoryview:
        """Collects one line and handles it when it is whole; returns what is behind it."""
        head = bytes(view[: LINE_MAX_BYTES + 2])
        end = head.find(b"\n")
        taken = head if end < 0 else head[: end + 1]
        self._line += taken
        if len(self._line) > LINE_MAX_BYTES:
            raise BadRequest("a chunk header or trailer is too long", code="InvalidRequest")
        if end >= 0:
            line, self._line = bytes(self._line), bytearray()
            if not line.endswith(b"\r\n"):
                raise BadRequest("a line of the body does not end with CRLF", code="InvalidRequest")
            self._handle(line[:-2])
        return view[len(taken) :]

    def _handle(self, line: bytes) -> None:
        if self._state is _State.HEADER:
            self._begin_chunk(line)
        elif self._state is _State.DATA_END:
            if line:
                raise BadRequest("a chunk is longer than its header says", code="InvalidRequest")
            self._check_chunk()
            self._state = _State.HEADER
        elif line:
            self._add_trailer(line)
        else:
            self._end()

    def _begin_chunk(self, line: bytes) -> None:
        match = (_SIGNED_HEADER if self._signed else _UNSIGNED_HEADER).fullmatch(line)
        if match is None:
            raise BadRequest("a chunk header is malformed", code="InvalidRequest")
        self._left = int(match[1], 16)
        if self._left > CHUNK_MAX_BYTES:
            raise BadRequest("a chunk is too large", code="InvalidRequest")
        self._claimed = match[2].decode() if self._signed else ""
        self._chunks_left -= 1
        if self._chunks_left < 0:
            raise BadRequest("the body has too many small chunks", code="InvalidRequest")
        if self._left:
            self._state = _State.DATA
            return
        self._check_chunk()
        self._state = _State.TRAILER

    def _check_chunk(self) -> None:
        if not self._signed:
            return
        self._check("PAYLOAD", f"{EMPTY_SHA256}\n{self._hash.hexdigest()}", self._claimed)
        self._hash = hashlib.sha256()

    def _check(self, kind: str, rest: str, claimed: str) -> None:
        proof = self._verified
        text = f"AWS4-HMAC-SHA256-{kind}\n{proof.timestamp}\n{proof.scope}\n{self._previous}\n{rest}"
        expected = hmac.digest(proof.key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, claimed):
            raise InvalidCredentials("the signature of a chunk does not match", reason="SignatureDoesNotMatch")
        self._previous = expected

    def _add_trailer(self, line: bytes) -> None:
        match = _TRAILER.fullmatch(line)
        is_late = TRAILER_SIGNATURE in self.trailers
        if match is None or not self._has_trailer or is_late or len(self.trailers) >= TRAILERS_MAX:
            raise BadRequest("the trailer is malformed or was not announced", code="MalformedTrailerError")
        name = match[1].decode().lower()
        if name in self.trailers:
            raise BadRequest("a trailer appears twice", code="MalformedTrailerError")
        self.trailers[name] = match[2].decode()
        if name != TRAILER_SIGNATURE:
            self._trailer_lines.append(f"{name}:{match[2].decode()}\n".encode())

    def _end(self) -> None:
        if self._signed and self._has_trailer:
            claimed = self.trailers.pop(TRAILER_SIGNATURE, "")
            self._check("TRAILER", hashlib.sha256(b"".join(self._trailer_lines)).hexdigest(), claimed)
        self._state = _State.DONE

    def finish(self) -> None:
        """The body ended. Raises IncompleteBody unless everything announced has come."""
        if self._state is not _State.DONE or self._seen != self.decoded_bytes:
            raise IncompleteBody(
                f"the body ended after {self._seen} of {self.decoded_bytes} bytes, or without its last chunk"
            )
