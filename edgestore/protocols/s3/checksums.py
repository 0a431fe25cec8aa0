"""Checksum headers in and out: Content-MD5, the five x-amz-checksum-* (whole, in a trailer, composite), their types.

Rule: what a client says about its bytes is either compared by the object service or refused here; it is never dropped.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgestore.errors import NotSupported
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.names import CHECKSUM_PREFIX, HeaderNames
from edgestore.protocols.s3.xml import element
from edgestore.records import Checksum, ChecksumType

PREFIX = CHECKSUM_PREFIX
DIGEST_BYTES: Mapping[str, int] = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
HEADER_NAMES: Mapping[str, str] = {PREFIX + name.lower(): name for name in DIGEST_BYTES}
ELEMENT_NAMES: Mapping[str, str] = {name: "Checksum" + name for name in DIGEST_BYTES}


class Announced(NamedTuple):
    """What a request says about its body. `trailing`: the algorithms whose values come in a trailer."""

    checksums: tuple[Checksum, ...]
    trailing: tuple[str, ...]


NOTHING = Announced((), ())


def announced(headers: Mapping[str, str], names: HeaderNames) -> Announced:
    """The checksum that the headers give or promise; at most one. Raises Fault(InvalidRequest)."""
    if not names.announces:
        return NOTHING
    given = names.digests
    trailer = headers.get("x-amz-trailer")
    promised = [] if trailer is None else _trailing(trailer)
    asked = headers.get("x-amz-sdk-checksum-algorithm")
    if not given and not promised:
        if asked is not None:
            raise Fault(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
                "headers were found.",
            )
        return NOTHING
    if len(given) + len(promised) > 1:
        raise Fault(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    algorithm = algorithm_of(given[0]) if given else promised[0]
    if asked is not None and asked.upper() != algorithm:
        raise Fault("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if promised:
        return Announced((), (algorithm,))
    return Announced((Checksum(algorithm, decode_digest(algorithm, headers[given[0]], given[0])),), ())


def algorithm_of(header: str) -> str:
    """The algorithm of an `x-amz-checksum-*` header. One that is not here yet is refused, not ignored."""
    algorithm = HEADER_NAMES.get(header)
    if algorithm is None:
        raise NotSupported(f"{header} is not implemented.", Header=header)
    return algorithm


def named_algorithm(name: str) -> str:
    """An algorithm as a request names it (`x-amz-checksum-algorithm`), in the form of the records."""
    upper = name.upper()
    if upper not in DIGEST_BYTES:
        raise Fault(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            "[CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    return upper


def decode_digest(algorithm: str, value: str, name: str) -> bytes:
    """The raw digest of a base64 value of the right length. Raises Fault(InvalidRequest)."""
    try:
        digest = binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != DIGEST_BYTES[algorithm]:
        raise Fault("InvalidRequest", f"Value for {name} header is invalid.", Header=name)
    return digest


def content_md5(headers: Mapping[str, str]) -> bytes | None:
    """The digest that Content-MD5 gives. Raises Fault(InvalidDigest)."""
    value = headers.get("content-md5")
    if value is None:
        return None
    try:
        digest = binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise Fault("InvalidDigest", "The Content-MD5 you specified was invalid.", **{"Content-MD5": value})
    return digest


def upload_type(headers: Mapping[str, str], algorithm: str) -> ChecksumType:
    """How a multipart upload will be checksummed: `x-amz-checksum-type`, or what S3 takes for the algorithm."""
    text = headers.get("x-amz-checksum-type")
    if text is None:
        return ChecksumType.FULL_OBJECT if algorithm == "CRC64NVME" else ChecksumType.COMPOSITE
    if not algorithm:
        raise Fault(
            "InvalidRequest",
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
        )
    kind = parse_type(text)
    if kind is ChecksumType.FULL_OBJECT and algorithm.startswith("SHA"):
        raise Fault(
            "InvalidRequest",
            f"The FULL_OBJECT checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    if kind is ChecksumType.COMPOSITE and algorithm == "CRC64NVME":
        raise Fault(
            "InvalidRequest", "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm."
        )
    return kind


def parse_type(text: str) -> ChecksumType:
    """`FULL_OBJECT` or `COMPOSITE`."""
    try:
        return ChecksumType[text.upper()]
    except KeyError:
        raise Fault("InvalidRequest", "Value for x-amz-checksum-type header is invalid.") from None


class Completed(NamedTuple):
    """What a completion says of the checksum of the whole object. `parts`: the `-N` of a composite one."""

    checksum: Checksum | None = None
    type: ChecksumType | None = None
    parts: int | None = None


def completed(headers: Mapping[str, str], names: HeaderNames) -> Completed:
    """The checksum of the whole object that a completion names, and its type: one of a composite value ends in `-N`,
    or `x-amz-checksum-type` says so. Raises Fault(InvalidRequest) where the two contradict each other.
    """
    given = names.digests
    if len(given) > 1:
        raise Fault(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    kind = parse_type(headers[PREFIX + "type"]) if PREFIX + "type" in headers else None
    if not given:
        return Completed(type=kind)
    name = given[0]
    algorithm = algorithm_of(name)
    value, dash, parts = headers[name].partition("-")
    if dash and (kind is ChecksumType.FULL_OBJECT or not (parts.isascii() and parts.isdigit() and len(parts) < 6)):
        raise Fault("InvalidRequest", f"Value for {name} header is invalid.", Header=name)
    kind = kind or (ChecksumType.COMPOSITE if dash else ChecksumType.FULL_OBJECT)
    return Completed(
        Checksum(algorithm, decode_digest(algorithm, value, name), kind), kind, int(parts) if dash else None
    )


def encode_digest(checksum: Checksum, parts: int = 0) -> str:
    """Base64; a composite one carries the number of parts."""
    text = binascii.b2a_base64(checksum.value, newline=False).decode()
    return f"{text}-{parts}" if checksum.type is ChecksumType.COMPOSITE and parts else text


def checksum_headers(checksums: Iterable[Checksum], parts: int = 0) -> list[tuple[str, str]]:
    """Response headers for stored checksums, their type last."""
    headers = [(PREFIX + checksum.algorithm.lower(), encode_digest(checksum, parts)) for checksum in checksums]
    if headers:
        headers.append((PREFIX + "type", next(iter(checksums)).type.name))
    return headers


def checksum_elements(checksums: Iterable[Checksum], parts: int = 0, *, typed: bool = True) -> str:
    """XML elements for stored checksums: `<ChecksumCRC32>...` and, where asked for, `<ChecksumType>`."""
    found = tuple(checksums)
    rows = [element(ELEMENT_NAMES[checksum.algorithm], encode_digest(checksum, parts)) for checksum in found]
    if found and typed:
        rows.append(element("ChecksumType", found[0].type.name))
    return "".join(rows)


def _trailing(trailer: str) -> list[str]:
    names = [name.strip().lower() for name in trailer.split(",") if name.strip()]
    for name in names:
        if not name.startswith(PREFIX):
            raise Fault(
                "InvalidRequest",
                "The value specified in the x-amz-trailer header is not supported",
                Header="x-amz-trailer",
            )
    return [algorithm_of(name) for name in names]
