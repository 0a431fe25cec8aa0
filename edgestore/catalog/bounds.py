"""What a field of a command can be, so that decoding refuses what no member can mean.

Rule: these bounds are part of the format. Whoever applies a log decides by them, so they change with the feature level
only, and they are wide: what a bucket, a key or a tag may be is judged where it is used.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Ids and counts: what a key of the catalog holds, with room to count on."""
Tenant = Annotated[int, Meta(ge=0, le=(1 << 32) - 2)]
"""As every key has it; the next one must fit too."""
Size = Annotated[int, Meta(ge=0, le=1 << 53)]
"""Of a body: 8 PiB."""
Millis = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
"""A time or a duration; clocks before 1970 exist."""
Level = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]
Weight = Annotated[int, Meta(ge=0, le=1 << 33)]
Fragments = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]

Word = Annotated[str, Meta(max_length=1024)]
"""A name, an address, an id: what is shown or compared."""
Text = Annotated[str, Meta(max_length=64 * 1024)]
"""A key or a header."""
ShortBytes = Annotated[bytes, Meta(max_length=64)]
"""An id, a digest, a nonce."""
Der = Annotated[bytes, Meta(max_length=64 * 1024)]
"""A certificate or a key."""

Headers = dict[Text, Text]
VersionName = Annotated[tuple[Number, ...], Meta(max_length=3)]
