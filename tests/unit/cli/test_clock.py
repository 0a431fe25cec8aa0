"""What `status` and `doctor` say of a node whose wall clock is not the site's."""

from __future__ import annotations

from typing import Any

import pytest

from edgestore.cli import doctor
from edgestore.cli.site import status_lines

HOUR_MS = 3_600_000


def status_of(*, ahead_ms: int, voters: int = 3, serves: bool = True) -> dict[str, Any]:
    """Of one node of a site."""
    row = {"number": 1, "state": "up", "zone": "", "weight": 1, "quality": 0, "address": "a:1", "s3": "", "voter": True}
    return {
        "serves": serves,
        "log_time_ms": 100 * HOUR_MS,
        "clock_ms": 100 * HOUR_MS + ahead_ms,
        "damaged_fragments": 0,
        "quarantined_segments": 0,
        "unreadable_segments": 0,
        "scrubbed_ms": 0,
        "site": {
            "distance": "",
            "leader": 1,
            "site_id": "",
            "epoch": 1,
            "repair_left": 0,
            "zones": [],
            "nodes": [row] * voters,
        },
    }


@pytest.mark.parametrize(("ahead_ms", "said"), [(HOUR_MS, "3600 s ahead"), (-HOUR_MS, "3600 s behind")])
def test_a_clock_that_is_off_the_site_s_time_is_said(ahead_ms: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status = status_of(ahead_ms=ahead_ms)
    monkeypatch.setattr(doctor, "run", lambda *_: status)
    (check,) = (check for check in doctor.examine(None, "http://node") if "clock" in check.name)
    assert not check.ok
    assert said in check.found
    assert "RequestTimeTooSkewed" in check.advice
    assert any(line.startswith("clock:") and said in line for line in status_lines(status))


@pytest.mark.parametrize(
    "status",
    [
        status_of(ahead_ms=59_000),
        status_of(ahead_ms=-59_000),
        status_of(ahead_ms=HOUR_MS, voters=2),
        status_of(ahead_ms=HOUR_MS, serves=False),
    ],
)
def test_a_clock_of_which_nobody_can_tell_is_not_blamed(status: dict[str, Any]) -> None:
    assert not any(line.startswith("clock:") for line in status_lines(status))
