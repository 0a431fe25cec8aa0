"""The checksum of an object that is made of parts: combined from the parts' CRCs, or the digest of their digests.

Rule: what a completion says of the whole is compared, or refused where nothing is there to compare it with. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from edgestore.chunks import Digests
from edgestore.errors import BadDigest, BadRequest
from edgestore.kernels import crc32_combine, crc32c_combine, crc64nvme_combine
from edgestore.objects.requests import CompleteRequest
from edgestore.records import Checksum, ChecksumType, PartRecord, UploadRecord

_COMBINE: dict[str, tuple[Callable[[int, int, int], int], int]] = {
    "CRC32": (crc32_combine, 4),
    "CRC32C": (crc32c_combine, 4),
    "CRC64NVME": (crc64nvme_combine, 8),
}


def whole_checksums(upload: UploadRecord, parts: list[PartRecord], request: CompleteRequest) -> tuple[Checksum, ...]:
    """The checksums to keep of the whole: the one that the upload was begun with, or the one that the completion names.

    Raises BadDigest where the request names another value, BadRequest where it names what cannot be compared.
    """
    named = request.checksum
    if upload.checksum_algorithm:
        algorithm, kind = upload.checksum_algorithm, upload.checksum_type
        if named is not None and named.algorithm != algorithm:
            raise BadRequest(
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
                f"actual checksum Type: {named.algorithm.lower()}"
            )
        if request.checksum_type not in (None, kind):
            raise BadRequest(
                f"The upload was created using the {kind.name} checksum mode. The complete request must use the same "
                "checksum mode."
            )
    elif named is not None:
        algorithm, kind = named.algorithm, named.type
    elif request.checksum_type is not None:
        raise BadRequest("The upload was created without a checksum algorithm: its checksum has no type.")
    else:
        return ()
    found = _whole(algorithm, kind, parts)
    if named is not None and (found.value != named.value or request.checksum_parts not in (None, len(parts))):
        raise BadDigest(f"The {algorithm} you specified did not match the calculated checksum.")
    return (found,)


def _whole(algorithm: str, kind: ChecksumType, parts: list[PartRecord]) -> Checksum:
    """Raises BadRequest where a part lacks the checksum, or where those of parts say nothing about the whole."""
    values = []
    for part in parts:
        value = next((checksum.value for checksum in part.checksums if checksum.algorithm == algorithm), None)
        if value is None:
            raise BadRequest(
                f"part {part.number} was uploaded without {algorithm}: that of the object cannot be compared",
                part=part.number,
            )
        values.append(value)
    if kind is ChecksumType.COMPOSITE:
        digests = Digests((algorithm,))
        digests.update(b"".join(values))
        return Checksum(algorithm, digests.value(algorithm), ChecksumType.COMPOSITE)
    if algorithm not in _COMBINE:
        raise BadRequest(f"the {algorithm} of a whole object cannot be made of those of its parts: use a composite one")
    combine, size = _COMBINE[algorithm]
    total = 0
    for value, part in zip(values, parts, strict=True):
        total = combine(total, int.from_bytes(value, "big"), part.size_bytes)
    return Checksum(algorithm, total.to_bytes(size, "big"), ChecksumType.FULL_OBJECT)
