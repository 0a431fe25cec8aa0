"""Requests at a node whose clock is wrong: judged by what the clocks of the other nodes show, where they agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgestore.clock import SystemClock
from tests.unit.s3.door import Door, opened

DAY_MS = 86_400_000


class WrongClock(SystemClock):
    """Days ahead, or behind."""

    def __init__(self, days: int) -> None:
        self.days = days

    def wall_ms(self) -> int:
        """See Clock."""
        return super().wall_ms() + self.days * DAY_MS


def site_time(days: int) -> Callable[[], int]:
    """What a majority shows, so many days off the client."""
    return lambda: SystemClock().wall_ms() + days * DAY_MS


@pytest.mark.parametrize("lane", ["fast", "slow"])
@pytest.mark.parametrize("wrong", [-40, 40])
async def test_the_site_knows_the_time_where_the_node_does_not(tmp_path: Path, wrong: int, lane: str) -> None:
    async with opened(tmp_path) as door:
        told = Door(door.core, WrongClock(wrong), site_time(0))
        assert (await told.send("PUT", "/photos")).status == 200
        assert (await told.send("PUT", "/photos/a", body=b"a", lane=lane)).status == 200
        assert (await told.send("GET", "/photos/a", lane=lane)).body == b"a"
        assert (await told.send_presigned("GET", "/photos/a", lane=lane)).body == b"a"
        alone = Door(door.core, WrongClock(wrong))
        assert (await alone.send("GET", "/photos/a", lane=lane)).code == "RequestTimeTooSkewed"
        assert (await Door(door.core, WrongClock(wrong), site_time(wrong)).send("GET", "/photos/a")).status == 403


async def test_a_clock_that_is_right_is_enough(tmp_path: Path) -> None:
    """What others show does not shut out whom this node knows to be on time."""
    async with opened(tmp_path) as door:
        assert (await Door(door.core, site_time_ms=site_time(40)).send("PUT", "/photos")).status == 200
