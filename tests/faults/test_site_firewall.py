"""Packets between nodes are dropped by the kernel, as a switch that fails drops them: acknowledgements too, so that a
cut in one direction stalls the other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.faults.site_faults import CUTS
from tests.faults.trial import ROUNDS, Trial, cannot_run, rounds_of

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_program("nft"),
    pytest.mark.timeout(300 + 30 * ROUNDS),
]


class Firewall:
    """Drops packets between addresses of loopback."""

    def __init__(self) -> None:
        self._table = f"edgestore_faults_{os.getpid()}"

    def open(self) -> None:
        """Raises CalledProcessError where the machine does not allow it."""
        self._nft(f"add table inet {self._table}")
        self._nft(f"add chain inet {self._table} input {{ type filter hook input priority 0; }}")

    def cut(self, source: str, target: str) -> None:
        """See Cuts."""
        self._nft(f"add rule inet {self._table} input ip saddr {source} ip daddr {target} drop")

    def heal(self) -> None:
        """See Cuts."""
        self._nft(f"flush chain inet {self._table} input")

    def close(self) -> None:
        """Leaves nothing behind."""
        self._nft(f"delete table inet {self._table}")

    def _nft(self, command: str) -> None:
        subprocess.run(["nft", command], check=True, capture_output=True)


def test_a_site_survives_packets_that_are_dropped(tmp_path: Path) -> None:
    firewall = Firewall()
    try:
        firewall.open()
    except subprocess.CalledProcessError as error:
        cannot_run(f"nft may not filter here: {error.stderr.decode().strip()}")
    try:
        with Site(tmp_path, 3, cuts=firewall) as site:
            site.found()
            trial = Trial(site)
            trial.run(rounds_of(3), CUTS)
            trial.finish()
    finally:
        firewall.close()
