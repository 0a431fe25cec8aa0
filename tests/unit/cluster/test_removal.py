"""The removal of a node by an operator: refused while something needs it, unless it is forced."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgestore.cluster import Site
from edgestore.errors import Conflict
from edgestore.records import NodeState
from tests.unit.objects.test_site import site_of_three, turn


@dataclass(frozen=True)
class Known:
    """What a look at all extents found."""

    epoch: int
    extents: int


async def test_a_removal_that_loses_content_is_refused_and_one_command_does_it_nevertheless(tmp_path: Path) -> None:
    async with site_of_three(tmp_path) as (core, _, _, sites):
        needed = 5

        async def loss_without(_: int) -> Known:
            return Known(sites.layout().epoch, needed)

        site = Site(core.meta, core.config.cluster, os.urandom, b"", loss_without=loss_without)
        assert (await site.set_state(2, "draining"))["state"] == "draining"
        with pytest.raises(Conflict, match=r"5 extents .*--force"):
            await site.set_state(2, "removed")
        assert (await site.set_state(2, "removed", force=True))["state"] == "removed"
        assert (await site.set_state(2, "removed"))["state"] == "removed"
        needed = 0
        assert (await site.set_state(3, "removed"))["state"] == "removed"


async def test_a_layout_that_changes_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    async with site_of_three(tmp_path) as (core, _, _, sites):
        looks = 0

        async def loss_without(_: int) -> Known:
            nonlocal looks
            looks += 1
            epoch = sites.layout().epoch
            if looks == 1:
                await turn(core, 2, NodeState.DOWN)
            return Known(epoch, 0)

        site = Site(core.meta, core.config.cluster, os.urandom, b"", loss_without=loss_without)
        assert (await site.set_state(3, "removed"))["state"] == "removed"
        assert looks == 2
