"""What a member keeps in its folder comes back as it was, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgestore.core import membership
from edgestore.core.membership import SiteFile
from edgestore.disk import SystemFiles
from edgestore.errors import Corrupt

SITE = SiteFile("ab" * 16, "cd" * 16, "0.0.0.0:9100", "10.0.0.1:9100", "0.0.0.0:9000", "rack1", peers={"ef": "a:1"})


def test_a_site_file_comes_back_as_it_was(tmp_path: Path) -> None:
    files = SystemFiles(str(tmp_path))
    assert membership.read_site(files) is None
    membership.write_site(files, SITE)
    assert membership.read_site(files) == SITE
    assert (tmp_path / membership.SITE_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b'{"site_id": 5}', b"\xff"])
def test_what_is_no_site_file_is_refused(tmp_path: Path, content: bytes) -> None:
    files = SystemFiles(str(tmp_path))
    files.replace(membership.SITE_FILE, content)
    with pytest.raises(Corrupt, match="restore it"):
        membership.read_site(files)


def test_another_version_is_refused(tmp_path: Path) -> None:
    files = SystemFiles(str(tmp_path))
    membership.write_site(files, SITE)
    text = (tmp_path / membership.SITE_FILE).read_text().replace('"version": 1', '"version": 2')
    (tmp_path / membership.SITE_FILE).write_text(text)
    with pytest.raises(Corrupt, match="version 2"):
        membership.read_site(files)


def test_papers_count_when_all_are_there(tmp_path: Path) -> None:
    files = SystemFiles(str(tmp_path))
    membership.write_key(files, b"key")
    membership.write_certificate(files, b"certificate")
    assert membership.read_papers(files) is None
    membership.write_authority(files, b"authority")
    papers = membership.read_papers(files)
    assert papers is not None
    assert (papers.key, papers.certificate, papers.authority) == (b"key", b"certificate", b"authority")
