"""What the headers of a request are for, told by their names alone.

Rule: a client sends the same names in the same order again and again, so they are sorted once and then found by the
tuple of them; values are looked at by those who use them. Only names that a valid signature vouches for get in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

CHECKSUM_PREFIX = "x-amz-checksum-"
METADATA_PREFIX = "x-amz-meta-"
STORED: Mapping[str, str] = {
    "content-type": "Content-Type",
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "expires": "Expires",
}
CONDITIONS = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))

# They share the prefix of checksums and carry no digest.
_NO_DIGESTS = frozenset((CHECKSUM_PREFIX + "algorithm", CHECKSUM_PREFIX + "type", CHECKSUM_PREFIX + "mode"))
# They say of the body which checksum it has, beside the digests.
_ANNOUNCING = frozenset(("x-amz-trailer", "x-amz-sdk-checksum-algorithm"))
_EVERYWHERE = frozenset(("x-amz-content-sha256", "x-amz-date"))


class HeaderNames(msgspec.Struct, frozen=True, gc=False):
    """The names that matter, in the order in which they came.

    `stored`, `metadata`: with the usual name, with the name behind the prefix; `digests`: `x-amz-checksum-*` that carry
    one; `announces`: whether anything is said of a checksum; `is_conditional`: whether there is an `If-*`; `others`:
    the other `x-amz-*`, which may ask for what is not there.
    """

    stored: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    digests: tuple[str, ...]
    announces: bool
    is_conditional: bool
    others: tuple[str, ...]


@lru_cache(maxsize=128)
def header_names(names: tuple[str, ...]) -> HeaderNames:
    """The names of a request's headers, sorted by what they are for."""
    amazon = [name for name in names if name.startswith("x-amz-")]
    metadata = [name for name in amazon if name.startswith(METADATA_PREFIX)]
    checksums = [name for name in amazon if name.startswith(CHECKSUM_PREFIX)]
    digests = tuple(name for name in checksums if name not in _NO_DIGESTS)
    known = {*metadata, *checksums, *_ANNOUNCING, *_EVERYWHERE}
    return HeaderNames(
        stored=tuple((name, STORED[name]) for name in names if name in STORED),
        metadata=tuple((name, name[len(METADATA_PREFIX) :]) for name in metadata),
        digests=digests,
        announces=bool(digests) or not _ANNOUNCING.isdisjoint(names),
        is_conditional=not CONDITIONS.isdisjoint(names),
        others=tuple(name for name in amazon if name not in known),
    )
