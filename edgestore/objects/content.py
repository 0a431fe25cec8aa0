"""From bytes to the `Content` of a command: digests compared with what was promised, then inline or extents.

Rule: a body that is shorter or longer than announced, or other than promised, leaves nothing behind.
"""

from __future__ import annotations

from edgestore.catalog import commands
from edgestore.chunks import Body, ChunkStore, Digests, StoredBody, Unit, WholeDigests
from edgestore.errors import BadDigest, IncompleteBody, TooLarge
from edgestore.objects.requests import Expected
from edgestore.records import INLINE_MAX_BYTES, BucketRecord, Checksum


def digests_for(expected: Expected) -> Digests:
    """Running digests of everything that is compared or kept."""
    algorithms = (*(checksum.algorithm for checksum in expected.checksums), *expected.algorithms)
    return Digests(algorithms, sha256=expected.sha256 is not None)


def compare(
    digests: Digests | WholeDigests, md5: bytes, expected: Expected, trailer: tuple[Checksum, ...] = ()
) -> tuple[Checksum, ...]:
    """The checksums to keep. Raises BadDigest where one is not what was promised."""
    if expected.is_open and not trailer:
        return ()
    if expected.md5 is not None and md5 != expected.md5:
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


def inline_content(data: bytes, expected: Expected, trailer: tuple[Checksum, ...] = ()) -> commands.Content:
    """A body of at most 8 KiB."""
    digests = WholeDigests(data)
    md5 = digests.md5
    return commands.Content(len(data), md5.hex(), compare(digests, md5, expected, trailer), data)


async def receive(
    chunks: ChunkStore,
    body: Body,
    expected: Expected,
    *,
    bucket: BucketRecord,
    limit_bytes: int,
    may_inline: bool = True,
) -> tuple[commands.Content, StoredBody]:
    """Takes a whole body; small ones stay in memory, others are on the disk when it returns.

    Raises TooLarge, IncompleteBody, BadDigest, StorageFull.
    """
    checked = _Checked(body, limit_bytes)
    try:
        if may_inline and (data := await checked.small(INLINE_MAX_BYTES)) is not None:
            chunks.check_room(len(data))
            return inline_content(data, expected, _trailer(body)), StoredBody((), len(data))
        digests = digests_for(expected)
        stored = await chunks.write(checked, digests, bucket)
    finally:
        checked.release()
    try:
        md5 = digests.md5
        kept = compare(digests, md5, expected, _trailer(body))
    except BaseException:
        chunks.drop(stored)
        raise
    return commands.Content(stored.size_bytes, md5.hex(), kept, b"", stored.extents()), stored


def too_large(limit_bytes: int) -> TooLarge:
    """The refusal of a body that is over the limit."""
    return TooLarge(f"the body is over {limit_bytes} bytes, which is the most allowed", limit_bytes=limit_bytes)


def _trailer(body: Body) -> tuple[Checksum, ...]:
    return getattr(body, "trailer_checksums", ())


class _Checked:
    """A body held to its announced length, and to the limit where none was announced."""

    def __init__(self, body: Body, limit_bytes: int) -> None:
        self._body, self._limit = body, limit_bytes
        self._held: list[Unit] = []
        self._seen = 0
        self.size_bytes = body.size_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()
        if self.size_bytes is not None and self.size_bytes > limit_bytes:
            raise too_large(limit_bytes)

    async def small(self, most_bytes: int) -> bytes | None:
        """The whole body where it has at most so many bytes; else None, and nothing of it is lost."""
        if self.size_bytes is not None and self.size_bytes > most_bytes:
            return None
        data = b""
        while (unit := await self._take()) is not None:
            if not data and unit.filled > most_bytes:
                self._held.append(unit)
                return None
            data += bytes(unit.view)
            unit.release()  # a body that holds a unit while it asks for another could wait for ever for its likes
            if len(data) > most_bytes:
                loose = Unit(None, memoryview(bytearray(data)))
                loose.filled = len(data)
                self._held.append(loose)
                return None
        return data

    async def next_unit(self) -> Unit | None:
        """See `Body.next_unit`."""
        return self._held.pop() if self._held else await self._take()

    async def _take(self) -> Unit | None:
        unit = await self._body.next_unit()
        if unit is not None:
            self._seen += unit.filled
        end = self.size_bytes if self.size_bytes is not None else self._limit
        if self._seen > end:
            if unit is not None:
                unit.release()
            if self.size_bytes is None:
                raise too_large(self._limit)
            raise IncompleteBody(f"the body goes on after the {self.size_bytes} bytes that were announced")
        if unit is None and self.size_bytes is not None and self._seen != self.size_bytes:
            raise IncompleteBody(f"the body has {self._seen} bytes, {self.size_bytes} were announced")
        return unit

    def release(self) -> None:
        """Gives back what was taken and not handed on."""
        while self._held:
            self._held.pop().release()
