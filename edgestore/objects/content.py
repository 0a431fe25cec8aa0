"""From bytes to the `Content` of a command: digests compared with what was promised, then inline or extents."""

from __future__ import annotations

from edgestore.catalog import commands
from edgestore.chunks import Body, ChunkStore, Digests, StoredBody, Unit
from edgestore.errors import BadDigest, TooLarge
from edgestore.objects.requests import Expected
from edgestore.records import INLINE_MAX_BYTES, Checksum, ChunkRef


def digests_for(expected: Expected) -> Digests:
    """Running digests of everything that is compared or kept."""
    algorithms = (*(checksum.algorithm for checksum in expected.checksums), *expected.algorithms)
    return Digests(algorithms, sha256=expected.sha256 is not None)


def compare(digests: Digests, expected: Expected, trailer: tuple[Checksum, ...] = ()) -> tuple[Checksum, ...]:
    """The checksums to keep. Raises BadDigest where one is not what was promised."""
    if expected.md5 is not None and digests.md5 != expected.md5:
        raise BadDigest("the bytes do not have the Content-MD5 that the request names", algorithm="MD5")
    if expected.sha256 is not None and digests.value("SHA256") != expected.sha256:
        raise BadDigest(
            "the bytes do not have the x-amz-content-sha256 that was signed", code="XAmzContentSHA256Mismatch"
        )
    for checksum in (*expected.checksums, *trailer):
        if digests.value(checksum.algorithm) != checksum.value:
            raise BadDigest(
                f"the bytes do not have the {checksum.algorithm} that the request names", algorithm=checksum.algorithm
            )
    names = dict.fromkeys((*(checksum.algorithm for checksum in expected.checksums), *expected.algorithms))
    return tuple(Checksum(name, digests.value(name)) for name in names)


def inline_content(data: bytes, expected: Expected) -> commands.Content:
    """A body of at most 8 KiB."""
    digests = digests_for(expected)
    digests.update(data)
    return commands.Content(len(data), digests.md5.hex(), compare(digests, expected), data)


def extents_of(runs: list[tuple[ChunkRef, ...]]) -> tuple[commands.NewExtent, ...]:
    """Extents named after their first chunk."""
    return tuple(
        commands.NewExtent(run[0].chunk_id, run, sum(chunk.size_bytes for chunk in run)) for run in runs if run
    )


async def receive(
    chunks: ChunkStore, body: Body, expected: Expected, *, limit_bytes: int, may_inline: bool = True
) -> tuple[commands.Content, StoredBody]:
    """Takes a whole body; small ones stay in memory, others are on the disk when it returns."""
    if body.size_bytes is not None and body.size_bytes > limit_bytes:
        raise TooLarge(f"the body has {body.size_bytes} bytes, {limit_bytes} are allowed", limit_bytes=limit_bytes)
    digests = digests_for(expected)
    if may_inline and body.size_bytes is None:
        body = await _Peeked.of(body)
    if may_inline and body.size_bytes is not None and body.size_bytes <= INLINE_MAX_BYTES:
        data = await _read_whole(body)
        digests.update(data)
        kept = compare(digests, expected, _trailer(body))
        return commands.Content(len(data), digests.md5.hex(), kept, data), StoredBody((), len(data))
    stored = await chunks.write(_Limited(body, limit_bytes), digests)
    try:
        kept = compare(digests, expected, _trailer(body))
    except BadDigest:
        chunks.drop(stored.chunks)
        raise
    return commands.Content(stored.size_bytes, digests.md5.hex(), kept, b"", extents_of(stored.extents())), stored


def _trailer(body: Body) -> tuple[Checksum, ...]:
    return getattr(body, "trailer_checksums", ())


async def _read_whole(body: Body) -> bytes:
    pieces = []
    while (unit := await body.next_unit()) is not None:
        pieces.append(bytes(unit.view))
        unit.release()
    return b"".join(pieces)


class _Peeked:
    """A body of unknown length whose first unit was taken: where it is the only one, the length is known now."""

    def __init__(self, body: Body, units: list[Unit | None]) -> None:
        self._body, self._units = body, units
        self.size_bytes: int | None = None
        self.trailer_checksums: tuple[Checksum, ...] = ()

    @classmethod
    async def of(cls, body: Body) -> _Peeked:
        """Takes as many units as it needs to tell."""
        first = await body.next_unit()
        peeked = cls(body, [first])
        if first is None:
            peeked.size_bytes = 0
        elif first.filled <= INLINE_MAX_BYTES:
            try:
                second = await body.next_unit()
            except BaseException:
                first.release()
                raise
            peeked._units.append(second)
            peeked.size_bytes = first.filled if second is None else None
        return peeked

    async def next_unit(self) -> Unit | None:
        """See `Body.next_unit`."""
        unit = self._units.pop(0) if self._units else await self._body.next_unit()
        if unit is None:
            self.trailer_checksums = _trailer(self._body)
        return unit


class _Limited:
    """A body whose length is not known before its end may not pass the limit either."""

    def __init__(self, body: Body, limit_bytes: int) -> None:
        self._body, self._left, self._limit = body, limit_bytes, limit_bytes
        self.size_bytes = body.size_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()

    async def next_unit(self) -> Unit | None:
        """See `Body.next_unit`."""
        unit = await self._body.next_unit()
        if unit is not None:
            self._left -= unit.filled
            if self._left < 0:
                unit.release()
                raise TooLarge(f"the body has more than {self._limit} bytes", limit_bytes=self._limit)
        return unit
