"""What the removal of a node would cost, from the record of every extent: looked at before it is for ever.

Rule: only what lies on nodes that are there counts; who is down may never come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgestore.chunks.assess import Assessor
from edgestore.chunks.survey import SiteCatalog
from edgestore.records import ExtentRecord


@dataclass(frozen=True, slots=True)
class Loss:
    """`extents`: of which too few fragments would be left without the node; true of the layout of `epoch`."""

    epoch: int
    extents: int


async def loss_without(
    number: int, catalog: SiteCatalog, assessor: Assessor, silent: frozenset[int], page_extents: int
) -> Loss:
    """A look at every extent, a page a turn of the loop. `silent`: nodes that do not answer just now."""
    others, away = assessor.counted - silent - {number}, len(assessor.counted & (silent | {number}))
    after, lost = b"", 0
    while True:
        page = catalog.state.all_extents(after, page_extents)
        for _, extent in page.extents:
            # What is whole by its record alone needs no look at its chunks where it can do without them all.
            if extent.m < away or not assessor.is_whole(extent):
                lost += _needs(number, extent, assessor, others)
        after = page.after
        if not after:
            return Loss(assessor.layout.epoch, lost)
        await asyncio.sleep(0)


def _needs(number: int, extent: ExtentRecord, assessor: Assessor, others: frozenset[int]) -> bool:
    """Whether a chunk has a fragment there, and fewer than k elsewhere."""
    return any(number in row and len(others.intersection(row)) < extent.k for row in assessor.holders(extent))
