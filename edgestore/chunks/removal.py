"""What the removal of a node would cost, from the record of every extent: looked at before it is for ever.

Rule: only what lies on nodes that are there counts; who is down may never come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgestore.chunks.assess import Assessor
from edgestore.chunks.survey import Catalog
from edgestore.records import ExtentRecord


@dataclass(frozen=True, slots=True)
class Loss:
    """`extents`: of which too few fragments would be left without the node; true of the layout of `epoch`."""

    epoch: int
    extents: int


async def loss_without(number: int, catalog: Catalog, assessor: Assessor, page_extents: int) -> Loss:
    """A look at every extent, a page a turn of the loop."""
    after, lost = b"", 0
    while True:
        page = catalog.state.all_extents(after, page_extents)
        lost += sum(_needs(number, extent, assessor) for _, extent in page.extents)
        after = page.after
        if not after:
            return Loss(assessor.layout.epoch, lost)
        await asyncio.sleep(0)


def _needs(number: int, extent: ExtentRecord, assessor: Assessor) -> bool:
    """Whether a chunk has a fragment there, and fewer than k elsewhere."""
    if extent.m and assessor.is_whole(extent):
        return False
    others = assessor.counted - {number}
    return any(number in row and len(others.intersection(row)) < extent.k for row in assessor.holders(extent))
