"""Byte ranges: what `Range`, `x-amz-copy-source-range` and `partNumber` select. Pure; ASCII digits only.

Rule (RFC 9110 section 14.2): a Range header that is not understood is ignored; one that is understood and lies outside
the object is refused. Several ranges are one that is not understood, as in S3.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edgestore.errors import InvalidRange
from edgestore.protocols.s3.faults import Fault
from edgestore.records import VersionRecord

# Twenty digits hold every 64-bit offset; longer ones would only feed the decimal parser.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,20})-([0-9]{0,20})[ \t]*", re.IGNORECASE | re.ASCII)
_COPY_RANGE = re.compile(r"bytes=([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


class ByteRange(NamedTuple):
    """A run of bytes inside an object."""

    offset: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """The Content-Range header for this run of an object."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size_bytes}"


def parse_range(header: str, size_bytes: int) -> ByteRange | None:
    """What a Range header selects; None: the header is to be ignored. Raises InvalidRange."""
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = int(last) + 1 if last else size_bytes
        if last and end <= start:
            return None
    elif last:
        start = max(0, size_bytes - int(last)) if int(last) else size_bytes
        end = size_bytes
    else:
        return None
    if start >= size_bytes:
        raise InvalidRange(
            "The requested range is not satisfiable",
            size_bytes=size_bytes,
            RangeRequested=header,
            ActualObjectSize=size_bytes,
        )
    return ByteRange(start, min(end, size_bytes) - start)


def parse_copy_range(header: str, size_bytes: int) -> ByteRange:
    """What `x-amz-copy-source-range` selects: both ends are needed and must lie inside the source."""
    match = _COPY_RANGE.fullmatch(header)
    if match is None or int(match[2]) < int(match[1]):
        raise Fault(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    if int(match[2]) >= size_bytes:
        raise Fault(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {size_bytes}",
            RangeRequested=header,
            ActualObjectSize=size_bytes,
        )
    return ByteRange(int(match[1]), int(match[2]) - int(match[1]) + 1)


def part_range(record: VersionRecord, number: int) -> ByteRange:
    """The bytes of part `number`; an object put whole has one part. Raises Fault(InvalidPartNumber)."""
    parts = record.parts
    if not parts and number == 1:
        return ByteRange(0, record.size_bytes)
    if number > len(parts):
        raise Fault(
            "InvalidPartNumber", "The requested partnumber is not satisfiable", ActualPartCount=max(1, len(parts))
        )
    return ByteRange(sum(part.size_bytes for part in parts[: number - 1]), parts[number - 1].size_bytes)
