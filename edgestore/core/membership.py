"""What a data folder keeps of its site: key, certificate, the authority's certificate, and where to find the others.

Rule: written before the node acts on it and readable by its owner only; a folder without `site.json` is a lone node.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from edgestore.disk import Files
from edgestore.errors import Corrupt

SITE_FILE = "site.json"
KEY_FILE = "node.key"
CERTIFICATE_FILE = "node.crt"
AUTHORITY_FILE = "ca.crt"
MODE = 0o600
VERSION = 1


class SiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`site.json`. `listen`, `s3`: HOST:PORT of this node, `address`: where others reach it. `peers`: member ->
    address, and `voters` at the time of joining, for the first start; later ones know the catalog."""

    site_id: str
    member: str
    listen: str
    address: str
    s3: str = ""
    zone: str = ""
    capacity_bytes: int = 0
    witness: bool = False
    peers: dict[str, str] = {}
    voters: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Papers:
    """Key and certificates of a member, as they lie in the folder: PEM or DER as `security` made them."""

    key: bytes
    certificate: bytes
    authority: bytes


def read_site(files: Files) -> SiteFile | None:
    """None for the folder of a lone node. Raises Corrupt."""
    if not files.exists(SITE_FILE):
        return None
    try:
        site = msgspec.json.decode(files.read(SITE_FILE), type=SiteFile)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Corrupt(f"{SITE_FILE} does not check out ({error}): restore it from a copy", path=SITE_FILE) from error
    if site.version != VERSION:
        raise Corrupt(f"{SITE_FILE} has version {site.version}, not {VERSION}: start the edgestore that wrote it")
    return site


def write_site(files: Files, site: SiteFile) -> None:
    """Durably."""
    files.replace(SITE_FILE, msgspec.json.format(msgspec.json.encode(site), indent=2) + b"\n", mode=MODE)


def read_key(files: Files) -> bytes | None:
    """The private key; None before the first `write_key`."""
    return files.read(KEY_FILE) if files.exists(KEY_FILE) else None


def write_key(files: Files, key: bytes) -> None:
    """Before anything is signed with it: a certificate whose key was lost could never be renewed."""
    files.replace(KEY_FILE, key, mode=MODE)


def read_papers(files: Files) -> Papers | None:
    """None where one is missing: then the node has not joined yet."""
    if not all(files.exists(name) for name in (KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE)):
        return None
    return Papers(files.read(KEY_FILE), files.read(CERTIFICATE_FILE), files.read(AUTHORITY_FILE))


def write_certificate(files: Files, certificate: bytes) -> None:
    """A new one in place of the old; the key stays."""
    files.replace(CERTIFICATE_FILE, certificate, mode=MODE)


def write_authority(files: Files, certificate: bytes) -> None:
    """Once, at founding or joining."""
    files.replace(AUTHORITY_FILE, certificate, mode=MODE)
