"""Who this data folder is: the member and the disk that every later format refers to.

Rule: written once, before anything else of the folder; a folder that has data but no identity is refused, for a member
that forgot who it was might vote twice (rule 4).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

from edgestore.clock import Entropy
from edgestore.disk.files import Files
from edgestore.errors import Corrupt
from edgestore.kernels import crc32c

PATH = "identity"
MAGIC = b"ESID"
FORMAT = 1
ID_BYTES = 16

_IDENTITY = struct.Struct("<4sHH16s16sQ")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Identity:
    """`member_id` and `disk_id` are random. `site_incarnation`: 0 until the node joins a site of several."""

    member_id: bytes
    disk_id: bytes
    site_incarnation: int = 0


def encode_identity(identity: Identity) -> bytes:
    """The content of the file."""
    body = _IDENTITY.pack(MAGIC, FORMAT, 0, identity.member_id, identity.disk_id, identity.site_incarnation)
    return body + _CRC.pack(crc32c(body))


def decode_identity(content: bytes) -> Identity:
    """The identity. Raises ValueError where it does not check out or has an unknown format."""
    if len(content) != _IDENTITY.size + _CRC.size:
        raise ValueError(f"it has {len(content)} bytes")
    body = content[: _IDENTITY.size]
    magic, version, _, member_id, disk_id, site_incarnation = _IDENTITY.unpack(body)
    if magic != MAGIC or _CRC.unpack_from(content, _IDENTITY.size)[0] != crc32c(body):
        raise ValueError("its checksum does not fit")
    if version != FORMAT:
        raise ValueError(f"identity format {version} is not {FORMAT}: it was written by another version of edgestore")
    return Identity(member_id, disk_id, site_incarnation)


def open_identity(files: Files, entropy: Entropy) -> Identity:
    """Reads the identity of the data folder; an empty folder gets a new one. Raises Corrupt."""
    if files.exists(PATH):
        try:
            return decode_identity(files.read(PATH))
        except ValueError as error:
            message = f"the identity of the data folder does not check out: {error}. Restore the file from a copy"
            raise Corrupt(message, path=PATH) from error
    if files.exists("journal") and files.list("journal"):
        message = "the data folder has a journal but no identity. Restore the file `identity` from a copy"
        raise Corrupt(message, path=PATH)
    with suppress(PermissionError):  # a parent that may not be read was not made by this process
        files.sync_folder("..")  # the name of a new data folder, which everything in it hangs on
    identity = Identity(entropy(ID_BYTES), entropy(ID_BYTES))
    files.replace(PATH, encode_identity(identity))
    return identity
