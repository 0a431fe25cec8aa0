"""A data folder keeps its identity, and one that lost it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgestore.disk import SystemFiles, open_identity
from edgestore.disk.identity import Identity, decode_identity, encode_identity
from edgestore.errors import Corrupt
from edgestore.kernels import crc32c


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    first = open_identity(SystemFiles(str(tmp_path)), os.urandom)
    assert open_identity(SystemFiles(str(tmp_path)), os.urandom) == first
    assert first.member_id != first.disk_id


def test_the_name_of_a_new_folder_is_durable_before_its_content(tmp_path: Path) -> None:
    synced: list[tuple[str, bool]] = []

    class Watched(SystemFiles):
        """Notes which folders are synced, and whether there was an identity then."""

        def sync_folder(self, path: str) -> None:
            """See Watched."""
            synced.append((os.path.normpath(os.path.join(self.root, path)), self.exists("identity")))
            super().sync_folder(path)

    open_identity(Watched(str(tmp_path / "data")), os.urandom)
    assert synced == [(str(tmp_path), False), (str(tmp_path / "data"), True)]


def test_every_flipped_bit_of_an_identity_is_found(tmp_path: Path) -> None:
    open_identity(SystemFiles(str(tmp_path)), os.urandom)
    content = (tmp_path / "identity").read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        (tmp_path / "identity").write_bytes(damaged)
        with pytest.raises(Corrupt, match="copy"):
            open_identity(SystemFiles(str(tmp_path)), os.urandom)


def test_a_folder_that_lost_its_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0000000000000001.journal").write_bytes(b"x")
    with pytest.raises(Corrupt, match="no identity"):
        open_identity(SystemFiles(str(tmp_path)), os.urandom)


def test_an_unknown_format_is_refused() -> None:
    content = bytearray(encode_identity(Identity(bytes(16), bytes(16))))
    content[4] = 9
    content[-4:] = crc32c(bytes(content[:-4])).to_bytes(4, "little")
    with pytest.raises(ValueError, match="format 9"):
        decode_identity(bytes(content))
