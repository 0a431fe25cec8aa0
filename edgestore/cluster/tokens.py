"""Join tokens as text: what an operator carries from a member to a new machine.

Rule: the secret is in the text and nowhere else; the catalog and the log hold its digest.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from edgestore.clock import Entropy
from edgestore.errors import BadRequest

VERSION = "ES1"
ID_BYTES = 8
SECRET_BYTES = 24
_TEXT = re.compile(r"ES1\.([0-9a-f]{64})\.([0-9a-f]{16})\.([0-9a-f]{48})")


@dataclass(frozen=True, slots=True)
class Token:
    """`ca_digest`: SHA-256 of the public key of the site's authority, by which the joiner knows whom it talks to."""

    ca_digest: bytes
    token_id: bytes
    secret: str

    def __str__(self) -> str:
        return f"{VERSION}.{self.ca_digest.hex()}.{self.token_id.hex()}.{self.secret}"

    def __repr__(self) -> str:
        return f"Token({self.token_id.hex()})"  # tracebacks and logs never show the secret


def new_token(ca_digest: bytes, entropy: Entropy) -> Token:
    """A token that nobody can guess."""
    return Token(ca_digest, entropy(ID_BYTES), entropy(SECRET_BYTES).hex())


def parse_token(text: str) -> Token:
    """The reverse of `str`. Raises BadRequest."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise BadRequest(
            f"this is no join token: it must be {VERSION}.<64 hex digits>.<16>.<48>, as `edgestore token create` "
            "prints it on a member"
        )
    return Token(bytes.fromhex(found[1]), bytes.fromhex(found[2]), found[3])


def secret_digest(secret: str) -> bytes:
    """What the catalog keeps of a secret. 192 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()
